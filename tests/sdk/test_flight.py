"""Reading flights: folders with frames.csv, folders of photos, and files that are not what they should be."""

from __future__ import annotations

import math
import os
import struct
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cvgl.camera import Camera
from cvgl.errors import CameraError, FlightError, FrameError
from cvgl.flight import DEFAULT_HEIGHT_M, Flight, FrameRecord, read_image
from cvgl.geometry import Attitude, Mount, camera_to_enu, gimbal_attitude
from cvgl.metadata import PhotoMetadata, parse_metadata, read_metadata

CAMERA = Camera(64, 48, 60.0, 60.0, 31.5, 23.5)
HEADER = "file,time,gps_latitude,gps_longitude,height_above_takeoff_m,yaw_deg,pitch_deg,roll_deg\n"
ROW = "a.jpg,2024-10-30T10:05:15+08:00,24.26,120.72,119.7,152.1,3.1,-3.9\n"


def picture() -> bytes:
    image = np.random.default_rng(7).integers(0, 255, (48, 64, 3), dtype=np.uint8)
    return cv2.imencode(".jpg", image)[1].tobytes()


PICTURE = picture()


def tiff(order: str, main: list[bytes], exif: list[bytes], gps: list[bytes]) -> bytes:
    """An EXIF block of three directories; entries are made by ``entry`` with data appended behind."""
    out = bytearray((b"II*\x00" if order == "<" else b"MM\x00*") + struct.pack(order + "I", 8))
    directories = [list(main), list(exif), list(gps)]
    sizes = [2 + 12 * (len(main) + 2) + 4, 2 + 12 * len(exif) + 4, 2 + 12 * len(gps) + 4]
    starts = [8, 8 + sizes[0], 8 + sizes[0] + sizes[1]]
    directories[0] += [struct.pack(order + "HHII", 0x8769, 4, 1, starts[1])]
    directories[0] += [struct.pack(order + "HHII", 0x8825, 4, 1, starts[2])]
    data_at = 8 + sum(sizes)
    data = bytearray()
    for directory in directories:
        out += struct.pack(order + "H", len(directory))
        for item in directory:
            head, value = item[:8], item[8:]
            if len(value) > 4:
                data_offset = struct.pack(order + "I", data_at + len(data))
                data += value
                value = data_offset
            out += head + value.ljust(4, b"\x00")
        out += struct.pack(order + "I", 0)
    return bytes(out + data)


def text(order: str, tag: int, value: str) -> bytes:
    raw = value.encode() + b"\x00"
    return struct.pack(order + "HHI", tag, 2, len(raw)) + raw


def rationals(order: str, tag: int, *values: tuple[int, int]) -> bytes:
    body = b"".join(struct.pack(order + "II", *value) for value in values)
    return struct.pack(order + "HHI", tag, 5, len(values)) + body


def xmp(body: str) -> bytes:
    return b"http://ns.adobe.com/xap/1.0/\x00" + f"<x:xmpmeta><rdf:Description {body}</x:xmpmeta>".encode()


def with_segments(*payloads: bytes) -> bytes:
    segments = b"".join(b"\xff\xe1" + struct.pack(">H", len(p) + 2) + p for p in payloads)
    return PICTURE[:2] + segments + PICTURE[2:]


def exif_payload(order: str, offset: str | None = "+08:00") -> bytes:
    dates = [text(order, 0x9003, "2024:10:30 10:05:15"), text(order, 0x9291, "25")]
    if offset is not None:
        dates.append(text(order, 0x9011, offset))
    return b"Exif\x00\x00" + tiff(
        order,
        [text(order, 0x010F, "DJI"), text(order, 0x0110, "FC7303")],
        [*dates, rationals(order, 0x920A, (449, 100)), struct.pack(order + "HHIHH", 0xA405, 3, 1, 24, 0)],
        [
            text(order, 1, "S"),
            rationals(order, 2, (24, 1), (15, 1), (4368, 100)),
            text(order, 3, "E"),
            rationals(order, 4, (120, 1), (43, 1), (1275, 100)),
            struct.pack(order + "HHIB", 5, 1, 1, 1) + b"\x00\x00\x00",
            rationals(order, 6, (375, 10)),
        ],
    )


ATTRIBUTES = (
    'drone-dji:AbsoluteAltitude="+375.62" drone-dji:RelativeAltitude="+119.70" '
    'drone-dji:FlightRollDegree="-3.90" '
    'drone-dji:FlightYawDegree="+152.10" drone-dji:FlightPitchDegree="+3.10"/>'
)
ELEMENTS = (
    "><drone-dji:AbsoluteAltitude>+375.62</drone-dji:AbsoluteAltitude>"
    "<drone-dji:RelativeAltitude>119.7</drone-dji:RelativeAltitude>"
    "<drone-dji:FlightRollDegree>-3.9</drone-dji:FlightRollDegree>"
    "<drone-dji:FlightYawDegree>152.1</drone-dji:FlightYawDegree>"
    "<drone-dji:FlightPitchDegree>3.1</drone-dji:FlightPitchDegree>"
)


def gimbal_xmp(yaw: float, pitch: float, roll: float) -> str:
    return (
        f"drone-dji:GimbalYawDegree='{yaw:+}' drone-dji:GimbalPitchDegree='{pitch:+}' "
        f"drone-dji:GimbalRollDegree='{roll:+}' {ATTRIBUTES}"
    )


def flight_folder(folder: Path, table: str, *names: str) -> Path:
    (folder / "frames").mkdir()
    for name in names:
        (folder / "frames" / name).write_bytes(PICTURE)
    (folder / "frames.csv").write_text(table, encoding="utf-8")
    return folder


class TestMetadata:
    @pytest.mark.parametrize("order", ["<", ">"])
    def test_exif_in_both_byte_orders(self, order: str) -> None:
        about = parse_metadata(with_segments(exif_payload(order)))
        assert about.time == 1730253915.25
        assert about.time_has_offset
        assert about.latitude == pytest.approx(-(24 + 15 / 60 + 43.68 / 3600))
        assert about.longitude == pytest.approx(120 + 43 / 60 + 12.75 / 3600)
        assert about.altitude_m == -37.5
        assert (about.make, about.model) == ("DJI", "FC7303")
        assert (about.focal_length_mm, about.focal_length_35mm) == (4.49, 24.0)
        assert (about.width, about.height) == (64, 48)

    def test_time_without_an_offset_is_read_as_utc_and_says_so(self) -> None:
        about = parse_metadata(with_segments(exif_payload("<", offset=None)))
        assert about.time == 1730253915.25 + 8 * 3600
        assert not about.time_has_offset

    @pytest.mark.parametrize("body", [ATTRIBUTES, ELEMENTS])
    def test_xmp_in_both_spellings(self, body: str) -> None:
        about = parse_metadata(with_segments(xmp(body)))
        assert about.relative_altitude_m == 119.7
        assert about.absolute_altitude_m == 375.62
        assert about.flight == Attitude(152.1, 3.1, -3.9)
        assert about.gimbal is None

    def test_a_gimbal_of_three_zeros_was_not_recorded(self) -> None:
        assert parse_metadata(with_segments(xmp(gimbal_xmp(0, 0, 0)))).gimbal is None
        assert parse_metadata(with_segments(xmp(gimbal_xmp(0, -90, 0)))).gimbal == Attitude(0, -90, 0)

    @pytest.mark.parametrize(
        "data", [b"", b"\xff", b"\xff\xd8", b"\x89PNG\r\n", b"\xff\xd8\xff\xe1\xff\xff", PICTURE[:40]]
    )
    def test_what_says_nothing_gives_nothing(self, data: bytes) -> None:
        assert parse_metadata(data) == PhotoMetadata()

    def test_a_file_that_cannot_be_read(self, tmp_path: Path) -> None:
        with pytest.raises(FlightError, match=r"absent\.jpg"):
            read_metadata(tmp_path / "absent.jpg")

    @settings(max_examples=300, deadline=None)
    @given(
        st.lists(st.tuples(st.integers(0, 700), st.binary(min_size=1, max_size=8)), max_size=12),
        st.integers(0, 1200),
        st.sampled_from("<>"),
    )
    def test_damage_never_raises(self, damage: list[tuple[int, bytes]], cut: int, order: str) -> None:
        data = bytearray(with_segments(exif_payload(order), xmp(gimbal_xmp(10, -80, 1))))
        for at, what in damage:
            data[at : at + len(what)] = what
        about = parse_metadata(bytes(data[: len(data) - cut]))
        numbers = (about.time, about.latitude, about.longitude, about.altitude_m, about.relative_altitude_m)
        assert all(number is None or math.isfinite(number) for number in numbers)
        assert about.latitude is None or abs(about.latitude) <= 90

    @settings(max_examples=200, deadline=None)
    @given(
        st.binary(max_size=400),
        st.sampled_from([b"Exif\x00\x00II*\x00", b"Exif\x00\x00MM\x00*", xmp("drone-dji:")]),
    )
    def test_noise_never_raises(self, noise: bytes, start: bytes) -> None:
        parse_metadata(with_segments(start + noise))

    def test_a_directory_that_points_at_itself_ends(self) -> None:
        looped = b"II*\x00" + struct.pack("<IHHHII", 8, 1, 0x8769, 4, 1, 8) + bytes(8)
        assert parse_metadata(with_segments(b"Exif\x00\x00" + looped)).time is None


def camera_axes_from_gimbal(yaw: float, pitch: float, roll: float) -> np.ndarray:
    """Columns: image right, image down, optical axis in ENU, built from the gimbal's own convention."""
    y, p, r = np.radians([yaw, pitch, roll])
    rz = np.array([[np.cos(y), -np.sin(y), 0], [np.sin(y), np.cos(y), 0], [0, 0, 1]])
    ry = np.array([[np.cos(p), 0, np.sin(p)], [0, 1, 0], [-np.sin(p), 0, np.cos(p)]])
    rx = np.array([[1, 0, 0], [0, np.cos(r), -np.sin(r)], [0, np.sin(r), np.cos(r)]])
    forward, right, down = (rz @ ry @ rx).T
    ned = np.column_stack([right, down, forward])
    return np.array([[0, 1, 0], [1, 0, 0], [0, 0, -1]]) @ ned


class TestGimbal:
    @pytest.mark.parametrize(
        ("gimbal", "camera"),
        [
            ((45.0, -90.0, 0.0), (45.0, 0.0, 0.0)),
            ((45.0, -80.0, 0.0), (45.0, 10.0, 0.0)),
            ((45.0, -90.0, 180.0), (-135.0, 0.0, 0.0)),
            ((-170.0, -90.0, -20.0), (170.0, 0.0, 0.0)),
        ],
    )
    def test_angles(self, gimbal: tuple[float, ...], camera: tuple[float, ...]) -> None:
        found = gimbal_attitude(Attitude(*gimbal))
        assert (found.heading_deg, found.pitch_deg, found.roll_deg) == pytest.approx(camera, abs=1e-9)

    @settings(max_examples=200, deadline=None)
    @given(st.floats(-180, 180), st.floats(-90, 30), st.floats(-180, 180))
    @example(0.0, 0.0, 6.1035e-05)
    @example(30.0, 0.0, 40.0)
    @example(30.0, 1e-7, 1e-7)
    def test_the_camera_looks_where_the_gimbal_says(self, yaw: float, pitch: float, roll: float) -> None:
        a = gimbal_attitude(Attitude(yaw, pitch, roll))
        found = camera_to_enu(Mount(), a.heading_deg, a.pitch_deg, a.roll_deg)
        np.testing.assert_allclose(found, camera_axes_from_gimbal(yaw, pitch, roll), atol=1e-8)


class TestFlightFolder:
    def test_columns_in_any_order_and_more_of_them(self, tmp_path: Path) -> None:
        table = (
            "\ufeff roll_deg,note,height_above_takeoff_m,yaw_deg,file,time,"
            "image_center_latitude,image_center_longitude\n"
            '1.5,"a, b",120,-30, a.jpg ,1730253915.5,24.1,120.2\n\n'
        )
        (record,) = Flight.open(flight_folder(tmp_path, table, "a.jpg"))
        assert (record.name, record.time, record.height, record.heading) == (
            "a.jpg",
            1730253915.5,
            120.0,
            -30.0,
        )
        assert (record.pitch, record.roll) == (None, 1.5)
        assert (record.center_latitude, record.center_longitude) == (24.1, 120.2)
        assert (record.gps_latitude, record.gps_longitude) == (None, None)
        assert record.load().image.shape == (48, 64, 3)

    @pytest.mark.parametrize("name", ["file", "time", "height_above_takeoff_m"])
    def test_a_missing_column_names_file_and_column(self, tmp_path: Path, name: str) -> None:
        folder = flight_folder(tmp_path, HEADER.replace(name, "other") + ROW)
        with pytest.raises(FlightError, match=r"frames\.csv.*missing column") as caught:
            Flight.open(folder)
        assert caught.value.field == name

    def test_yaw_may_be_missing(self, tmp_path: Path) -> None:
        table = "file,time,height_above_takeoff_m\na.jpg,0,100\n"
        (record,) = Flight.open(flight_folder(tmp_path, table, "a.jpg"))
        assert record.heading is None
        assert record.load().heading is None

    @pytest.mark.parametrize("content", ["", HEADER, "\n\n", "file,time,file,height_above_takeoff_m\na,0,a,1\n"])
    def test_tables_without_frames(self, tmp_path: Path, content: str) -> None:
        with pytest.raises(FlightError, match=r"frames\.csv"):
            Flight.open(flight_folder(tmp_path, content))

    def test_a_table_that_is_no_text(self, tmp_path: Path) -> None:
        flight_folder(tmp_path, "")
        (tmp_path / "frames.csv").write_bytes(b"file,time\xff\xfe\x00\n")
        with pytest.raises(FlightError, match="not readable as CSV"):
            Flight.open(tmp_path)

    @pytest.mark.parametrize(
        ("row", "said"),
        [
            ("a.jpg,0,,,high,1,2,3", "height_above_takeoff_m: not a number (found 'high')"),
            ("a.jpg,0,,,,1,2,3", "height_above_takeoff_m: missing"),
            ("a.jpg,0,,,nan,1,2,3", "height_above_takeoff_m: missing"),
            ("a.jpg,0,,,inf,1,2,3", "height_above_takeoff_m: out of range"),
            ("a.jpg,0,,,100,north,2,3", "yaw_deg: not a number"),
            ("a.jpg,0,95,120,100,1,2,3", "gps_latitude: out of range"),
            ("a.jpg,yesterday,,,100,1,2,3", "time: not a time"),
            ("a.jpg,,,,100,1,2,3", "time: not a time"),
            ("a.jpg,nan,,,100,1,2,3", "time: not a time"),
            (",0,,,100,1,2,3", "file: missing"),
            ("../../secret.jpg,0,,,100,1,2,3", "file: outside the flight folder"),
            ("a.jpg", "time: not a time"),
        ],
    )
    def test_a_bad_cell_disables_its_frame_only(self, tmp_path: Path, row: str, said: str) -> None:
        flight = Flight.open(flight_folder(tmp_path, HEADER + row + "\n" + ROW, "a.jpg"))
        bad, good = flight
        assert bad.problem.startswith("frames.csv row 2: ")
        assert said in bad.problem
        with pytest.raises(FrameError, match="row 2"):
            bad.load()
        assert good.problem == ""
        assert good.load().heading == 152.1

    @pytest.mark.parametrize(
        ("written", "seconds"),
        [
            ("2024-10-30T10:05:15+08:00", 1730253915.0),
            ("2024-10-30T02:05:15Z", 1730253915.0),
            ("2024-10-30 02:05:15.5Z", 1730253915.5),
            ("2024-10-30T02:05:15.1234567+00:00", 1730253915.123456),
            ("1730253915.25", 1730253915.25),
            ("12", 12.0),
        ],
    )
    def test_times(self, tmp_path: Path, written: str, seconds: float) -> None:
        table = f"file,time,height_above_takeoff_m\na.jpg,{written},100\n"
        (record,) = Flight.open(flight_folder(tmp_path, table))
        assert record.time == pytest.approx(seconds, abs=1e-6)
        assert record.time_text == written

    def test_a_time_without_an_offset_is_noted(self, tmp_path: Path) -> None:
        table = "file,time,height_above_takeoff_m\na.jpg,2024-10-30T02:05:15,100\n"
        flight = Flight.open(flight_folder(tmp_path, table))
        assert flight.records[0].time == 1730253915.0
        assert any("no offset" in note for note in flight.notes)

    def test_disorder_in_time_is_noted(self, tmp_path: Path) -> None:
        table = "file,time,height_above_takeoff_m\na.jpg,5,100\nb.jpg,4,100\n"
        flight = Flight.open(flight_folder(tmp_path, table))
        assert [record.name for record in flight] == ["a.jpg", "b.jpg"]
        assert any("order of time" in note for note in flight.notes)

    @pytest.mark.parametrize(("stabilized", "handed"), [(True, (None, None)), (False, (3.1, -3.9))])
    def test_the_vehicles_tilt_reaches_only_a_fixed_camera(
        self, tmp_path: Path, stabilized: bool, handed: tuple[float | None, float | None]
    ) -> None:
        camera = Camera(64, 48, 60.0, 60.0, 31.5, 23.5, stabilized=stabilized)
        (record,) = Flight.open(flight_folder(tmp_path, HEADER + ROW, "a.jpg"), camera)
        assert (record.pitch, record.roll) == (3.1, -3.9)
        frame = record.load()
        assert (frame.pitch, frame.roll) == handed
        assert frame.heading == 152.1

    def test_the_flights_own_camera_wins_and_the_difference_is_noted(self, tmp_path: Path) -> None:
        folder = flight_folder(tmp_path, HEADER + ROW, "a.jpg")
        own = Camera(64, 48, 55.0, 60.0, 31.5, 23.5, stabilized=False)
        own.to_yaml(folder / "camera.yaml")
        flight = Flight.open(folder, CAMERA)
        assert flight.camera == own
        assert flight.records[0].attitude_moves_camera
        assert "fx 55.0 instead of 60.0" in flight.notes[0]
        assert Flight.open(folder, own).notes == ()

    def test_a_bad_camera_is_an_error(self, tmp_path: Path) -> None:
        folder = flight_folder(tmp_path, HEADER + ROW, "a.jpg")
        (folder / "camera.yaml").write_text("width: wide\n")
        with pytest.raises(CameraError, match=r"camera\.yaml"):
            Flight.open(folder)

    def test_height_and_heading_fill_only_gaps(self, tmp_path: Path) -> None:
        table = "file,time,height_above_takeoff_m,yaw_deg\na.jpg,0,,\nb.jpg,1,90,45\n"
        a, b = Flight.open(flight_folder(tmp_path, table), height=70.0, heading=10.0)
        assert (a.height, a.heading, a.problem) == (70.0, 10.0, "")
        assert (b.height, b.heading) == (90.0, 45.0)

    def test_headings_can_be_ignored(self, tmp_path: Path) -> None:
        (record,) = Flight.open(flight_folder(tmp_path, HEADER + ROW), ignore_heading=True)
        assert record.heading is None

    def test_the_table_itself_may_be_named(self, tmp_path: Path) -> None:
        folder = flight_folder(tmp_path, HEADER + ROW, "a.jpg")
        assert Flight.open(folder / "frames.csv").records == Flight.open(folder).records

    @pytest.mark.parametrize("target", ["absent", "notes.txt", "empty"])
    def test_what_is_no_flight(self, tmp_path: Path, target: str) -> None:
        (tmp_path / "notes.txt").write_text("x")
        (tmp_path / "empty").mkdir()
        with pytest.raises(FlightError, match=target):
            Flight.open(tmp_path / target)


class TestPictures:
    def test_absent(self, tmp_path: Path) -> None:
        (record,) = Flight.open(flight_folder(tmp_path, HEADER + ROW))
        with pytest.raises(FrameError, match=r"a\.jpg: not readable"):
            record.load()

    @pytest.mark.parametrize("content", [b"", b"not an image", b"\xff\xd8\xff\xd9", PICTURE[:30]])
    def test_no_image(self, tmp_path: Path, content: bytes) -> None:
        path = tmp_path / "a.jpg"
        path.write_bytes(content)
        with pytest.raises(FrameError, match=r"a\.jpg"):
            read_image(path)

    @pytest.mark.parametrize("share", [0.3, 0.6, 0.95, 0.999])
    def test_a_truncated_jpeg_is_refused_whatever_the_decoder_makes_of_it(self, tmp_path: Path, share: float) -> None:
        whole = with_segments(exif_payload("<"))
        path = tmp_path / "a.jpg"
        path.write_bytes(whole[: int(len(whole) * share)])
        with pytest.raises(FrameError, match="truncated"):
            read_image(path)

    def test_bytes_behind_the_picture_are_fine(self, tmp_path: Path) -> None:
        path = tmp_path / "a.jpg"
        path.write_bytes(PICTURE + bytes(5000))
        assert read_image(path).shape == (48, 64, 3)

    def test_orientation_is_not_applied(self, tmp_path: Path) -> None:
        turned = b"Exif\x00\x00" + tiff("<", [struct.pack("<HHIHH", 0x0112, 3, 1, 6, 0)], [], [])
        path = tmp_path / "a.jpg"
        path.write_bytes(with_segments(turned))
        assert read_image(path).shape == (48, 64, 3)


class TestPhotos:
    def test_a_folder_of_photos(self, tmp_path: Path) -> None:
        (tmp_path / "DJI_10.JPG").write_bytes(with_segments(exif_payload("<"), xmp(ATTRIBUTES)))
        (tmp_path / "DJI_9.jpg").write_bytes(with_segments(exif_payload("<"), xmp(gimbal_xmp(20, -85, 0))))
        (tmp_path / "readme.txt").write_text("x")
        (tmp_path / ".hidden.jpg").write_bytes(PICTURE)
        flight = Flight.open(tmp_path, CAMERA)
        nine, ten = flight
        assert (nine.name, ten.name) == ("DJI_9.jpg", "DJI_10.JPG")
        assert (nine.heading, nine.pitch, nine.roll) == pytest.approx((20.0, 5.0, 0.0))
        assert nine.load().pitch == pytest.approx(5.0)  # the gimbal's angles are the camera's
        assert (ten.heading, ten.pitch, ten.roll) == (152.1, 3.1, -3.9)
        assert ten.load().pitch is None  # the vehicle's are not
        assert ten.height == 119.7
        assert ten.gps_latitude == pytest.approx(-24.2621333)
        assert ten.time_text == "2024-10-30T02:05:15.250Z"

    def test_photos_that_say_nothing(self, tmp_path: Path) -> None:
        for name in ("b.png", "a.JPEG"):
            (tmp_path / name).write_bytes(PICTURE)
        flight = Flight.open(tmp_path)
        assert [(r.name, r.time, r.height, r.heading) for r in flight] == [
            ("a.JPEG", 0.0, DEFAULT_HEIGHT_M, None),
            ("b.png", 1.0, DEFAULT_HEIGHT_M, None),
        ]
        assert len(flight.notes) == 2
        assert Flight.open(tmp_path, height=80.0).records[0].height == 80.0

    def test_a_photo_without_time_stays_beside_its_neighbours(self, tmp_path: Path) -> None:
        (tmp_path / "a.jpg").write_bytes(PICTURE)
        (tmp_path / "b.jpg").write_bytes(with_segments(exif_payload("<")))
        (tmp_path / "c.jpg").write_bytes(PICTURE)
        assert [record.time - 1730253915.25 for record in Flight.open(tmp_path)] == [-1.0, 0.0, 1.0]

    def test_a_lone_photo_ignores_what_lies_beside_it(self, tmp_path: Path) -> None:
        (tmp_path / "a.jpg").write_bytes(PICTURE)
        Camera(10, 10, 1.0, 1.0, 0.0, 0.0).to_yaml(tmp_path / "camera.yaml")
        assert Flight.open(tmp_path / "a.jpg", CAMERA).camera == CAMERA

    def test_a_broken_link_is_a_frame_with_a_reason(self, tmp_path: Path) -> None:
        (tmp_path / "a.jpg").write_bytes(PICTURE)
        os.symlink(tmp_path / "nowhere.jpg", tmp_path / "b.jpg")
        _, broken = Flight.open(tmp_path)
        with pytest.raises(FrameError, match="not readable"):
            broken.load()


class TestRealFlights:
    def test_fengyuan(self, cvgl_data: Path) -> None:
        flight = Flight.open(cvgl_data / "flights" / "fengyuan")
        assert len(flight) == 35
        assert sum(record.center_latitude is not None for record in flight) == 31
        assert not any(record.problem for record in flight)
        assert flight.records[0].load().image.shape == (1125, 2000, 3)

    def test_fengyuan_as_bare_photos_agrees_with_its_table(self, cvgl_data: Path) -> None:
        table = {record.name: record for record in Flight.open(cvgl_data / "flights" / "fengyuan")}
        photos = Flight.open(cvgl_data / "flights" / "fengyuan" / "frames")
        assert len(photos) == len(table)
        for photo in photos:
            row = table[photo.name]
            assert photo.height == pytest.approx(row.height, abs=0.05)
            assert photo.heading == pytest.approx(row.heading, abs=0.05)
            assert photo.gps_latitude == pytest.approx(row.gps_latitude, abs=1e-6)

    @pytest.mark.parametrize(
        ("name", "count", "height", "has_heading"),
        [
            ("seneca_reject", 21, DEFAULT_HEIGHT_M, False),
            ("caliterra", 38, DEFAULT_HEIGHT_M, False),
            ("brighton_beach", 19, 39.8, True),
        ],
    )
    def test_photos_of_other_places(
        self, cvgl_data: Path, name: str, count: int, height: float, has_heading: bool
    ) -> None:
        flight = Flight.open(cvgl_data / "flights" / name)
        records = {record.name: record for record in flight}
        assert len(flight) == count
        first = records[min(n for n in records if n != "brighton_beach.jpg")]
        assert first.height == height
        assert first.gps_latitude is not None
        assert (first.heading is not None) == has_heading
        if has_heading:
            assert (first.heading, first.pitch) == pytest.approx((45.0, 0.1))
            assert records["brighton_beach.jpg"].load().height == DEFAULT_HEIGHT_M


@pytest.mark.parametrize(
    ("cells", "velocity", "sigma"),
    [
        ("3.5,-1.25,0.4", (3.5, -1.25), 0.4),
        ("3.5,-1.25,", (3.5, -1.25), None),
        ("3.5,,0.4", None, 0.4),
        (",,", None, None),
    ],
)
def test_velocities_are_read(
    tmp_path: Path, cells: str, velocity: tuple[float, float] | None, sigma: float | None
) -> None:
    (tmp_path / "frames").mkdir()
    (tmp_path / "frames" / "a.jpg").write_bytes(PICTURE)
    columns = "velocity_east_m_s,velocity_north_m_s,velocity_sigma_m_s"
    (tmp_path / "frames.csv").write_text(f"{HEADER.strip()},{columns}\n{ROW.strip()},{cells}\n")
    frame = Flight.open(tmp_path).records[0].load()
    assert (frame.velocity, frame.velocity_sigma) == (velocity, sigma)


class TestGimbalAndAltitude:
    TABLE = "file,time,height_above_takeoff_m,yaw_deg,pitch_deg,roll_deg,{}\na.jpg,1,{},30,2,-3,{}\n"

    def one(self, tmp_path: Path, columns: str, cells: str, height: str = "100") -> FrameRecord:
        flight_folder(tmp_path, self.TABLE.format(columns, height, cells), "a.jpg")
        (found,) = Flight.open(tmp_path)
        return found

    def test_gimbal_angles_go_before_the_vehicle_s(self, tmp_path: Path) -> None:
        columns = "gimbal_yaw_deg,gimbal_pitch_deg,gimbal_roll_deg"
        found = self.one(tmp_path, columns, "90,-60,0")
        assert (found.heading, found.pitch, found.roll) == pytest.approx((90.0, 30.0, 0.0))
        frame = found.load()
        assert (frame.heading, frame.pitch, frame.roll) == pytest.approx((90.0, 30.0, 0.0))

    @pytest.mark.parametrize("cells", [",,", "90,,", ",-60,"])
    def test_where_they_lack_the_vehicle_s_stand(self, tmp_path: Path, cells: str) -> None:
        found = self.one(tmp_path, "gimbal_yaw_deg,gimbal_pitch_deg,gimbal_roll_deg", cells)
        assert (found.heading, found.pitch, found.roll) == (30.0, 2.0, -3.0)
        assert found.load().pitch is None, "a gimbal keeps the vehicle's pitch from the camera"

    def test_an_altitude_does_for_a_height(self, tmp_path: Path) -> None:
        found = self.one(tmp_path, "altitude_msl_m,altitude_ellipsoid_m", "560.5,608", height="")
        assert not found.problem
        frame = found.load()
        frame.check()
        assert math.isnan(frame.height)
        assert (frame.altitude_msl, frame.altitude_ellipsoid) == (560.5, 608.0)

    def test_neither_is_a_problem(self, tmp_path: Path) -> None:
        assert "height_above_takeoff_m" in self.one(tmp_path, "altitude_msl_m", "", height="").problem
