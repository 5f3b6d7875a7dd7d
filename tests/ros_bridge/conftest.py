"""What the bridge's tests share: a localiser that answers without thinking, and strangers on a DDS bus."""

from __future__ import annotations

import fcntl
import importlib.util
import random
import sys
import tempfile
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

HERE = Path(__file__).resolve().parent
LOCAL = LocalFrame(47.0, 9.5)


@dataclass
class Answering:
    """Stands for the localiser: answers every frame at once, from what the frame itself says.

    The position is 10 m north of the map's origin for each second of the frame's time beyond the first frame's.
    """

    answer: Callable[[Frame], Fix] | None = None
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
        if self.answer is not None:
            return self.answer(frame)
        return fix_at(frame.time, 10.0 * (frame.time - self.frames[0].time))

    def track(self, frame: Frame) -> Fix:
        return self.locate(frame)

    def reset(self, prior: Prior | None = None) -> None:
        self.resets.append(prior)


def fix_at(moment: float, north_m: float = 0.0, status: FixStatus = FixStatus.REFINED) -> Fix:
    latitude, longitude = LOCAL.to_wgs84(5.0, north_m)
    return Fix(
        status,
        time=moment,
        latitude=float(latitude),
        longitude=float(longitude),
        covariance=np.array([[4.0, 1.5], [1.5, 9.0]]),
        heading_deg=30.0,
        heading_sigma_deg=1.0,
        height_m=80.0,
        score=0.9,
        timings_ms={"all": 12.0},
    )


@pytest.fixture
def answering() -> Answering:
    return Answering()


@pytest.fixture
def make_fix() -> Callable[..., Fix]:
    return fix_at


def load(name: str) -> ModuleType:
    """A helper beside this file; the tests are no package."""
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, HERE / f"{name}.py")
        assert spec is not None and spec.loader is not None
        sys.modules[name] = module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return sys.modules[name]


@pytest.fixture(scope="session")
def beside() -> Callable[[str], ModuleType]:
    """A function that loads a helper beside the tests."""
    return load


@pytest.fixture(scope="session")
def peer_module() -> ModuleType:
    """``peer.py``; skips where the DDS package or rosbags is not installed."""
    pytest.importorskip("cyclonedds", reason="cyclonedds is not installed: pip install 'cvgl[ros]'")
    pytest.importorskip("rosbags", reason="rosbags is not installed: pip install 'cvgl[dev]'")
    return load("peer")


@pytest.fixture(scope="session")
def domains() -> Iterator[int]:
    """The domains in an order of this process's own, each handed out once.

    Cyclone keeps a domain, with the settings it was first joined with, for as long as anything in the process refers to
    it: a number used again could meet the settings of an earlier test. Up to 101 the ports of a domain lie below those
    that the system gives away.
    """
    return iter(random.SystemRandom().sample(range(1, 102), 101))


@pytest.fixture
def domain(domains: Iterator[int]) -> Iterator[int]:
    """A domain of this test's own, so that tests that run at the same time do not hear each other."""
    for number in domains:
        with open(Path(tempfile.gettempdir()) / f"cvgl-test-domain-{number}.lock", "w", encoding="ascii") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                continue
            yield number
            return
    pytest.fail("every domain is taken")


@pytest.fixture
def peer(peer_module: ModuleType, domain: int) -> Any:
    from cvgl_ros.dds.transport import join

    return peer_module.Peer(domain, joined=join(domain))


@pytest.fixture
def vehicle(peer: Any, peer_module: ModuleType) -> Any:
    """A camera and telemetry on this test's bus."""
    return peer_module.Vehicle(peer)


@pytest.fixture
def listen(domain: int, peer_module: ModuleType) -> Iterator[Callable[[dict[str, str]], Any]]:
    """A function that starts a process which decodes what it hears."""
    opened: list[Any] = []

    def start(topics: dict[str, str]) -> Any:
        opened.append(peer_module.Listener(domain, topics))
        return opened[-1]

    yield start
    for one in opened:
        one.close()


@pytest.fixture
def until() -> Callable[..., Any]:
    return wait_until


def wait_until(condition: Callable[[], Any], timeout_s: float = 30.0) -> Any:
    """The first true value of a condition; the test fails where it stays false."""
    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        if value := condition():
            return value
        time.sleep(0.005)
    raise AssertionError(f"not within {timeout_s:g} s: {condition}")


@pytest.fixture
def serve(domain: int) -> Iterator[Callable[..., Any]]:
    """A function that puts a bridge over a localiser on the bus of this test; all are closed behind it."""
    pytest.importorskip("cyclonedds", reason="cyclonedds is not installed: pip install 'cvgl[ros]'")
    from cvgl_ros.bridge import Bridge
    from cvgl_ros.dds.transport import DdsTransport
    from cvgl_ros.parameters import Parameters

    opened: list[DdsTransport] = []

    def start(localizer: Any, **parameters: Any) -> Bridge:
        quick = {"height_source": "height", "heading_source": "heading", "attitude_source": "none"}
        quick |= {"diagnostics_period_s": 0.2, "telemetry_wait_s": 0.05}
        transport = DdsTransport(domain, log=lambda level, text: print(level, text))
        opened.append(transport)
        bridge = Bridge(localizer, Parameters(**{**quick, **parameters}), transport.publish, transport.now)
        transport.attach(bridge)
        return bridge

    start.opened = opened  # type: ignore[attr-defined]
    yield start
    for transport in opened:
        transport.close()
