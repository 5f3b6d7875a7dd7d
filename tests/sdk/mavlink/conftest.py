"""What the tests of the MAVLink node share: an autopilot on a socket, and a node that it calls."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from cvgl.fix import Fix

pytest.importorskip("pymavlink", reason="pymavlink is not installed: pip install 'cvgl[mavlink]'")

PICTURE = np.zeros((24, 32, 3), np.uint8)


@pytest.fixture
def answering(answering: Any, make_fix: Callable[..., Fix]) -> Any:
    """Every answer is the same place."""
    answering.answer = lambda frame: make_fix(frame.time, 10.0)
    return answering


@pytest.fixture(scope="session")
def pilots(helper: Callable[[str], ModuleType]) -> ModuleType:
    """``autopilot.py``."""
    return helper("sdk/mavlink/autopilot")


@dataclass
class Air:
    """A node and an autopilot on a real UDP socket."""

    node: Any
    autopilot: Any
    localizer: Any
    port: int
    log: list[tuple[str, str]]

    def frame(self, stamp: int | None = None) -> int:
        """A picture, of now; its stamp."""
        stamp = self.node._now() if stamp is None else stamp
        self.node.frame(PICTURE, stamp)
        return stamp

    def fly(self, until: Callable[[], Any], timeout_s: float = 30.0) -> Any:
        """Pictures at 20 Hz until something is true."""
        end = time.monotonic() + timeout_s
        while time.monotonic() < end:
            if value := until():
                return value
            self.frame()
            time.sleep(0.05)
        raise AssertionError(f"not within {timeout_s:g} s; {self.node.state()} {self.node.values()}")


@pytest.fixture
def free_port() -> Callable[[], int]:
    def find() -> int:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
            one.bind(("127.0.0.1", 0))
            return int(one.getsockname()[1])

    return find


@pytest.fixture
def air(answering: Any, pilots: ModuleType, free_port: Callable[[], int]) -> Iterator[Callable[..., Air]]:
    """A function that starts a node that waits on a socket and an autopilot that calls it; both are closed behind."""
    from cvgl.mavlink.links import Device, UdpLink
    from cvgl.mavlink.node import MavlinkNode
    from cvgl.mavlink.options import Options

    opened: list[Air] = []

    def start(kind: str = "px4", pilot: dict[str, Any] | None = None, signing: Any = None, **options: Any) -> Air:
        port = free_port()
        link = UdpLink(Device("udpin", "127.0.0.1", port))
        log: list[tuple[str, str]] = []
        node = MavlinkNode(answering, Options(kind, **options), link, signing, log=lambda *one: log.append(one))
        number = {"px4": pilots.PX4, "ardupilot": pilots.ARDUPILOT}[kind]
        autopilot = pilots.Autopilot(f"udpout:127.0.0.1:{port}", **{"kind": number, **(pilot or {})})
        opened.append(Air(node, autopilot, answering, port, log))
        node.start()
        autopilot.start()
        return opened[-1]

    yield start
    for one in opened:
        one.autopilot.close()
        one.node.close()
