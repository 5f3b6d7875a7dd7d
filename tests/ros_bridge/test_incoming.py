"""What is received is checked before it is believed."""

from __future__ import annotations

import math
from typing import Any

import pytest

from cvgl.camera import Camera
from cvgl.errors import FrameError
from cvgl.geo import LocalFrame
from cvgl.geometry import Mount
from cvgl.ros import incoming
from cvgl_ros import msgs
from cvgl_ros.msgs import Header, NavSatFix, NavSatStatus, Point, Pose, PoseWithCovariance, Quaternion, Time

LOCAL = LocalFrame(47.0, 9.5)
NAN, INF = math.nan, math.inf
TURN = Quaternion(0.0, 0.0, 0.6, 0.8)


@pytest.mark.parametrize(
    ("stamp", "expected"),
    [
        (Time(1, 2), 1_000_000_002),
        (Time(0, 0), "not stamped"),
        (Time(1, 10**9), "not a time"),
        (Time(1, -1), "not a t"),
    ],
)
def test_stamps(stamp: Time, expected: Any) -> None:
    message = msgs.Image(header=Header(stamp))
    if isinstance(expected, int):
        assert incoming.stamp_of(message, "image") == expected
    else:
        with pytest.raises(FrameError, match=expected):
            incoming.stamp_of(message, "image")


@pytest.mark.parametrize(
    "message",
    [
        msgs.Imu(orientation=Quaternion(0.0, 0.0, 0.606, 0.808)),  # rounded by its driver
        msgs.Odometry(pose=PoseWithCovariance(Pose(orientation=TURN))),
    ],
)
def test_orientations(message: Any) -> None:
    assert incoming.orientation_of(message, "imu") == pytest.approx((0.0, 0.0, 0.6, 0.8))


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (msgs.Imu(orientation=TURN, orientation_covariance=(-1.0, *(0.0,) * 8)), "carries no orientation"),
        (msgs.Imu(orientation=Quaternion(0, 0, 0, 0)), "not a rotation"),
        (msgs.Imu(orientation=Quaternion(0, 0, 0, 2)), "not a rotation"),
        (msgs.Imu(orientation=Quaternion(NAN, 0, 0, 1)), "not a rotation"),
        (msgs.Odometry(pose=PoseWithCovariance(Pose(orientation=Quaternion(INF, 0, 0, 1)))), "not a rotation"),
    ],
)
def test_orientations_that_are_none(message: Any, reason: str) -> None:
    with pytest.raises(FrameError, match=reason):
        incoming.orientation_of(message, "imu")


@pytest.mark.parametrize(("value", "good"), [(10.0, True), (0.5, False), (60.0, False), (INF, False), (NAN, False)])
def test_ranges(value: float, good: bool) -> None:
    message = msgs.Range(min_range=1.0, max_range=50.0, range=value)
    if good:
        assert incoming.range_of(message) == value
    else:
        with pytest.raises(FrameError, match="nothing in range"):
            incoming.range_of(message)


def prior(**changes: Any) -> NavSatFix:
    values: dict[str, Any] = {
        "status": NavSatStatus(0),
        "latitude": 47.0,
        "longitude": 9.5,
        "position_covariance": (4.0, 0.0, 0.0, 0.0, 9.0, 0.0, 0.0, 0.0, 1.0),
        "position_covariance_type": 2,
    }
    return NavSatFix(**{**values, **changes})


def test_a_prior_is_as_wide_as_its_worse_axis() -> None:
    found = incoming.prior_of_fix(prior(), 100.0)
    assert (found.latitude, found.longitude, found.sigma_m) == (47.0, 9.5, 3.0)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"status": NavSatStatus(-1)}, "has no fix"),
        ({"position_covariance_type": 0}, "of unknown accuracy"),
        ({"position_covariance": (0.0,) * 9}, "not a covariance"),
        ({"position_covariance": (NAN,) * 9}, "not a covariance"),
        ({"position_covariance": (INF,) * 9}, "not a covariance"),
        ({"position_covariance": (1e8,) * 9}, "too wide to help"),
        ({"latitude": NAN}, "prior.latitude"),
        ({"longitude": 200.0}, "prior.longitude"),
    ],
)
def test_priors_that_cannot_be_used(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(FrameError, match=reason):
        incoming.prior_of_fix(prior(**changes), 100.0)


def pose(frame: str = "map", x: float = 30.0, variance: float = 25.0) -> msgs.PoseWithCovarianceStamped:
    covariance = [0.0] * 36
    covariance[0] = covariance[7] = variance
    body = PoseWithCovariance(Pose(Point(x, -40.0, 0.0)), tuple(covariance))
    return msgs.PoseWithCovarianceStamped(Header(Time(1, 0), frame), body)


def test_a_prior_pose_is_placed_by_the_map_frame() -> None:
    found = incoming.prior_of_pose(pose(), "map", LOCAL, 100.0)
    easting, northing = LOCAL.to_local(found.latitude, found.longitude)
    assert (float(easting), float(northing), found.sigma_m) == pytest.approx((30.0, -40.0, 5.0), abs=1e-5)


@pytest.mark.parametrize(
    ("message", "reason"),
    [(pose("odom"), "in another frame"), (pose(x=NAN), "prior_pose.x"), (pose(variance=0.0), "not a covariance")],
)
def test_prior_poses_that_cannot_be_used(message: Any, reason: str) -> None:
    with pytest.raises(FrameError, match=reason):
        incoming.prior_of_pose(message, "map", LOCAL, 100.0)


MISSION = Camera(64, 48, 50.0, 50.0, 31.5, 23.5, mount=Mount(yaw_deg=90.0), stabilized=False)
K = (500.0, 0.0, 319.5, 0.0, 510.0, 239.5, 0.0, 0.0, 1.0)


def test_camera_info_gives_the_lens_and_the_mission_the_mount() -> None:
    info = msgs.CameraInfo(width=640, height=480, distortion_model="plumb_bob", d=(0.1, 0.0, 0.0, 0.0, 0.0), k=K)
    camera = incoming.camera_of(info, MISSION)
    assert (camera.fx, camera.fy, camera.cx, camera.cy) == (500.0, 510.0, 319.5, 239.5)
    assert camera.distortion == (0.1, 0.0, 0.0, 0.0, 0.0)
    assert (camera.mount, camera.stabilized) == (MISSION.mount, False)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"k": (0.0,) * 9}, "not calibrated"),
        ({"distortion_model": "equidistant", "d": (0.0,) * 5}, "lens not supported"),
        ({"d": (0.0,) * 7}, "lens not supported"),
        ({"width": 0}, "width"),
        ({"k": (NAN,) * 9}, "fx"),
    ],
)
def test_camera_info_that_cannot_be_used(changes: dict[str, Any], reason: str) -> None:
    values: dict[str, Any] = {"width": 640, "height": 480, "distortion_model": "plumb_bob", "k": K}
    with pytest.raises(ValueError, match=reason):
        incoming.camera_of(msgs.CameraInfo(**{**values, **changes}), MISSION)
