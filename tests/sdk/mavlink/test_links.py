"""Links: a serial line that goes away, an address that is called, an address that is taken."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from pymavlink.dialects.v20 import ardupilotmega as dialect

from cvgl.errors import CvglError
from cvgl.mavlink.framing import Splitter
from cvgl.mavlink.links import Device, SerialLink, UdpLink, open_link
from cvgl.mavlink.node import MavlinkNode
from cvgl.mavlink.options import Options

EXTRAS = {number: kind.crc_extra for number, kind in dialect.mavlink_map.items()}
BEAT = dialect.MAVLink_heartbeat_message(2, dialect.MAV_AUTOPILOT_PX4, 0, 0, 4, 3)


@pytest.fixture
def line() -> Iterator[tuple[int, str]]:
    """The far end of a serial line, and the path of ours."""
    pytest.importorskip("serial", reason="pyserial is not installed: pip install 'cvgl[mavlink]'")
    far, near = os.openpty()
    yield far, os.ttyname(near)
    for one in (far, near):
        try:
            os.close(one)
        except OSError:
            continue


def test_a_serial_line_carries_both_ways(line: tuple[int, str], answering: Any, until: Any) -> None:
    far, path = line
    node = MavlinkNode(answering, Options("px4"), open_link(Device("serial", path, 57600)))
    node.start()
    try:
        # Noise and half a frame first, as a line that is joined in the middle gives.
        mav = dialect.MAVLink(None, 3, 1)
        beat = bytes(BEAT.pack(mav))
        os.write(far, b"\xfd\x00\x12" + beat[5:] + beat)
        until(lambda: node._target is not None)
        splitter, heard = Splitter(EXTRAS), []

        def listened() -> bool:
            heard.extend(dialect.MAVLink(None).decode(bytearray(f)) for f in splitter.feed(os.read(far, 4096)))
            return {"HEARTBEAT", "TIMESYNC"} <= {message.get_type() for message in heard}

        until(listened)
        assert {message.get_srcSystem() for message in heard[-3:]} == {3}
    finally:
        node.close()


class Lines:
    """Stands for pyserial: a line that works, goes away, and comes back."""

    def __init__(self) -> None:
        self.opened = 0
        self.there = True

    def Serial(self, path: str, rate: int, **options: Any) -> Any:  # pyserial's name
        if not self.there:
            raise OSError("no such device")
        self.opened += 1
        return self

    in_waiting = 0

    def read(self, count: int) -> bytes:
        if not self.there:
            raise OSError("device disconnected")
        return b"x" if count else b""

    def write(self, data: bytes) -> None:
        if not self.there:
            raise OSError("device disconnected")

    def close(self) -> None:
        pass


def test_a_serial_line_that_was_unplugged_is_opened_again(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("serial")
    import serial

    lines, waited = Lines(), []
    monkeypatch.setattr(serial, "Serial", lines.Serial)
    monkeypatch.setattr("cvgl.mavlink.links.time.sleep", waited.append)
    link = SerialLink(Device("serial", "/dev/ttyX", 57600))
    assert link.receive(0.01) == (b"x", None)
    lines.there = False
    for _ in range(6):
        assert link.receive(0.01) is None
        link.send(b"lost", None)
    assert waited == [1.0, 2.0, 4.0, 5.0, 5.0]
    lines.there = True
    assert link.receive(0.01) == (b"x", None) and lines.opened == 2


def test_who_calls_hears_only_whom_it_called(free_port: Any) -> None:
    port = free_port()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as autopilot:
        autopilot.bind(("127.0.0.1", port))
        link = UdpLink(Device("udpout", "127.0.0.1", port))
        link.send(b"hello", None)
        data, ours = autopilot.recvfrom(100)
        assert data == b"hello"
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
            stranger.sendto(b"false", ours)
        autopilot.sendto(b"true", ours)
        received = link.receive(5.0)
        assert received is not None and received[0] == b"true"
        link.close()


def test_an_address_that_is_not_ours_or_taken_is_named(free_port: Any) -> None:
    with pytest.raises(CvglError, match=r"192\.0\.2\.1:14540"):
        UdpLink(Device("udpin", "192.0.2.1", 14540))
    port = free_port()
    link = UdpLink(Device("udpin", "127.0.0.1", port))
    with pytest.raises(CvglError, match="cannot be used"):
        UdpLink(Device("udpin", "127.0.0.1", port))
    link.close()
