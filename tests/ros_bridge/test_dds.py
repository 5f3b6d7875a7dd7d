"""The bridge on a real DDS bus on loopback, with a stranger on the other side who knows rosbags' definitions only."""

from __future__ import annotations

import os
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from cvgl.fix import Fix

PEER = Path(__file__).with_name("peer.py")
IMAGE, NUMBER = "sensor_msgs/msg/Image", "std_msgs/msg/Float64"
FIX, POSE = "rt/visual_localization/fix", "rt/visual_localization/pose"
STATUS, ORIGIN = "rt/visual_localization/status", "rt/visual_localization/map_origin"
TYPES = {
    FIX: "sensor_msgs/msg/NavSatFix",
    POSE: "geometry_msgs/msg/PoseWithCovarianceStamped",
    STATUS: "diagnostic_msgs/msg/DiagnosticArray",
    "rt/diagnostics": "diagnostic_msgs/msg/DiagnosticArray",
}


def nanoseconds(message: Any) -> int:
    stamp = message["header"]["stamp"] if isinstance(message, dict) else None
    if stamp is not None:
        return int(stamp["sec"] * 10**9 + stamp["nanosec"])
    return int(message.header.stamp.sec * 10**9 + message.header.stamp.nanosec)


def values(status: Any) -> dict[str, str]:
    return {pair.key: pair.value for pair in status.status[0].values}


def test_every_frame_is_answered_in_another_process(
    serve: Any, answering: Any, vehicle: Any, listen: Any, until: Any
) -> None:
    listener = listen(TYPES)
    serve(answering, altitude_source="planar", debug_image=False)
    vehicle.join()
    stamps = []
    for index in range(10):
        stamps.append(vehicle.fly())
        until(lambda count=index: len(answering.frames) > count)

    def complete(heard: list[tuple[str, int, Any]]) -> bool:
        topics = [topic for topic, _, _ in heard]
        return all(topics.count(topic) >= 10 for topic in (FIX, POSE, STATUS))

    heard = listener.until(complete)
    for topic in (FIX, POSE, STATUS):
        assert [nanoseconds(message) for name, _, message in heard if name == topic] == stamps
    fixes = [message for name, _, message in heard if name == FIX]
    assert {message["header"]["frame_id"] for message in fixes} == {"base_link"}
    for message, frame in zip(fixes, answering.frames, strict=True):
        assert message["status"]["status"] == 0 and message["position_covariance_type"] == 3
        assert message["position_covariance"] == [4.0, 1.5, 0.0, 1.5, 9.0, 0.0, 0.0, 0.0, 1e8]
        assert (frame.height, frame.heading) == (80.0, 30.0)
    report = listener.until(lambda all_: all_[-1][0] == "rt/diagnostics")[-1][2]
    assert report["status"][0]["level"] == 0


def test_the_maps_origin_waits_for_those_who_come_later(serve: Any, answering: Any, peer: Any, until: Any) -> None:
    serve(answering)
    reader = peer.reader(ORIGIN, "sensor_msgs/msg/NavSatFix", latched=True, depth=1)
    (message,) = until(lambda: peer.take(reader, "sensor_msgs/msg/NavSatFix"))
    assert (message.latitude, message.longitude, message.header.frame_id) == (47.0, 9.5, "map")


@pytest.mark.parametrize("reliable", [True, False])
def test_subscribers_of_either_reliability_are_served(
    serve: Any, answering: Any, peer: Any, vehicle: Any, until: Any, reliable: bool
) -> None:
    reader = peer.reader(POSE, TYPES[POSE], reliable=reliable)
    serve(answering)
    vehicle.join()
    until(lambda: len(reader.get_matched_publications()))
    stamp = vehicle.fly()
    (message,) = until(lambda: peer.take(reader, TYPES[POSE]))
    assert nanoseconds(message) == stamp


def test_the_trigger_service_answers_as_rmw_cyclonedds_expects(
    serve: Any, answering: Any, peer: Any, peer_module: ModuleType, vehicle: Any, until: Any
) -> None:
    serve(answering)
    vehicle.join()
    vehicle.fly()
    until(lambda: answering.frames)
    name = "visual_localization/trigger_localization"
    request, response = "std_srvs/srv/Trigger_Request", "std_srvs/srv/Trigger_Response"
    replies = peer.reader(f"rr/{name}Reply", response, reliable=True)
    peer.writer(f"rq/{name}Request", request)
    until(lambda: peer.matched(f"rq/{name}Request") and len(replies.get_matched_publications()))
    raw = b"\x00\x01\x00\x00" + struct.pack("<QqB", 0x1122334455667788, 42, 0)
    peer.send_raw(f"rq/{name}Request", request, raw)
    (reply,) = until(lambda: peer.take(replies, response))
    assert (reply.guid, reply.seq, reply.success) == (0x1122334455667788, 42, True)
    assert "whole map" in reply.message
    vehicle.fly()
    until(lambda: answering.resets)
    assert answering.resets == [None]


@pytest.mark.parametrize(("jazzy", "length"), [(False, 24), (True, 16)])
def test_the_node_enters_the_ros_graph(
    domain: int, answering: Any, peer_module: ModuleType, until: Any, jazzy: bool, length: int
) -> None:
    from cvgl_ros.bridge import Bridge
    from cvgl_ros.dds.transport import DdsTransport, join
    from cvgl_ros.parameters import Parameters

    distro, prefix = "ROS2_JAZZY" if jazzy else "ROS2_HUMBLE", "rmw_dds_common/msg/"
    peer = peer_module.Peer(domain, distro=distro, joined=join(domain))
    reader = peer.reader("ros_discovery_info", prefix + "ParticipantEntitiesInfo", latched=True, depth=1)
    transport = DdsTransport(domain, namespace="drone", jazzy=jazzy)
    bridge = Bridge(answering, Parameters(), transport.publish)
    transport.attach(bridge)
    try:
        (info,) = until(lambda: peer.take(reader, prefix + "ParticipantEntitiesInfo"))
        (node,) = info.node_entities_info_seq
        assert len(info.gid.data) == length
        assert (node.node_namespace, node.node_name) == ("/drone", "localizer")
        assert len(node.reader_gid_seq) == len(bridge.inputs()) + 1  # the service's requests
        assert len(node.writer_gid_seq) == len(bridge.outputs()) + 1  # and its replies
        (publication,) = until(reader.get_matched_publications)
        announced = reader.get_matched_publication_data(publication)
        assert bytes(info.gid.data[:16]) == announced.participant_key.bytes
        assert all(bytes(gid.data[:12]) == bytes(info.gid.data[:12]) for gid in node.reader_gid_seq)
    finally:
        transport.close()


def test_the_trigger_topic(serve: Any, answering: Any, peer: Any, vehicle: Any, until: Any) -> None:
    serve(answering, mode="trigger")
    vehicle.join()
    peer.writer("rt/trigger", "std_msgs/msg/Empty")
    until(lambda: peer.matched("rt/trigger"))
    peer.send("rt/trigger", vehicle.types["std_msgs/msg/Empty"]())

    def answered() -> bool:
        vehicle.fly()
        time.sleep(0.02)
        return bool(answering.frames)

    until(answered)
    for _ in range(3):
        vehicle.fly()
    time.sleep(0.1)
    assert len(answering.frames) == 1


@pytest.mark.parametrize("distro", ["ROS2_HUMBLE", "ROS2_JAZZY"])
def test_all_telemetry_of_both_distributions(
    domain: int, answering: Any, peer_module: ModuleType, until: Any, distro: str
) -> None:
    from cvgl_ros.bridge import Bridge
    from cvgl_ros.dds.transport import DdsTransport, join
    from cvgl_ros.parameters import Parameters

    transport = DdsTransport(domain, jazzy=distro == "ROS2_JAZZY", namespace="/drone", remaps={"imu": "/imu/data"})
    parameters = Parameters(use_camera_info=True, image_transport="compressed", telemetry_wait_s=1.0)
    bridge = Bridge(answering, parameters, transport.publish, transport.now)
    transport.attach(bridge)
    try:
        peer = peer_module.Peer(domain, distro=distro, joined=join(domain))
        types = peer_module.store(distro).types
        names = {
            "rt/imu/data": "sensor_msgs/msg/Imu",
            "rt/drone/range": "sensor_msgs/msg/Range",
            "rt/drone/image/compressed": "sensor_msgs/msg/CompressedImage",
            "rt/drone/camera_info": "sensor_msgs/msg/CameraInfo",
        }
        for topic, name in names.items():
            peer.writer(topic, name)
        until(lambda: all(peer.matched(topic) for topic in names))
        v = peer_module.Vehicle(peer)
        stamp = time.time_ns()
        vector = types["geometry_msgs/msg/Vector3"](x=0.0, y=0.0, z=0.0)
        nine = np.zeros(9)
        turn = types["geometry_msgs/msg/Quaternion"](x=0.0, y=0.0, z=0.0, w=1.0)
        peer.send("rt/imu/data", types["sensor_msgs/msg/Imu"](v.header(stamp), turn, nine, vector, nine, vector, nine))
        more = {"variance": 0.0} if distro == "ROS2_JAZZY" else {}
        ranging = types["sensor_msgs/msg/Range"](v.header(stamp), 0, 0.1, 0.5, 200.0, 75.0, **more)
        peer.send("rt/drone/range", ranging)
        roi = types["sensor_msgs/msg/RegionOfInterest"](0, 0, 0, 0, False)
        k = np.array([40.0, 0, 23.5, 0, 41.0, 15.5, 0, 0, 1])
        info = types["sensor_msgs/msg/CameraInfo"](
            v.header(stamp), 32, 48, "plumb_bob", np.zeros(5), k, np.eye(3).ravel(), np.zeros(12), 0, 0, roi
        )
        peer.send("rt/drone/camera_info", info)
        until(lambda: bridge._worker.camera is not None)
        import cv2

        picture = cv2.imencode(".png", np.zeros((32, 48), np.uint8))[1].ravel()
        peer.send(
            "rt/drone/image/compressed", types["sensor_msgs/msg/CompressedImage"](v.header(stamp), "png", picture)
        )
        until(lambda: answering.frames)
        frame = answering.frames[0]
        assert (frame.height, frame.heading, frame.pitch) == pytest.approx((75.0, 90.0, 0.0))
        assert frame.image.shape == (32, 48)
        assert (answering.camera.fx, answering.camera.fy) == (40.0, 41.0)
    finally:
        transport.close()


def test_malformed_and_hostile_samples_do_not_stop_it(
    serve: Any, answering: Any, peer: Any, vehicle: Any, until: Any, peer_module: ModuleType
) -> None:
    bridge = serve(answering)
    vehicle.join()
    good = bytes(peer_module.store().serialize_cdr(vehicle.image(time.time_ns()), IMAGE))
    liars = [
        b"",
        b"\x00\x01\x00\x00",
        good[: len(good) // 2],
        good[:20] + b"\xff" * 200,
        b"\x00\x0a\x00\x00" + good[4:],
        good[:16] + struct.pack("<I", 2**32 - 1) + good[20:],
        np.random.default_rng(0).integers(0, 256, 3000, dtype=np.uint8).tobytes(),
    ]
    for raw in liars:
        # Cyclone refuses to send some of these; what it sends, the bridge has to bear.
        with np.errstate(all="ignore"):
            try:
                peer.send_raw("rt/image", IMAGE, raw)
            except Exception as refused:
                assert "DDS" in type(refused).__name__
    vehicle.fly(encoding="nonsense")
    vehicle.fly(height=60_000, width=60_000)
    vehicle.fly(stamp=1)
    peer.send("rt/height", vehicle.types[NUMBER](data=float("nan")))
    stamp = vehicle.fly()
    until(lambda: answering.frames and round(answering.frames[-1].time * 1e9 - stamp, -3) == 0)
    assert bridge._worker.is_alive()
    diagnosed: list[Any] = []
    bridge._publish = lambda topic, message: diagnosed.append(message)
    bridge.diagnose()
    assert int(values(diagnosed[0])["telemetry_refused"]) >= 1


def test_bytes_that_are_no_message_are_counted(serve: Any, answering: Any, vehicle: Any, until: Any) -> None:
    """The bus checks bytes by the announced type where it can; what slips through is refused by our own reader."""
    from cvgl_ros.dds.types import carrier_of
    from cvgl_ros.msgs import KeyValue

    sample = carrier_of(KeyValue).deserialize(b"\x00\x01\x00\x00\xff\xff\xff\xff")
    assert sample.message is None and "not a string" in str(sample.error)
    bridge = serve(answering)
    bridge.malformed("image", str(sample.error))
    vehicle.join()
    vehicle.fly()
    until(lambda: answering.frames)


def test_junk_on_its_ports_does_not_stop_it(serve: Any, answering: Any, vehicle: Any, domain: int, until: Any) -> None:
    serve(answering)
    vehicle.join()
    rng = np.random.default_rng(1)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for index in range(2000):
            junk = rng.integers(0, 256, int(rng.integers(1, 1400)), dtype=np.uint8).tobytes()
            # Half of it begins as RTPS does; some goes on as a message of data would.
            head = b"RTPS\x02\x01\x01\x10" if index % 2 else b""
            data = b"\x15\x05" if index % 4 == 1 else b""
            for port in (0, 1):
                sender.sendto(head + junk[:12] + data + junk, ("127.0.0.1", 7400 + 250 * domain + port))
    vehicle.fly()
    until(lambda: answering.frames)


def test_a_restarted_bridge_is_found_again(serve: Any, answering: Any, vehicle: Any, peer: Any, until: Any) -> None:
    reader = peer.reader(POSE, TYPES[POSE], reliable=True)
    for turn in range(2):
        serve(answering)
        vehicle.join()
        until(lambda: len(reader.get_matched_publications()) == 1)
        stamp = vehicle.fly()
        (message,) = until(lambda: peer.take(reader, TYPES[POSE]))
        assert nanoseconds(message) == stamp, turn
        serve.opened.pop().close()
        until(lambda: not peer.matched("rt/image"))


def test_dropped_images_and_a_dead_camera_are_in_the_diagnostics(
    serve: Any, answering: Any, vehicle: Any, peer: Any, make_fix: Any, until: Any
) -> None:
    def slow(frame: Any) -> Fix:
        time.sleep(0.15)
        return make_fix(frame.time)  # type: ignore[no-any-return]

    answering.answer = slow
    topic = "rt/diagnostics"
    reader = peer.reader(topic, TYPES[topic], reliable=True)
    serve(answering, camera_timeout_s=0.5)
    vehicle.join()
    for _ in range(10):
        vehicle.fly()
        time.sleep(0.02)
    reports: list[Any] = []

    def dead() -> bool:
        reports.extend(peer.take(reader, TYPES[topic]))
        return bool(reports) and reports[-1].status[0].message.startswith("camera: no image for")

    until(dead)
    last = values(reports[-1])
    assert int(last["dropped"]) >= 5
    assert int(last["frames"]) + int(last["dropped"]) == int(last["images"]) == 10
    assert reports[-1].status[0].level == 2


def test_late_attitude_and_a_clock_that_jumps_are_survived_and_visible(
    serve: Any, answering: Any, vehicle: Any, peer: Any, until: Any
) -> None:
    topic, imu, ranger = "rt/diagnostics", "sensor_msgs/msg/Imu", "sensor_msgs/msg/Range"
    reader = peer.reader(topic, TYPES[topic], reliable=True)
    serve(answering, attitude_source="imu", heading_source="imu", height_source="range", telemetry_wait_s=5.0)
    topics = {"rt/image": IMAGE, "rt/range": ranger, "rt/imu": imu}
    for name, ros_name in topics.items():
        peer.writer(name, ros_name)
    until(lambda: all(peer.matched(name) for name in topics))
    vector = vehicle.types["geometry_msgs/msg/Vector3"](x=0.0, y=0.0, z=0.0)
    turn, nine = vehicle.types["geometry_msgs/msg/Quaternion"](x=0.0, y=0.0, z=0.0, w=1.0), np.zeros(9)

    def fly(stamp: int, late_s: float) -> None:
        count = len(answering.frames)
        peer.send("rt/image", vehicle.image(stamp))
        time.sleep(late_s)
        assert len(answering.frames) == count
        header = vehicle.header(stamp + 1)
        peer.send("rt/imu", vehicle.types[imu](header, turn, nine, vector, nine, vector, nine))
        peer.send("rt/range", vehicle.types[ranger](header, 0, 0.1, 0.5, 200.0, 80.0))
        until(lambda: len(answering.frames) > count)

    now = time.time_ns()
    fly(now, late_s=0.2)
    fly(now + 10**9, late_s=0.0)
    fly(now - 3 * 10**9, late_s=0.1)  # set back by four seconds
    fly(now - 2 * 10**9, late_s=0.1)
    assert [frame.heading for frame in answering.frames] == pytest.approx([90.0] * 4)
    assert answering.resets == [None]
    reports: list[Any] = []

    def told() -> bool:
        reports.extend(peer.take(reader, TYPES[topic]))
        return bool(reports) and values(reports[-1])["fixes"] == "4"

    until(told)
    last = values(reports[-1])
    # The clock of the frames, of attitude and of range.
    assert (last["clock_jumps"], last["telemetry_clock_jumps"], last["without_attitude"]) == ("1", "2", "0")


def other_interfaces() -> list[str]:
    """Interfaces with an address, other than loopback."""
    found = []
    for name in sorted(os.listdir("/sys/class/net")) if os.path.isdir("/sys/class/net") else []:
        state = Path("/sys/class/net", name, "operstate").read_text(encoding="ascii").strip()
        if name != "lo" and state == "up":
            found.append(name)
    return found


def test_a_stranger_on_another_interface_is_not_heard(
    serve: Any, answering: Any, domain: int, peer_module: ModuleType
) -> None:
    interfaces = other_interfaces()
    if not interfaces:
        pytest.skip("no second network interface here")
    serve(answering)
    # Another process: Cyclone has one configuration for each domain in a process.
    code = (
        "import sys, time; sys.path.insert(0, sys.argv[1]); import peer\n"
        "p = peer.Peer(int(sys.argv[2]), sys.argv[3]); p.writer('rt/image', 'sensor_msgs/msg/Image')\n"
        "time.sleep(1.5); print(p.matched('rt/image'))\n"
    )

    def start(interface: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", code, str(PEER.parent), str(domain), interface]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    strangers = [start(interfaces[0]), start("lo")]
    assert [int(stranger.communicate(timeout=60)[0]) for stranger in strangers] == [0, 1]
