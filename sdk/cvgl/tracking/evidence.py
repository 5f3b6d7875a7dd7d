"""What a frame's registered places say to the filter."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cvgl import lasting
from cvgl.fix import Alternative

__all__ = ["Sight", "distinct", "lean_of", "log_ratio", "rotation"]

# However well a place matches, a frame's word counts at most so much, e-folds: places that look alike, or a map that is
# wrong, are not in the laws of chance. So a second frame has to agree before a certain filter gives way.
_LARGEST_LOG_RATIO = math.log(300.0)
# Two registered places closer than this (metres) are one.
_SAME_PLACE_M = 15.0


@dataclass(frozen=True)
class Sight:
    """What one frame adds to the filter.

    Args:
        time: of the exposure, seconds.
        height: above ground as given, metres.
        heading: of the vehicle as given, degrees; None where unknown.
        velocity: (east, north) m/s, mean since the frame before; None where unknown.
        velocity_sigma: of each component, m/s.
        places: what was registered, likeliest first, each place once.
        turned, scaled: what the frame was looked for with: the correction of the heading, degrees, and of the height.
        area: square metres in which the frame was looked for; infinite for all of the map.
        areas: the same for each place, where they were looked for in different ways; empty where all were in ``area``.
        seen: whether the velocity is what the frames themselves show, as `cvgl.tracking.motion.Motion` says.
        lean_m: what the sigma of the camera's tilt is on the ground, metres; 0 where that is not known.
    """

    time: float
    height: float = math.nan
    heading: float | None = None
    velocity: tuple[float, float] | None = None
    velocity_sigma: float = 1.0
    places: tuple[Alternative, ...] = ()
    turned: float = 0.0
    scaled: float = 1.0
    area: float = math.inf
    areas: tuple[float, ...] = ()
    seen: bool = False
    lean_m: float = 0.0


def distinct(alternatives: Sequence[Alternative]) -> tuple[Alternative, ...]:
    """Registered places, each once: of those that lie together the likeliest, which comes first."""
    kept: list[Alternative] = []
    for place in alternatives:
        numbers = [place.easting, place.northing, place.heading_deg, place.height_m, place.log10_odds]
        usable = bool(np.isfinite([*numbers, *place.covariance.ravel(), *place.center_covariance.ravel()]).all())
        apart = (math.hypot(place.easting - k.easting, place.northing - k.northing) for k in kept)
        if usable and place.height_m > 0 and all(distance > _SAME_PLACE_M for distance in apart):
            kept.append(place)
    return tuple(kept)


def log_ratio(place: Alternative) -> float:
    """How much likelier what was seen is with a place right than with none of those searched right: natural logarithm.

    Before any prior on the position, and with retrieval's word in it: over a frame's places it shares one probability.
    """
    return min(place.log10_odds * math.log(10.0), _LARGEST_LOG_RATIO)


def lean_of(lean_m: float, heading_deg: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(2, 2) and (2, 2): what the state's TILT and SWAY move an aircraft's view by, east and north, metres.

    Args:
        lean_m: what the tilt's whole sigma is on the ground.
        heading_deg: of the vehicle.
    """
    turned = lean_m * rotation(heading_deg)
    return lasting.TILT.lasting_sigma * turned, lasting.TILT.passing_sigma * turned


def rotation(heading_deg: float) -> NDArray[np.float64]:
    """(2, 2): forward and right of a vehicle, as columns, east and north."""
    sine, cosine = math.sin(math.radians(heading_deg)), math.cos(math.radians(heading_deg))
    return np.array([[sine, cosine], [cosine, -sine]])
