"""The ROS package is one that colcon can build, and its node says what is missing where there is no ROS."""

from __future__ import annotations

import ast
import importlib.util
import math
import runpy
import subprocess
import sys
from pathlib import Path
from unittest.mock import MagicMock
from xml.etree import ElementTree

import pytest
import yaml

from cvgl_ros import msgs
from cvgl_ros.bridge import OUTPUTS
from cvgl_ros.parameters import Parameters, read_parameters

PACKAGE = Path(__file__).resolve().parents[2] / "ros_bridge"


ROS = {"rclpy", "rcl_interfaces", "lifecycle_msgs", "builtin_interfaces", "std_msgs", "std_srvs", "geometry_msgs"}
ROS |= {"sensor_msgs", "nav_msgs", "tf2_msgs", "diagnostic_msgs", "ament_index_python", "launch", "launch_ros"}


def test_manifest_names_every_ros_package_that_is_used() -> None:
    manifest = ElementTree.parse(PACKAGE / "package.xml").getroot()
    assert manifest.findtext("name") == "cvgl_ros"
    assert manifest.findtext("export/build_type") == "ament_python"
    declared = {element.text for element in manifest.findall("exec_depend")}
    used = {
        getattr(msgs, name).ros_name.split("/")[0] for name in msgs.__all__ if hasattr(getattr(msgs, name), "ros_name")
    }
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                used |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                used.add(node.module.split(".")[0])
    assert used & ROS == ROS
    assert declared >= ROS


def test_only_the_rclpy_transport_needs_ros() -> None:
    found = set()
    for path in (PACKAGE / "cvgl_ros").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.module:
                names = [node.module]
            if any(name.split(".")[0] in ROS for name in names):
                found.add(path.name)
    assert found == {"rclpy_node.py"}


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
    parameters = read_parameters(PACKAGE / "cvgl_ros" / "localizer.yaml")
    assert parameters["frame_id"]
    assert parameters["altitude_source"] == "none"
    for name in ("altitude_ellipsoid_m", "altitude_sigma_m", "ground_ellipsoid_m", "height_sigma_m"):
        assert math.isnan(parameters[name])


def test_the_node_takes_its_parameters_from_the_one_dataclass() -> None:
    source = (PACKAGE / "cvgl_ros" / "rclpy_node.py").read_text(encoding="utf-8")
    assert "for field in dataclasses.fields(Parameters):\n            self.declare_parameter(" in source
    assert source.count("declare_parameter(") == 1


def test_robot_localizations_parameters_fit_the_bridges_topics() -> None:
    data = yaml.safe_load((PACKAGE / "config" / "robot_localization.yaml").read_text(encoding="utf-8"))
    ekf = data["ekf_filter_node"]["ros__parameters"]
    assert ekf["pose0"] in OUTPUTS
    assert ekf["map_frame"] == ekf["world_frame"] == Parameters().map_frame
    assert ekf["base_link_frame"] == Parameters().frame_id
    assert all(len(ekf[f"{name}_config"]) == 15 for name in ("pose0", "odom0", "imu0"))
    assert ekf["pose0_config"][:3] == [True, True, False]  # z only once something measures it


def test_rviz_shows_what_is_published() -> None:
    data = yaml.safe_load((PACKAGE / "rviz" / "localizer.rviz").read_text(encoding="utf-8"))
    shown = [display["Topic"]["Value"] for display in data["Visualization Manager"]["Displays"] if "Topic" in display]
    published = {f"/{topic}" for topic in OUTPUTS}
    assert all(topic in published or f"{topic}/compressed" in published for topic in shown)
    tools = {tool["Class"].split("/")[1]: tool for tool in data["Visualization Manager"]["Tools"]}
    assert tools["SetInitialPose"]["Topic"]["Value"] == "/prior_pose"


def test_the_launch_file_can_rename_every_topic() -> None:
    tree = ast.parse((PACKAGE / "launch" / "localizer.launch.py").read_text(encoding="utf-8"))
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, (ast.Assign, ast.AugAssign)) and isinstance(node.value, ast.Tuple):
            names |= set(ast.literal_eval(node.value))
    sources = {"imu", "odometry", "range", "heading", "height", "altitude"}
    assert names == {"image", "camera_info", "prior", "prior_pose", "trigger"} | sources


def test_the_launch_file_runs_over_stand_ins(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["launch", "launch_ros", "lifecycle_msgs", "ament_index_python"]
    names += ["launch.actions", "launch.conditions", "launch.events", "launch.substitutions", "lifecycle_msgs.msg"]
    names += ["launch_ros.actions", "launch_ros.event_handlers", "launch_ros.events", "launch_ros.events.lifecycle"]
    for name in [*names, "ament_index_python.packages"]:
        monkeypatch.setitem(sys.modules, name, MagicMock())
    description = runpy.run_path(str(PACKAGE / "launch" / "localizer.launch.py"))["generate_launch_description"]()
    assert description is sys.modules["launch"].LaunchDescription.return_value
    arguments = [call.args[0] for call in sys.modules["launch.actions"].DeclareLaunchArgument.call_args_list]
    assert {"mission", "params", "namespace", "autostart", "image", "image_compressed", "imu"} <= set(arguments)


@pytest.mark.skipif(importlib.util.find_spec("rclpy") is not None, reason="ROS 2 is installed here")
def test_without_ros_the_node_ends_with_status_3_and_names_it() -> None:
    done = subprocess.run([sys.executable, "-m", "cvgl_ros.node"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 3
    assert "ROS 2" in done.stderr
    assert "Traceback" not in done.stderr
