"""What the tests of the MAVLink node share: a localiser that answers without thinking, and an autopilot on a socket."""

from __future__ import annotations

import importlib.util
import socket
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from cvgl.camera import Camera
from cvgl.fix import Fix, FixStatus
from cvgl.frame import Frame, Prior
from cvgl.geo import LocalFrame
from cvgl.settings import Settings

pytest.importorskip("pymavlink", reason="pymavlink is not installed: pip install 'cvgl[mavlink]'")

HERE = Path(__file__).resolve().parent
LOCAL = LocalFrame(47.0, 9.5)
PICTURE = np.zeros((24, 32, 3), np.uint8)


def fix_at(moment: float, status: FixStatus = FixStatus.REFINED, **changes: Any) -> Fix:
    latitude, longitude = LOCAL.to_wgs84(5.0, 10.0)
    values: dict[str, Any] = {
        "latitude": float(latitude),
        "longitude": float(longitude),
        "covariance": np.array([[4.0, 1.5], [1.5, 9.0]]),
        "heading_deg": 30.0,
        "heading_sigma_deg": 1.0,
        "timings_ms": {"all": 12.0},
    }
    return Fix(status, time=moment, **{**values, **changes})


@dataclass
class Answering:
    """Stands for the localiser: answers every frame at once."""

    answer: Callable[[Frame], Fix] = lambda frame: fix_at(frame.time)
    frames: list[Frame] = field(default_factory=list)
    resets: list[Prior | None] = field(default_factory=list)
    mission: Any = field(
        default_factory=lambda: SimpleNamespace(
            settings=Settings(), camera=replace(Camera.from_field_of_view(64, 48, 62.0), stabilized=False)
        )
    )
    model: Any = field(default_factory=lambda: SimpleNamespace(runtime="test engine", name="test model"))
    gallery: Any = field(default_factory=lambda: SimpleNamespace(local=LOCAL, path="test gallery"))
    camera: Any = None

    def locate(self, frame: Frame) -> Fix:
        self.frames.append(frame)
        return self.answer(frame)

    def track(self, frame: Frame) -> Fix:
        return self.locate(frame)

    def reset(self, prior: Prior | None = None) -> None:
        self.resets.append(prior)


@pytest.fixture
def answering() -> Answering:
    return Answering()


@pytest.fixture
def make_fix() -> Callable[..., Fix]:
    return fix_at


@pytest.fixture(scope="session")
def pilots() -> ModuleType:
    """``autopilot.py``; the tests are no package."""
    name = "mavlink_autopilot"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, HERE / "autopilot.py")
        assert spec is not None and spec.loader is not None
        sys.modules[name] = module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return sys.modules[name]


@pytest.fixture
def until() -> Callable[..., Any]:
    def wait(condition: Callable[[], Any], timeout_s: float = 30.0) -> Any:
        end = time.monotonic() + timeout_s
        while time.monotonic() < end:
            if value := condition():
                return value
            time.sleep(0.005)
        raise AssertionError(f"not within {timeout_s:g} s: {condition}")

    return wait


@dataclass
class Air:
    """A node and an autopilot on a real UDP socket."""

    node: Any
    autopilot: Any
    localizer: Answering
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
def air(answering: Answering, pilots: ModuleType, free_port: Callable[[], int]) -> Iterator[Callable[..., Air]]:
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
