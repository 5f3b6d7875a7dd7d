"""Whether a match is believed, and what the fix then says of its own uncertainty."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from cvgl.fix import Candidate, Fix, FixStatus
from cvgl.frame import Frame
from cvgl.geo import LocalFrame
from cvgl.refine import Hypothesis
from cvgl.settings import Decision, Settings

__all__ = ["decide"]

# Two hypotheses closer than this (metres) are the same answer.
_SAME_ANSWER_M = 10.0
# A coarse fix is good to about the reach of the search around a tile, metres per axis.
_COARSE_SIGMA_M = 15.0


def decide(
    hypotheses: Sequence[Hypothesis],
    frame: Frame,
    candidates: Sequence[Candidate],
    local: LocalFrame,
    settings: Settings,
    decision: Decision,
    tilt_sigma_deg: float,
) -> Fix:
    """The answer for a frame whose hypotheses have been examined.

    Args:
        hypotheses: registered places; none is an answer too.
        frame: what was localised.
        candidates: what retrieval proposed, for the record.
        local: the gallery's local tangent plane.
        settings, decision: of the mission.
        tilt_sigma_deg: of the roll and pitch that the frame was rectified with.
    """
    if not hypotheses:
        reason = "nothing to register: too little of the basemap, or of structure, in view"
        return Fix.none(frame.time, reason, candidates=tuple(candidates), name=frame.name)
    chances = [decision.log10_chances(h.peak.score, h.registration.evidence) for h in hypotheses]
    order = sorted(range(len(hypotheses)), key=lambda index: sum(chances[index]))
    best = hypotheses[order[0]]
    peak_chance, evidence_chance = chances[order[0]]
    total = peak_chance + evidence_chance
    status, reason = _status(peak_chance, evidence_chance, decision)
    place = best.registration
    for index in order[1:]:
        other = hypotheses[index].registration
        apart = math.hypot(other.easting - place.easting, other.northing - place.northing)
        if apart > _SAME_ANSWER_M and sum(chances[index]) - total < math.log10(decision.ambiguity):
            if status is not FixStatus.NO_FIX:
                status, reason = FixStatus.NO_FIX, f"ambiguous: another place {apart:.0f} m away matches as well"
            break
    if status is FixStatus.NO_FIX:
        return Fix.none(
            frame.time,
            reason,
            score=place.votes,
            log10_chance=total,
            candidates=tuple(candidates),
            name=frame.name,
        )
    floor = settings.registration_sigma_m if status is FixStatus.REFINED else _COARSE_SIGMA_M
    center_covariance = place.covariance + floor**2 * np.eye(2)
    offset, offset_covariance = _offset(best, tilt_sigma_deg, settings)
    latitude, longitude = local.to_wgs84(place.easting - offset[0], place.northing - offset[1])
    center_latitude, center_longitude = local.to_wgs84(place.easting, place.northing)
    return Fix(
        status=status,
        time=frame.time,
        reason=reason,
        latitude=float(latitude),
        longitude=float(longitude),
        center_latitude=float(center_latitude),
        center_longitude=float(center_longitude),
        covariance=center_covariance + offset_covariance,
        center_covariance=center_covariance,
        heading_deg=(best.view.heading_deg + place.correction.turn_deg) % 360.0,
        heading_sigma_deg=place.turn_sigma_deg,
        height_m=best.view.height * (1 + place.correction.scale),
        score=place.votes,
        log10_chance=total,
        candidates=tuple(candidates),
        name=frame.name,
    )


def _offset(
    best: Hypothesis, tilt_sigma_deg: float, settings: Settings
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(2,) east and north from the aircraft to the image's middle on the ground, and its (2, 2) covariance.

    The direction of the optical axis is the one that was assumed. The tilt that registration fits is not used: among
    buildings it cannot be told from their lean (on real photos it made the aircraft's position worse), so the tilt's
    own uncertainty, times the height, is what the aircraft's position is uncertain by.
    """
    correction = best.registration.correction
    turn, height = np.radians(correction.turn_deg), best.view.height * (1 + correction.scale)
    east, north = best.view.patches[0.0].offset * (1 + correction.scale)
    offset = np.array([east * np.cos(turn) + north * np.sin(turn), north * np.cos(turn) - east * np.sin(turn)])
    swing = np.radians(best.registration.turn_sigma_deg) * np.array([offset[1], -offset[0]])
    stretch = settings.height_sigma * offset
    lean = height * np.tan(np.radians(tilt_sigma_deg))
    return offset, lean**2 * np.eye(2) + np.outer(swing, swing) + np.outer(stretch, stretch)


def _status(peak: float, evidence: float, decision: Decision) -> tuple[FixStatus, str]:
    witness = math.log10(decision.witness_chance)
    total = peak + evidence
    if peak < witness and evidence < witness and total < math.log10(decision.refined_chance):
        return FixStatus.REFINED, ""
    if peak < witness - 1 and total < math.log10(decision.coarse_chance):
        return FixStatus.COARSE, f"the blocks do not settle it: chance reaches their agreement at 10^{evidence:.1f}"
    return FixStatus.NO_FIX, f"no place stands out: chance alone matches this well at 10^{total:.1f}"
