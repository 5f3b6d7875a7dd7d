"""The node on a real socket against an autopilot that knows nothing of it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from cvgl.fix import Fix, FixStatus
from cvgl.mavlink.signing import Signing

SIGMA = math.sqrt(float(np.linalg.eigvalsh(np.array([[4.0, 1.5], [1.5, 9.0]]))[-1]))
KEY = bytes(range(32))


def ready(one: Any) -> Callable[[], bool]:
    return lambda: one.node._offset.known


def test_px4_gets_what_was_measured_and_when(air: Any, until: Any) -> None:
    one = air()
    until(ready(one))
    (message, *_) = one.fly(lambda: one.autopilot.of("GLOBAL_POSITION_SENSOR"))
    assert (message.target_system, message.target_component, message.id) == (7, 1, 1)
    assert message.source == 2 and message.flags == 0  # vision
    assert (message.get_srcSystem(), message.get_srcComponent()) == (7, 197)
    assert SIGMA <= message.eph < SIGMA * 1.000001
    assert all(math.isnan(value) for value in (message.epv, message.alt, message.alt_ellipsoid))
    exposure = message.time_usec - message.processing_time
    assert min(abs(exposure - frame.time * 1e6) for frame in one.localizer.frames) < 2.0


def test_frames_get_the_telemetry_of_their_exposure(air: Any, until: Any) -> None:
    one = air(wait_s=1.0)
    one.autopilot.pitch = 20.0
    until(ready(one))
    one.fly(lambda: len(one.autopilot.of("GLOBAL_POSITION_SENSOR")) > 1)
    frame = one.localizer.frames[-1]
    assert frame.heading == pytest.approx(30.0, abs=0.1)
    assert (frame.pitch, frame.roll) == pytest.approx((20.0, 0.0), abs=0.1)
    # The range finder leans with the body.
    assert frame.height == pytest.approx(80.0 * math.cos(math.radians(20.0)), abs=0.1)
    assert one.node.values()["height_source"] == "range"


def test_the_autopilots_clock_is_known_to_less_than_the_round_trip(air: Any, until: Any) -> None:
    one = air()
    until(ready(one))
    offset = one.node._offset
    with one.node._worker.changed:
        now, there = one.node._now(), one.autopilot.boot_ns()
        assert abs(offset.ours(there) - now) <= offset.uncertainty(now) + 1e6


def test_timesync_questions_are_answered_on_the_clock_of_the_frames(air: Any, until: Any) -> None:
    one = air()
    until(ready(one))
    one.autopilot.mav.timesync_send(0, 123_456_789)
    (answer,) = until(lambda: [m for m in one.autopilot.of("TIMESYNC") if m.ts1 == 123_456_789])
    assert abs(answer.tc1 - one.node._now()) < 10e9


def test_ardupilot_gets_a_command_with_accuracy_and_processing_time(air: Any, until: Any) -> None:
    one = air("ardupilot")
    until(ready(one))
    (message, *_) = one.fly(lambda: one.autopilot.of("COMMAND_INT"))
    assert (message.command, message.frame) == (43003, 0)
    assert (message.target_system, message.target_component) == (7, 1)
    assert 0.0 <= message.param1 <= 250.0 and 0.0 <= message.param2 < 10.0
    assert SIGMA <= message.param3 < SIGMA * 1.000001 and math.isnan(message.z)
    assert message.x == pytest.approx(47.0e7, abs=2000) and message.y == pytest.approx(9.5e7, abs=2000)
    # The next comes a second later, however many fixes there are.
    one.fly(lambda: len(one.autopilot.of("COMMAND_INT")) >= 2)
    assert int(one.node.values()["withheld"]) > 0


def test_what_the_autopilot_declines_is_told(air: Any, until: Any) -> None:
    one = air("ardupilot")
    until(ready(one))
    one.autopilot.mav.command_ack_send(43003, 2)
    until(lambda: one.node.values()["declined"] == "1")
    assert any("MAV_RESULT_DENIED" in text for _, text in one.log)


def test_gps_input_flags_everything_that_was_not_measured(air: Any, until: Any) -> None:
    one = air("ardupilot", output="gps", sensor=0)
    until(ready(one))
    (message, *_) = one.fly(lambda: one.autopilot.of("GPS_INPUT"))
    # altitude, hdop, vdop, velocities, speed accuracy, vertical accuracy; not the horizontal accuracy.
    assert message.ignore_flags == 0b1011_1111
    assert message.horiz_accuracy >= SIGMA
    assert (message.satellites_visible, message.yaw, message.time_week) == (0, 0, 0)


@pytest.mark.parametrize(("output", "kind"), [("vision", "VISION_POSITION_ESTIMATE"), ("odometry", "ODOMETRY")])
def test_local_positions_wait_for_the_autopilots_origin(output: str, kind: str, air: Any, until: Any) -> None:
    one = air(output=output)
    until(ready(one))
    one.fly(lambda: int(one.node.values()["withheld"]) > 2)
    assert one.autopilot.of(kind) == []
    one.autopilot.mav.gps_global_origin_send(470000000, 95000000, 0)
    (message, *_) = one.fly(lambda: one.autopilot.of(kind))
    assert (message.x, message.y, message.z) == pytest.approx((10.0, 5.0, 0.0), abs=0.05)
    covariance = message.covariance if kind.startswith("VISION") else message.pose_covariance
    assert covariance[0] >= 9.0 and covariance[6] >= 4.0 and covariance[1] == pytest.approx(1.5)
    assert covariance[11] == 1e8  # nobody measured the height
    angles = message.q if kind == "ODOMETRY" else [message.roll, message.pitch, message.yaw]
    assert all(math.isnan(value) for value in angles)


def test_silence_without_a_fix_and_a_text_on_loss_and_recovery(air: Any, until: Any) -> None:
    one = air(lost_s=0.3)
    until(ready(one))
    one.fly(lambda: one.autopilot.of("GLOBAL_POSITION_SENSOR") and one.autopilot.of("STATUSTEXT"))
    one.localizer.answer = lambda frame: Fix.none(frame.time, "image: too dark")
    one.fly(lambda: len(one.autopilot.of("STATUSTEXT")) == 2)
    before = len(one.autopilot.of("GLOBAL_POSITION_SENSOR"))
    count = len(one.localizer.frames)
    one.fly(lambda: len(one.localizer.frames) > count + 5)
    assert len(one.autopilot.of("GLOBAL_POSITION_SENSOR")) == before
    one.localizer.answer = lambda frame: Fix(
        FixStatus.REFINED, frame.time, latitude=47.0, longitude=9.5, covariance=np.eye(2), timings_ms={"all": 1.0}
    )
    one.fly(lambda: len(one.autopilot.of("STATUSTEXT")) == 3)
    texts = [message.text for message in one.autopilot.of("STATUSTEXT")]
    assert texts == ["cvgl: position found", "cvgl: position lost: image: too dark", "cvgl: position found"]


def test_coarse_fixes_are_not_sent_unless_asked_for(air: Any, until: Any, make_fix: Any) -> None:
    one = air()
    one.localizer.answer = lambda frame: make_fix(frame.time, status=FixStatus.COARSE, reason="two places")
    until(ready(one))
    one.fly(lambda: len(one.localizer.frames) > 5)
    assert one.autopilot.of("GLOBAL_POSITION_SENSOR") == []


def test_a_heartbeat_says_what_and_how_it_is(air: Any, until: Any) -> None:
    one = air()
    (beat, *_) = until(lambda: one.autopilot.of("HEARTBEAT"))
    assert (beat.type, beat.autopilot) == (18, 8)
    one.fly(lambda: one.autopilot.of("HEARTBEAT")[-1].system_status == 4)


def test_a_dead_camera_and_silent_telemetry_are_seen(air: Any, until: Any) -> None:
    one = air(camera_timeout_s=0.3)
    until(ready(one))
    one.fly(lambda: one.autopilot.of("GLOBAL_POSITION_SENSOR"))
    until(lambda: "camera: no image" in one.node.state()[1])
    one.autopilot.says_height = False
    one.fly(lambda: "telemetry: nothing usable from height" in one.node.state()[1])
    one.fly(lambda: "height" in one.node._reason)
    one.autopilot.says_height = True
    count = len(one.autopilot.of("GLOBAL_POSITION_SENSOR"))
    one.fly(lambda: len(one.autopilot.of("GLOBAL_POSITION_SENSOR")) > count)


def test_streams_that_do_not_come_are_asked_for(air: Any, until: Any) -> None:
    one = air()
    until(lambda: one.autopilot.of("COMMAND_LONG"))
    asked = {round(message.param1) for message in one.autopilot.of("COMMAND_LONG") if message.command == 511}
    assert 141 in asked  # ALTITUDE


def test_an_autopilot_that_starts_anew_is_synchronised_anew(air: Any, until: Any) -> None:
    one = air()
    until(ready(one))
    one.fly(lambda: one.autopilot.of("GLOBAL_POSITION_SENSOR"))
    one.autopilot.boot_s -= 4000.0
    until(lambda: one.node._offset.jumps == 1)
    count = len(one.autopilot.of("GLOBAL_POSITION_SENSOR"))
    one.fly(lambda: len(one.autopilot.of("GLOBAL_POSITION_SENSOR")) > count + 2)
    assert one.localizer.frames[-1].heading == pytest.approx(30.0, abs=0.1)


def test_late_telemetry_is_told_by_its_stamp(air: Any, until: Any) -> None:
    one = air(wait_s=0.05)
    one.autopilot.heading = 10.0
    until(ready(one))
    one.autopilot.late_s = 0.8
    # Attitude and height of 0.8 s ago are not of this exposure.
    one.fly(lambda: "height" in one.node._reason and "near the exposure" in one.node._reason)
    one.autopilot.late_s = 0.0
    one.fly(lambda: one.autopilot.of("GLOBAL_POSITION_SENSOR"))


def test_exposures_of_a_triggered_camera(air: Any, until: Any) -> None:
    one = air(triggered=True)
    until(ready(one))
    one.frame()
    until(lambda: "no trigger" in one.node._worker.health.message)
    boot = one.autopilot.boot_ns() // 1000
    one.autopilot.mav.camera_trigger_send(boot, 1)
    until(lambda: one.node._telemetry._triggers)
    arrival = one.frame()
    until(lambda: one.localizer.frames)
    exposure = one.localizer.frames[0].time
    assert 0.0 <= arrival * 1e-9 - exposure < 1.0
    with one.node._worker.changed:
        assert exposure == pytest.approx(one.node._offset.ours(boot * 1000) * 1e-9, abs=1e-3)


def test_velocity_only_where_asked_for_believed_and_without_gnss(air: Any, until: Any) -> None:
    one = air(velocity=True)
    until(ready(one))

    def tell(flags: int = 2) -> bool:
        one.autopilot.mav.estimator_status_send(0, flags, *[0.0] * 8)
        boot_ms = one.autopilot.boot_ns() // 1_000_000
        one.autopilot.mav.local_position_ned_send(boot_ms, 0.0, 0.0, 0.0, 3.0, -4.0, 0.0)
        return any(frame.velocity is not None for frame in one.localizer.frames[-2:])

    one.fly(tell)
    assert [f.velocity for f in one.localizer.frames if f.velocity is not None][-1] == pytest.approx((-4.0, 3.0))
    one.autopilot.mav.gps_raw_int_send(0, 3, 0, 0, 0, 100, 100, 0, 0, 12)
    one.fly(lambda: one.node._telemetry._gnss_at > 0)
    one.localizer.frames.clear()
    one.fly(lambda: tell() or len(one.localizer.frames) > 5)
    assert all(frame.velocity is None for frame in one.localizer.frames[1:])


def test_who_has_the_key_is_heard_and_hears(air: Any, until: Any) -> None:
    one = air(pilot={"key": KEY}, signing=Signing(KEY, required=True))
    until(ready(one))
    one.fly(lambda: one.autopilot.of("GLOBAL_POSITION_SENSOR"))
    assert one.node.values()["not_signed"] == one.node.values()["wrongly_signed"] == "0"


@pytest.mark.parametrize(("pilot", "counter"), [({}, "not_signed"), ({"key": KEY[::-1]}, "wrongly_signed")])
def test_who_has_not_is_refused_where_that_is_required(pilot: Any, counter: str, air: Any, until: Any) -> None:
    one = air(pilot=pilot, signing=Signing(KEY, required=True))
    until(lambda: int(one.node.values()[counter]) > 3)
    assert one.node._target is None and "not heard" in one.node.state()[1]


def test_who_does_not_sign_is_heard_where_that_is_accepted(air: Any, until: Any) -> None:
    one = air(signing=Signing(KEY, required=False))
    until(ready(one))


def test_only_the_first_autopilot_is_answered(air: Any, until: Any, pilots: Any) -> None:
    one = air()
    until(ready(one))
    other = pilots.Autopilot(f"udpout:127.0.0.1:{one.port}", system=7, boot_s=9.0).start()
    try:
        other.height_m = 250.0
        until(lambda: int(one.node.values()["foreign"]) > 20)
        one.fly(lambda: len(one.autopilot.of("GLOBAL_POSITION_SENSOR")) > 2)
        assert other.heard == []
        assert {round(frame.height) for frame in one.localizer.frames} == {80}
    finally:
        other.close()


def test_an_autopilot_of_the_other_kind_is_told_of_and_left_alone(air: Any, until: Any, pilots: Any) -> None:
    one = air("px4", pilot={"kind": pilots.ARDUPILOT})
    until(lambda: "is ardupilot, not px4" in one.node.state()[1])
    time.sleep(0.2)
    assert one.autopilot.heard == []


def test_the_measured_position_goes_out_not_the_filters(air: Any, until: Any, make_fix: Any) -> None:
    one = air()

    def answer(frame: Any) -> Fix:
        fix = make_fix(frame.time)
        return replace(fix, measured=replace(fix, latitude=47.5))

    one.localizer.answer = answer
    until(ready(one))
    (message, *_) = one.fly(lambda: one.autopilot.of("GLOBAL_POSITION_SENSOR"))
    assert message.lat == 475000000
