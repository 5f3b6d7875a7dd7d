"""Frames, signatures, clocks, devices, options: each by itself."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pymavlink.dialects.v20 import ardupilotmega as dialect

from cvgl.errors import CvglError, FrameError
from cvgl.mavlink.framing import Splitter, is_signed, message_id, source_of
from cvgl.mavlink.links import Device, SerialLink, parse_device
from cvgl.mavlink.options import Options
from cvgl.mavlink.signing import Signing, read_key
from cvgl.mavlink.telemetry import Telemetry
from cvgl.mavlink.timesync import ClockOffset, Exchange
from cvgl.node.attitude import Attitude

KEY = bytes(range(32))
EXTRAS = {number: kind.crc_extra for number, kind in dialect.mavlink_map.items()}
S = 10**9


def frame_of(message: Any, key: bytes = b"", timestamp: int = 0, system: int = 7, version_1: bool = False) -> bytes:
    mav = dialect.MAVLink(None, system, 1)
    if key:
        mav.signing.secret_key, mav.signing.sign_outgoing, mav.signing.timestamp = key, True, timestamp
    return bytes(message.pack(mav, force_mavlink1=version_1))


BEAT = dialect.MAVLink_heartbeat_message(2, 12, 0, 0, 4, 3)
ATTITUDE = dialect.MAVLink_attitude_message(1000, 0.1, 0.2, 0.3, 0.0, 0.0, 0.0)


# -- frames ------------------------------------------------------------------------------------------------------


@given(st.binary(max_size=60), st.lists(st.integers(1, 50), max_size=20), st.booleans())
def test_frames_are_found_between_noise_however_they_are_cut(noise: bytes, cuts: list[int], old: bool) -> None:
    frames = [frame_of(BEAT, version_1=old), frame_of(ATTITUDE), frame_of(BEAT)]
    stream = noise.replace(b"\xfd", b"").replace(b"\xfe", b"").join([b"", *frames, b""])
    splitter, found, at = Splitter(EXTRAS), [], 0
    for length in [*cuts, len(stream)]:
        found += splitter.feed(stream[at : at + length])
        at += length
    assert found == frames


@given(st.binary(max_size=3000))
def test_noise_of_any_kind_is_passed_over(noise: bytes) -> None:
    splitter = Splitter(EXTRAS)
    splitter.feed(noise)
    # What noise announced may have to be waited for; no frame is longer than 280 bytes.
    assert frame_of(ATTITUDE) in splitter.feed(frame_of(ATTITUDE) + bytes(300))


def test_what_frames_say_of_themselves() -> None:
    plain, signed, old = frame_of(BEAT), frame_of(ATTITUDE, KEY), frame_of(ATTITUDE, version_1=True)
    assert [is_signed(one) for one in (plain, signed, old)] == [False, True, False]
    assert [message_id(one) for one in (plain, signed, old)] == [0, 30, 30]
    assert {source_of(one) for one in (plain, signed, old)} == {(7, 1)}


def test_a_damaged_frame_costs_no_other() -> None:
    damaged = bytearray(frame_of(ATTITUDE))
    damaged[15] ^= 1
    splitter = Splitter(EXTRAS)
    assert splitter.feed(bytes(damaged) + frame_of(BEAT)) == [frame_of(BEAT)]
    assert splitter.damaged == 1


# -- signatures --------------------------------------------------------------------------------------------------

NOW = 1_750_000_000.0
UNITS = round((NOW - 1_420_070_400) * 100_000)


def signing(required: bool = True) -> Signing:
    return Signing(KEY, required, lambda: NOW)


def test_signatures() -> None:
    one = signing()
    assert one.refusal(frame_of(BEAT)) == "not signed"
    assert one.refusal(frame_of(BEAT, KEY[::-1], UNITS)) == "wrongly signed"
    good = frame_of(BEAT, KEY, UNITS)
    assert one.refusal(good) == ""
    assert one.refusal(good) == "signed in the past"  # sent again by somebody
    assert one.refusal(frame_of(BEAT, KEY, UNITS + 1)) == ""
    assert one.refusal(frame_of(BEAT, KEY, UNITS - 7_000_000, system=8)) == "signed in the past"
    assert one.refusal(frame_of(BEAT, KEY, UNITS - 5_000_000, system=9)) == ""
    assert signing(required=False).refusal(frame_of(BEAT)) == ""


def test_a_forged_time_from_the_future_does_no_harm() -> None:
    one = signing()
    forged = bytearray(frame_of(BEAT, KEY, UNITS + 10**9))
    forged[-1] ^= 1
    assert one.refusal(bytes(forged)) == "wrongly signed"
    assert one.refusal(frame_of(BEAT, KEY, UNITS)) == ""
    assert one.now() < UNITS + 10**6


def test_times_of_what_is_sent_only_go_on_and_follow_what_was_received() -> None:
    one = signing()
    first = one.now()
    assert one.refusal(frame_of(BEAT, KEY, UNITS + 10**8)) == ""
    assert first < one.now() < one.now() and one.now() > UNITS + 10**8


@pytest.mark.parametrize("data", [KEY, KEY.hex().encode(), KEY.hex().encode() + b"\n"])
def test_keys_are_bytes_or_digits(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(data)
    assert read_key(tmp_path / "key") == KEY


@pytest.mark.parametrize("data", [b"", KEY[:31], b"secret", b"\xff" * 64])
def test_other_keys_are_refused(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(data)
    with pytest.raises(CvglError, match="not a signing key"):
        read_key(tmp_path / "key")
    with pytest.raises(CvglError, match="not readable"):
        read_key(tmp_path / "none")


# -- clocks ------------------------------------------------------------------------------------------------------


def ask(sent: int, offset: int, there_ms: float = 1.0, back_ms: float = 1.0) -> Exchange:
    arrived = sent + round(there_ms * 1e6)
    return Exchange(sent, arrived + offset, arrived + round(back_ms * 1e6))


@given(st.integers(-(10**15), 10**17), st.lists(st.tuples(st.floats(0.1, 400), st.floats(0.1, 400)), min_size=5))
def test_the_offset_is_within_its_bound_however_exchanges_are_delayed(
    offset: int, delays: list[tuple[float, float]]
) -> None:
    clock, sent = ClockOffset(), 10**18
    for there, back in delays:
        clock.add(ask(sent, offset, there, back))
        sent += S
    ours = clock.ours(sent + offset)
    assert ours is not None and clock.jumps == 0
    assert abs(ours - sent) <= clock.uncertainty(sent) + 1
    assert clock.uncertainty(sent) <= min(sum(one) for one in delays) * 1e6 / 2 + 1e-4 * S * len(delays) + 1


def test_delayed_answers_have_no_say() -> None:
    clock = ClockOffset()
    for index in range(50):
        clock.add(ask(10**18 + index * S // 10, 5 * S, 1.0, 200.0 if index else 1.0))
    ours = clock.ours(10**18 + 5 * S)
    assert ours is not None and abs(ours - 10**18) < 2e6


def test_one_false_answer_changes_nothing_and_three_alike_do() -> None:
    clock = ClockOffset()
    for index in range(5):
        clock.add(ask(10**18 + index * S, 5 * S))
    clock.add(ask(10**18 + 5 * S, 900 * S))
    clock.add(ask(10**18 + 6 * S, 5 * S))
    clock.add(ask(10**18 + 7 * S, 900 * S))
    clock.add(ask(10**18 + 8 * S, 100 * S))
    assert clock.jumps == 0 and clock.ours(10**18 + 5 * S) == pytest.approx(10**18, abs=1e6)
    for index in range(3):
        clock.add(ask(10**18 + (9 + index) * S, 33 * S))
    assert clock.jumps == 1 and clock.ours(10**18 + 33 * S) == pytest.approx(10**18, abs=1e6)


def test_nothing_is_known_before_three_exchanges_and_impossible_ones_are_refused() -> None:
    clock = ClockOffset()
    assert clock.ours(1) is None and math.isinf(clock.uncertainty(0))
    for one in (Exchange(100, 5, 50), Exchange(0, 5, 2 * S), Exchange(0, -5, 10)):
        clock.add(one)
    assert clock.refused == 3
    clock.add(ask(S, 1))
    clock.add(ask(2 * S, 1))
    assert not clock.known
    clock.add(ask(3 * S, 1))
    assert clock.known


# -- telemetry ---------------------------------------------------------------------------------------------------


def known_clock(offset: int = 0) -> ClockOffset:
    clock = ClockOffset()
    for index in range(3):
        clock.add(ask(S + index, offset))
    return clock


T = 1000 * S
BOOT = T // 1_000_000


def distance(cm: int, orientation: int = 25, quality: int = 0, boot_ms: int = BOOT) -> Any:
    return dialect.MAVLink_distance_sensor_message(
        boot_ms, 20, 10_000, cm, 0, 0, orientation, 255, 0, 0, [0] * 4, quality
    )


def clearance(m: float) -> Any:
    return dialect.MAVLink_altitude_message(0, 0, 0, 0, 0, 0, m)


def terrain(m: float, spacing: int = 100, loaded: int = 500) -> Any:
    return dialect.MAVLink_terrain_report_message(0, 0, spacing, 0, m, 0, loaded)


def relative(m: float) -> Any:
    return dialect.MAVLink_global_position_int_message(BOOT, 0, 0, 0, round(m * 1000), 0, 0, 0, 0)


@pytest.mark.parametrize(
    ("messages", "source", "height"),
    [
        ([relative(90), terrain(80), clearance(70), distance(6000)], "range", 60.0),
        ([relative(90), terrain(80), clearance(70)], "clearance", 70.0),
        ([relative(90), terrain(80), clearance(-1.0), distance(6000, orientation=0)], "terrain", 80.0),
        ([relative(90), terrain(80, spacing=0)], "relative", 90.0),
        ([relative(90), terrain(80, loaded=0), clearance(math.nan)], "relative", 90.0),
    ],
)
def test_the_best_height_that_is_there(messages: list[Any], source: str, height: float) -> None:
    telemetry = Telemetry(known_clock())
    for message in messages:
        telemetry.take(message, T)
    assert telemetry.height_at(T, Attitude(0.0, 0.0, 0.0)) == pytest.approx(height)
    assert telemetry.last_height == source


@pytest.mark.parametrize(("age_s", "source"), [(0.1, "range"), (0.8, "relative"), (1.5, "terrain"), (3.0, None)])
def test_old_heights_are_not_used(age_s: float, source: str | None) -> None:
    telemetry = Telemetry(known_clock())
    for message in (distance(6000), relative(90), terrain(80)):
        telemetry.take(message, T)
    if age_s == 0.8:
        telemetry.heights["terrain"] = type(telemetry.heights["terrain"])(lambda a, b, s: a, 1.0, 1.0)
    later = T + round(age_s * S)
    if source is None:
        with pytest.raises(FrameError, match="no range or clearance or terrain or relative"):
            telemetry.height_at(later, Attitude(0.0, 0.0, 0.0))
    else:
        telemetry.height_at(later, Attitude(0.0, 0.0, 0.0))
        assert telemetry.last_height == source


def test_only_the_height_that_was_chosen() -> None:
    telemetry = Telemetry(known_clock(), "relative")
    for message in (distance(6000), terrain(80), relative(90)):
        telemetry.take(message, T)
    assert telemetry.height_at(T, Attitude(None)) == pytest.approx(90.0)


@pytest.mark.parametrize(
    "message",
    [
        distance(0),
        distance(10),
        distance(20_000),
        distance(500, quality=1),
        relative(-5000),
        terrain(math.inf),
        dialect.MAVLink_attitude_message(BOOT, math.nan, 0, 0, 0, 0, 0),
        dialect.MAVLink_attitude_message(BOOT, 1e9, 0, 0, 0, 0, 0),
        dialect.MAVLink_attitude_quaternion_message(BOOT, 0, 0, 0, 0, 0, 0, 0),
        dialect.MAVLink_attitude_quaternion_message(BOOT, math.nan, 0, 0, 0, 0, 0, 0),
        dialect.MAVLink_attitude_message(BOOT + 1000, 0, 0, 0, 0, 0, 0),  # of the future
        dialect.MAVLink_attitude_message(BOOT - 60_000, 0, 0, 0, 0, 0, 0),  # of a minute ago
        dialect.MAVLink_local_position_ned_message(BOOT, 0, 0, 0, math.inf, 0, 0),
        dialect.MAVLink_camera_trigger_message(1_750_000_000_000_000, 1),
        dialect.MAVLink_gps_global_origin_message(2_000_000_000, 0, 0),
    ],
)
def test_what_cannot_be_used_is_refused(message: Any) -> None:
    with pytest.raises(FrameError):
        Telemetry(known_clock()).take(message, T)


@given(st.floats(-3.1, 3.1), st.floats(-1.4, 1.4), st.floats(-3.1, 3.1))
def test_both_attitudes_say_the_same(roll: float, pitch: float, yaw: float) -> None:
    a, b, c = (np.array([math.cos(v / 2), math.sin(v / 2)]) for v in (roll, pitch, yaw))
    turn = (
        a[0] * b[0] * c[0] + a[1] * b[1] * c[1],
        a[1] * b[0] * c[0] - a[0] * b[1] * c[1],
        a[0] * b[1] * c[0] + a[1] * b[0] * c[1],
        a[0] * b[0] * c[1] - a[1] * b[1] * c[0],
    )
    for message in (
        dialect.MAVLink_attitude_message(BOOT, roll, pitch, yaw, 0, 0, 0),
        dialect.MAVLink_attitude_quaternion_message(BOOT, *turn, 0, 0, 0),
    ):
        telemetry = Telemetry(known_clock())
        telemetry.take(message, T)
        found = telemetry.attitude_at(T)
        assert found.heading is not None
        assert math.cos(math.radians(found.heading) - yaw) == pytest.approx(1.0, abs=1e-6)
        assert (found.pitch, found.roll) == pytest.approx((math.degrees(pitch), math.degrees(roll)), abs=1e-3)


def test_before_the_clocks_are_known_a_message_counts_from_its_arrival() -> None:
    telemetry = Telemetry(ClockOffset())
    telemetry.take(dialect.MAVLink_attitude_message(5, 0, 0, 0, 0, 0, 0), T)
    assert telemetry.attitude_at(T).heading is not None


def test_a_trigger_is_one_frames() -> None:
    telemetry = Telemetry(known_clock())
    telemetry.take(dialect.MAVLink_camera_trigger_message((T - S // 2) // 1000, 1), T)
    telemetry.take(dialect.MAVLink_camera_trigger_message((T - S // 10) // 1000, 2), T)
    found = telemetry.trigger_before(T, 1.0)
    assert found == pytest.approx(T - S // 10, abs=2_000_000)
    assert telemetry.trigger_before(T, 1.0) is None
    telemetry.take(dialect.MAVLink_camera_trigger_message((T + S // 10) // 1000, 3), T)
    assert telemetry.trigger_before(T + 3 * S, 1.0) is None


# -- devices and options -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "device"),
    [
        ("udp:14540", Device("udpin", "127.0.0.1", 14540)),
        ("udpin:10.0.0.2:14540", Device("udpin", "10.0.0.2", 14540)),
        ("udpout:[::1]:14550", Device("udpout", "::1", 14550)),
        ("serial:/dev/ttyTHS1:921600", Device("serial", "/dev/ttyTHS1", 921600)),
        ("serial:/dev/ttyACM0", Device("serial", "/dev/ttyACM0", 57600)),
    ],
)
def test_devices(text: str, device: Device) -> None:
    assert parse_device(text) == device


@pytest.mark.parametrize(
    "text", ["", "udp", "udp:", "tcp:1.2.3.4:5", "udpin:1.2.3.4:0", "udpin:a:b", "serial:/dev/x:no"]
)
def test_what_is_no_device(text: str) -> None:
    with pytest.raises(CvglError, match="not a device"):
        parse_device(text)


def test_a_serial_line_that_is_not_there_is_named() -> None:
    pytest.importorskip("serial")
    with pytest.raises(CvglError, match="ttyNone"):
        SerialLink(Device("serial", "/dev/ttyNone", 57600))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"autopilot": "betaflight"}, "autopilot"),
        ({"autopilot": "px4", "output": "gps"}, "output"),
        ({"autopilot": "px4", "sensor": 0}, "sensor"),
        ({"autopilot": "px4", "rate_hz": math.nan}, "rate_hz"),
        ({"autopilot": "px4", "height": "guess"}, "height"),
        ({"autopilot": "px4", "component": 300}, "component"),
    ],
)
def test_options_that_cannot_be(values: dict[str, Any], message: str) -> None:
    with pytest.raises(CvglError, match=message):
        Options(**values)
