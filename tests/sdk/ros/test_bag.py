"""Recordings of ROS 2 are flights, and fixes become recordings; written and read with rosbags' own definitions."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from cvgl.errors import CvglError, FlightError, FrameError
from cvgl.fix import Fix, FixStatus
from cvgl.flight import Flight
from cvgl.node.attitude import Attitude, turn_of
from cvgl.ros.bag import write_bag

pytest.importorskip("rosbags", reason="rosbags is not installed: pip install 'cvgl[bag]'")
from rosbags.highlevel import AnyReader
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

STORE = get_typestore(Stores.ROS2_HUMBLE)
T = STORE.types
S = 10**9
START = 1_700_000_000 * S
IMAGE, COMPRESSED = "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"
IMU, RANGE, NUMBER = "sensor_msgs/msg/Imu", "sensor_msgs/msg/Range", "std_msgs/msg/Float64"
ODOMETRY, POSITION = "nav_msgs/msg/Odometry", "sensor_msgs/msg/NavSatFix"
NINE = np.zeros(9)


def header(stamp: int) -> Any:
    moment = T["builtin_interfaces/msg/Time"](sec=stamp // S, nanosec=stamp % S)
    return T["std_msgs/msg/Header"](stamp=moment, frame_id="vehicle")


def image(stamp: int, picture: np.ndarray | None = None, encoding: str = "bgr8") -> Any:
    picture = np.full((32, 48, 3), 90, np.uint8) if picture is None else picture
    height, width = picture.shape[:2]
    return T[IMAGE](header(stamp), height, width, encoding, 0, picture.strides[0], picture.ravel())


def compressed(stamp: int, picture: np.ndarray) -> Any:
    _, data = cv2.imencode(".png", picture)
    return T[COMPRESSED](header(stamp), "png", data.ravel())


def imu(stamp: int, attitude: Attitude) -> Any:
    zero = T["geometry_msgs/msg/Vector3"](0.0, 0.0, 0.0)
    return T[IMU](header(stamp), T["geometry_msgs/msg/Quaternion"](*turn_of(attitude)), NINE, zero, NINE, zero, NINE)


def rangefinder(stamp: int, metres: float) -> Any:
    return T[RANGE](header(stamp), 0, 0.01, 0.5, 200.0, metres)


def odometry(stamp: int, attitude: Attitude, z: float) -> Any:
    zero = T["geometry_msgs/msg/Vector3"](0.0, 0.0, 0.0)
    turn = T["geometry_msgs/msg/Quaternion"](*turn_of(attitude))
    pose = T["geometry_msgs/msg/Pose"](T["geometry_msgs/msg/Point"](0.0, 0.0, z), turn)
    twist = T["geometry_msgs/msg/TwistWithCovariance"](T["geometry_msgs/msg/Twist"](zero, zero), np.zeros(36))
    with_covariance = T["geometry_msgs/msg/PoseWithCovariance"](pose, np.zeros(36))
    return T[ODOMETRY](header(stamp), "base_link", with_covariance, twist)


def position(stamp: int, latitude: float, longitude: float, status: int = 0) -> Any:
    state = T["sensor_msgs/msg/NavSatStatus"](status=status, service=1)
    return T[POSITION](header(stamp), state, latitude, longitude, 100.0, NINE, 2)


Lines = list[tuple[str, Any, int]]


@pytest.fixture(params=[StoragePlugin.SQLITE3, StoragePlugin.MCAP], ids=["sqlite3", "mcap"])
def record(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[Lines], Path]:
    def write(lines: Lines) -> Path:
        path = tmp_path / "bag"
        with Writer(path, version=8, storage_plugin=request.param) as writer:
            connections: dict[str, Any] = {}
            for topic, message, logged in lines:
                kind = message.__msgtype__
                if topic not in connections:
                    connections[topic] = writer.add_connection(topic, kind, typestore=STORE)
                raw = message.raw if hasattr(message, "raw") else bytes(STORE.serialize_cdr(message, kind))
                writer.write(connections[topic], logged, raw)
        return path

    return write


def level(heading: float) -> Attitude:
    return Attitude(heading, 0.0, 0.0)


def test_frames_get_the_telemetry_of_their_exposure(record: Callable[[Lines], Path]) -> None:
    path = record(
        [
            ("/imu", imu(START, Attitude(100.0, 30.0, 0.0)), START),
            ("/range", rangefinder(START, 80.0), START),
            # Recorded late: what counts is its stamp.
            ("/imu", imu(START + S // 5, Attitude(110.0, 30.0, 0.0)), START + S // 5),
            ("/camera/image_raw", image(START + S // 10), START + S // 4),
            ("/gps/fix", position(START + S // 10, 47.0, 9.5), START + S // 4),
            ("/camera/image_raw", image(START + 9 * S), START + 9 * S),
        ]
    )
    flight = Flight.open(path)
    first, second = flight.records
    assert first.name == "1700000000.100000000" and first.time == pytest.approx(START / S + 0.1, abs=1e-6)
    assert (first.heading, first.pitch) == pytest.approx((105.0, 30.0), abs=0.2)
    assert first.height == pytest.approx(80.0 * math.cos(math.radians(30.0)), abs=0.01)
    assert (first.gps_latitude, first.gps_longitude) == (47.0, 9.5)
    assert first.load().image.shape == (32, 48, 3)
    assert "no height" in second.problem and math.isnan(second.height)
    assert "image: /camera/image_raw" in flight.notes
    assert Flight.open(path, height=60.0).records[1].height == 60.0


def test_images_of_every_kind(record: Callable[[Lines], Path]) -> None:
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 256, (32, 48, 3), dtype=np.uint8)
    yuyv = rng.integers(0, 256, (32, 48, 2), dtype=np.uint8)
    lines: Lines = [("/height", T[NUMBER](80.0), START)]
    for at, (one, encoding) in enumerate([(picture, "bgr8"), (picture, "rgb8"), (yuyv, "yuv422_yuy2")]):
        lines.append(("/image", image(START + at * S // 10, one, encoding), START))
    lines.append(("/image", image(START + S // 3, picture, "32FC1"), START))
    records = Flight.open(record(lines)).records
    frames = [one.load() for one in records[:3]]
    assert [frame.pixels for frame in frames] == ["bgr", "rgb", "yuyv"]
    for frame, original in zip(frames, [picture, picture, yuyv], strict=True):
        np.testing.assert_array_equal(frame.image, original)
    np.testing.assert_array_equal(records[1].picture(), picture[..., ::-1])
    with pytest.raises(FrameError, match="encoding not supported"):
        records[3].load()


def test_compressed_images_and_an_odometry_for_both(record: Callable[[Lines], Path]) -> None:
    picture = np.random.default_rng(1).integers(0, 256, (32, 48, 3), dtype=np.uint8)
    path = record(
        [
            ("/odom", odometry(START, level(200.0), 55.0), START),
            ("/image/compressed", compressed(START, picture), START),
        ]
    )
    (one,) = Flight.open(path).records
    assert (one.heading, one.height) == pytest.approx((200.0, 55.0))
    np.testing.assert_array_equal(one.load().image, picture)


@pytest.mark.parametrize(
    ("lines", "topics", "message"),
    [
        ([("/imu", imu(START, level(0)), START), ("/range", rangefinder(START, 9.0), START)], {}, "no images"),
        (
            [(name, image(START), START) for name in ("/left", "/right")],
            {},
            r"several topics could be the image.*'/left', '/right'.*--topic image=TOPIC",
        ),
        ([("/left", image(START), START)], {"image": "/up"}, "no such topic for image.*/up.*/left"),
        ([("/left", image(START), START)], {"picture": "/left"}, "not a role"),
        ([("/left", image(START), START)], {}, "no height"),
        ([("/left", image(0), START), ("/height", T[NUMBER](9.0), START)], {}, "no usable image"),
    ],
)
def test_what_a_recording_lacks_is_named(
    lines: Lines, topics: dict[str, str], message: str, record: Callable[[Lines], Path]
) -> None:
    with pytest.raises(FlightError, match=message):
        Flight.open(record(lines), topics=topics)


def test_a_choice_that_was_made(record: Callable[[Lines], Path]) -> None:
    lines: Lines = [(name, image(START), START) for name in ("/left", "/right")]
    lines += [("/imu/a", imu(START, level(10)), START), ("/imu/b", imu(START, level(20)), START)]
    lines += [("/height", T[NUMBER](70.0), START), ("/battery", T[NUMBER](11.7), START)]
    chosen = {"image": "/right", "attitude": "/imu/b"}
    flight = Flight.open(record(lines), topics=chosen)
    assert flight.records[0].heading == pytest.approx(20.0) and flight.records[0].height == 70.0
    assert {"image: /right", "attitude: /imu/b", "height: /height"} <= set(flight.notes)


def test_messages_that_cannot_be_used_are_told(record: Callable[[Lines], Path]) -> None:
    lines: Lines = [("/image", image(START), START), ("/range", rangefinder(START, 80.0), START)]
    lines += [("/range", rangefinder(START + S, math.inf), START + S), ("/image", image(0), START)]
    flight = Flight.open(record(lines))
    assert len(flight) == 1 and any("/range" in note and "nothing in range" in note for note in flight.notes)


@pytest.mark.parametrize("damage", ["metadata.yaml", "data"])
def test_a_damaged_recording_is_refused(damage: str, record: Callable[[Lines], Path]) -> None:
    path = record([("/image", image(START), START), ("/height", T[NUMBER](9.0), START)])
    for file in path.iterdir():
        if (file.name == "metadata.yaml") == (damage == "metadata.yaml"):
            file.write_bytes(b"\x00nothing: [")
    with pytest.raises(FlightError, match="not readable as a recording"):
        Flight.open(path)


# -- writing -----------------------------------------------------------------------------------------------------


def fix(time: float) -> Fix:
    covariance = np.array([[4.0, 1.5], [1.5, 9.0]])
    return Fix(FixStatus.REFINED, time, latitude=47.0, longitude=9.5, covariance=covariance)


@pytest.mark.parametrize("name", ["fixes", "fixes.mcap"])
def test_fixes_as_a_recording(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    moments = [START / S, START / S + 1, math.nan, START / S + 2]
    fixes = [fix(moments[0]), Fix.none(moments[1], "too dark"), fix(math.nan), fix(moments[3])]
    write_bag(path, fixes, moments)
    assert [one.name for one in tmp_path.iterdir()] == [name]
    assert any(file.suffix == (".mcap" if name.endswith("mcap") else ".db3") for file in path.iterdir())
    heard: dict[str, list[Any]] = {}
    with AnyReader([path]) as reader:
        for connection, logged, raw in reader.messages():
            message: Any = reader.deserialize(raw, connection.msgtype)
            heard.setdefault(connection.topic, []).append((logged, message))
    positions = heard["/visual_localization/fix"]
    assert [logged for logged, _ in positions] == [START, START + 2 * S]
    (_, first), _ = positions
    assert (first.header.stamp.sec, first.header.stamp.nanosec, first.header.frame_id) == (START // S, 0, "base_link")
    # What robot_localization asks for: an altitude that is a number, a covariance that is none of certainty.
    covariance = np.reshape(first.position_covariance, (3, 3))
    assert first.status.status == 0 and first.position_covariance_type == 3 and math.isfinite(first.altitude)
    np.testing.assert_array_equal(covariance[:2, :2], fixes[0].covariance)
    assert np.linalg.eigvalsh(covariance)[0] > 0 and covariance[2, 2] == 1e8
    texts = [message.status[0].message for _, message in heard["/visual_localization/status"]]
    assert texts == ["refined", "too dark", "refined"]


def test_nothing_is_written_over_or_half(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    with pytest.raises(CvglError, match="is there already"):
        write_bag(tmp_path / "there", [], [])
    with pytest.raises(CvglError, match="covariance"):
        write_bag(tmp_path / "new", [Fix(FixStatus.REFINED, 1.0, latitude=1.0, longitude=2.0)], [1.0])
    assert [one.name for one in tmp_path.iterdir()] == ["there"]


# -- the command -------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_recording_is_located_like_the_flight(
    record: Callable[[Lines], Path], town: Path, mission: Path, tmp_path: Path
) -> None:
    from cvgl.cli.locate import app

    with open(town / "flight" / "frames.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    lines: Lines = []
    flight = Flight.open(town / "flight")
    for row, one in zip(rows[:4], flight.records[:4], strict=True):
        stamp = round(one.time * S)
        assert one.heading is not None
        lines.append(("/imu", imu(stamp, level(one.heading)), stamp))
        lines.append(("/range", rangefinder(stamp, one.height), stamp))
        lines.append(("/image", image(stamp, cv2.imread(str(town / "flight" / "frames" / row["file"]))), stamp))
    path = record(lines)

    def located(source: Path, *options: str) -> list[dict[str, str]]:
        out = tmp_path / f"out-{source.name}"
        arguments = [str(mission), str(source), "--out", str(out), "--independent", "--threads", "1", *options]
        done = CliRunner().invoke(app, arguments)
        assert done.exit_code == 0, done.output
        with open(out / "fixes.csv", encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file))

    ours, theirs = located(path, "--bag", str(tmp_path / "fixes")), located(town / "flight")[:4]
    assert len(ours) == 4 and any(row["status"] == "refined" for row in ours)
    for one, other in zip(ours, theirs, strict=True):
        assert one["status"] == other["status"]
        if one["latitude"]:
            assert float(one["latitude"]) == pytest.approx(float(other["latitude"]), abs=2e-6)
    assert (tmp_path / "out-bag" / "report.html").stat().st_size > 10_000
    with AnyReader([tmp_path / "fixes"]) as reader:
        fixes = [1 for connection, _, _ in reader.messages() if connection.topic.endswith("fix")]
    assert len(fixes) == sum(row["status"] != "no_fix" for row in ours)
