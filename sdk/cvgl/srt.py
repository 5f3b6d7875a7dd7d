"""DJI's subtitle logs: where the aircraft was, for every frame of a video."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cvgl.errors import FlightError

__all__ = ["TelemetryLog", "read_srt"]

_NUMBER = r"\s*:\s*([-+]?\d+(?:\.\d+)?)"
# Recorders differ in the blanks around the colon; early ones spell it "longtitude".
_FIELDS = {
    "latitude": re.compile("latitude" + _NUMBER),
    "longitude": re.compile("long(?:t)?itude" + _NUMBER),
    "height": re.compile("rel_alt" + _NUMBER),
    "altitude": re.compile("abs_alt" + _NUMBER),
}
_MOMENT = re.compile(r"(\d{4}-\d\d-\d\d) (\d\d:\d\d:\d\d)[.,](\d{1,3})")
_FROM = re.compile(r"(\d+):(\d\d):(\d\d)[,.](\d{3})\s*-->")


@dataclass(frozen=True)
class TelemetryLog:
    """A recorded trajectory; all arrays (N,), in the order of the video's frames.

    Args:
        time: seconds of the recorder's own clock, taken as UTC; of the video where it tells no clock. Never decreasing.
        latitude, longitude: of the aircraft, WGS84 degrees.
        height: above take-off, metres.
        altitude: above mean sea level as the recorder has it, metres; NaN where it does not tell.
    """

    time: NDArray[np.float64]
    latitude: NDArray[np.float64]
    longitude: NDArray[np.float64]
    height: NDArray[np.float64]
    altitude: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.time)


def read_srt(path: str | Path) -> TelemetryLog:
    """Read the log of a DJI video; entries without a position (before the receiver has one) are left out.

    Raises:
        FlightError: no such file, no text, no entry with a position, or none with a height above take-off.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise FlightError("no such file", file=path) from None
    except (OSError, UnicodeDecodeError) as reason:
        raise FlightError(f"not readable as text: {reason}", file=path) from reason
    rows = [row for row in map(_entry, re.split(r"\r?\n\s*\r?\n", text)) if row is not None]
    if not rows:
        raise FlightError(
            "no entry with time, position and height",
            file=path,
            field="latitude, longitude, rel_alt",
            expected="entries such as [latitude: 32.10] [longitude: 35.20] [rel_alt: 19.6 abs_alt: 729.6]",
        )
    table = np.array(rows)
    order = np.argsort(table[:, 0], kind="stable")
    return TelemetryLog(*table[order].T)


def _entry(block: str) -> tuple[float, ...] | None:
    """Time, latitude, longitude, height and altitude of one subtitle, or None where it lacks one of the first four."""
    moment, shown = _MOMENT.search(block), _FROM.search(block)
    time = None
    if moment is not None:
        day, clock, fraction = moment.groups()
        try:
            stamp = datetime.fromisoformat(f"{day}T{clock}").replace(tzinfo=timezone.utc)
        except ValueError:
            return None
        time = stamp.timestamp() + int(fraction) / 10 ** len(fraction)
    elif shown is not None:
        hours, minutes, seconds, milliseconds = map(int, shown.groups())
        time = 3600.0 * hours + 60.0 * minutes + seconds + milliseconds / 1000
    values = {name: pattern.search(block) for name, pattern in _FIELDS.items()}
    latitude, longitude, height = (
        None if found is None else float(found[1])
        for found in (values["latitude"], values["longitude"], values["height"])
    )
    if time is None or latitude is None or longitude is None or height is None:
        return None
    # A recorder without a position writes zeros.
    if (latitude, longitude) == (0.0, 0.0) or not (abs(latitude) <= 90 and abs(longitude) <= 180):
        return None
    altitude = values["altitude"]
    return time, latitude, longitude, height, float("nan") if altitude is None else float(altitude[1])
