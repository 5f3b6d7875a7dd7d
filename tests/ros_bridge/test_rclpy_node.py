"""The rclpy transport against strict stand-ins of what it touches; ``test_in_ros.py`` has it in rclpy itself."""

from __future__ import annotations

import array
import importlib
import importlib.util
import math
import sys
from collections.abc import Iterator
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

import cvgl
from cvgl_ros import msgs
from cvgl_ros.msgs import Header, Message, Time

CLASSES = [getattr(msgs, name) for name in msgs.__all__]
CLASSES = [c for c in CLASSES if isinstance(c, type) and issubclass(c, Message) and c is not Message]
SERVICES = (msgs.TriggerRequest, msgs.TriggerResponse)  # rclpy has its own header for these
HAS_ROS = importlib.util.find_spec("rclpy") is not None


@pytest.fixture
def transport(peer_module: ModuleType, helper: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The module over the stand-ins."""
    if HAS_ROS:
        pytest.skip("ROS 2 is installed here")
    for name, module in helper("ros_bridge/ros_standin").modules(peer_module.store()).items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.delitem(sys.modules, "cvgl_ros.rclpy_node", raising=False)
    yield importlib.import_module("cvgl_ros.rclpy_node")
    sys.modules.pop("cvgl_ros.rclpy_node", None)


@pytest.fixture
def node(transport: Any, answering: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    parameters = {"mission": "m", "altitude_source": "planar", "telemetry_wait_s": 0.5, "publish_tf": True}
    monkeypatch.setattr(transport.LifecycleNode, "overrides", parameters)
    monkeypatch.setattr(cvgl, "Localizer", SimpleNamespace(open=lambda path, threads=None: answering))
    made = transport.LocalizerNode()
    yield made
    made.release()


def ros(name: str) -> Any:
    package, kind, cls = name.split("/")
    return getattr(importlib.import_module(f"{package}.{kind}"), cls)()


def stamped(name: str, nanoseconds: int) -> Any:
    message = ros(name)
    message.header.stamp.sec, message.header.stamp.nanosec = divmod(nanoseconds, 10**9)
    return message


@pytest.mark.parametrize("cls", [c for c in CLASSES if c not in SERVICES], ids=lambda c: c.__name__)
def test_every_field_is_copied_into_rclpys_class(transport: Any, cls: type[Message]) -> None:
    if cls is msgs.RangeWithVariance:
        pytest.skip("Jazzy's")
    assert type(transport.to_ros(cls())).__name__ == cls.__name__


def test_what_is_nested_and_repeated_is_copied(transport: Any) -> None:
    status = msgs.DiagnosticStatus(2, "name", "text", "cvgl", [msgs.KeyValue("a", "b")])
    made = transport.to_ros(msgs.DiagnosticArray(Header(Time(5, 6), ""), [status]))
    assert (made.header.stamp.sec, made.header.stamp.nanosec) == (5, 6)
    assert (made.status[0].level, made.status[0].values[0].value) == (b"\x02", "b")


def test_it_lives_through_its_states(node: Any, answering: Any, until: Any) -> None:
    success = type(node.on_configure(None)).SUCCESS
    assert not node.subscriptions and not node.publishers
    assert node.on_activate(None) == success
    assert set(node.subscriptions) == {"image", "imu", "range", "prior", "prior_pose", "trigger"}
    assert node.subscriptions["image"].qos.reliability == "BEST_EFFORT"
    assert node.subscriptions["trigger"].qos.reliability == "RELIABLE"
    origin = node.publishers["visual_localization/map_origin"]
    assert origin.qos.durability == "TRANSIENT_LOCAL" and origin.sent[0].latitude == 47.0

    at = 1_700_000_000 * 10**9
    image = stamped("sensor_msgs/msg/Image", at)
    image.height, image.width, image.step, image.encoding = 24, 24, 72, "bgr8"
    image.data = array.array("B", bytes(24 * 72))
    imu = stamped("sensor_msgs/msg/Imu", at)
    imu.orientation.w = 1.0
    ranging = stamped("sensor_msgs/msg/Range", at)
    ranging.min_range, ranging.max_range, ranging.range = 0.5, 200.0, 80.0
    for topic, message in (("imu", imu), ("range", ranging), ("image", image)):
        node.subscriptions[topic].handler(message)
    until(lambda: node.publishers["visual_localization/status"].sent)
    (fix,) = node.publishers["visual_localization/fix"].sent
    assert (fix.header.stamp.sec, fix.header.frame_id, fix.position_covariance[8]) == (1_700_000_000, "base_link", 1e8)
    assert node.publishers["/tf"].sent[0].transforms[0].child_frame_id == "base_link"
    assert answering.frames[0].heading == pytest.approx(90.0)

    node.timers[0].callback()
    assert node.publishers["/diagnostics"].sent[0].status[0].level == b"\x00"
    response = node.services["visual_localization/trigger_localization"].handler(None, SimpleNamespace())
    assert response.success is True

    assert node.on_deactivate(None) == success
    assert not (node.subscriptions or node.publishers or node.services or node.timers)
    assert node.on_activate(None) == success and node.on_shutdown(None) == success
    assert not node.subscriptions


def test_without_a_mission_it_does_not_configure(transport: Any, node: Any) -> None:
    node.values["mission"] = ""
    assert node.on_configure(None).name == "FAILURE"
    assert "mission: not set" in node.logger.lines[0]


def test_parameters_that_do_not_go_together_are_told(node: Any) -> None:
    node.values["altitude_source"] = "topic"
    assert node.on_configure(None).name == "FAILURE"
    assert "altitude_sigma_m: not set" in node.logger.lines[0]


def test_parameters_change_where_that_is_safe(node: Any) -> None:
    node.on_configure(None)
    node.on_activate(None)

    def change(name: str, value: Any) -> Any:
        return node.callback([SimpleNamespace(name=name, value=value)])

    assert change("height_offset_m", 2.5).successful
    assert node._bridge.parameters.height_offset_m == 2.5
    refused = change("frame_id", "other")
    assert not refused.successful and "after a restart" in refused.reason
    assert not change("height_offset_m", math.nan).successful
    assert change("use_sim_time", True).successful  # not ours
