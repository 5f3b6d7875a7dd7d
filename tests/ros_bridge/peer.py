"""A stranger on the DDS bus, who knows ROS messages by the rosbags library's definitions and nothing of the bridge.

As a script it listens, and prints what it hears as lines of JSON: ``peer.py DOMAIN TOPIC=TYPE[:latched] ...``.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from cyclonedds.domain import Domain, DomainParticipant
from cyclonedds.idl import make_idl_struct, types
from cyclonedds.pub import DataWriter
from cyclonedds.qos import Policy, Qos
from cyclonedds.sub import DataReader
from cyclonedds.topic import Topic
from rosbags.typesys import Stores, get_typestore

LOOPBACK = (
    '<CycloneDDS><Domain><General><Interfaces><NetworkInterface name="{}"/></Interfaces></General>'
    '<Internal><SocketReceiveBufferSize min="default" max="4MB"/></Internal></Domain></CycloneDDS>'
)
IMAGE, NUMBER = "sensor_msgs/msg/Image", "std_msgs/msg/Float64"
TRIGGER = {
    "std_srvs/srv/Trigger_Request": "uint64 guid\nint64 seq\nuint8 structure_needs_at_least_one_member\n",
    "std_srvs/srv/Trigger_Response": "uint64 guid\nint64 seq\nbool success\nstring message\n",
}


@functools.cache
def store(name: str = "ROS2_HUMBLE") -> Any:
    """rosbags' types of a ROS distribution; services with the header that rmw_cyclonedds puts in front."""
    from rosbags.typesys import get_types_from_msg

    found = get_typestore(getattr(Stores, name))
    for ros_name, text in TRIGGER.items():
        found.register(get_types_from_msg(text, ros_name.replace("/srv/", "/msg/")))
    return found


def known(ros_name: str) -> str:
    """rosbags knows messages only."""
    return ros_name.replace("/srv/", "/msg/")


@functools.cache
def raw_type(ros_name: str, distro: str = "ROS2_HUMBLE") -> Any:
    """A DDS type made of rosbags' definition, whose samples are bytes."""
    package, kind, name = ros_name.split("/")
    fields = {field: idl(spec, distro) for field, spec in store(distro).fielddefs[known(ros_name)][1]}
    made = make_idl_struct(name, f"{package}::{kind}::dds_::{name}_", fields)

    def serialize(self: Any, *_: Any, **__: Any) -> bytes:
        return bytes(self.raw)

    def deserialize(_: Any, data: bytes, *__: Any, **___: Any) -> Any:
        return sample_of(made, data)

    made.serialize, made.deserialize = serialize, classmethod(deserialize)
    return made


def sample_of(made: Any, raw: bytes) -> Any:
    sample = object.__new__(made)
    sample.raw = raw
    return sample


def idl(spec: Any, distro: str) -> Any:
    kind, value = spec
    if kind.name == "BASE":
        if value[0] == "string" and value[1]:
            return types.bounded_str[value[1]]
        # ROS announces bytes and characters as numbers.
        simple = {"string": str, "bool": bool, "byte": types.uint8, "char": types.uint8}
        return simple.get(value[0]) or getattr(types, value[0])
    if kind.name == "NAME":
        return raw_type(value, distro)
    element, length = value
    return types.array[idl(element, distro), length] if kind.name == "ARRAY" else types.sequence[idl(element, distro)]


def qos(reliable: bool = False, depth: int = 50, latched: bool = False, user_data: bytes = b"") -> Qos:
    policies: list[Any] = [
        Policy.Reliability.Reliable(10**9) if reliable or latched else Policy.Reliability.BestEffort,
        Policy.History.KeepLast(depth),
        Policy.DataRepresentation(use_cdrv0_representation=True),
    ]
    if latched:
        policies.append(Policy.Durability.TransientLocal)
    return Qos(*policies)


class Peer:
    """A participant in a domain; topics by their ROS names.

    ``joined`` is the domain where this process has joined it already.
    """

    def __init__(self, domain: int, interface: str = "lo", distro: str = "ROS2_HUMBLE", joined: Any = None) -> None:
        self.domain = joined or Domain(domain, LOOPBACK.format(interface))
        self.participant = DomainParticipant(domain)
        self.distro = distro
        self.writers: dict[str, Any] = {}
        self.topics: dict[str, Any] = {}

    def topic(self, name: str, ros_name: str) -> Any:
        if name not in self.topics:
            self.topics[name] = Topic(self.participant, name, raw_type(ros_name, self.distro))
        return self.topics[name]

    def writer(self, topic: str, ros_name: str, reliable: bool = True) -> Any:
        if topic not in self.writers:
            self.writers[topic] = DataWriter(self.participant, self.topic(topic, ros_name), qos=qos(reliable))
        return self.writers[topic]

    def reader(self, topic: str, ros_name: str, **policies: Any) -> Any:
        return DataReader(self.participant, self.topic(topic, ros_name), qos=qos(**policies))

    def send(self, topic: str, message: Any) -> None:
        """Send a rosbags message."""
        ros_name = message.__msgtype__
        self.send_raw(topic, ros_name, bytes(store(self.distro).serialize_cdr(message, ros_name)))

    def send_raw(self, topic: str, ros_name: str, raw: bytes) -> None:
        self.writer(topic, ros_name).write(sample_of(raw_type(ros_name, self.distro), raw))

    def matched(self, topic: str) -> int:
        return len(self.writers[topic].get_matched_subscriptions())

    def take(self, reader: Any, ros_name: str) -> list[Any]:
        return [
            store(self.distro).deserialize_cdr(sample.raw, known(ros_name))
            for sample in reader.take(N=100)
            if sample.sample_info.valid_data
        ]


def plain(value: Any) -> Any:
    """A rosbags message as JSON knows it; arrays of bytes by their length."""
    if dataclasses.is_dataclass(value):
        names = [field.name for field in dataclasses.fields(value)]
        return {name: plain(getattr(value, name)) for name in names if name != "__msgtype__"}
    if isinstance(value, np.ndarray):
        return len(value) if value.dtype == np.uint8 and len(value) > 64 else value.tolist()
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value.item() if isinstance(value, np.generic) else value


class Vehicle:
    """The camera and the telemetry of a stranger."""

    def __init__(self, peer: Peer) -> None:
        self.peer, self.types = peer, store(peer.distro).types

    def join(self) -> None:
        """Wait until the bridge takes all that is sent."""
        topics = {"rt/image": IMAGE, "rt/height": NUMBER, "rt/heading": NUMBER}
        for topic, ros_name in topics.items():
            self.peer.writer(topic, ros_name)
        end = time.monotonic() + 60.0
        while not all(self.peer.matched(topic) for topic in topics):
            assert time.monotonic() < end, "the bridge does not appear"
            time.sleep(0.005)

    def header(self, stamp: int) -> Any:
        moment = self.types["builtin_interfaces/msg/Time"](sec=stamp // 10**9, nanosec=stamp % 10**9)
        return self.types["std_msgs/msg/Header"](stamp=moment, frame_id="camera")

    def image(self, stamp: int, side: int = 24, **changes: Any) -> Any:
        data = np.zeros(side * side * 3, np.uint8)
        fields = {"height": side, "width": side, "encoding": "bgr8", "is_bigendian": 0, "step": 3 * side, "data": data}
        return self.types[IMAGE](header=self.header(stamp), **{**fields, **changes})

    def fly(self, stamp: int | None = None, height_m: float = 80.0, heading: float = 30.0, **image: Any) -> int:
        """One frame with its height and heading, now; its stamp."""
        self.peer.send("rt/height", self.types[NUMBER](data=height_m))
        self.peer.send("rt/heading", self.types[NUMBER](data=heading))
        stamp = time.time_ns() if stamp is None else stamp
        self.peer.send("rt/image", self.image(stamp, **image))
        return stamp


class Listener:
    """A process of its own that decodes what it hears."""

    def __init__(self, domain: int, topics: dict[str, str]) -> None:
        wanted = [f"{topic}={name}" for topic, name in topics.items()]
        command = [sys.executable, __file__, str(domain), *wanted]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "ready\n"
        self.heard: list[tuple[str, int, Any]] = []

    def until(self, done: Callable[[list[tuple[str, int, Any]]], bool]) -> list[tuple[str, int, Any]]:
        assert self.process.stdout is not None
        while not done(self.heard):
            line = self.process.stdout.readline()
            assert line, "the listener has died"
            self.heard.append(tuple(json.loads(line)))
        return self.heard

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()


def listen(domain: int, wanted: list[str], distro: str = "ROS2_HUMBLE") -> None:
    peer = Peer(domain, distro=distro)
    readers = []
    for text in wanted:
        topic, ros_name = text.split("=")
        ros_name, _, flag = ros_name.partition(":")
        readers.append((topic, ros_name, peer.reader(topic, ros_name, latched=flag == "latched")))
    print("ready", flush=True)
    while True:
        for topic, ros_name, reader in readers:
            for message in peer.take(reader, ros_name):
                print(json.dumps([topic, time.time_ns(), plain(message)]), flush=True)
        time.sleep(0.002)


if __name__ == "__main__":
    listen(int(sys.argv[1]), sys.argv[2:])
