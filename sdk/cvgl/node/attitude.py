"""Attitudes as quaternions (body forward-left-up in east-north-up) and as flight has them (heading, pitch, roll)."""

from __future__ import annotations

import math
from dataclasses import dataclass

__all__ = ["Attitude", "Turn", "attitude_of", "interpolate_degrees", "interpolate_quaternion", "turn_of"]

#: x, y, z, w of a unit quaternion that turns forward-left-up into east-north-up.
Turn = tuple[float, float, float, float]


@dataclass(frozen=True)
class Attitude:
    """Degrees: heading clockwise from true north, pitch nose up, roll right side down; None where unknown.

    The signs are those of :class:`cvgl.Frame`.
    """

    heading: float | None
    pitch: float | None = None
    roll: float | None = None


def attitude_of(turn: Turn) -> Attitude:
    """Heading, pitch and roll of a unit quaternion (x, y, z, w) that turns forward-left-up into east-north-up.

    Yaw counts anticlockwise from east there, and pitch nose down (REP 103).
    """
    x, y, z, w = turn
    yaw = math.atan2(2 * (w * z + x * y), 1 - 2 * (y * y + z * z))
    pitch = math.asin(max(-1.0, min(1.0, 2 * (w * y - z * x))))
    roll = math.atan2(2 * (w * x + y * z), 1 - 2 * (x * x + y * y))
    return Attitude(math.degrees(math.pi / 2 - yaw) % 360.0, -math.degrees(pitch), math.degrees(roll))


def turn_of(attitude: Attitude) -> Turn:
    """The inverse of :func:`attitude_of`; what is unknown counts as zero."""
    yaw = math.pi / 2 - math.radians(attitude.heading or 0.0)
    pitch = -math.radians(attitude.pitch or 0.0)
    roll = math.radians(attitude.roll or 0.0)
    cy, sy = math.cos(yaw / 2), math.sin(yaw / 2)
    cp, sp = math.cos(pitch / 2), math.sin(pitch / 2)
    cr, sr = math.cos(roll / 2), math.sin(roll / 2)
    return (
        sr * cp * cy - cr * sp * sy,
        cr * sp * cy + sr * cp * sy,
        cr * cp * sy - sr * sp * cy,
        cr * cp * cy + sr * sp * sy,
    )


def interpolate_quaternion(first: Turn, second: Turn, share: float) -> Turn:
    """Between two attitudes a short time apart: the straight line, normalised, along the shorter way."""
    sign = 1.0 if sum(a * b for a, b in zip(first, second, strict=True)) >= 0 else -1.0
    mixed = [(1 - share) * a + sign * share * b for a, b in zip(first, second, strict=True)]
    length = math.sqrt(sum(value * value for value in mixed))
    x, y, z, w = (value / length for value in mixed)
    return x, y, z, w


def interpolate_degrees(first: float, second: float, share: float) -> float:
    """Between two directions along the shorter way, 0 to 360 degrees."""
    return (first + share * ((second - first + 180.0) % 360.0 - 180.0)) % 360.0
