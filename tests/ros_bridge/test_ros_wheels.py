"""The tests of the node in ROS 2, run in each distribution's environment of wheels that is there."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

CHECKS = Path(__file__).with_name("test_in_ros.py")


@pytest.mark.slow
@pytest.mark.parametrize("distro", ["jazzy"])
def test_with_the_genuine_rclpy(distro: str, helper: Callable[[str], ModuleType]) -> None:
    python = helper("ros_bridge/ros_wheels").python_of(distro)
    if not python.is_file():
        pytest.skip(f"no wheels of {distro}: run python tests/ros_bridge/ros_wheels.py")
    environment = {**os.environ, "PYTEST_ADDOPTS": "", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [str(python), "-m", "pytest", "-p", "no:cacheprovider", str(CHECKS)],
        capture_output=True,
        text=True,
        timeout=280,
        env=environment,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout
