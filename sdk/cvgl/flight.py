"""Recorded flights: folders of frames with their telemetry, read one frame at a time."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from cvgl.camera import Camera
from cvgl.errors import FlightError, FrameError
from cvgl.frame import Frame
from cvgl.geometry import Attitude, gimbal_attitude
from cvgl.metadata import PhotoMetadata, read_metadata, scan_position

__all__ = ["DEFAULT_HEIGHT_M", "IMAGE_SUFFIXES", "Flight", "FrameRecord", "is_recording", "read_image"]

DEFAULT_HEIGHT_M = 50.0
IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp", ".webp"})

_REQUIRED = ("file", "time", "height_above_takeoff_m")
_VELOCITY = ("velocity_east_m_s", "velocity_north_m_s")
# Angles of the optical axis from north and horizon; where they are given they go before the vehicle's.
_GIMBAL = ("gimbal_yaw_deg", "gimbal_pitch_deg", "gimbal_roll_deg")
_ALTITUDES = ("altitude_msl_m", "altitude_ellipsoid_m")
_POSITIONS = (("gps_latitude", "gps_longitude"), ("image_center_latitude", "image_center_longitude"))


@dataclass(frozen=True)
class FrameRecord:
    """One frame of a flight, its picture not read yet. None stands for what is not known.

    Args:
        name: the file's name, as fixes refer to it.
        path: the image file.
        time: of the exposure, Unix seconds or the flight's own clock; NaN where unusable.
        height: above take-off, metres; NaN where unusable.
        heading: degrees clockwise from true north.
        pitch, roll: degrees, nose up and right side down positive.
        gps_latitude, gps_longitude: where the aircraft's own receiver put it, WGS84 degrees. Reference only.
        velocity: (east, north) of the vehicle over ground, m/s, from a source of its own; its sigma beside it.
        center_latitude, center_longitude: where the image's middle really is on the ground. Reference only.
        attitude_moves_camera: whether pitch and roll are those of what carries the camera. False where they
            are the vehicle's and a gimbal keeps them from the camera.
        time_text: the time as the flight wrote it, so that results can be joined to it.
        problem: why this frame cannot be used; empty if it can.
        altitude_msl, altitude_ellipsoid: of the camera above mean sea level and above the WGS84 ellipsoid, metres.
    """

    name: str
    path: Path
    time: float
    height: float
    heading: float | None = None
    pitch: float | None = None
    roll: float | None = None
    gps_latitude: float | None = None
    gps_longitude: float | None = None
    center_latitude: float | None = None
    center_longitude: float | None = None
    velocity: tuple[float, float] | None = None
    velocity_sigma: float | None = None
    attitude_moves_camera: bool = False
    time_text: str = ""
    problem: str = ""
    altitude_msl: float | None = None
    altitude_ellipsoid: float | None = None

    def picture(self) -> NDArray[np.uint8]:
        """Decode the picture alone, (H, W, 3) BGR or (H, W) grey.

        Raises:
            FrameError: the file is absent, unreadable or truncated.
        """
        return read_image(self.path)

    def load(self) -> Frame:
        """Decode the picture.

        Raises:
            FrameError: the record has a problem, or the file is absent, unreadable or truncated.
        """
        if self.problem:
            raise FrameError(self.problem)
        return Frame(
            image=self.picture(),
            time=self.time,
            height=self.height,
            heading=self.heading,
            pitch=self.pitch if self.attitude_moves_camera else None,
            roll=self.roll if self.attitude_moves_camera else None,
            name=self.name,
            velocity=self.velocity,
            velocity_sigma=self.velocity_sigma,
            altitude_msl=self.altitude_msl,
            altitude_ellipsoid=self.altitude_ellipsoid,
        )


@dataclass(frozen=True)
class Flight:
    """A flight in the order in which it was written down.

    Args:
        path: where it was read from.
        records: its frames.
        camera: the flight folder's own camera if it has one, else the one handed to ``open``.
        notes: what was assumed while reading, for people.
    """

    path: Path
    records: tuple[FrameRecord, ...]
    camera: Camera | None = None
    notes: tuple[str, ...] = ()

    @classmethod
    def open(
        cls,
        path: str | Path,
        camera: Camera | None = None,
        *,
        height: float | None = None,
        heading: float | None = None,
        ignore_heading: bool = False,
        topics: Mapping[str, str] | None = None,
    ) -> Flight:
        """Read a flight folder (``frames/``, ``frames.csv``, ``camera.yaml`` or not), photos, or a recording of ROS 2.

        Photos tell time, position, height and attitude by EXIF and DJI's XMP. No picture is decoded yet.

        Args:
            path: the folder, its ``frames.csv``, a photo, or a rosbag2 (``cvgl.ros.bag``).
            camera: the mission's camera; a ``camera.yaml`` in the flight folder goes before it.
            height: metres, for frames that do not say theirs. Without it such photos are taken as 50 m high.
            heading: degrees for the frames that do not say it.
            ignore_heading: take every heading as unknown.
            topics: a recording's topics by role, where it leaves a choice (see ``cvgl.ros.bag.ROLES``).

        Raises:
            FlightError: no such folder, no frames in it, or a ``frames.csv`` that cannot be read.
            CameraError: a ``camera.yaml`` that cannot be used.
        """
        path = Path(path)
        if not path.exists():
            raise FlightError("no such flight", file=path, expected="a flight folder, a folder of photos or a photo")
        folder = path if path.is_dir() else path.parent
        notes: list[str] = []
        if path.is_dir() and (path / "frames.csv").is_file():
            table: Path | None = path / "frames.csv"
        else:
            table = path if path.suffix.lower() == ".csv" else None
        own = folder / "camera.yaml"
        # A lone photo may lie anywhere; a camera.yaml beside it says nothing about it.
        if own.is_file() and (path.is_dir() or table is not None):
            flown = Camera.from_yaml(own)
            if camera is not None and flown != camera:
                notes.append(
                    "the flight's camera.yaml is used; it differs from the mission's camera: "
                    + _differences(flown, camera)
                )
            camera = flown
        moves = camera is not None and not camera.stabilized
        records: Sequence[FrameRecord]
        if is_recording(path):
            from cvgl.ros.bag import read_bag

            records, chosen = read_bag(path, topics, moves=moves, height=height)
            notes += chosen
        elif table is not None:
            records = _read_table(table, folder, moves, height, notes)
        else:
            records = _read_photos(path, moves, height, notes)
        if ignore_heading:
            records = [replace(record, heading=None) for record in records]
            notes.append("recorded headings are ignored")
        elif heading is not None:
            filled = sum(record.heading is None for record in records)
            records = [replace(r, heading=heading) if r.heading is None else r for r in records]
            if filled:
                notes.append(f"{filled} of {len(records)} frames do not tell their heading: taken as {heading:g}")
        return cls(path, tuple(records), camera, tuple(notes))

    def __len__(self) -> int:
        return len(self.records)

    def __iter__(self) -> Iterator[FrameRecord]:
        return iter(self.records)

    def __repr__(self) -> str:
        usable = sum(not record.problem for record in self.records)
        return f"Flight({str(self.path)!r}, {len(self.records)} frames, {usable} usable)"


def is_recording(path: str | Path) -> bool:
    """Whether a path looks like a rosbag2: a folder with ``metadata.yaml``, or one of its files."""
    path = Path(path)
    return path.suffix in (".db3", ".mcap") if path.is_file() else (path / "metadata.yaml").is_file()


def read_image(path: str | Path) -> NDArray[np.uint8]:
    """Decode an image file to (H, W, 3) BGR, uint8, as the sensor delivered it.

    EXIF's orientation is not applied: the calibration knows nothing of it.

    Raises:
        FrameError: absent, no image, or a JPEG that was cut short (decoders fill it up with grey).
    """
    try:
        data = Path(path).read_bytes()
    except OSError as reason:
        raise FrameError(f"not readable: {reason.strerror}", file=path) from reason
    scan = scan_position(data)
    # Inside the compressed picture FF is followed by 00 or a restart marker, so FFD9 can only be its end.
    if data.startswith(b"\xff\xd8") and (scan is None or data.find(b"\xff\xd9", scan) < 0):
        raise FrameError("the image is truncated", file=path, found=f"{len(data)} bytes")
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error:
        image = None
    if image is None:
        raise FrameError("not an image that can be decoded", file=path, found=f"{len(data)} bytes")
    return np.asarray(image, dtype=np.uint8)


def _differences(one: Camera, other: Camera) -> str:
    ours, theirs = one.to_dict(), other.to_dict()
    return ", ".join(f"{name} {ours[name]} instead of {theirs[name]}" for name in ours if ours[name] != theirs[name])


class _BadValueError(ValueError):
    """A cell that is not what its column asks for; the text names the column."""


def _read_table(table: Path, folder: Path, moves: bool, height: float | None, notes: list[str]) -> list[FrameRecord]:
    try:
        with open(table, encoding="utf-8-sig", newline="") as file:
            rows = list(csv.reader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as reason:
        raise FlightError(f"not readable as CSV: {reason}", file=table) from reason
    header = [name.strip() for name in rows[0]] if rows else []
    for name in _REQUIRED:
        if header.count(name) != 1:
            what = "missing column" if name not in header else "column given twice"
            raise FlightError(what, file=table, field=name, found=header, expected=", ".join(_REQUIRED))
    records = []
    naive = 0
    for number, row in enumerate(rows[1:], start=2):
        if not any(cell.strip() for cell in row):
            continue
        cells = {name: cell.strip() for name, cell in zip(header, row, strict=False)}
        record, no_offset = _read_row(cells, number, folder, moves, height)
        naive += no_offset
        records.append(record)
    if not records:
        raise FlightError("no frames", file=table, expected="a row for every frame")
    if naive:
        notes.append(f"{naive} of {len(records)} times have no offset from UTC: read as UTC")
    times = [record.time for record in records if not record.problem]
    if any(later < earlier for earlier, later in pairwise(times)):
        notes.append("the frames are not in order of time")
    return records


def _read_row(
    cells: dict[str, str], number: int, folder: Path, moves: bool, height: float | None
) -> tuple[FrameRecord, bool]:
    """One row's record, and whether its time lacked an offset. Bad cells disable only the frame."""
    problems = []
    numbers: dict[str, float | None] = {}
    columns = (
        "height_above_takeoff_m",
        "yaw_deg",
        "pitch_deg",
        "roll_deg",
        *_VELOCITY,
        "velocity_sigma_m_s",
        *_GIMBAL,
        *_ALTITUDES,
        *(name for pair in _POSITIONS for name in pair),
    )
    for column in columns:
        try:
            numbers[column] = _number(cells.get(column, ""), column)
        except _BadValueError as reason:
            numbers[column] = None
            problems.append(str(reason))
    time, no_offset = math.nan, False
    try:
        time, no_offset = _time(cells.get("time", ""))
    except _BadValueError as reason:
        problems.append(str(reason))
    if numbers["height_above_takeoff_m"] is None:
        numbers["height_above_takeoff_m"] = height
    high = any(numbers[name] is not None for name in _ALTITUDES)
    if numbers["height_above_takeoff_m"] is None and not high and not problems:
        problems.append("height_above_takeoff_m: missing")
    name = cells.get("file", "")
    path = folder / "frames" / name
    if not name:
        problems.append("file: missing")
    elif Path(name).is_absolute() or ".." in Path(name).parts:
        problems.append(f"file: outside the flight folder (found {name!r})")
    for pair in _POSITIONS:
        if None in (numbers[pair[0]], numbers[pair[1]]):
            numbers[pair[0]] = numbers[pair[1]] = None
    east, north = (numbers[column] for column in _VELOCITY)
    yaw, pitch, roll = (numbers[name] for name in _GIMBAL)
    gimbal = None if yaw is None or pitch is None else gimbal_attitude(Attitude(yaw, pitch, roll or 0.0))
    heading = numbers["yaw_deg"] if gimbal is None else gimbal.heading_deg
    record = FrameRecord(
        name=name or f"row {number}",
        path=path,
        time=time,
        height=math.nan if numbers["height_above_takeoff_m"] is None else numbers["height_above_takeoff_m"],
        heading=heading,
        pitch=numbers["pitch_deg"] if gimbal is None else gimbal.pitch_deg,
        roll=numbers["roll_deg"] if gimbal is None else gimbal.roll_deg,
        gps_latitude=numbers["gps_latitude"],
        gps_longitude=numbers["gps_longitude"],
        center_latitude=numbers["image_center_latitude"],
        center_longitude=numbers["image_center_longitude"],
        velocity=None if east is None or north is None else (east, north),
        velocity_sigma=numbers["velocity_sigma_m_s"],
        attitude_moves_camera=moves or gimbal is not None,
        altitude_msl=numbers["altitude_msl_m"],
        altitude_ellipsoid=numbers["altitude_ellipsoid_m"],
        time_text=cells.get("time", ""),
        problem=f"frames.csv row {number}: {'; '.join(problems)}" if problems else "",
    )
    return record, no_offset


def _number(text: str, column: str) -> float | None:
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        raise _BadValueError(f"{column}: not a number (found {text!r})") from None
    if math.isnan(value):
        return None
    bound = {"latitude": 90.0, "longitude": 180.0}.get(column.rsplit("_", 1)[-1], math.inf)
    if math.isinf(value) or abs(value) > bound:
        raise _BadValueError(f"{column}: out of range (found {text!r})")
    return value


def _time(text: str) -> tuple[float, bool]:
    """ISO-8601 or a number of seconds, and whether an ISO time lacked its offset."""
    try:
        value = float(text)
    except ValueError:
        pass
    else:
        if math.isfinite(value):
            return value, False
        raise _BadValueError(f"time: not a time (found {text!r})")
    # Python 3.10 reads neither "Z" nor fractions of other than three or six digits.
    iso = re.sub(r"[zZ]$", "+00:00", text)
    iso = re.sub(r"[.,](\d+)", lambda match: "." + match[1][:6].ljust(6, "0"), iso)
    try:
        moment = datetime.fromisoformat(iso)
        if moment.tzinfo is None:
            return moment.replace(tzinfo=timezone.utc).timestamp(), True
        return moment.timestamp(), False
    except (ValueError, OverflowError):
        expected = "expected ISO-8601 with an offset, or Unix seconds"
        raise _BadValueError(f"time: not a time (found {text!r}, {expected})") from None


def _read_photos(path: Path, moves: bool, height: float | None, notes: list[str]) -> list[FrameRecord]:
    if path.is_dir():
        # A flight folder whose frames.csv was lost still has its photos.
        folder = path / "frames" if (path / "frames").is_dir() else path
        listed = (p for p in folder.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES and not p.is_dir())
        photos = sorted((p for p in listed if not p.name.startswith(".")), key=_natural)
        if not photos:
            raise FlightError("no frames.csv and no photos", file=path, expected=", ".join(sorted(IMAGE_SUFFIXES)))
    elif path.suffix.lower() in IMAGE_SUFFIXES:
        photos = [path]
    else:
        raise FlightError("not a flight", file=path, expected="a flight folder, a folder of photos or a photo")
    records = []
    without = {"time": 0, "offset": 0, "height": 0}
    described = [(photo, _describe(photo)) for photo in photos]
    times = [about.time for _, about in described]
    # Photos without a time are frames like any others: each follows the one before it by name, by a second.
    # Those before the first that tells its time lead up to it.
    first = next((index for index, time in enumerate(times) if time is not None), 0)
    clock = (times[first] or 0.0) - first - 1.0
    for photo, about in described:
        if about.time is None:
            without["time"] += 1
            clock += 1.0
        else:
            without["offset"] += not about.time_has_offset
            clock = about.time
        above = about.relative_altitude_m
        if above is None:
            without["height"] += 1
            above = DEFAULT_HEIGHT_M if height is None else height
        gimbal = None if about.gimbal is None else gimbal_attitude(about.gimbal)
        attitude = gimbal or about.flight
        records.append(
            FrameRecord(
                name=photo.name,
                path=photo,
                time=clock,
                height=above,
                heading=None if attitude is None else attitude.heading_deg,
                pitch=None if attitude is None else attitude.pitch_deg,
                roll=None if attitude is None else attitude.roll_deg,
                gps_latitude=about.latitude,
                gps_longitude=about.longitude,
                attitude_moves_camera=moves or gimbal is not None,
                altitude_msl=about.absolute_altitude_m,
                time_text="" if about.time is None else _iso(clock),
            )
        )
    total = len(records)
    if without["time"]:
        notes.append(f"{without['time']} of {total} photos do not tell their time: taken as 1 s from their neighbour")
    if without["offset"]:
        notes.append(f"{without['offset']} of {total} photos do not tell their clock's offset from UTC: read as UTC")
    if without["height"]:
        taken = DEFAULT_HEIGHT_M if height is None else height
        notes.append(f"{without['height']} of {total} photos do not tell their height: taken as {taken:g} m")
    records.sort(key=lambda record: record.time)
    return records


def _describe(photo: Path) -> PhotoMetadata:
    """A photo that cannot be read stays a frame; loading it will say why."""
    try:
        return read_metadata(photo)
    except FlightError:
        return PhotoMetadata()


def _iso(time: float) -> str:
    return datetime.fromtimestamp(time, timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _natural(path: Path) -> list[tuple[int, int, str]]:
    """Names in the order people count: DJI_9 before DJI_10."""
    parts = re.split(r"(\d+)", path.name.lower())
    return [(int(part.isdecimal()), int(part) if part.isdecimal() else 0, part) for part in parts]
