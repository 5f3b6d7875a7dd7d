"""The ROS package is one that colcon can build, and its node says what is missing where there is no ROS."""

from __future__ import annotations

import ast
import importlib.util
import math
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
import yaml

PACKAGE = Path(__file__).resolve().parents[2] / "ros_bridge"


def test_manifest_names_every_ros_package_that_is_imported() -> None:
    manifest = ElementTree.parse(PACKAGE / "package.xml").getroot()
    assert manifest.findtext("name") == "cvgl_ros"
    assert manifest.findtext("export/build_type") == "ament_python"
    declared = {element.text for element in manifest.findall("exec_depend")}
    ros = {"rclpy", "sensor_msgs", "std_msgs", "diagnostic_msgs", "launch", "launch_ros"}
    imported = set()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                imported |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                imported.add(node.module.split(".")[0])
    assert imported & ros == ros
    assert ros <= declared


def test_every_file_that_setup_installs_is_there() -> None:
    calls = [
        node
        for node in ast.walk(ast.parse((PACKAGE / "setup.py").read_text(encoding="utf-8")))
        if isinstance(node, ast.keyword) and node.arg == "data_files"
    ]
    for _, files in ast.literal_eval(calls[0].value):
        for name in files:
            assert (PACKAGE / name).is_file(), name
    assert (PACKAGE / "resource" / "cvgl_ros").is_file()


def test_parameter_file_invents_nothing() -> None:
    data = yaml.safe_load((PACKAGE / "config" / "localizer.yaml").read_text(encoding="utf-8"))
    parameters = data["/**"]["ros__parameters"]
    assert parameters["frame_id"]
    assert math.isnan(parameters["altitude_ellipsoid_m"])
    assert math.isnan(parameters["altitude_sigma_m"])
    source = (PACKAGE / "cvgl_ros" / "node.py").read_text(encoding="utf-8")
    for name in parameters:
        assert f'declare_parameter("{name}"' in source


@pytest.mark.skipif(importlib.util.find_spec("rclpy") is not None, reason="ROS 2 is installed here")
def test_without_ros_the_node_ends_with_status_3_and_names_it() -> None:
    done = subprocess.run([sys.executable, "-m", "cvgl_ros.node"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 3
    assert "ROS 2" in done.stderr
    assert "Traceback" not in done.stderr
