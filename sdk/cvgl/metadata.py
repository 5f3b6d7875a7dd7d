"""What a photo says about itself: EXIF and XMP in a JPEG's first segments.

A reader of its own rather than a library: it takes the dozen fields that localisation can use, it must never
be brought down by a damaged or hostile file (every offset checked, no recursion, no XML parser), and XMP,
where drones keep height and attitude, is what the EXIF libraries leave out.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path

from cvgl.errors import FlightError
from cvgl.geometry import Attitude

__all__ = ["PhotoMetadata", "parse_metadata", "read_metadata", "scan_position"]

# Segments are at most 64 KiB and cameras write EXIF and XMP first; what lies behind this is previews.
_HEAD_BYTES = 1 << 20
_MAX_ENTRIES = 512
_XMP = b"http://ns.adobe.com/xap/1.0/\x00"
_EXIF = b"Exif\x00\x00"

_MAKE, _MODEL, _DATE, _EXIF_IFD, _GPS_IFD = 0x010F, 0x0110, 0x0132, 0x8769, 0x8825
_DATE_ORIGINAL, _OFFSET, _OFFSET_ORIGINAL, _SUBSEC, _SUBSEC_ORIGINAL = 0x9003, 0x9010, 0x9011, 0x9290, 0x9291
_FOCAL, _FOCAL_35 = 0x920A, 0xA405
_LAT_REF, _LAT, _LON_REF, _LON, _ALT_REF, _ALT = 1, 2, 3, 4, 5, 6

# Both spellings of XMP: ``drone-dji:Name="value"`` and ``<drone-dji:Name>value</drone-dji:Name>``.
_XMP_FIELD = re.compile(
    r"(?<!/)drone-dji:(\w{1,40})\s{0,8}(?:=\s{0,8}(?:\"([^\"<]{0,80})\"|'([^'<]{0,80})')|>([^<]{0,80})<)"
)

_Value = float | str | tuple[float, ...]


@dataclass(frozen=True)
class PhotoMetadata:
    """What one photo says about itself; None for what it does not say.

    Args:
        time: of the exposure, Unix seconds. EXIF times are local: without an offset they are read as UTC.
        time_has_offset: whether the photo said how far its clock was from UTC.
        latitude, longitude: WGS84 degrees, of the camera's own GNSS.
        altitude_m: EXIF's GNSS altitude, metres above mean sea level.
        relative_altitude_m: above take-off, metres (DJI).
        absolute_altitude_m: above mean sea level, metres (DJI).
        flight: the vehicle's attitude (DJI).
        gimbal: the attitude of the camera as the gimbal reports it: pitch -90 looks straight down (DJI).
        focal_length_mm, focal_length_35mm: as recorded; a hint, not a calibration.
        make, model: of the camera.
        width, height: of the image, pixels.
    """

    time: float | None = None
    time_has_offset: bool = False
    latitude: float | None = None
    longitude: float | None = None
    altitude_m: float | None = None
    relative_altitude_m: float | None = None
    absolute_altitude_m: float | None = None
    flight: Attitude | None = None
    gimbal: Attitude | None = None
    focal_length_mm: float | None = None
    focal_length_35mm: float | None = None
    make: str | None = None
    model: str | None = None
    width: int | None = None
    height: int | None = None


def read_metadata(path: str | Path) -> PhotoMetadata:
    """Metadata of an image file; all None for a format other than JPEG.

    Raises:
        FlightError: the file cannot be read at all.
    """
    try:
        with open(path, "rb") as file:
            head = file.read(_HEAD_BYTES)
    except OSError as reason:
        raise FlightError(f"not readable: {reason.strerror}", file=path) from reason
    return parse_metadata(head)


def parse_metadata(data: bytes) -> PhotoMetadata:
    """The same from a JPEG's first bytes. It raises nothing: damaged fields are missing."""
    exif: dict[int, _Value] = {}
    gps: dict[int, _Value] = {}
    xmp: dict[str, str] = {}
    size: tuple[int, int] | None = None
    for marker, start, end in _segments(data):
        if marker == 0xE1 and data.startswith(_EXIF, start, end) and not exif:
            exif, gps = _read_exif(data[start + len(_EXIF) : end])
        elif marker == 0xE1 and data.startswith(_XMP, start, end):
            xmp.update(_read_xmp(data[start + len(_XMP) : end]))
        # SOF0..SOF15 without DHT (C4), JPG (C8) and DAC (CC).
        elif 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC) and end - start >= 5:
            rows, columns = struct.unpack_from(">HH", data, start + 1)
            size = (columns, rows) if rows and columns else size
    time, has_offset = _time(exif)
    latitude, longitude = _position(gps)
    return PhotoMetadata(
        time=time,
        time_has_offset=has_offset,
        latitude=latitude,
        longitude=longitude,
        altitude_m=_altitude(gps),
        relative_altitude_m=_xmp_number(xmp, "RelativeAltitude"),
        absolute_altitude_m=_xmp_number(xmp, "AbsoluteAltitude"),
        flight=_xmp_attitude(xmp, "Flight"),
        gimbal=_xmp_attitude(xmp, "Gimbal"),
        focal_length_mm=_positive(exif.get(_FOCAL)),
        focal_length_35mm=_positive(exif.get(_FOCAL_35)),
        make=_text(exif.get(_MAKE)),
        model=_text(exif.get(_MODEL)),
        width=size[0] if size else None,
        height=size[1] if size else None,
    )


def scan_position(data: bytes) -> int | None:
    """Where a JPEG's compressed picture begins, None if it has none; before it are headers and thumbnails."""
    for marker, _, end in _segments(data):
        if marker == 0xDA:
            return end
    return None


def _segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """A JPEG's segments up to the first scan: marker, start and end of the payload."""
    if not data.startswith(b"\xff\xd8"):
        return
    position = 2
    while position + 4 <= len(data) and data[position] == 0xFF:
        marker = data[position + 1]
        if marker == 0xFF:  # fill byte
            position += 1
            continue
        length = int.from_bytes(data[position + 2 : position + 4], "big")
        end = position + 2 + length
        if length < 2 or end > len(data):
            return
        yield marker, position + 4, end
        if marker == 0xDA:
            return
        position = end


def _read_exif(tiff: bytes) -> tuple[dict[int, _Value], dict[int, _Value]]:
    """The main and EXIF directories' tags together, and the GPS directory's."""
    order = {b"II*\x00": "<", b"MM\x00*": ">"}.get(tiff[:4])
    if order is None or len(tiff) < 8:
        return {}, {}
    main = _read_directory(tiff, order, struct.unpack_from(order + "I", tiff, 4)[0])
    exif_at, gps_at = main.get(_EXIF_IFD), main.get(_GPS_IFD)
    if isinstance(exif_at, float):
        main = {**_read_directory(tiff, order, int(exif_at)), **main}
    return main, _read_directory(tiff, order, int(gps_at)) if isinstance(gps_at, float) else {}


def _read_directory(tiff: bytes, order: str, offset: int) -> dict[int, _Value]:
    if not 8 <= offset <= len(tiff) - 2:
        return {}
    count = struct.unpack_from(order + "H", tiff, offset)[0]
    tags: dict[int, _Value] = {}
    for index in range(min(count, _MAX_ENTRIES)):
        entry = offset + 2 + 12 * index
        if entry + 12 > len(tiff):
            break
        tag, kind, number = struct.unpack_from(order + "HHI", tiff, entry)
        value = _read_value(tiff, order, kind, number, entry + 8)
        if value is not None:
            tags.setdefault(tag, value)
    return tags


def _read_value(tiff: bytes, order: str, kind: int, number: int, inline: int) -> _Value | None:
    """One tag's value: text, a number or a few numbers; None for kinds of no use here and damaged ones."""
    width = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 10: 8}.get(kind)
    if width is None or not 0 < number <= 1024 or (kind != 2 and number > 8):
        return None
    size = width * number
    at = inline if size <= 4 else struct.unpack_from(order + "I", tiff, inline)[0]
    if at + size > len(tiff):
        return None
    if kind == 2:
        return tiff[at : at + size].split(b"\x00", 1)[0].decode("ascii", "replace").strip()
    if kind in (5, 10):
        raw = struct.unpack_from(f"{order}{2 * number}{'I' if kind == 5 else 'i'}", tiff, at)
        values = tuple(a / b if b else math.nan for a, b in zip(raw[::2], raw[1::2], strict=True))
    else:
        values = tuple(map(float, struct.unpack_from(f"{order}{number}{ {1: 'B', 3: 'H', 4: 'I'}[kind] }", tiff, at)))
    return values[0] if number == 1 else values


def _read_xmp(packet: bytes) -> dict[str, str]:
    text = packet.decode("utf-8", "replace")
    return {match[1]: match[2] or match[3] or match[4] or "" for match in _XMP_FIELD.finditer(text)}


def _xmp_number(xmp: dict[str, str], name: str) -> float | None:
    try:
        value = float(xmp[name])
    except (KeyError, ValueError):
        return None
    return value if math.isfinite(value) else None


def _xmp_attitude(xmp: dict[str, str], part: str) -> Attitude | None:
    yaw, pitch, roll = (_xmp_number(xmp, f"{part}{axis}Degree") for axis in ("Yaw", "Pitch", "Roll"))
    if yaw is None or pitch is None or roll is None:
        return None
    # Where angles are not recorded DJI writes zeros; a gimbal that did look at the northern horizon would be
    # of no use here either.
    return None if yaw == pitch == roll == 0.0 else Attitude(yaw, pitch, roll)


def _time(exif: dict[int, _Value]) -> tuple[float | None, bool]:
    for date_tag, offset_tag, subsec_tag in (
        (_DATE_ORIGINAL, _OFFSET_ORIGINAL, _SUBSEC_ORIGINAL),
        (_DATE, _OFFSET, _SUBSEC),
    ):
        try:
            moment = datetime.strptime(str(exif[date_tag])[:19], "%Y:%m:%d %H:%M:%S")
        except (KeyError, ValueError):
            continue
        subsec = str(exif.get(subsec_tag, ""))
        fraction = float(f"0.{subsec}") if re.fullmatch(r"[0-9]{1,9}", subsec) else 0.0
        offset = re.fullmatch(r"([+-])(\d\d):(\d\d)", str(exif.get(offset_tag, "")), re.ASCII)
        ahead = timedelta(0)
        if offset:
            ahead = timedelta(hours=int(offset[2]), minutes=int(offset[3])) * (-1 if offset[1] == "-" else 1)
        seconds = (moment.replace(tzinfo=timezone.utc) - datetime(1970, 1, 1, tzinfo=timezone.utc)) - ahead
        return seconds.total_seconds() + fraction, offset is not None
    return None, False


def _position(gps: dict[int, _Value]) -> tuple[float | None, float | None]:
    latitude = _degrees(gps.get(_LAT), gps.get(_LAT_REF), "NS", 90.0)
    longitude = _degrees(gps.get(_LON), gps.get(_LON_REF), "EW", 180.0)
    # Zero, zero is what receivers write before their first fix.
    if latitude is None or longitude is None or latitude == longitude == 0.0:
        return None, None
    return latitude, longitude


def _degrees(value: _Value | None, reference: _Value | None, signs: str, bound: float) -> float | None:
    if not isinstance(value, tuple) or len(value) != 3 or not isinstance(reference, str) or reference[:1] not in signs:
        return None
    degrees = value[0] + value[1] / 60 + value[2] / 3600
    if not (reference and 0 <= degrees <= bound):
        return None
    return degrees if reference[0] == signs[0] else -degrees


def _altitude(gps: dict[int, _Value]) -> float | None:
    value = gps.get(_ALT)
    if not isinstance(value, float) or not math.isfinite(value):
        return None
    return -value if gps.get(_ALT_REF) == 1.0 else value


def _positive(value: _Value | None) -> float | None:
    return value if isinstance(value, float) and math.isfinite(value) and value > 0 else None


def _text(value: _Value | None) -> str | None:
    return value if isinstance(value, str) and value else None
