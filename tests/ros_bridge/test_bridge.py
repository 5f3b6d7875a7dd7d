"""The bridge without a bus: what it makes of messages, whatever they say and in whatever order they come."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cvgl.errors import CvglError
from cvgl.fix import Fix, FixStatus
from cvgl.frame import Frame
from cvgl.node.attitude import Attitude, turn_of
from cvgl.node.tracks import NANOSECONDS
from cvgl.ros.images import image_from_file
from cvgl_ros import msgs
from cvgl_ros.bridge import Bridge
from cvgl_ros.msgs import Empty, Float64, Header, Image, Imu, NavSatFix, NavSatStatus, Odometry, Time
from cvgl_ros.outgoing import nanoseconds_of, time_of
from cvgl_ros.parameters import ParameterError, Parameters

FIX = "visual_localization/fix"
POSE = "visual_localization/pose"
STATUS = "visual_localization/status"
START = 1_700_000_000 * NANOSECONDS
S = NANOSECONDS


class Desk:
    """A bridge whose messages go to a list and whose clock is set by hand."""

    def __init__(self, localizer: Any, **parameters: Any) -> None:
        quick = {"telemetry_wait_s": 0.02, "attitude_source": "none", "heading_source": "none"}
        quick |= {"height_source": "height"}
        self.localizer = localizer
        self.sent: list[tuple[str, msgs.Message]] = []
        self.arrived = threading.Condition()
        self.clock = START
        self.log: list[str] = []
        self.bridge = Bridge(
            localizer, Parameters(**{**quick, **parameters}), self.publish, lambda: self.clock, self.note
        )
        self.handlers = {i.topic: i.handler for i in self.bridge.inputs()}
        self.bridge.start()

    def note(self, level: str, text: str) -> None:
        self.log.append(text)

    def publish(self, topic: str, message: msgs.Message) -> None:
        with self.arrived:
            self.sent.append((topic, message))
            self.arrived.notify_all()

    def send(self, topic: str, message: Any) -> None:
        self.handlers[topic](message)

    def frame(self, stamp: int, height: float | None = 80.0) -> None:
        if height is not None:
            self.clock = stamp
            self.send("height", Float64(height))
        self.send("image", image(stamp))

    def of(self, topic: str) -> list[Any]:
        return [message for name, message in self.sent if name == topic]

    def answers(self, count: int) -> list[Any]:
        """The statuses of ``count`` frames, waited for."""
        with self.arrived:
            assert self.arrived.wait_for(lambda: len(self.of(STATUS)) >= count, 20), self.of(STATUS)
        return self.of(STATUS)

    def diagnostics(self) -> Any:
        self.bridge.diagnose()
        return self.of("/diagnostics")[-1].status[0]

    def values(self) -> dict[str, str]:
        return {pair.key: pair.value for pair in self.diagnostics().values}


def image(stamp: int, side: int = 24) -> Image:
    pixels = np.zeros((side, side, 3), np.uint8)
    header = Header(time_of(stamp), "camera")
    return Image(header, side, side, "bgr8", 0, 3 * side, pixels.tobytes())


def reason(status: Any) -> str:
    return str(status.status[0].message)


@pytest.fixture
def desk(answering: Any) -> Iterator[Callable[..., Desk]]:
    opened: list[Desk] = []

    def make(localizer: Any = None, **parameters: Any) -> Desk:
        opened.append(Desk(localizer or answering, **parameters))
        return opened[-1]

    yield make
    for one in opened:
        one.bridge.close()


def test_a_frame_is_answered_with_its_stamp(desk: Callable[..., Desk]) -> None:
    d = desk(altitude_source="planar")
    d.frame(START + 123_456_789)
    d.answers(1)
    for topic in (FIX, POSE, STATUS):
        assert nanoseconds_of(d.of(topic)[0].header.stamp) == START + 123_456_789
    assert d.of(FIX)[0].header.frame_id == "base_link"
    assert d.of(POSE)[0].header.frame_id == "map"
    assert d.of("visual_localization/map_origin")[0].latitude == 47.0


def test_without_an_altitude_there_is_a_pose_and_no_fix(desk: Callable[..., Desk]) -> None:
    d = desk()
    d.frame(START)
    d.answers(1)
    assert len(d.of(POSE)) == 1 and not d.of(FIX)
    assert FIX not in [output.topic for output in d.bridge.outputs()]
    assert "altitude_source is none" in d.log[0]


@pytest.mark.parametrize(
    ("parameters", "altitude", "sigma"),
    [
        ({"altitude_source": "constant", "altitude_ellipsoid_m": 400.0, "altitude_sigma_m": 3.0}, 400.0, 3.0),
        (
            {
                "altitude_source": "ground",
                "ground_ellipsoid_m": 350.0,
                "altitude_sigma_m": 3.0,
                "height_sigma_m": 4.0,
            },
            430.0,
            5.0,
        ),
        ({"altitude_source": "topic", "altitude_sigma_m": 2.0}, 512.0, 2.0),
        ({"altitude_source": "planar"}, 0.0, 1e4),
    ],
)
def test_altitude_is_what_its_source_says(
    desk: Callable[..., Desk], parameters: dict[str, Any], altitude: float, sigma: float
) -> None:
    d = desk(**parameters)
    d.clock = START
    if "altitude" in d.handlers:
        d.send("altitude", Float64(512.0))
    d.frame(START)
    d.answers(1)
    (fix,) = d.of(FIX)
    assert fix.altitude == pytest.approx(altitude)
    assert fix.position_covariance[8] == pytest.approx(sigma**2)


def test_a_fix_without_its_altitude_is_withheld_and_says_so(desk: Callable[..., Desk]) -> None:
    d = desk(altitude_source="topic", altitude_sigma_m=2.0)
    d.frame(START)
    (status,) = d.answers(1)
    assert not d.of(FIX) and len(d.of(POSE)) == 1
    assert "no altitude" in {pair.key: pair.value for pair in status.status[0].values}["fix_withheld"]


def test_no_fix_is_silence_and_a_reason(desk: Callable[..., Desk], answering: Any) -> None:
    answering.answer = lambda frame: Fix.none(frame.time, "nothing agrees")
    d = desk(altitude_source="planar", publish_tf=True)
    d.frame(START)
    (status,) = d.answers(1)
    assert reason(status) == "nothing agrees" and status.status[0].level == 1
    assert not d.of(FIX) and not d.of(POSE) and not d.of("/tf")


@pytest.mark.parametrize(("least", "published"), [("coarse", 1), ("refined", 0)])
def test_coarse_fixes_are_published_where_wanted(
    desk: Callable[..., Desk], answering: Any, make_fix: Any, least: str, published: int
) -> None:
    answering.answer = lambda frame: replace(make_fix(frame.time), status=FixStatus.COARSE, reason="not sure")
    d = desk(least_status=least)
    d.frame(START)
    d.answers(1)
    assert len(d.of(POSE)) == published


def test_attitude_is_interpolated_at_the_exposure(desk: Callable[..., Desk], answering: Any) -> None:
    d = desk(attitude_source="imu", heading_source="imu", heading_offset_deg=3.0, telemetry_wait_s=5.0)
    for moment, attitude in ((-0.1, Attitude(350.0, 4.0, -8.0)), (0.1, Attitude(10.0, 8.0, -4.0))):
        stamp = time_of(START + round(moment * S))
        d.send("imu", Imu(Header(stamp, "imu"), msgs.Quaternion(*turn_of(attitude))))
    d.frame(START)
    d.answers(1)
    frame = answering.frames[0]
    assert frame.heading == pytest.approx(3.0, abs=0.3)
    assert (frame.pitch, frame.roll) == pytest.approx((6.0, -6.0), abs=0.5)


def test_a_gimbals_camera_does_not_lean_with_the_vehicle(desk: Callable[..., Desk], answering: Any) -> None:
    answering.mission.camera = replace(answering.mission.camera, stabilized=True)
    d = desk(attitude_source="imu", heading_source="imu")
    d.send("imu", Imu(Header(time_of(START), "imu"), msgs.Quaternion(*turn_of(Attitude(40.0, 10.0, -20.0)))))
    d.frame(START)
    d.answers(1)
    frame = answering.frames[0]
    assert (frame.heading, frame.pitch, frame.roll) == (pytest.approx(40.0), None, None)
    covariance = d.of(POSE)[0].pose.covariance
    assert covariance[21] < 0.01 and covariance[28] < 0.01  # the vehicle's attitude is in the pose all the same


def test_late_attitude_is_waited_for(desk: Callable[..., Desk], answering: Any) -> None:
    d = desk(attitude_source="imu", heading_source="imu", telemetry_wait_s=5.0)
    d.send("imu", Imu(Header(time_of(START - S // 10), "imu"), msgs.Quaternion(*turn_of(Attitude(100.0, 0.0, 0.0)))))
    d.frame(START)
    time.sleep(0.05)
    assert not answering.frames
    d.send("imu", Imu(Header(time_of(START + S // 10), "imu"), msgs.Quaternion(*turn_of(Attitude(120.0, 0.0, 0.0)))))
    d.answers(1)
    assert answering.frames[0].heading == pytest.approx(110.0)


def test_an_attitude_that_never_comes_is_unknown(desk: Callable[..., Desk], answering: Any) -> None:
    d = desk(attitude_source="imu", heading_source="imu")
    d.frame(START)
    d.answers(1)
    frame = answering.frames[0]
    assert (frame.heading, frame.pitch, frame.roll) == (None, None, None)


def test_height_from_a_leaning_range_finder(desk: Callable[..., Desk], answering: Any) -> None:
    d = desk(attitude_source="imu", height_source="range", height_offset_m=-0.5)
    stamp = time_of(START)
    d.send("imu", Imu(Header(stamp, "imu"), msgs.Quaternion(*turn_of(Attitude(0.0, 60.0, 0.0)))))
    d.send("range", msgs.Range(Header(stamp, "range"), 0, 0.1, 0.5, 200.0, 100.0))
    d.send("image", image(START))
    d.answers(1)
    assert answering.frames[0].height == pytest.approx(49.5)


def test_height_and_attitude_from_odometry(desk: Callable[..., Desk], answering: Any) -> None:
    d = desk(attitude_source="odometry", heading_source="odometry", height_source="odometry", height_offset_m=2.0)
    message = Odometry(Header(time_of(START), "odom"))
    message.pose.pose.position.z = 60.0
    message.pose.pose.orientation = msgs.Quaternion(*turn_of(Attitude(45.0, 1.0, 2.0)))
    d.send("odometry", message)
    d.send("image", image(START))
    d.answers(1)
    frame = answering.frames[0]
    assert (frame.height, frame.heading) == pytest.approx((62.0, 45.0))


def test_height_from_an_altitude_above_the_ground(desk: Callable[..., Desk], answering: Any) -> None:
    d = desk(height_source="altitude", altitude_source="topic", altitude_sigma_m=1.0, ground_ellipsoid_m=400.0)
    d.send("altitude", Float64(475.0))
    d.send("image", image(START))
    d.answers(1)
    assert answering.frames[0].height == pytest.approx(75.0)
    assert d.of(FIX)[0].altitude == pytest.approx(475.0)


def test_without_height_a_frame_is_refused_with_the_reason(desk: Callable[..., Desk], answering: Any) -> None:
    d = desk()
    d.frame(START, height=None)
    (status,) = d.answers(1)
    assert "no height within 0.5 s" in reason(status) and "no height" in d.log[-1]
    assert not answering.frames


def test_the_newest_frame_wins_and_the_others_are_counted(
    desk: Callable[..., Desk], answering: Any, make_fix: Any
) -> None:
    entered, let_go = threading.Event(), threading.Event()

    def slow(frame: Frame) -> Fix:
        entered.set()
        assert let_go.wait(20)
        return make_fix(frame.time)  # type: ignore[no-any-return]

    answering.answer = slow
    d = desk()
    d.frame(START)
    assert entered.wait(20)
    for index in range(1, 6):
        d.frame(START + index * S // 10)
    let_go.set()
    statuses = d.answers(2)
    stamps = [nanoseconds_of(status.header.stamp) for status in statuses]
    assert stamps == [START, START + 5 * S // 10]
    assert d.values()["dropped"] == "4"


def test_frames_out_of_order_and_repeated_are_left_out(desk: Callable[..., Desk]) -> None:
    d = desk()
    d.frame(START)
    d.answers(1)
    for stamp in (START - S // 10, START):
        d.send("image", image(stamp))
    d.frame(START + S)
    statuses = d.answers(2)
    assert [nanoseconds_of(status.header.stamp) for status in statuses] == [START, START + S]
    assert d.values()["out_of_order"] == "2"


def test_a_clock_set_back_begins_a_new_sequence(desk: Callable[..., Desk], answering: Any) -> None:
    d = desk()
    d.frame(START)
    d.answers(1)
    d.frame(START - 3600 * S)
    d.answers(2)
    assert answering.resets == [None]
    assert len(answering.frames) == 2
    assert d.values()["clock_jumps"] == "1"


def test_a_clock_set_forward_is_followed(desk: Callable[..., Desk], answering: Any) -> None:
    d = desk()
    for stamp in (START, START + 10**6 * S):
        d.frame(stamp)
        d.answers(len(answering.frames) + 1 if not answering.frames else 2)
    assert [frame.time for frame in answering.frames] == [START / S, START / S + 10**6]


def test_one_stamp_from_the_future_ends_no_sequence(desk: Callable[..., Desk], answering: Any) -> None:
    d = desk()
    d.frame(START)
    d.answers(1)
    d.send("image", image(START + 10**9 * S // 2))  # no telemetry knows of that time
    d.answers(2)
    d.frame(START + S)
    d.answers(3)
    assert answering.resets == []
    assert [frame.time for frame in answering.frames] == [START / S, START / S + 1]
    d.send("image", image(START + S // 2))
    d.frame(START + 2 * S)
    d.answers(4)
    assert d.values()["out_of_order"] == "1" and d.values()["clock_jumps"] == "0"


def test_telemetry_that_does_not_fit_the_frames_is_counted(desk: Callable[..., Desk]) -> None:
    d = desk(attitude_source="imu", heading_source="imu")
    d.send("imu", Imu(Header(time_of(START - 60 * S), "imu"), msgs.Quaternion(*turn_of(Attitude(0.0, 0.0, 0.0)))))
    d.frame(START)
    (status,) = d.answers(1)
    assert {pair.key: pair.value for pair in status.status[0].values}["heading"] == "unknown"
    values = d.values()
    assert (values["without_attitude"], values["without_heading"]) == ("1", "1")


def test_a_picture_of_the_answer(desk: Callable[..., Desk], answering: Any) -> None:
    from cvgl.basemap import Basemap

    pixels = np.full((400, 400), 90, np.uint8)
    answering.gallery.basemap = Basemap(pixels, 0.5, -100.0, 100.0)
    d = desk(debug_image=True, debug_image_period_s=0.0)
    for index in range(2):
        d.frame(START + index * S)
        d.answers(index + 1)
    d.bridge.close()
    pictures = d.of("visual_localization/debug_image/compressed")
    assert [nanoseconds_of(p.header.stamp) for p in pictures] == [START, START + S]
    assert image_from_file(pictures[0].data).shape == (360, 720, 3)


def test_a_picture_that_fails_costs_no_answer(desk: Callable[..., Desk]) -> None:
    d = desk(debug_image=True)  # this gallery has no basemap
    d.frame(START)
    d.answers(1)
    d.bridge.close()
    assert len(d.of(POSE)) == len(d.of(STATUS)) == 1 and any("basemap" in line for line in d.log)


def test_a_dead_camera_is_told(desk: Callable[..., Desk]) -> None:
    d = desk(camera_timeout_s=0.1)
    time.sleep(0.15)
    assert (d.diagnostics().level, d.diagnostics().message[:16]) == (2, "camera: no image")
    d.frame(START)
    d.answers(1)
    assert d.diagnostics().level == 0
    time.sleep(0.15)
    assert d.diagnostics().message.startswith("camera: no image for 0.")


def test_silent_telemetry_is_told(desk: Callable[..., Desk]) -> None:
    d = desk(camera_timeout_s=0.1, attitude_source="imu")
    time.sleep(0.15)
    d.frame(START)
    d.answers(1)
    status = d.diagnostics()
    assert (status.level, status.message) == (2, "telemetry: nothing usable from imu for 0.1 s")


def test_diagnostics_state_rates_latency_availability_and_what_flies(desk: Callable[..., Desk]) -> None:
    d = desk()
    for index in range(4):
        d.frame(START + index * S)
        d.answers(index + 1)
    values = d.values()
    assert {"images": "4", "frames": "4", "fixes": "4", "availability": "1.000"}.items() <= values.items()
    assert values["engine"] == "test engine" and values["gallery"] == "test gallery"
    assert float(values["latency_ms_p99"]) == 12.0
    assert float(values["image_rate_hz"]) > 0


def test_trigger_mode_answers_the_next_frame_only(desk: Callable[..., Desk], answering: Any) -> None:
    d = desk(mode="trigger")
    d.frame(START)
    d.send("trigger", Empty())
    for index in range(1, 4):
        d.frame(START + index * S)
    d.answers(1)
    time.sleep(0.05)
    assert [frame.time for frame in answering.frames] == [START / S + 1]
    assert answering.resets == [None]


def test_trigger_in_continuous_mode_searches_the_whole_map(desk: Callable[..., Desk], answering: Any) -> None:
    d = desk()
    d.frame(START)
    d.answers(1)
    assert d.bridge.trigger() == (True, "the next frame will be localised over the whole map")
    d.frame(START + S)
    d.answers(2)
    assert answering.resets == [None]


def test_trigger_says_when_the_camera_is_dead(desk: Callable[..., Desk]) -> None:
    d = desk(camera_timeout_s=0.1)
    time.sleep(0.15)
    done, text = d.bridge.trigger()
    assert not done and "no image" in text


def test_priors_begin_a_sequence_where_they_say(desk: Callable[..., Desk], answering: Any) -> None:
    d = desk()
    covariance = (25.0, 0.0, 0.0, 0.0, 16.0, 0.0, 0.0, 0.0, 1.0)
    d.send("prior", NavSatFix(Header(Time(1)), NavSatStatus(0), 47.001, 9.501, 0.0, covariance, 2))
    d.frame(START)
    d.answers(1)
    (prior,) = answering.resets
    assert (prior.latitude, prior.longitude, prior.sigma_m) == (47.001, 9.501, 5.0)
    assert answering.frames[0].prior is None  # the tracker has it


def test_without_tracking_a_prior_goes_with_one_frame(desk: Callable[..., Desk], answering: Any) -> None:
    d = desk(tracking=False)
    pose = msgs.PoseWithCovarianceStamped(Header(Time(1), "map"))
    pose.pose.covariance = tuple(25.0 if index in (0, 7) else 0.0 for index in range(36))
    d.send("prior_pose", pose)
    for index in range(2):
        d.frame(START + index * S)
        d.answers(index + 1)
    assert [frame.prior and frame.prior.sigma_m for frame in answering.frames] == [5.0, None]


def test_camera_info_is_used_where_asked_for(desk: Callable[..., Desk], answering: Any) -> None:
    d = desk(use_camera_info=True)
    k = (30.0, 0.0, 11.5, 0.0, 31.0, 11.5, 0.0, 0.0, 1.0)
    d.send("camera_info", msgs.CameraInfo(width=24, height=24, distortion_model="plumb_bob", k=k))
    d.frame(START)
    d.answers(1)
    assert (answering.camera.fx, answering.camera.fy) == (30.0, 31.0)
    assert "camera_info" not in desk().handlers


def test_parameters_that_are_safe_change_while_running(desk: Callable[..., Desk], answering: Any) -> None:
    d = desk()
    changed = d.bridge.update(replace(d.bridge.parameters, height_offset_m=5.0))
    assert changed == {"height_offset_m"}
    d.frame(START)
    d.answers(1)
    assert answering.frames[0].height == 85.0
    with pytest.raises(ParameterError, match="frame_id: takes effect after a restart only"):
        d.bridge.update(replace(d.bridge.parameters, frame_id="other", height_offset_m=6.0))
    assert d.bridge.parameters.height_offset_m == 5.0


def test_only_what_is_asked_for_is_subscribed_to(desk: Callable[..., Desk]) -> None:
    assert set(desk().handlers) == {"image", "height", "prior", "prior_pose", "trigger"}
    d = desk(image_transport="compressed", attitude_source="imu", height_source="range", use_camera_info=True)
    assert set(d.handlers) == {"image/compressed", "camera_info", "imu", "range", "prior", "prior_pose", "trigger"}


def test_an_error_of_the_localiser_is_one_frames_affair(
    desk: Callable[..., Desk], answering: Any, make_fix: Any
) -> None:
    def once(frame: Frame) -> Fix:
        if len(answering.frames) == 1:
            raise RuntimeError("broken")
        return make_fix(frame.time)  # type: ignore[no-any-return]

    answering.answer = once
    d = desk()
    for index in range(2):
        d.frame(START + index * S)
        d.answers(index + 1)
    assert "broken" in reason(d.of(STATUS)[0]) and "Traceback" in d.log[1]
    assert len(d.of(POSE)) == 1


def test_loss_and_recovery_are_logged_once(desk: Callable[..., Desk], answering: Any, make_fix: Any) -> None:
    answering.answer = lambda frame: (
        Fix.none(frame.time, "clouds") if 2 <= len(answering.frames) <= 3 else make_fix(frame.time)
    )
    d = desk()
    for index in range(5):
        d.frame(START + index * S)
        d.answers(index + 1)
    assert d.log[1:] == ["fix, 3.1 m", "no fix: clouds", "fix, 3.1 m"]


def test_a_transport_that_cannot_publish_does_not_end_the_flight(desk: Callable[..., Desk], answering: Any) -> None:
    d = desk(altitude_source="planar")
    publish = d.bridge._publish

    def failing(topic: str, message: Any) -> None:
        if topic == FIX:
            raise OSError("no route")
        publish(topic, message)

    d.bridge._publish = failing
    for index in range(2):
        d.frame(START + index * S)
        d.answers(index + 1)
    assert len(d.of(POSE)) == 2 and any("no route" in line for line in d.log)


def test_a_position_without_covariance_is_not_published(
    desk: Callable[..., Desk], answering: Any, make_fix: Any
) -> None:
    answering.answer = lambda frame: replace(make_fix(frame.time), covariance=np.zeros((2, 2)))
    d = desk(altitude_source="planar")
    d.frame(START)
    (status,) = d.answers(1)
    assert "covariance" in reason(status) and not d.of(FIX) and not d.of(POSE)


ANYTHING = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**63), 2**63), st.floats(), st.text(max_size=8), st.binary(max_size=30)
)
NUMBERS = st.one_of(st.floats(), st.integers(-(2**31), 2**31), st.none(), st.text(max_size=3))


@st.composite
def hostile(draw: st.DrawFn) -> tuple[str, Any]:
    """A message on any input, most of its fields nonsense."""
    header = Header(Time(draw(st.integers(-(2**31), 2**31)), draw(st.integers(0, 2**32))), "x")
    if draw(st.integers(0, 3)) == 0:
        header = draw(st.sampled_from([None, Header(None), Header(Time(None, None))]))  # type: ignore[arg-type]
    topic = draw(st.sampled_from(["image", "imu", "odometry", "range", "altitude", "heading", "prior", "prior_pose"]))
    if topic == "image":
        size = st.integers(0, 2**32)
        encoding = draw(st.sampled_from(["bgr8", "mono8", "bayer_rggb8", "yuyv", "nonsense"]))
        return topic, Image(header, draw(size), draw(size), encoding, 0, draw(size), draw(ANYTHING))
    quaternion = msgs.Quaternion(*(draw(NUMBERS) for _ in range(4)))
    nine = tuple(draw(NUMBERS) for _ in range(draw(st.integers(0, 9))))
    if topic == "imu":
        return topic, Imu(header, quaternion, nine)
    if topic in ("altitude", "heading"):
        return topic, Float64(draw(NUMBERS))
    if topic == "range":
        return topic, msgs.Range(header, 0, 0.0, draw(NUMBERS), draw(NUMBERS), draw(NUMBERS))
    if topic == "prior":
        return topic, NavSatFix(
            header, NavSatStatus(draw(NUMBERS)), draw(NUMBERS), draw(NUMBERS), 0.0, nine, draw(NUMBERS)
        )
    pose = msgs.PoseWithCovariance(msgs.Pose(msgs.Point(*(draw(NUMBERS) for _ in range(3))), quaternion), nine)
    if topic == "odometry":
        return topic, Odometry(header, "b", pose)
    return topic, msgs.PoseWithCovarianceStamped(header, pose)


def test_hostile_messages_do_not_stop_it(desk: Callable[..., Desk]) -> None:
    d = desk(
        attitude_source="imu",
        heading_source="heading",
        height_source="odometry",
        altitude_source="topic",
        altitude_sigma_m=1.0,
        telemetry_wait_s=0.0,
    )
    d.handlers.update({i.topic: i.handler for i in desk(height_source="range").bridge.inputs() if i.topic == "range"})

    @settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.lists(hostile(), min_size=1, max_size=8))
    def attack(messages: list[tuple[str, Any]]) -> None:
        for topic, message in messages:
            d.send(topic, message)

    attack()
    before = len(d.localizer.frames)
    at = START + 10 * S
    for index in range(40):  # after any jump of the clock the next frames count again
        moment = at + index * S // 10
        d.clock = moment
        odometry = Odometry(Header(time_of(moment), "odom"))
        odometry.pose.pose.position.z = 80.0
        d.send("odometry", odometry)
        d.send("image", image(moment))
        time.sleep(0.005)
        if len(d.localizer.frames) > before + 2:
            break
    assert len(d.localizer.frames) > before + 2
    assert d.bridge._worker.is_alive()


def test_a_camera_of_the_bridges_own(desk: Callable[..., Desk], tmp_path: Path) -> None:
    source = tmp_path / "flight.avi"
    writer = cv2.VideoWriter(str(source), cv2.VideoWriter_fourcc(*"MJPG"), 50.0, (64, 48))
    for _ in range(100):
        writer.write(np.full((48, 64, 3), 90, np.uint8))
    writer.release()
    d = desk(camera_source=str(source))
    assert not any(one.topic.startswith("image") for one in d.bridge.inputs())
    end = time.monotonic() + 20.0
    while not d.localizer.frames:
        assert time.monotonic() < end
        d.clock += S // 100
        d.send("height", Float64(80.0))
        time.sleep(0.01)
    assert d.localizer.frames[0].image.shape == (48, 64, 3)
    assert START * 1e-9 <= d.localizer.frames[0].time <= d.clock * 1e-9


def test_a_camera_that_is_none_is_named(desk: Callable[..., Desk]) -> None:
    with pytest.raises(CvglError, match="no such camera"):
        desk(camera_source="nowhere.mp4")
