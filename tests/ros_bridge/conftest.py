"""What the bridge's tests share: strangers on a DDS bus of their own, and a bridge on it."""

from __future__ import annotations

import fcntl
import random
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest


@pytest.fixture(scope="session")
def peer_module(helper: Callable[[str], ModuleType]) -> ModuleType:
    """``peer.py``; skips where the DDS package or rosbags is not installed."""
    pytest.importorskip("cyclonedds", reason="cyclonedds is not installed: pip install 'cvgl[ros]'")
    pytest.importorskip("rosbags", reason="rosbags is not installed: pip install 'cvgl[dev]'")
    return helper("ros_bridge/peer")


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
