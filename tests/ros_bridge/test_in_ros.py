"""The node in ROS 2 itself: rclpy's own executor, services and parameters, another node beside it, Fast DDS between.

Runs where rclpy can be imported: inside an installation of ROS 2, or in the environments of ``ros_wheels.py``, where
``test_ros_wheels.py`` starts it. Everything keeps to the loopback interface.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest

import cvgl
from cvgl_ros import msgs
from cvgl_ros.msgs import Message

rclpy = pytest.importorskip("rclpy", reason="ROS 2 is not installed here")

from diagnostic_msgs.msg import DiagnosticArray  # noqa: E402
from geometry_msgs.msg import PoseWithCovarianceStamped  # noqa: E402
from lifecycle_msgs.msg import Transition  # type: ignore[import-not-found]  # noqa: E402
from lifecycle_msgs.srv import ChangeState, GetState  # type: ignore[import-not-found]  # noqa: E402
from nav_msgs.msg import Odometry  # noqa: E402
from rcl_interfaces.msg import Parameter, ParameterType, ParameterValue  # noqa: E402
from rcl_interfaces.srv import GetParameters, SetParameters  # type: ignore[import-not-found]  # noqa: E402
from rclpy.executors import SingleThreadedExecutor  # noqa: E402
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy  # noqa: E402
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, Imu, NavSatFix, Range  # noqa: E402
from std_msgs.msg import Empty, Float64  # noqa: E402
from std_srvs.srv import Trigger  # noqa: E402

from cvgl_ros.rclpy_node import LocalizerNode, ros_class, to_ros  # noqa: E402

FIX, POSE, STATUS = (f"visual_localization/{name}" for name in ("fix", "pose", "status"))
ORIGIN, DEBUG = "visual_localization/map_origin", "visual_localization/debug_image/compressed"
TRIGGER = "visual_localization/trigger_localization"
PARAMETERS = Path(__file__).resolve().parents[2] / "ros_bridge" / "cvgl_ros" / "localizer.yaml"
DISTRO = "HUMBLE" if not hasattr(Range(), "variance") else "JAZZY"
CLASSES = [getattr(msgs, name) for name in msgs.__all__]
CLASSES = [c for c in CLASSES if isinstance(c, type) and issubclass(c, Message) and c is not Message]
# Fast DDS on the loopback interface and on no other, told whom to look for: loopback carries no multicast.
PROFILE = """<?xml version="1.0" encoding="UTF-8"?>
<profiles xmlns="http://www.eprosima.com/XMLSchemas/fastRTPS_Profiles">
  <transport_descriptors><transport_descriptor>
    <transport_id>loopback</transport_id><type>UDPv4</type>
    <interfaceWhiteList><address>127.0.0.1</address></interfaceWhiteList>
  </transport_descriptor></transport_descriptors>
  <participant profile_name="loopback" is_default_profile="true"><rtps>
    <userTransports><transport_id>loopback</transport_id></userTransports>
    <useBuiltinTransports>false</useBuiltinTransports>
    <builtin><initialPeersList><locator><udpv4><address>127.0.0.1</address></udpv4></locator></initialPeersList></builtin>
  </rtps></participant>
</profiles>
"""
SOURCES = {"image": Image, "image/compressed": CompressedImage, "camera_info": CameraInfo, "imu": Imu, "range": Range}
SOURCES |= {"odometry": Odometry, "prior": NavSatFix, "prior_pose": PoseWithCovarianceStamped, "trigger": Empty}
SOURCES |= {"height": Float64}


class Other:
    """Another node: a vehicle that sends, and an integrator who listens, calls services and sets parameters."""

    def __init__(self, until: Callable[..., Any]) -> None:
        self.node = rclpy.create_node("other")
        self.until = until
        self.heard: dict[str, list[Any]] = {}
        self.publishers: dict[str, Any] = {}
        self.executor = SingleThreadedExecutor()
        self.executor.add_node(self.node)
        self.thread = threading.Thread(target=self.executor.spin, daemon=True)
        self.thread.start()

    def close(self) -> None:
        self.executor.shutdown()
        self.thread.join()
        self.node.destroy_node()

    def listen(self, topic: str, kind: Any, qos: Any = 50) -> None:
        heard = self.heard.setdefault(topic, [])
        self.node.create_subscription(kind, topic, heard.append, qos)

    def send(self, topic: str, message: Any) -> None:
        if topic not in self.publishers:
            self.publishers[topic] = self.node.create_publisher(SOURCES[topic], topic, 10)
            self.until(lambda: self.publishers[topic].get_subscription_count())
        self.publishers[topic].publish(message)

    def fly(self, image: Any = None, topic: str = "image", height_m: float = 80.0) -> int:
        """One frame with its attitude and height, as of now; its stamp in nanoseconds."""
        stamp = self.node.get_clock().now()
        ranging = Range(min_range=0.5, max_range=200.0, range=height_m)
        image = image or Image(height=24, width=24, step=72, encoding="bgr8", data=bytes(1728))
        for name, message in (("imu", Imu()), ("range", ranging), (topic, image)):
            message.header.stamp = stamp.to_msg()
            self.send(name, message)
        return int(stamp.nanoseconds)

    def answered(self, count: int = 1) -> Any:
        """The status of one more frame, flown until it comes."""
        before = len(self.heard[STATUS])

        def again() -> bool:
            self.fly()
            time.sleep(0.05)
            return len(self.heard[STATUS]) >= before + count

        self.until(again)
        return self.heard[STATUS][-1]

    def call(self, kind: Any, name: str, request: Any) -> Any:
        client = self.node.create_client(kind, name)
        assert client.wait_for_service(timeout_sec=20.0), name
        future = client.call_async(request)
        self.until(future.done)
        self.node.destroy_client(client)
        return future.result()

    def change(self, transition: int) -> bool:
        request = ChangeState.Request(transition=Transition(id=transition))
        return bool(self.call(ChangeState, "localizer/change_state", request).success)

    def state(self) -> str:
        return str(self.call(GetState, "localizer/get_state", GetState.Request()).current_state.label)

    def set(self, name: str, value: float | str) -> Any:
        kinds = {float: (ParameterType.PARAMETER_DOUBLE, "double_value")}
        kind, field = kinds.get(type(value), (ParameterType.PARAMETER_STRING, "string_value"))
        parameter = Parameter(name=name, value=ParameterValue(type=kind, **{field: value}))
        request = SetParameters.Request(parameters=[parameter])
        return self.call(SetParameters, "localizer/set_parameters", request).results[0]


@pytest.fixture
def ros(domain: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment of a graph of this test's own."""
    (tmp_path / "loopback.xml").write_text(PROFILE, encoding="utf-8")
    monkeypatch.setenv("FASTRTPS_DEFAULT_PROFILES_FILE", str(tmp_path / "loopback.xml"))
    monkeypatch.setenv("ROS_DOMAIN_ID", str(domain))
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "SYSTEM_DEFAULT")
    monkeypatch.setenv("ROS_LOG_DIR", str(tmp_path / "log"))


@pytest.fixture
def start(
    ros: None, answering: Any, until: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., Other]]:
    """A function that starts the node, with parameters, over a localiser that answers at once, and another node."""
    monkeypatch.setattr(cvgl, "Localizer", SimpleNamespace(open=lambda path, threads=None: answering))
    opened: list[Any] = []

    def begin(*files: str, **parameters: Any) -> Other:
        chosen = {"mission": "m", "altitude_source": "planar", "diagnostics_period_s": 0.2, **parameters}
        words = [word for file in files for word in ("--params-file", file)]
        words += [word for name, value in chosen.items() for word in ("-p", f"localizer:{name}:={value}")]
        rclpy.init(args=["--ros-args", *words])
        node = LocalizerNode()
        executor = SingleThreadedExecutor()
        executor.add_node(node)
        thread = threading.Thread(target=executor.spin, daemon=True)
        thread.start()
        other = Other(until)
        opened.append((node, executor, thread, other))
        for topic, kind in ((FIX, NavSatFix), (POSE, PoseWithCovarianceStamped), (STATUS, DiagnosticArray)):
            other.listen(topic, kind)
        other.listen("/diagnostics", DiagnosticArray)
        return other

    yield begin
    for node, executor, thread, other in opened:
        other.close()
        executor.shutdown()
        thread.join()
        node.release()
        node.destroy_node()
    rclpy.try_shutdown()


def active(other: Other) -> Other:
    assert other.change(Transition.TRANSITION_CONFIGURE) and other.change(Transition.TRANSITION_ACTIVATE)
    return other


def values(array: Any) -> dict[str, str]:
    return {pair.key: pair.value for pair in array.status[0].values}


def stamp_of(message: Any) -> int:
    return int(message.header.stamp.sec * 10**9 + message.header.stamp.nanosec)


def test_frames_are_answered(start: Any, answering: Any, until: Any) -> None:
    other = active(start(debug_image="true", debug_image_period_s=0.0))
    other.listen(DEBUG, CompressedImage)
    latched = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    other.listen(ORIGIN, NavSatFix, latched)
    stamps = {other.fly()}
    until(lambda: stamps.add(other.fly()) or time.sleep(0.05) or len(other.heard[STATUS]) > 5)
    until(lambda: other.heard[FIX] and other.heard[POSE] and other.heard[ORIGIN])
    fix, pose = other.heard[FIX][-1], other.heard[POSE][-1]
    assert stamp_of(fix) in stamps
    assert fix.header.frame_id == "base_link" and fix.status.status == 0 and fix.position_covariance_type == 3
    assert list(fix.position_covariance) == [4.0, 1.5, 0.0, 1.5, 9.0, 0.0, 0.0, 0.0, 1e8]
    assert pose.header.frame_id == "map" and pose.pose.covariance[0] == 4.0 and pose.pose.covariance[7] == 9.0
    assert (other.heard[ORIGIN][0].latitude, other.heard[ORIGIN][0].longitude) == (47.0, 9.5)
    report = until(lambda: [r for r in other.heard["/diagnostics"] if "latency_ms_p99" in values(r)])[-1]
    told = values(report)
    assert {"image_rate_hz", "fix_rate_hz", "latency_ms_p50", "availability", "engine", "gallery"} <= set(told)
    assert told["engine"] == "test engine" and report.status[0].level == b"\x00"


def test_it_lives_through_its_states_by_service(start: Any, until: Any) -> None:
    other = start()
    assert other.state() == "unconfigured"
    assert other.change(Transition.TRANSITION_CONFIGURE) and other.state() == "inactive"
    assert other.node.count_publishers(FIX) == 0
    assert other.change(Transition.TRANSITION_ACTIVATE) and other.state() == "active"
    other.answered()
    assert other.change(Transition.TRANSITION_DEACTIVATE)
    until(lambda: other.node.count_publishers(FIX) == 0 and other.node.count_subscribers("image") == 0)
    assert other.change(Transition.TRANSITION_ACTIVATE)
    until(lambda: other.node.count_subscribers("image"))
    other.answered()
    assert other.change(Transition.TRANSITION_DEACTIVATE) and other.change(Transition.TRANSITION_CLEANUP)
    assert other.state() == "unconfigured"


def test_without_a_mission_it_stays_unconfigured(start: Any) -> None:
    other = start(mission="''")
    assert not other.change(Transition.TRANSITION_CONFIGURE)
    assert other.state() == "unconfigured"


def test_trigger_by_service_and_by_topic_and_priors(start: Any, answering: Any, until: Any) -> None:
    other = active(start())
    other.answered()
    answer = other.call(Trigger, TRIGGER, Trigger.Request())
    assert answer.success and "whole map" in answer.message
    other.answered()
    until(lambda: answering.resets == [None])
    other.send("trigger", Empty())

    def flown(count: int) -> Any:
        other.answered()
        return len(answering.resets) == count

    until(lambda: flown(2))
    prior = NavSatFix(latitude=47.001, longitude=9.501, position_covariance_type=3)
    prior.status.status = 0  # by default there is none
    prior.position_covariance = np.diag([100.0, 400.0, 1.0]).ravel()
    other.send("prior", prior)
    until(lambda: flown(3))
    assert (answering.resets[2].latitude, answering.resets[2].sigma_m) == (47.001, 20.0)
    pose = PoseWithCovarianceStamped()
    pose.header.frame_id = "map"
    pose.pose.pose.position.x, pose.pose.covariance = 30.0, np.eye(6).ravel() * 25.0
    other.send("prior_pose", pose)
    until(lambda: flown(4))
    assert answering.resets[3].sigma_m == 5.0 and answering.resets[3].longitude > 9.5003


def test_parameters_are_read_and_changed_by_service(start: Any, until: Any) -> None:
    # rcl's own parser reads the file that is shipped.
    other = start(str(PARAMETERS))
    names = ["altitude_ellipsoid_m", "output_depth", "image_transport", "prior_sigma_max_m"]
    read = other.call(GetParameters, "localizer/get_parameters", GetParameters.Request(names=names)).values
    assert np.isnan(read[0].double_value)
    assert (read[1].integer_value, read[2].string_value, read[3].double_value) == (10, "raw", 5000.0)
    active(other)
    other.answered()
    assert other.set("height_offset_m", 12.5).successful
    until(lambda: values(other.answered())["height_m"] == "92.5")
    refused = other.set("frame_id", "elsewhere")
    assert not refused.successful and "after a restart" in refused.reason
    assert not other.set("telemetry_wait_s", 99.0).successful
    assert not other.set("least_status", "perfect").successful


def test_compressed_images_and_camera_info(start: Any, answering: Any, until: Any) -> None:
    other = active(start(image_transport="compressed", use_camera_info="true"))
    info = CameraInfo(width=24, height=24, distortion_model="plumb_bob", d=[0.0] * 5)
    info.k = np.array([30.0, 0.0, 11.5, 0.0, 30.0, 11.5, 0.0, 0.0, 1.0])
    _, jpeg = cv2.imencode(".jpg", np.full((24, 24, 3), 90, np.uint8))
    picture = CompressedImage(format="jpeg", data=jpeg.tobytes())

    def flown() -> bool:
        other.send("camera_info", info)
        other.fly(picture, "image/compressed")
        time.sleep(0.05)
        return bool(answering.frames) and getattr(answering.camera, "fx", 0.0) == 30.0

    until(flown)
    assert answering.frames[-1].image.shape == (24, 24, 3)


def test_hostile_messages_do_not_stop_it(start: Any, until: Any) -> None:
    other = active(start())
    other.answered()
    for message in (
        Image(height=2**32 - 1, width=2**32 - 1, step=3, encoding="bgr8", data=b"\0" * 9),
        Image(height=24, width=24, step=72, encoding="no such", data=bytes(1728)),
        Image(height=24, width=24, step=72, encoding="bgr8", data=bytes(5)),
        Image(),
    ):
        before = len(other.heard[STATUS])
        other.fly(message)
        until(lambda count=before: len(other.heard[STATUS]) > count)
        assert values(other.heard[STATUS][-1])["status"] == "refused"
    other.fly(height_m=float("nan"))
    other.send("imu", Imu(orientation_covariance=[-1.0] * 9))
    other.send("prior", NavSatFix(latitude=float("nan"), position_covariance_type=3))

    def told(name: str, count: int) -> bool:
        return any(int(values(report)[name]) >= count for report in list(other.heard["/diagnostics"]))

    until(lambda: told("refused", 4) and told("telemetry_refused", 3))
    until(lambda: values(other.answered())["status"] == "refined")


@pytest.mark.parametrize("cls", CLASSES, ids=lambda c: c.__name__)
def test_every_message_fits_its_class_in_ros(cls: type[Message]) -> None:
    other = msgs.RangeWithVariance if DISTRO == "HUMBLE" else msgs.Range
    if "/srv/" in cls.ros_name or cls in (msgs.Empty, other):
        pytest.skip("never sent, or another distribution's")
    package = cls.ros_name.split("/")[0]
    pytest.importorskip(package, reason=f"{package} is not installed here")
    made = to_ros(cls())
    assert type(made) is ros_class(cls)
    assert list(made.get_fields_and_field_types()) == [field for field in vars(cls()) if not field.startswith("_")]


def test_the_node_as_a_command(ros: None, mission: Path, until: Any, tmp_path: Path) -> None:
    """The executable with a mission that it opens; ends when it is told to."""
    command = [sys.executable, "-m", "cvgl_ros.node", "--ros-args", "--params-file", str(PARAMETERS)]
    command += ["-p", f"mission:={mission}", "-p", "altitude_source:=planar"]
    rclpy.init()
    other = Other(until)
    command_log = tmp_path / "log.txt"
    with open(command_log, "w", encoding="utf-8") as log:
        process = subprocess.Popen(command, stderr=log, stdout=log, env={**os.environ, "OMP_NUM_THREADS": "1"})
    try:
        other.listen(STATUS, DiagnosticArray)
        active(other)
        # A black frame: the localiser itself says that there is nothing to see.
        status = other.answered()
        assert status.status[0].level == b"\x01" and values(status)["status"] in ("no_fix", "refused")
    finally:
        other.close()
        process.send_signal(signal.SIGINT)
        ended = process.wait(timeout=30)
        rclpy.try_shutdown()
    assert ended == 0, command_log.read_text(encoding="utf-8")


def test_the_dds_transport_is_seen_by_a_ros_graph(
    ros: None, domain: int, answering: Any, until: Any, tmp_path: Path
) -> None:
    """The transport that needs no ROS, on another vendor's DDS, against rclpy."""
    pytest.importorskip("cyclonedds", reason="cyclonedds is not installed: pip install 'cvgl[ros]'")
    from cvgl_ros.bridge import Bridge
    from cvgl_ros.dds.transport import DdsTransport
    from cvgl_ros.parameters import Parameters

    transport = DdsTransport(domain, jazzy=DISTRO != "HUMBLE")
    parameters = Parameters(altitude_source="planar", diagnostics_period_s=0.2)
    transport.attach(Bridge(answering, parameters, transport.publish, transport.now))
    rclpy.init()
    other = Other(until)
    try:
        for topic, kind in ((FIX, NavSatFix), (STATUS, DiagnosticArray), ("/diagnostics", DiagnosticArray)):
            other.listen(topic, kind)
        other.answered(3)
        until(lambda: other.heard[FIX] and other.heard["/diagnostics"])
        assert list(other.heard[FIX][-1].position_covariance)[:2] == [4.0, 1.5]
        until(lambda: ("localizer", "/") in other.node.get_node_names_and_namespaces())
        by_node = other.node.get_publisher_names_and_types_by_node("localizer", "/")
        assert ("/visual_localization/fix", ["sensor_msgs/msg/NavSatFix"]) in by_node
        other.send("trigger", Empty())
        until(lambda: other.answered() and answering.resets == [None])
    finally:
        other.close()
        transport.close()
        rclpy.try_shutdown()
