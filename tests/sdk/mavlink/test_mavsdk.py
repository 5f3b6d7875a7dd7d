"""What is sent, read by MAVSDK: another implementation of MAVLink, in C++, with definitions of its own."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from pymavlink.dialects.v20 import ardupilotmega as dialect

from cvgl.geo import LocalFrame
from cvgl.mavlink import outgoing
from cvgl.mavlink.outgoing import Target, Times

pytest.importorskip("mavsdk.plugins.mavlink_direct", reason="mavsdk is not installed: pip install 'cvgl[dev]'")

# In a process of its own: its threads log, and end with the process. It stands for an autopilot of system 9 at the
# address that it calls, and prints as JSON what it decodes.
_MAVSDK = """
import json, sys
from mavsdk.mavsdk import Configuration, Mavsdk
from mavsdk.plugins.mavlink_direct import MavlinkDirect

one = Mavsdk(Configuration.create_manual(9, 1, True))
one.add_any_connection("udpout://127.0.0.1:" + sys.argv[1])
while not one.system_count():
    pass
direct = MavlinkDirect(one.get_systems()[0])
def heard(m, _):
    print("MESSAGE", json.dumps([m.message_name, m.system_id, m.component_id, m.fields_json]), flush=True)
direct.subscribe_message("", heard)
print("READY", flush=True)
sys.stdin.read()
"""
TIMES = Times(1_700_000_000_000_000_000, 1_700_000_000_085_000_000)


@pytest.fixture
def mavsdk() -> Iterator[Callable[[int], Any]]:
    """A function that starts MAVSDK, which calls a port."""
    started: list[Any] = []

    def start(port: int) -> Any:
        command = [sys.executable, "-c", _MAVSDK, str(port)]
        started.append(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def messages(process: Any) -> Iterator[tuple[str, int, int, dict[str, Any]]]:
    """What it decodes: name, system, component, fields; None where a number is not one."""
    for line in process.stdout:
        if line.startswith("MESSAGE "):
            name, system, component, fields = json.loads(line.removeprefix("MESSAGE "))
            yield name, system, component, json.loads(fields)


@pytest.mark.slow
def test_the_node_with_mavsdk_as_its_autopilot(
    mavsdk: Any, answering: Any, make_fix: Any, free_port: Callable[[], int], until: Any
) -> None:
    """It is heard by its heartbeat, asked and answered, and reads fixes of all kinds field by field."""
    from cvgl.mavlink.links import Device, UdpLink
    from cvgl.mavlink.node import MavlinkNode
    from cvgl.mavlink.options import Options

    port = free_port()
    node = MavlinkNode(answering, Options("px4"), UdpLink(Device("udpin", "127.0.0.1", port)))
    node.start()
    process = mavsdk(port)
    try:
        until(lambda: node._target is not None)
        found = messages(process)
        name = ""
        while name != "HEARTBEAT":
            name, system, component, fields = next(found)
        assert (system, component, fields["type"], fields["autopilot"]) == (9, 197, 18, 8)

        fix, target, origin = make_fix(1.0, 10.0), Target(9), LocalFrame(47.0, 9.5)
        sent = {
            "GLOBAL_POSITION_SENSOR": outgoing.global_position(dialect, fix, TIMES, target, 1),
            "COMMAND_INT": outgoing.external_position(dialect, fix, TIMES, target),
            "GPS_INPUT": outgoing.gps_input(dialect, fix, TIMES, 0),
            "VISION_POSITION_ESTIMATE": outgoing.vision_position(dialect, fix, TIMES, origin, 3),
            "ODOMETRY": outgoing.odometry(dialect, fix, TIMES, origin, 3),
        }
        for message in sent.values():
            node._send(message)
        read: dict[str, dict[str, Any]] = {}
        end = time.monotonic() + 20.0
        while set(read) < set(sent) and time.monotonic() < end:
            name, system, component, fields = next(found)
            if name in sent:
                assert (system, component) == (9, 197)
                read[name] = fields
    finally:
        node.close()
    for name, message in sent.items():
        for field in message.fieldnames:
            expected = getattr(message, field)
            assert_reads(read[name][field], expected, f"{name}.{field}")


def assert_reads(found: Any, expected: Any, where: str) -> None:
    """Its numbers have four bytes; what is not a number is nothing in JSON."""
    if isinstance(expected, list):
        for one, other in zip(found, expected, strict=True):
            assert_reads(one, other, where)
    elif isinstance(expected, float) and math.isnan(expected):
        assert found is None, where
    elif isinstance(expected, float):
        assert found == pytest.approx(float(np.float32(expected)), rel=1e-6), where
    else:
        assert found == expected, where
