"""A mission's laws fitted again to a real flight: what photos score where they are right, and where they are not."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from cvgl.calibrate import RIGHT_M, excess, fit_right, hidden_circle, likeliest, rarest
from cvgl.camera import Camera
from cvgl.errors import FlightError, FrameError
from cvgl.fix import Alternative, Fix, Witnesses
from cvgl.flight import FrameRecord
from cvgl.localizer import Localizer
from cvgl.settings import Decision

__all__ = ["FEWEST_RIGHT", "refit_decision"]

# With fewer places found right a flight says less than simulation does.
FEWEST_RIGHT = 8
# What the laws from simulated frames count for beside the flight, in frames.
_PRIOR_FRAMES = 8.0


def refit_decision(
    localizer: Localizer,
    records: Sequence[FrameRecord],
    cameras: Sequence[Camera],
    *,
    gnss_sigma_m: float = 2.5,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Decision, dict[str, Any]]:
    """The mission's decision with what a flight with GNSS shows of right places, and of chance.

    Each frame is localised on the whole map: a place from which the aircraft's position agrees with GNSS is right.
    Then once more with the tiles around its place hidden, which shows how often chance matches a photo as well. The law
    of right places moves as far as the flight's number of frames allows; the laws of chance keep their shape, and are
    taken to be exceeded as often as the flight shows if that is more than they say.

    Args:
        localizer: of the mission.
        records: the flight's frames; those without GNSS, height or picture are passed over.
        cameras: that took each of them.
        gnss_sigma_m: of one GNSS position, on each axis.
        progress: called with frames done and frames in all.

    Returns:
        The decision, and what it rests on.

    Raises:
        FlightError: too few frames are found where their GNSS puts them.
    """
    decision = localizer.mission.decision
    found: list[Fix] = []
    right: list[Witnesses] = []
    wrong: list[Fix] = []
    usual = localizer.camera
    try:
        for number, (record, camera) in enumerate(zip(records, cameras, strict=True)):
            if progress is not None:
                progress(number, len(records))
            if record.gps_latitude is None or record.gps_longitude is None or record.problem:
                continue
            try:
                frame = record.load()
            except FrameError:
                continue
            easting, northing = localizer.gallery.local.to_local(record.gps_latitude, record.gps_longitude)
            localizer.camera = camera
            found.append(localizer.locate(replace(frame, prior=None)))
            place = _agreeing(found[-1].alternatives, float(easting), float(northing), gnss_sigma_m)
            if place is not None and place.witnesses is not None:
                right.append(place.witnesses)
            hidden = hidden_circle(localizer, float(easting), float(northing))
            wrong.append(localizer.locate_elsewhere(frame, hidden))
    finally:
        localizer.camera = usual
    if progress is not None:
        progress(len(records), len(records))
    if len(right) < FEWEST_RIGHT:
        raise FlightError(
            "too few frames are found where their GNSS puts them to say what right places score",
            found=f"{len(right)} of {len(found)}",
            expected=f"at least {FEWEST_RIGHT}",
        )
    told = [fix for fix in wrong if fix.alternatives]
    fitted = fit_right(decision, right, weight=_PRIOR_FRAMES)
    fitted = replace(fitted, chance_factor=max(decision.chance_factor, excess(decision, told)))
    record_of_it: dict[str, Any] = {
        "frames": len(found),
        "right": len(right),
        "wrong": len(told),
        "before": decision.to_dict(),
        "after": fitted.to_dict(),
        "rarest_by_chance": round(min((rarest(fitted, fix) for fix in told), default=0.0), 2),
        "likeliest_by_chance": round(max((likeliest(fitted, fix) for fix in told), default=0.0), 4),
        "median_probability": {
            name: round(float(np.median([likeliest(which, fix) for fix in found])), 6)
            for name, which in (("before", decision), ("after", fitted))
        },
    }
    return fitted, record_of_it


def _agreeing(
    places: Sequence[Alternative], easting: float, northing: float, gnss_sigma_m: float
) -> Alternative | None:
    """The likeliest place from which the aircraft lies where its GNSS says."""
    for place in places:
        apart = math.hypot(place.easting - easting, place.northing - northing)
        if apart <= math.hypot(RIGHT_M, 3.0 * gnss_sigma_m):
            return place
    return None
