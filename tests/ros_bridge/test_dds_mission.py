"""The command ``cvgl-ros`` with a real mission, in a process of its own, between two strangers."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from cvgl.geo import LocalFrame

FIX, STATUS = "rt/visual_localization/fix", "rt/visual_localization/status"
TYPES = {FIX: "sensor_msgs/msg/NavSatFix", STATUS: "diagnostic_msgs/msg/DiagnosticArray"}
PARAMETERS = """
/**:
  ros__parameters:
    # The frames lie minutes apart and are sent within seconds.
    tracking: false
    attitude_source: none
    heading_source: heading
    height_source: height
    altitude_source: constant
    altitude_ellipsoid_m: {altitude}
    altitude_sigma_m: 5.0
"""


class Running:
    """The command; started again where a test wants to."""

    def __init__(self, mission: Path, domain: int, folder: Path) -> None:
        self.parameters = folder / "localizer.yaml"
        self.parameters.write_text(PARAMETERS.format(altitude=400.0), encoding="utf-8")
        self.command = [sys.executable, "-m", "cvgl_ros.cli", str(mission), "--domain", str(domain)]
        self.command += ["--params", str(self.parameters)]
        self.environment = {**os.environ, "OMP_NUM_THREADS": "1", "CYCLONEDDS_URI": ""}
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen(self.command, stderr=subprocess.PIPE, text=True, env=self.environment)

    def stop(self) -> int:
        self.process.terminate()
        return self.process.wait(timeout=30)


@pytest.fixture
def running(mission: Path, domain: int, tmp_path: Path) -> Iterator[Running]:
    one = Running(mission, domain, tmp_path)
    yield one
    one.process.kill()
    one.process.communicate()


def flight(folder: Path) -> list[tuple[np.ndarray, dict[str, str]]]:
    with open(folder / "frames.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    images = [cv2.imread(str(folder / "frames" / row["file"])) for row in rows]
    assert all(image is not None for image in images)
    return list(zip(images, rows, strict=True))


@pytest.mark.slow
def test_from_mission_folder_to_fixes(
    running: Running, town: Path, peer: Any, vehicle: Any, listen: Any, until: Any
) -> None:
    listener = listen(TYPES)

    def fly(image: np.ndarray, row: dict[str, str]) -> tuple[int, list[Any]]:
        """A frame, and what was heard of it."""
        height, width = image.shape[:2]
        stamp = vehicle.fly(
            height_m=float(row["height_above_takeoff_m"]),
            heading=float(row["yaw_deg"]),
            height=height,
            width=width,
            step=3 * width,
            data=image.ravel(),
        )

        def own(heard: list[Any]) -> list[Any]:
            moments = [(t, m["header"]["stamp"], m) for t, _, m in heard]
            return [(t, m) for t, s, m in moments if s["sec"] * 10**9 + s["nanosec"] == stamp]

        def complete(heard: list[Any]) -> bool:
            mine = {topic: message for topic, message in own(heard)}
            if STATUS not in mine:
                return False
            level = mine[STATUS]["status"][0]["level"]
            return level != 0 or FIX in mine

        return stamp, own(listener.until(complete))

    vehicle.join()
    here, elsewhere = flight(town / "flight"), flight(town / "elsewhere")
    fixed = 0
    for image, row in here[:4]:
        _, heard = fly(image, row)
        for topic, message in heard:
            if topic == FIX:
                local = LocalFrame(float(row["gps_latitude"]), float(row["gps_longitude"]))
                error = np.hypot(*local.to_local(message["latitude"], message["longitude"]))
                sigma = np.sqrt(message["position_covariance"][0] + message["position_covariance"][4])
                assert error < 4 * sigma + 1.0
                assert message["altitude"] == 400.0
                fixed += 1
    assert fixed >= 3

    for image, row in elsewhere[:2]:
        _, heard = fly(image, row)
        assert [topic for topic, _ in heard] == [STATUS]
        assert heard[0][1]["status"][0]["message"]  # the reason

    # A parameter that may change while flying.
    running.parameters.write_text(PARAMETERS.format(altitude=500.0), encoding="utf-8")
    time.sleep(1.5)
    altitudes = [m["altitude"] for image, row in here[4:6] for topic, m in fly(image, row)[1] if topic == FIX]
    assert altitudes and set(altitudes) == {500.0}

    # Restarted in flight.
    assert running.stop() == 0
    until(lambda: not peer.matched("rt/image"))
    running.start()
    vehicle.join()
    assert any(topic == FIX for image, row in here[6:9] for topic, _ in fly(image, row)[1])
    assert running.stop() == 0
