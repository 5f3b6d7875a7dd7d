"""Recordings of ROS 2 (rosbag2, sqlite3 or MCAP) as flights, and fixes as such a recording. Needs the extra ``bag``.

Telemetry is put to the frames as the live bridge does it: interpolated at the image's stamp, by the same code and with
the same limits of age.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cvgl.errors import CvglError, FlightError, FrameError, MissingDependencyError
from cvgl.fix import Fix
from cvgl.flight import FrameRecord
from cvgl.frame import Frame
from cvgl.node.attitude import Attitude, Turn, attitude_of, interpolate_quaternion
from cvgl.node.claims import horizontal_covariance
from cvgl.node.tracks import NANOSECONDS, Track, linear
from cvgl.ros.images import image_from_fields, image_from_file, to_bgr
from cvgl.ros.incoming import number_of, orientation_of, range_of, stamp_of

__all__ = ["ROLES", "BagRecord", "read_bag", "write_bag"]

_IMAGES = ("sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage")
_IMU, _ODOMETRY, _RANGE = "sensor_msgs/msg/Imu", "nav_msgs/msg/Odometry", "sensor_msgs/msg/Range"
_NUMBER, _POSITION = "std_msgs/msg/Float64", "sensor_msgs/msg/NavSatFix"
#: What a topic can be used for, and the types it can have, the best first.
ROLES: dict[str, tuple[str, ...]] = {
    "image": _IMAGES,
    "attitude": (_IMU, _ODOMETRY),
    "height": (_RANGE, _NUMBER, _ODOMETRY),
    "position": (_POSITION,),
}
# A number may be anything: only these names say that it is a height above ground.
_HEIGHT_NAMES = ("height", "rel_alt", "range", "agl", "bottom_clearance")
_OURS = "visual_localization/"
_AGE_S = 0.5
# A recording's clock is not waited for: whatever is in it is kept.
_KEPT, _NO_JUMP_S = 10**9, 1e9
_HEIGHTS = (-1_000.0, 100_000.0)
_UNKNOWN_VARIANCE = 1e8
_FRAME_ID = "base_link"


@dataclass(frozen=True)
class BagRecord(FrameRecord):
    """A frame of a recording; ``path`` is the recording's.

    Args:
        read: gives the image message, decoded.
    """

    read: Callable[[], tuple[NDArray[np.uint8], str]] | None = None

    def picture(self) -> NDArray[np.uint8]:
        """(H, W, 3) BGR or (H, W) grey.

        Raises:
            FrameError: no image in the message, or none that can be decoded.
        """
        return to_bgr(*self._image())

    def load(self) -> Frame:
        """The frame, in the layout in which it was recorded where the SDK reads that.

        Raises:
            FrameError: the record has a problem, or see ``picture``.
        """
        if self.problem:
            raise FrameError(self.problem)
        image, pixels = self._image()
        return Frame(
            image=image,
            time=self.time,
            height=self.height,
            heading=self.heading,
            pitch=self.pitch if self.attitude_moves_camera else None,
            roll=self.roll if self.attitude_moves_camera else None,
            name=self.name,
            pixels=pixels,
        )

    def _image(self) -> tuple[NDArray[np.uint8], str]:
        if self.read is None:
            raise FrameError("not in the recording", field="image")
        return self.read()


def read_bag(
    path: str | Path, topics: Mapping[str, str] | None = None, *, moves: bool = False, height: float | None = None
) -> tuple[list[BagRecord], list[str]]:
    """The frames of a recording, their pictures not decoded yet.

    Args:
        path: the folder of the recording, or its one file.
        topics: topics by role (``ROLES``) where the recording leaves a choice.
        moves: whether attitudes move the camera (they do not where a gimbal keeps it level).
        height: metres, where no height is recorded near a frame.

    Returns:
        A record for each image, in the order of their stamps, and what was chosen, for people.

    Raises:
        FlightError: not readable, no images, a topic that is not there, or a choice that is not made.
        MissingDependencyError: rosbags is not installed.
    """
    path = Path(path)
    reader = _open(path)
    chosen = _choose(path, reader, dict(topics or {}))
    if "height" not in chosen and height is None:
        raise FlightError(
            "no height", file=path, found=sorted(c.topic for c in reader.connections), expected="--height, or --topic"
        )
    telemetry = _Telemetry(moves)
    images: dict[int, tuple[Any, int]] = {}
    roles = {c.topic: [role for role, found in chosen.items() if c in found] for c in reader.connections}
    unusable: dict[str, str] = {}
    wanted = [c for c in reader.connections if roles[c.topic]]
    for connection, logged, raw in reader.messages(connections=wanted):
        try:
            if "image" in roles[connection.topic]:
                images.setdefault(_stamp_in(raw), (connection, logged))
                continue
            message = reader.deserialize(raw, connection.msgtype)
            for role in roles[connection.topic]:  # an odometry has two
                telemetry.take(role, message, logged)
        except Exception as reason:  # one damaged message does not spoil a recording
            unusable.setdefault(connection.topic, str(reason))
    if not images:
        raise FlightError("no usable image", file=path, found=unusable or None, expected="stamped images")
    records = [
        telemetry.record(stamp, path, height, _reading(reader, connection, logged, stamp))
        for stamp, (connection, logged) in sorted(images.items())
    ]
    notes = [f"{role}: {', '.join(c.topic for c in found)}" for role, found in chosen.items()]
    notes += [f"{topic}: messages that cannot be used, such as: {why}" for topic, why in unusable.items()]
    return records, notes


def write_bag(path: str | Path, fixes: Sequence[Fix], times: Sequence[float]) -> None:
    """Write fixes as a recording: ``visual_localization/fix`` (NavSatFix) for each position, and
    ``visual_localization/status`` (DiagnosticArray) for every frame, stamped with the exposures.

    Nobody measured an altitude: it is 0 with a standard deviation of 10 km, as the bridge's ``planar``.

    Args:
        path: the folder to make; MCAP where its name ends so, else sqlite3.
        fixes: N answers.
        times: N exposures, seconds.

    Raises:
        CvglError: it is there already, or a covariance cannot be used.
        MissingDependencyError: rosbags is not installed.
    """
    path = Path(path)
    if path.exists():
        raise CvglError("is there already", file=path)
    rosbag2, typesys = _rosbags()
    store = typesys.get_typestore(typesys.Stores.ROS2_HUMBLE)
    plugin = rosbag2.StoragePlugin.MCAP if path.suffix == ".mcap" else rosbag2.StoragePlugin.SQLITE3
    partial = path.with_name(path.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        # Its files are named after the folder, which therefore has its own name from the beginning.
        with rosbag2.Writer(partial / path.name, version=8, storage_plugin=plugin) as writer:
            kinds = {"fix": _POSITION, "status": "diagnostic_msgs/msg/DiagnosticArray"}
            connections = {
                name: writer.add_connection(f"/{_OURS}{name}", kind, typestore=store) for name, kind in kinds.items()
            }
            for fix, time in zip(fixes, times, strict=True):
                if not math.isfinite(time):
                    continue
                stamp = round(time * NANOSECONDS)
                for name, message in _messages(store.types, fix, stamp).items():
                    raw = store.serialize_cdr(message, kinds[name])
                    writer.write(connections[name], stamp, bytes(raw))
        (partial / path.name).rename(path)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


class _Telemetry:
    """What is known about the vehicle over the time of a recording."""

    def __init__(self, moves: bool) -> None:
        self._moves = moves
        self._turns: Track[Turn] = Track(interpolate_quaternion, _AGE_S, _NO_JUMP_S, _KEPT)
        self._heights: Track[float] = Track(linear, _AGE_S, _NO_JUMP_S, _KEPT)
        self._leans = False
        self._positions: Track[tuple[float, float]] = Track(_between, _AGE_S, _NO_JUMP_S, _KEPT)

    def take(self, role: str, message: Any, logged: int) -> None:
        """Note a message; one without a stamp counts from when it was recorded."""
        if role == "attitude":
            self._turns.add(stamp_of(message, role), orientation_of(message, role))
        elif role == "position":
            if message.status.status >= 0 and math.isfinite(message.latitude + message.longitude):
                self._positions.add(stamp_of(message, role), (float(message.latitude), float(message.longitude)))
        elif hasattr(message, "max_range"):
            self._leans = True
            self._heights.add(stamp_of(message, role), range_of(message))
        elif hasattr(message, "pose"):
            self._heights.add(stamp_of(message, role), float(message.pose.pose.position.z))
        else:
            self._heights.add(logged, number_of(message, role, *_HEIGHTS))

    def record(
        self, stamp: int, path: Path, height: float | None, read: Callable[[], tuple[NDArray[np.uint8], str]]
    ) -> BagRecord:
        """The frame of a stamp."""
        turn = self._turns.at(stamp)
        attitude = Attitude(None) if turn is None else attitude_of(turn)
        above = self._heights.at(stamp)
        if above is not None and self._leans and attitude.pitch is not None and attitude.roll is not None:
            # The sensor is fixed to the body: its axis leans with it.
            above *= math.cos(math.radians(attitude.pitch)) * math.cos(math.radians(attitude.roll))
        above = height if above is None else above
        position = self._positions.at(stamp)
        name = f"{stamp // NANOSECONDS}.{stamp % NANOSECONDS:09d}"
        return BagRecord(
            name=name,
            path=path,
            time=stamp / NANOSECONDS,
            height=math.nan if above is None else above,
            heading=attitude.heading,
            pitch=attitude.pitch,
            roll=attitude.roll,
            gps_latitude=None if position is None else position[0],
            gps_longitude=None if position is None else position[1],
            attitude_moves_camera=self._moves,
            time_text=name,
            problem="" if above is not None else f"no height within {_AGE_S:g} s of the exposure",
            read=read,
        )


def _rosbags() -> tuple[Any, Any]:
    try:
        from rosbags import rosbag2, typesys
    except ImportError as reason:
        raise MissingDependencyError("recordings need rosbags: pip install 'cvgl[bag]'") from reason
    return rosbag2, typesys


def _open(path: Path) -> Any:
    """rosbags' reader, with the definitions that the recording carries, or those of Humble where it has none."""
    _, typesys = _rosbags()
    from rosbags.highlevel import AnyReader

    try:
        reader = AnyReader([path], default_typestore=typesys.get_typestore(typesys.Stores.ROS2_HUMBLE))
        reader.open()
    except Exception as reason:  # damage shows itself as whatever yaml, sqlite3 or MCAP's reader raises
        raise FlightError(f"not readable as a recording: {reason}", file=path) from reason
    return reader


def _choose(path: Path, reader: Any, named: dict[str, str]) -> dict[str, list[Any]]:
    """Connections by role.

    Raises:
        FlightError: nothing to see, an unknown role or topic, or more than one topic that would do.
    """
    for role in named:
        if role not in ROLES:
            raise FlightError("not a role", file=path, field="topic", found=role, expected=", ".join(ROLES))
    chosen: dict[str, list[Any]] = {}
    for role, kinds in ROLES.items():
        there = [c for c in reader.connections if c.msgtype in kinds and _OURS not in c.topic]
        if role in named:
            found = [c for c in there if c.topic == named[role]]
            if not found:
                topics = sorted({c.topic for c in there})
                raise FlightError(f"no such topic for {role}", file=path, found=named[role], expected=", ".join(topics))
            chosen[role] = found
            continue
        if role == "height":
            there = [c for c in there if c.msgtype != _NUMBER or _says_height(c.topic)]
        best = next((kind for kind in kinds if any(c.msgtype == kind for c in there)), None)
        # Raw and compressed images of one camera are as good as each other, and still a choice to be made.
        there = [c for c in there if c.msgtype == best or role == "image"]
        topics = sorted({c.topic for c in there})
        if len(topics) == 1:
            chosen[role] = there
        elif topics and role != "position":  # which is only compared with
            raise FlightError(
                f"several topics could be the {role}",
                file=path,
                found=topics,
                expected=f"--topic {role}=TOPIC",
            )
    if "image" not in chosen:
        found = sorted({f"{c.topic} ({c.msgtype})" for c in reader.connections})
        raise FlightError("no images", file=path, found=found, expected=" or ".join(_IMAGES))
    return chosen


def _says_height(topic: str) -> bool:
    return any(name in topic.lower() for name in _HEIGHT_NAMES)


def _stamp_in(raw: bytes) -> int:
    """The header's stamp, which comes first in the bytes; the picture behind it is not touched."""
    order = "little" if raw[1] & 1 else "big"
    seconds = int.from_bytes(raw[4:8], order, signed=True)  # type: ignore[arg-type]
    nanoseconds = int.from_bytes(raw[8:12], order)  # type: ignore[arg-type]
    stamp = seconds * NANOSECONDS + nanoseconds
    if stamp <= 0 or nanoseconds >= NANOSECONDS:
        raise FrameError("not stamped", field="image.header.stamp", expected="the time of exposure")
    return stamp


def _reading(reader: Any, connection: Any, logged: int, stamp: int) -> Callable[[], tuple[NDArray[np.uint8], str]]:
    def read() -> tuple[NDArray[np.uint8], str]:
        try:
            # Several may have been recorded at one time.
            there = (raw for _, _, raw in reader.messages(connections=[connection], start=logged, stop=logged + 1))
            found = next((raw for raw in there if _stamp_in(raw) == stamp), None)
            if found is None:
                raise FrameError("not in the recording", field="image")
            message = reader.deserialize(found, connection.msgtype)
        except FrameError:
            raise
        except Exception as reason:  # as in _open
            raise FrameError(f"not readable: {reason}", field="image") from reason
        if connection.msgtype == _IMAGES[1]:
            return image_from_file(message.data), "bgr"
        size = (message.height, message.width, message.step)
        return image_from_fields(message.encoding, *size, message.data)

    return read


def _messages(types: Mapping[str, Any], fix: Fix, stamp: int) -> dict[str, Any]:
    seconds, rest = divmod(stamp, NANOSECONDS)

    def header(frame_id: str) -> Any:
        moment = types["builtin_interfaces/msg/Time"](sec=seconds, nanosec=rest)
        return types["std_msgs/msg/Header"](stamp=moment, frame_id=frame_id)

    pairs = {"status": fix.status.value, "reason": fix.reason, "sigma_m": f"{fix.sigma_m:.2f}"}
    values = [types["diagnostic_msgs/msg/KeyValue"](key=key, value=value) for key, value in pairs.items()]
    level = 0 if fix else 1
    text = fix.reason or fix.status.value
    status = types["diagnostic_msgs/msg/DiagnosticStatus"](level, "cvgl: frame", text, "cvgl", values)
    messages = {"status": types["diagnostic_msgs/msg/DiagnosticArray"](header(""), [status])}
    if fix:
        (east, cross), (_, north) = horizontal_covariance(fix)
        messages["fix"] = types[_POSITION](
            header=header(_FRAME_ID),
            status=types["sensor_msgs/msg/NavSatStatus"](status=0, service=0),
            latitude=fix.latitude,
            longitude=fix.longitude,
            altitude=0.0,
            position_covariance=np.array([east, cross, 0, cross, north, 0, 0, 0, _UNKNOWN_VARIANCE], np.float64),
            position_covariance_type=3,
        )
    return messages


def _between(first: tuple[float, float], second: tuple[float, float], share: float) -> tuple[float, float]:
    return linear(first[0], second[0], share), linear(first[1], second[1], share)
