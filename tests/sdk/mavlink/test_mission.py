"""The command with a mission, a video and an autopilot, from outside."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import pytest

from cvgl.geo import LocalFrame

COMMAND = [sys.executable, "-m", "cvgl.cli.mavlink"]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


@pytest.mark.slow
@pytest.mark.parametrize(("autopilot", "kind"), [("px4", "GLOBAL_POSITION_SENSOR"), ("ardupilot", "COMMAND_INT")])
def test_a_video_is_localised_for_an_autopilot(
    autopilot: str, kind: str, mission: Path, town: Path, tmp_path: Path, pilots: Any, free_port: Any, until: Any
) -> None:
    with open(town / "flight" / "frames.csv", encoding="utf-8", newline="") as file:
        row = next(csv.DictReader(file))
    picture = cv2.imread(str(town / "flight" / "frames" / row["file"]))
    height, width = picture.shape[:2]
    writer = cv2.VideoWriter(str(tmp_path / "flight.avi"), cv2.VideoWriter_fourcc(*"MJPG"), 10.0, (width, height))
    for _ in range(600):
        writer.write(picture)
    writer.release()

    port = free_port()
    options = [
        "--device",
        f"udpin:127.0.0.1:{port}",
        "--autopilot",
        autopilot,
        "--camera",
        str(tmp_path / "flight.avi"),
    ]
    process = subprocess.Popen(
        [*COMMAND, str(mission), *options, "--threads", "1", "--report", "0.5"],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=ENVIRONMENT,
    )
    number = {"px4": pilots.PX4, "ardupilot": pilots.ARDUPILOT}[autopilot]
    vehicle = pilots.Autopilot(f"udpout:127.0.0.1:{port}", kind=number)
    vehicle.height_m, vehicle.heading = float(row["height_above_takeoff_m"]), float(row["yaw_deg"])
    vehicle.start()
    try:
        until(lambda: process.poll() is not None or len(vehicle.of(kind)) >= 2, 90.0)
        message = vehicle.of(kind)[-1]
    finally:
        vehicle.close()
        process.terminate()
        _, errors = process.communicate(timeout=30)
    assert process.returncode == 0, errors
    latitude, longitude = (message.lat, message.lon) if kind != "COMMAND_INT" else (message.x, message.y)
    true = LocalFrame(float(row["gps_latitude"]), float(row["gps_longitude"]))
    east, north = true.to_local(latitude * 1e-7, longitude * 1e-7)
    sigma = message.eph if kind != "COMMAND_INT" else message.param3
    assert 0.0 < sigma < 20.0 and max(abs(east), abs(north)) < max(10.0, 4 * sigma)
    assert "autopilot: system 7" in errors and "info: fix, " in errors


@pytest.mark.parametrize(
    ("options", "status", "text"),
    [
        (["--device", "udp:1"], 2, "--autopilot"),
        (["--device", "nowhere", "--autopilot", "px4"], 4, "not a device"),
        (["--device", "udp:14999", "--autopilot", "naza"], 4, "autopilot"),
        (["--device", "udp:14999", "--autopilot", "px4", "--signing-key", "none"], 4, "none: not readable"),
        (["--device", "udp:14999", "--autopilot", "px4", "--signing", "maybe"], 2, "accepted or required"),
        (["--device", "udp:14999", "--autopilot", "px4"], 4, "nothing"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_line(
    options: list[str], status: int, text: str, tmp_path: Path, run_here: Callable[..., Any]
) -> None:
    done = run_here([str(tmp_path / "nothing"), *options])
    assert done.returncode == status and text in done.stderr and "Traceback" not in done.stderr


@pytest.fixture
def run_here() -> Callable[..., Any]:
    def run(arguments: list[str]) -> Any:
        command = [*COMMAND, *arguments]
        return subprocess.run(
            command, capture_output=True, text=True, timeout=60, env={**ENVIRONMENT, "COLUMNS": "200"}
        )

    return run
