"""Malformed, oversized, out-of-order and hostile messages over a real socket: the node never stops."""

from __future__ import annotations

import random
import socket
import struct
import threading
import time
from pathlib import Path
from typing import Any

from pymavlink.dialects.v20 import ardupilotmega as dialect

from cvgl.mavlink.node import _NUMBERS
from cvgl.mavlink.signing import Signing

KEY = bytes(range(32))
_LIMITS = {"B": 8, "H": 16, "I": 32, "Q": 64}


def hostile(rng: random.Random, message_class: Any) -> Any:
    """A message of a class with contents that nobody would send."""
    values = []
    for kind, length in zip(message_class.fieldtypes, lengths(message_class), strict=True):
        one = number(rng, kind)
        values.append(bytes(rng.randrange(256) for _ in range(3)) if kind == "char" else one)
        if length > 1 and kind != "char":
            values[-1] = [number(rng, kind) for _ in range(length)]
    return message_class(*values)


def lengths(message_class: Any) -> list[int]:
    """Array lengths in the order of the fields."""
    ordered = dict(zip(message_class.ordered_fieldnames, message_class.array_lengths, strict=True))
    return [max(1, ordered[name]) for name in message_class.fieldnames]


def number(rng: random.Random, kind: str) -> Any:
    if kind in ("float", "double"):
        extremes = [float("nan"), float("inf"), float("-inf"), 0.0, -0.0, 3.4e38, -3.4e38, 1e-45]
        return rng.choice([*extremes, rng.gauss(0, 1), rng.gauss(0, 1e6)])
    if kind == "char":
        return 0
    bits = int("".join(c for c in kind.split("_")[0] if c.isdigit()))
    low, high = (0, 2**bits - 1) if kind.startswith("u") else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    return rng.choice([low, high, 0 if low == 0 else -1, 1, rng.randint(low, high)])


def mutated(rng: random.Random, frame: bytes) -> bytes:
    damaged = bytearray(frame)
    for _ in range(rng.randint(1, 4)):
        how = rng.randrange(4)
        if how == 0 and damaged:
            damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        elif how == 1:
            del damaged[rng.randrange(len(damaged) + 1) :]
        elif how == 2:
            damaged += rng.randbytes(rng.randint(1, 300))
        else:
            damaged[:0] = rng.randbytes(rng.randint(1, 20))
    return bytes(damaged)


def datagrams(rng: random.Random, count: int, systems: tuple[int, ...] = (7,)) -> Any:
    classes = [dialect.mavlink_map[number] for number in _NUMBERS.values()]
    everything = list(dialect.mavlink_map.values())
    for _ in range(count):
        mav = dialect.MAVLink(None, rng.choice(systems), rng.choice([1, 1, 1, rng.randrange(256)]))
        message_class = rng.choice(classes if rng.random() < 0.8 else everything)
        try:
            frame = bytes(hostile(rng, message_class).pack(mav, force_mavlink1=rng.random() < 0.1))
        except (struct.error, TypeError, ValueError):
            frame = rng.randbytes(50)  # version 1 has no room for the message's number
        choice = rng.random()
        if choice < 0.5:
            yield frame
        elif choice < 0.8:
            yield mutated(rng, frame)
        elif choice < 0.9:
            yield rng.randbytes(rng.choice([0, 1, 20, 280, 1500, 9000, 60_000]))
        else:
            yield b"".join(frame for _ in range(rng.randint(2, 30)))


def attack(port: int, count: int, seed: int) -> None:
    rng = random.Random(seed)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as attacker:
        for datagram in datagrams(rng, count):
            attacker.sendto(datagram, ("127.0.0.1", port))


def alive_and_right(one: Any) -> None:
    count = len(one.autopilot.of("GLOBAL_POSITION_SENSOR"))
    one.fly(lambda: len(one.autopilot.of("GLOBAL_POSITION_SENSOR")) > count + 2)
    assert one.node.is_alive()
    assert one.localizer.frames[-1].height == 80.0


def test_strangers_change_nothing(air: Any, until: Any) -> None:
    one = air()
    until(lambda: one.node._offset.known)
    threads = [threading.Thread(target=attack, args=(one.port, 800, seed)) for seed in (1, 2)]
    for thread in threads:
        thread.start()
    alive_and_right(one)
    for thread in threads:
        thread.join()
    alive_and_right(one)
    assert int(one.node.values()["foreign"]) > 100
    assert {round(frame.height, 3) for frame in one.localizer.frames} == {80.0}


def test_an_autopilot_gone_mad_stops_nothing(air: Any, until: Any) -> None:
    """The same from the autopilot's own address: what it says counts, but nothing it says ends the node."""
    one = air()
    until(lambda: one.node._offset.known)
    rng = random.Random(3)
    for number, datagram in enumerate(datagrams(rng, 1500)):
        one.autopilot.connection.port.sendto(datagram, ("127.0.0.1", one.port))
        # Faster than they are read they would be lost before the node sees them.
        time.sleep(0.01 if number % 20 == 0 else 0.0)
    # False times and answers have to grow old before the true ones count again.
    until(lambda: one.node.is_alive())
    alive_and_right(one)
    values = one.node.values()
    assert int(values["telemetry_refused"]) > 50 and int(values["damaged"]) > 50


def test_before_an_autopilot_is_there(answering: Any, free_port: Any, until: Any) -> None:
    from cvgl.mavlink.links import Device, UdpLink
    from cvgl.mavlink.node import MavlinkNode
    from cvgl.mavlink.options import Options

    port = free_port()
    node = MavlinkNode(answering, Options("px4", system=9), UdpLink(Device("udpin", "127.0.0.1", port)))
    node.start()
    try:
        attack(port, 600, 4)
        until(lambda: int(node.values()["foreign"]) > 100)
        assert node.is_alive() and node._target is None
    finally:
        node.close()


def test_without_the_key_nothing_gets_in(air: Any, until: Any) -> None:
    one = air(pilot={"key": KEY}, signing=Signing(KEY, required=True))
    until(lambda: one.node._offset.known)
    refused = one.node._worker.health.counts["telemetry_refused"]
    rng = random.Random(5)
    for datagram in datagrams(rng, 500):
        one.autopilot.connection.port.sendto(datagram, ("127.0.0.1", one.port))
    alive_and_right(one)
    assert int(one.node.values()["not_signed"]) > 100
    assert one.node._worker.health.counts["telemetry_refused"] == refused


def test_nothing_listens_elsewhere(air: Any, until: Any) -> None:
    one = air()
    until(lambda: one.node._target is not None)
    assert one.node._link.address == ("127.0.0.1", one.port)
    wildcards = []
    for line in Path("/proc/net/udp").read_text(encoding="ascii").splitlines()[1:]:
        address, _, port = line.split()[1].partition(":")
        if int(port, 16) == one.port and address != "0100007F":
            wildcards.append(line)
    assert wildcards == []
