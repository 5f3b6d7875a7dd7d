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
from cvgl.refine import Hypothesis
from cvgl.settings import Decision, Settings

__all__ = ["Scene", "beyond_doubt", "decide", "disagreement"]

# Two hypotheses closer than this (metres) are the same answer.
_SAME_ANSWER_M = 10.0
# Registration and local features mean the same place up to here, pixels of the basemap: both are off by some where
# buildings lean.
_AGREE_PX = 8.0
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
    chances = [_chances(h, decision) for h in hypotheses]
    order = sorted(range(len(hypotheses)), key=lambda index: sum(chances[index].values()))
    best = hypotheses[order[0]]
    total = _joint(chances[order[0]], decision)
    place = best.registration
    status, reason = _status(chances[order[0]], total, _retrieved(best, candidates, scene), decision)
    if status is not FixStatus.REFINED and disagreement(best):
        reason = f"{reason} ({disagreement(best)})"
    rival = _rival(hypotheses, chances, order, decision)
    if rival is not None and status is not FixStatus.NO_FIX:
        status, reason = FixStatus.NO_FIX, f"ambiguous: another place {rival:.0f} m away matches as well"
    places = tuple(
        _alternative(
            hypotheses[index],
            _joint(chances[index], decision),
            math.hypot(
                _COARSE_SIGMA_M if index == order[0] and status is FixStatus.COARSE else settings.registration_sigma_m,
                _dissent_m(hypotheses[index], decision),
            ),
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


def beyond_doubt(hypotheses: Sequence[Hypothesis], decision: Decision) -> bool:
    """Whether correlation by itself places the frame so surely, and nowhere else, that no other opinion is needed."""
    if not hypotheses:
        return True
    chances = [_chances(h, decision) for h in hypotheses]
    order = sorted(range(len(hypotheses)), key=lambda index: sum(chances[index].values()))
    alone = _rival(hypotheses, chances, order, decision) is None
    return alone and _joint(chances[order[0]], decision) < math.log10(decision.sure_chance)


def _rival(
    hypotheses: Sequence[Hypothesis], chances: Sequence[dict[str, float]], order: Sequence[int], decision: Decision
) -> float | None:
    """How far away, metres, another place is that matches as well as the best; None without one."""
    best, product = hypotheses[order[0]].registration, sum(chances[order[0]].values())
    for index in order[1:]:
        other = hypotheses[index].registration
        apart = math.hypot(other.easting - best.easting, other.northing - best.northing)
        if apart > _SAME_ANSWER_M and sum(chances[index].values()) - product < math.log10(decision.ambiguity):
            return apart
    return None


def _joint(chances: dict[str, float], decision: Decision) -> float:
    return decision.log10_joint(sum(chances.values()), len(chances))


def _chances(hypothesis: Hypothesis, decision: Decision) -> dict[str, float]:
    """How often chance reaches what each witness says (log10), of those that were asked."""
    place, features = hypothesis.registration, hypothesis.features
    peak, blocks = decision.log10_chances(hypothesis.peak.score, place.evidence)
    chances = {"peak": peak, "blocks": blocks, "rank": math.log10(hypothesis.peak.rank)}
    if math.isnan(place.evidence):
        del chances["blocks"]
    if features is not None:
        heard = disagreement(hypothesis) == ""
        chances["local features"] = decision.log10_features(features.score) if heard else 0.0
    return chances


def disagreement(hypothesis: Hypothesis) -> str:
    """Why local features, where they were asked, do not speak for a place; empty where they may."""
    place, features = hypothesis.registration, hypothesis.features
    if features is None or features.reason:
        return "" if features is None else features.reason
    apart = math.hypot(features.easting - place.easting, features.northing - place.northing)
    if apart <= _AGREE_PX * hypothesis.view.patch.gsd:
        return ""
    return f"local features put it {apart:.1f} m away"


def _dissent_m(hypothesis: Hypothesis, decision: Decision) -> float:
    """How far away local features put a place that they are sure of, where that is too far to be the same."""
    place, features = hypothesis.registration, hypothesis.features
    if features is None or features.reason or disagreement(hypothesis) == "":
        return 0.0
    if decision.log10_features(features.score) >= math.log10(decision.witness_chance):
        return 0.0
    return math.hypot(features.easting - place.easting, features.northing - place.northing)


def _alternative(
    hypothesis: Hypothesis, log10_chance: float, floor_m: float, scene: Scene, settings: Settings
) -> Alternative:
    """What a registered place says of the aircraft; ``floor_m`` is the sigma of what all its blocks have in common."""
    place = hypothesis.registration
    center_covariance = place.covariance + floor_m**2 * np.eye(2)
    offset, offset_covariance = _offset(hypothesis, scene.tilt_sigma_deg, settings)
    return Alternative(
        easting=place.easting - float(offset[0]),
        northing=place.northing - float(offset[1]),
        center_easting=place.easting,
        center_northing=place.northing,
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
    """(2,) east and north from the aircraft to the image's middle on the ground, and its (2, 2) covariance.

    The direction of the optical axis is the one that was assumed. The tilt that registration fits is not used: among
    buildings it cannot be told from their lean (on real photos it made the aircraft's position worse), so the tilt's
    own uncertainty, times the height, is what the aircraft's position is uncertain by.
    """
    correction = best.registration.correction
    turn, height = np.radians(correction.turn_deg), best.view.height * (1 + correction.scale)
    east, north = best.view.patch.offset * (1 + correction.scale)
    offset = np.array([east * np.cos(turn) + north * np.sin(turn), north * np.cos(turn) - east * np.sin(turn)])
    swing = np.radians(best.registration.turn_sigma_deg) * np.array([offset[1], -offset[0]])
    stretch = settings.height_sigma * offset
    lean = height * np.tan(np.radians(tilt_sigma_deg))
    return offset, lean**2 * np.eye(2) + np.outer(swing, swing) + np.outer(stretch, stretch)


def _retrieved(best: Hypothesis, candidates: Sequence[Candidate], scene: Scene) -> bool:
    """Whether retrieval by itself would have answered with this place."""
    if not candidates:
        return False
    east, north = candidates[0].easting - best.registration.easting, candidates[0].northing - best.registration.northing
    return math.hypot(east, north) <= 1.5 * scene.stride_m


def _status(chances: dict[str, float], total: float, retrieved: bool, decision: Decision) -> tuple[FixStatus, str]:
    """The status for the witnesses and their joint chance (log10), and whether retrieval alone would agree."""
    witness = math.log10(decision.witness_chance)
    sure = [chance for name, chance in chances.items() if chance < witness and name != "rank"]
    heard = len(sure) >= 2 or chances.get("blocks", 0.0) < math.log10(decision.overwhelming_chance)
    if heard and total < math.log10(decision.refined_chance):
        return FixStatus.REFINED, ""
    told = "chance reaches " + ", ".join(f"its {name} at 10^{chance:.1f}" for name, chance in chances.items())
    # Metres cannot be promised, but the place stands out, and it is where retrieval by itself would have put it.
    if retrieved and total < math.log10(decision.coarse_chance):
        return FixStatus.COARSE, f"not sure to metres: {told}"
    return FixStatus.NO_FIX, f"no place stands out: {told}"
