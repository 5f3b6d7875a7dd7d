"""Whether a match is believed, and what the fix then says of its own uncertainty."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cvgl.fix import Alternative, Candidate, Fix, FixStatus
from cvgl.frame import Frame
from cvgl.geo import LocalFrame
from cvgl.ground import ground_from_aircraft
from cvgl.refine import Hypothesis
from cvgl.register import Correction
from cvgl.settings import Decision, Settings

__all__ = ["Scene", "decide"]

# Two hypotheses closer than this (metres) are the same answer.
_SAME_ANSWER_M = 10.0
# A coarse fix is good to about the reach of the search around a tile, metres per axis.
_COARSE_SIGMA_M = 15.0


@dataclass(frozen=True)
class Scene:
    """What the decision needs to know of the gallery and of the frame.

    Args:
        local: the gallery's local tangent plane.
        stride_m: from one tile's centre to the next, metres.
        tilt_sigma_deg: of the roll and pitch that the frame was rectified with.
    """

    local: LocalFrame
    stride_m: float
    tilt_sigma_deg: float


def decide(
    hypotheses: Sequence[Hypothesis],
    frame: Frame,
    candidates: Sequence[Candidate],
    scene: Scene,
    settings: Settings,
    decision: Decision,
) -> Fix:
    """The answer for a frame whose hypotheses have been examined.

    Args:
        hypotheses: registered places; none is an answer too.
        frame: what was localised.
        candidates: what retrieval proposed, best first.
        scene: what is known of gallery and frame.
        settings, decision: of the mission.
    """
    if not hypotheses:
        reason = "nothing to register: too little of the basemap, or of structure, in view"
        return Fix.none(frame.time, reason, candidates=tuple(candidates), name=frame.name)
    chances = [
        (*decision.log10_chances(h.peak.score, h.registration.evidence), math.log10(h.peak.rank)) for h in hypotheses
    ]
    order = sorted(range(len(hypotheses)), key=lambda index: sum(chances[index]))
    best = hypotheses[order[0]]
    product = sum(chances[order[0]])
    total = decision.log10_joint(product)
    place = best.registration
    status, reason = _status(chances[order[0]], total, _retrieved(best, candidates, scene), decision)
    for index in order[1:]:
        other = hypotheses[index].registration
        apart = math.hypot(other.easting - place.easting, other.northing - place.northing)
        if apart > _SAME_ANSWER_M and sum(chances[index]) - product < math.log10(decision.ambiguity):
            if status is not FixStatus.NO_FIX:
                status, reason = FixStatus.NO_FIX, f"ambiguous: another place {apart:.0f} m away matches as well"
            break
    places = tuple(
        _alternative(
            hypotheses[index],
            decision.log10_joint(sum(chances[index])),
            _COARSE_SIGMA_M if index == order[0] and status is FixStatus.COARSE else settings.registration_sigma_m,
            scene,
            settings,
        )
        for index in order
    )
    if status is FixStatus.NO_FIX:
        return Fix.none(
            frame.time,
            reason,
            score=place.votes,
            log10_chance=total,
            candidates=tuple(candidates),
            alternatives=places,
            name=frame.name,
        )
    found = places[0]
    latitude, longitude = scene.local.to_wgs84(found.easting, found.northing)
    center_latitude, center_longitude = scene.local.to_wgs84(found.center_easting, found.center_northing)
    return Fix(
        status=status,
        time=frame.time,
        reason=reason,
        latitude=float(latitude),
        longitude=float(longitude),
        center_latitude=float(center_latitude),
        center_longitude=float(center_longitude),
        covariance=found.covariance,
        center_covariance=found.center_covariance,
        heading_deg=found.heading_deg,
        heading_sigma_deg=found.heading_sigma_deg,
        height_m=found.height_m,
        score=found.score,
        log10_chance=total,
        candidates=tuple(candidates),
        alternatives=places,
        name=frame.name,
    )


def _alternative(
    hypothesis: Hypothesis, log10_chance: float, floor_m: float, scene: Scene, settings: Settings
) -> Alternative:
    """What a registered place says of the aircraft; ``floor_m`` is the sigma of what all its blocks have in common."""
    place = hypothesis.registration
    center_covariance = place.covariance + floor_m**2 * np.eye(2)
    offset, offset_covariance = _offset(hypothesis, scene.tilt_sigma_deg, settings)
    # At a large tilt the patch's centre is not the image's.
    middle = hypothesis.view.middle(place.correction)
    return Alternative(
        easting=place.easting - float(offset[0]),
        northing=place.northing - float(offset[1]),
        center_easting=place.easting + float(middle[0]),
        center_northing=place.northing + float(middle[1]),
        covariance=center_covariance + offset_covariance,
        center_covariance=center_covariance,
        heading_deg=(hypothesis.view.heading_deg + place.correction.turn_deg) % 360.0,
        heading_sigma_deg=place.turn_sigma_deg,
        height_m=hypothesis.view.height * (1 + place.correction.scale),
        score=place.votes,
        log10_chance=log10_chance,
    )


def _offset(
    best: Hypothesis, tilt_sigma_deg: float, settings: Settings
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(2,) east and north from the aircraft to the patch's centre on the ground, and its (2, 2) covariance.

    The direction of the optical axis is the one that was assumed. The tilt that registration fits is not used: among
    buildings it cannot be told from their lean (on real photos it made the aircraft's position worse), so the tilt's
    own uncertainty, times the height, is what the aircraft's position is uncertain by.
    """
    correction = best.registration.correction
    view, height = best.view, best.view.height * (1 + correction.scale)
    rotation = Correction(turn_deg=correction.turn_deg).rotation(view.rotation)
    offset = ground_from_aircraft((0.0, 0.0), view.camera, rotation, height, view.patch.aim)
    swing = np.radians(best.registration.turn_sigma_deg) * np.array([offset[1], -offset[0]])
    stretch = settings.height_sigma * offset
    # A tilt moves what is seen at an offset by more, and by more still along the offset.
    lean = height * np.tan(np.radians(tilt_sigma_deg)) * (np.eye(2) + np.outer(offset, offset) / height**2)
    return offset, lean @ lean + np.outer(swing, swing) + np.outer(stretch, stretch)


def _retrieved(best: Hypothesis, candidates: Sequence[Candidate], scene: Scene) -> bool:
    """Whether retrieval by itself would have answered with this place."""
    if not candidates:
        return False
    east, north = candidates[0].easting - best.registration.easting, candidates[0].northing - best.registration.northing
    return math.hypot(east, north) <= 1.5 * scene.stride_m


def _status(
    chances: tuple[float, float, float], total: float, retrieved: bool, decision: Decision
) -> tuple[FixStatus, str]:
    """The status for three witnesses and their joint chance (log10), and whether retrieval alone would agree."""
    peak, evidence, rank = chances
    witness = math.log10(decision.witness_chance)
    heard = (peak < witness and evidence < witness) or evidence < math.log10(decision.overwhelming_chance)
    if heard and total < math.log10(decision.refined_chance):
        return FixStatus.REFINED, ""
    told = f"chance reaches its peak at 10^{peak:.1f}, its blocks at 10^{evidence:.1f}, its rank at 10^{rank:.1f}"
    # Metres cannot be promised, but the place stands out, and it is where retrieval by itself would have put it.
    if retrieved and total < math.log10(decision.coarse_chance):
        return FixStatus.COARSE, f"not sure to metres: {told}"
    return FixStatus.NO_FIX, f"no place stands out: {told}"
