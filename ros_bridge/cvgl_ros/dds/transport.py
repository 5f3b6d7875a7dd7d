"""A bridge on a DDS bus: readers, writers, the trigger service and the clock of ``/diagnostics``."""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from cyclonedds.core import DDSException, GuardCondition, InstanceState, ReadCondition, SampleState, ViewState, WaitSet
from cyclonedds.domain import Domain, DomainParticipant
from cyclonedds.pub import DataWriter
from cyclonedds.qos import Policy, Qos
from cyclonedds.sub import DataReader
from cyclonedds.topic import Topic

from cvgl.node.log import Log, harmless
from cvgl_ros import msgs
from cvgl_ros.bridge import TRIGGER_SERVICE, Bridge, Input, Output
from cvgl_ros.dds.domain import domain_xml, own_interfaces
from cvgl_ros.dds.graph import GRAPH_TOPIC, USER_DATA, entities_info, entities_type
from cvgl_ros.dds.names import reply_topic, request_topic, resolve, topic_name
from cvgl_ros.dds.sockets import keep_to, udp_sockets
from cvgl_ros.dds.types import carrier_of, wrap
from cvgl_ros.parameters import ParameterError

__all__ = ["NODE", "DdsTransport", "join"]

NODE = "localizer"
_SERVICE_DEPTH = 10
# Messages that are taken at once, so that no topic keeps the others waiting.
_AT_ONCE = 50
_ANY = SampleState.Any | ViewState.Any | InstanceState.Any
# A reliable writer that cannot get rid of a message gives it up after this: the next fix matters more.
_MOST_BLOCKING_NS = 100_000_000
# Cyclone has one set of settings for each domain in a process; it is let go with its last user.
_joined: weakref.WeakValueDictionary[tuple[int, str], Domain] = weakref.WeakValueDictionary()


def join(domain: int, interfaces: Sequence[str] = (), log: Log = lambda level, text: None) -> Domain:
    """The domain on these interfaces only; to be kept for as long as it is used.

    What comes in over another interface is dropped in the kernel; where that cannot be had, ``log`` is told.

    Raises:
        ParameterError: no such interface, or this process has joined the domain in another way.
    """
    xml = domain_xml(interfaces)
    joined = _joined.get((domain, xml))
    if joined is None:
        before = _sockets()
        try:
            joined = _joined[domain, xml] = Domain(domain, xml)
            # What is wrong with the settings shows with the first participant only.
            DomainParticipant(domain)
        except DDSException as reason:
            found = ", ".join(interfaces) or "the default interface"
            raise ParameterError(f"cannot join domain {domain}: {reason}", field="interface", found=found) from reason
        if own := own_interfaces(interfaces):
            try:
                keep_to(_sockets() - before, own)
            except (OSError, ValueError) as reason:
                log("warning", f"DDS: the sockets hear every interface, as the kernel cannot filter: {reason}")
    return joined


def _sockets() -> set[tuple[int, int]]:
    try:
        return udp_sockets()
    except OSError:  # no /proc; what follows will say so
        return set()


class DdsTransport:
    """The bus of one domain.

    Args:
        domain: its number.
        interfaces: network interfaces, by name or address; see :func:`cvgl_ros.dds.domain.domain_xml`.
        namespace: of all relative names.
        remaps: other names for topics and services.
        jazzy: take ``sensor_msgs/Range`` and enter the graph as Jazzy and later define it.
        log: called with a level and a text.

    Raises:
        ParameterError: the domain cannot be joined that way.
    """

    def __init__(
        self,
        domain: int,
        interfaces: Sequence[str] = (),
        namespace: str = "/",
        remaps: Mapping[str, str] | None = None,
        jazzy: bool = False,
        log: Callable[[str, str], None] = lambda level, text: None,
    ) -> None:
        self._namespace, self._remaps, self._jazzy = namespace, dict(remaps or {}), jazzy
        self._log = harmless(log)
        self._domain = join(domain, interfaces, self._log)
        self._participant = DomainParticipant(domain, qos=Qos(Policy.Userdata(USER_DATA)))
        self._writers: dict[str, DataWriter[Any]] = {}
        self._readers: list[tuple[DataReader[Any], str, Callable[[Any], None]]] = []
        self._waitset = WaitSet(self._participant)
        self._conditions: list[Any] = []
        self._stop = GuardCondition(self._participant)
        self._waitset.attach(self._stop)
        self._bridge: Bridge | None = None
        self._stopping = threading.Event()
        self._threads: list[threading.Thread] = []

    def now(self) -> int:
        """Nanoseconds of ROS time, which without ROS is the system's."""
        return time.time_ns()

    def publish(self, topic: str, message: msgs.Message) -> None:
        """Send a message on one of the bridge's outputs; nothing where it is not published."""
        writer = self._writers.get(topic)
        if writer is not None:
            writer.write(wrap(message))

    def attach(self, bridge: Bridge) -> None:
        """Open readers and writers for a bridge and begin to serve it."""
        self._bridge = bridge
        parameters = bridge.parameters
        for output in bridge.outputs():
            self._writers[output.topic] = self._writer(
                output, parameters.output_reliability == "reliable", parameters.output_depth
            )
        for wanted in bridge.inputs():
            self._read(wanted)
        self._serve_trigger(bridge)
        self._enter_graph()
        bridge.start()
        for name, work in (("cvgl-dds", self._receive), ("cvgl-diagnostics", self._diagnose)):
            thread = threading.Thread(target=work, name=name, daemon=True)
            self._threads.append(thread)
            thread.start()

    def close(self) -> None:
        """Leave the bus and stop the bridge."""
        self._stopping.set()
        self._stop.set(True)
        for thread in self._threads:
            thread.join()
        if self._bridge is not None:
            self._bridge.close()
        # Entities leave the bus when nothing refers to them any more.
        self._readers.clear()
        self._writers.clear()
        self._conditions.clear()
        del self._waitset, self._stop, self._participant, self._domain

    def _full(self, name: str) -> str:
        return resolve(name, self._namespace, self._remaps)

    def _enter_graph(self) -> None:
        topic = Topic(self._participant, GRAPH_TOPIC, carrier_of(entities_type(self._jazzy)))
        qos = Qos(*_policies(True, 1), Policy.Durability.TransientLocal)
        writer: DataWriter[Any] = DataWriter(self._participant, topic, qos=qos)
        readers = [reader.get_guid() for reader, _, _ in self._readers]
        writers = [one.get_guid() for one in self._writers.values()]
        self._writers[GRAPH_TOPIC] = writer
        namespace = resolve("", self._namespace).rstrip("/") or "/"
        writer.write(wrap(entities_info(self._jazzy, namespace, NODE, self._participant.get_guid(), readers, writers)))

    def _writer(self, output: Output, reliable: bool, depth: int) -> DataWriter[Any]:
        policies = _policies(reliable or output.latched, 1 if output.latched else depth)
        if output.latched:
            policies.append(Policy.Durability.TransientLocal)
        topic = Topic(self._participant, topic_name(self._full(output.topic)), carrier_of(output.message))
        return DataWriter(self._participant, topic, qos=Qos(*policies))

    def _read(self, wanted: Input) -> None:
        message = msgs.RangeWithVariance if self._jazzy and wanted.message is msgs.Range else wanted.message
        topic = Topic(self._participant, topic_name(self._full(wanted.topic)), carrier_of(message))
        reader = DataReader(self._participant, topic, qos=Qos(*_policies(wanted.reliable, wanted.depth)))
        self._listen(reader, wanted.topic, wanted.handler)

    def _listen(self, reader: DataReader[Any], name: str, handler: Callable[[Any], None]) -> None:
        condition = ReadCondition(reader, _ANY)
        self._waitset.attach(condition)
        self._conditions.append(condition)
        self._readers.append((reader, name, handler))

    def _serve_trigger(self, bridge: Bridge) -> None:
        full = self._full(TRIGGER_SERVICE)
        # Peers look for the pair of endpoints that belong together by this mark.
        mark = Policy.Userdata(f"serviceid={self._participant.get_guid().hex};".encode())
        qos = Qos(*_policies(True, _SERVICE_DEPTH), mark)
        requests = Topic(self._participant, request_topic(full), carrier_of(msgs.TriggerRequest))
        replies = Topic(self._participant, reply_topic(full), carrier_of(msgs.TriggerResponse))
        self._writers[TRIGGER_SERVICE] = writer = DataWriter(self._participant, replies, qos=qos)

        def answer(request: msgs.TriggerRequest) -> None:
            success, text = bridge.trigger()
            writer.write(wrap(msgs.TriggerResponse(request.guid, request.seq, success, text)))

        self._listen(DataReader(self._participant, requests, qos=qos), TRIGGER_SERVICE, answer)

    def _receive(self) -> None:
        while not self._stopping.is_set():
            try:
                self._waitset.wait(1_000_000_000)
            except DDSException as reason:
                self._log("error", f"DDS: {reason}")
                self._stopping.wait(0.1)
            for reader, name, handler in self._readers:
                self._take(reader, name, handler)

    def _take(self, reader: DataReader[Any], name: str, handler: Callable[[Any], None]) -> None:
        try:
            samples = reader.take(N=_AT_ONCE)
            for sample in samples:
                if not sample.sample_info.valid_data:
                    continue  # a writer that has left
                if sample.message is None:
                    self._refuse(name, str(sample.error))
                else:
                    handler(sample.message)
        except Exception as reason:  # whatever one message does, the next one is still to be read
            self._refuse(name, repr(reason))

    def _refuse(self, name: str, reason: str) -> None:
        if self._bridge is not None:
            self._bridge.malformed(name, reason)

    def _diagnose(self) -> None:
        bridge = self._bridge
        while bridge is not None and not self._stopping.wait(bridge.parameters.diagnostics_period_s):
            try:
                bridge.diagnose()
            except Exception as reason:  # a report that fails must not end the reports
                self._log("error", f"diagnostics: {reason!r}")


def _policies(reliable: bool, depth: int) -> list[Any]:
    reliability = Policy.Reliability.Reliable(_MOST_BLOCKING_NS) if reliable else Policy.Reliability.BestEffort
    # ROS speaks version 1 of CDR.
    return [
        reliability,
        Policy.History.KeepLast(depth),
        Policy.DataRepresentation(use_cdrv0_representation=True),
    ]
