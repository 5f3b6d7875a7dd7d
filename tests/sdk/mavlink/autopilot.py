"""An autopilot that knows MAVLink by pymavlink and nothing of the node: it flies level at a height, tells its attitude,
answers TIMESYNC on a clock of its own, and keeps what it hears."""

from __future__ import annotations

import math
import os
import threading
import time
from typing import Any

os.environ["MAVLINK20"] = "1"

from pymavlink import mavutil
from pymavlink.dialects.v20 import ardupilotmega as dialect

PX4, ARDUPILOT = dialect.MAV_AUTOPILOT_PX4, dialect.MAV_AUTOPILOT_ARDUPILOTMEGA


class Autopilot:
    """Runs from ``start`` to ``close``.

    Args:
        address: pymavlink's, such as ``udpout:127.0.0.1:14540``.
        kind: what its heartbeat says.
        system: its number.
        boot_s: age of its clock at the start, seconds.
        key: signs with it, and takes only what is signed with it.
    """

    def __init__(
        self, address: str, kind: int = PX4, system: int = 7, boot_s: float = 5000.0, key: bytes = b""
    ) -> None:
        self.connection: Any = mavutil.mavlink_connection(address, source_system=system, source_component=1)
        self.mav = self.connection.mav
        if key:
            self.connection.setup_signing(key, sign_outgoing=True)
        self.kind, self.boot_s, self.began = kind, boot_s, time.monotonic()
        self.height_m, self.heading, self.pitch = 80.0, 30.0, 0.0
        self.answers_timesync, self.says_attitude, self.says_height = True, True, True
        self.late_s = 0.0  # how long telemetry is on its way
        self.heard: list[Any] = []
        self.at: list[float] = []
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def boot_ns(self) -> int:
        """Its clock."""
        return round((self.boot_s + time.monotonic() - self.began) * 1e9)

    def start(self) -> Autopilot:
        self._thread.start()
        return self

    def close(self) -> None:
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()
        self.connection.close()

    def of(self, kind: str) -> list[Any]:
        """What it heard of one kind."""
        with self._lock:
            return [message for message in self.heard if message.get_type() == kind]

    def telemetry(self) -> None:
        """One round of messages, as of ``late_s`` ago."""
        boot_ms = round(self.boot_ns() * 1e-6 - self.late_s * 1e3)
        if self.says_attitude:
            half, lean = math.radians(self.heading) / 2, math.radians(self.pitch) / 2
            turn = (
                math.cos(half) * math.cos(lean),
                -math.sin(half) * math.sin(lean),
                math.cos(half) * math.sin(lean),
                math.sin(half) * math.cos(lean),
            )
            self.mav.attitude_quaternion_send(boot_ms, *turn, 0.0, 0.0, 0.0)
        if self.says_height:
            self.mav.distance_sensor_send(boot_ms, 20, 30000, round(self.height_m * 100), 0, 0, 25, 255)

    def _run(self) -> None:
        beat = tick = 0.0
        while not self._stopping.is_set():
            now = time.monotonic()
            if now >= beat:
                beat = now + 0.2
                self.mav.heartbeat_send(dialect.MAV_TYPE_QUADROTOR, self.kind, 0, 0, dialect.MAV_STATE_ACTIVE)
            if now >= tick:
                tick = now + 0.02
                self.telemetry()
            message = self.connection.recv_match(blocking=True, timeout=0.005)
            if message is None or message.get_type() == "BAD_DATA":
                continue
            with self._lock:
                self.heard.append(message)
                self.at.append(time.monotonic())
            if message.get_type() == "TIMESYNC" and message.tc1 == 0 and self.answers_timesync:
                self.mav.timesync_send(self.boot_ns(), message.ts1)
