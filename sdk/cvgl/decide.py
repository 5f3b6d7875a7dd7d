"""Whether a match is believed, and what the fix then says of its own uncertainty."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from cvgl.belief import Belief, believe, prior_factor, protection_radius, retrieval_share
from cvgl.fix import Alternative, Candidate, Fix, FixStatus, ReasonCode, Witnesses
from cvgl.frame import Frame
from cvgl.geo import LocalFrame
from cvgl.ground import ground_from_aircraft
from cvgl.refine import Hypothesis
from cvgl.register import Correction, PoseSigmas
from cvgl.roofs import HIGHEST_M, mean_square_rise
from cvgl.settings import Chances, Decision, Settings

__all__ = ["SAME_ANSWER_M", "Scene", "SearchPrior", "decide", "in_doubt"]

SAME_ANSWER_M = 10.0
"""Two hypotheses closer than this (metres) are the same answer."""
# A coarse fix is good to about the reach of the search around a tile, metres per axis.
_COARSE_SIGMA_M = 15.0
# Registration and local features mean the same place up to here, pixels of the basemap: both are off by some where
# buildings lean.
_AGREE_PX = 8.0
# A right pose is within this many sigmas of the frame's telemetry.
_PLAUSIBLE = 4.0
# A fitted lean is off by so many times what its fit says: roofs of unequal heights lean by themselves. Over procedural
# places it is 1.8 of all frames, and 2.9 of the quarter where the fit is least sure.
_LEAN_SHARED = 2.5
# A place this many times less probable than the likeliest is still its rival.
_RIVAL = 0.02


@dataclass(frozen=True)
class SearchPrior:
    """Where the aircraft was supposed to be, and how far around that was searched.

    Args:
        easting, northing: metres in the local tangent plane.
        sigma_m: standard deviation on each axis, metres.
        radius_m: of the circle that was searched.
    """

    easting: float
    northing: float
    sigma_m: float
    radius_m: float


@dataclass(frozen=True)
class Scene:
    """What the decision needs to know of the gallery and of the frame.

    Args:
        local: the gallery's local tangent plane.
        tilt_sigma_deg: of the roll and pitch that the frame was rectified with.
        prior: where the aircraft was supposed to be; None where the whole map was searched.
        sigmas: of the attitude and height that the frame came with, which a fit may correct by so much.
    """

    local: LocalFrame
    tilt_sigma_deg: float
    prior: SearchPrior | None = None
    sigmas: PoseSigmas | None = None


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
        return Fix.none(
            frame.time,
            "nothing to register: too little of the basemap, or of structure, in view",
            reason_code=ReasonCode.NO_STRUCTURE,
            candidates=tuple(candidates),
            name=frame.name,
        )
    witnesses = _chances(hypotheses, decision)
    places = [_alternative(h, scene, settings, decision) for h in hypotheses]
    beliefs = _believe(hypotheses, places, scene, decision)
    order = sorted(range(len(hypotheses)), key=lambda index: (-beliefs[index].probability, index))
    first, belief = order[0], beliefs[order[0]]
    found = places[first]
    status, code, reason = _status(belief, witnesses[first], hypotheses[first], decision)
    wrong = _implausible(hypotheses[first], scene.sigmas)
    if status is not FixStatus.NO_FIX and wrong:
        status, code, reason = FixStatus.NO_FIX, ReasonCode.IMPLAUSIBLE, f"implausible: {wrong}"
    elif status is FixStatus.NO_FIX:
        rivals = [places[i] for i in order[1:] if beliefs[i].probability > _RIVAL * belief.probability]
        apart = [math.hypot(r.easting - found.easting, r.northing - found.northing) for r in rivals]
        if belief.log10_chance <= math.log10(decision.fix_chance) and max(apart, default=0.0) > SAME_ANSWER_M:
            code = ReasonCode.AMBIGUOUS
            other = max((beliefs[index].probability for index in order[1:]), default=0.0)
            odds = f"right with {_percent(belief.probability)} and {_percent(other)}"
            reason = f"ambiguous: another place {max(apart):.0f} m away matches as well ({odds})"
    alternatives = tuple(
        replace(
            places[index],
            log10_chance=beliefs[index].log10_chance,
            log10_odds=beliefs[index].log10_odds,
            probability=beliefs[index].probability,
        )
        for index in order
    )
    if status is FixStatus.NO_FIX:
        return Fix.none(
            frame.time,
            reason,
            reason_code=code,
            score=found.score,
            log10_chance=belief.log10_chance,
            probability=belief.probability,
            candidates=tuple(candidates),
            alternatives=alternatives,
            name=frame.name,
        )
    if status is FixStatus.COARSE:
        unsure = _COARSE_SIGMA_M**2 * np.eye(2)
        alternatives = (
            replace(
                alternatives[0],
                covariance=found.covariance + unsure,
                center_covariance=found.center_covariance + unsure,
            ),
            *alternatives[1:],
        )
    found = alternatives[0]
    latitude, longitude = scene.local.to_wgs84(found.easting, found.northing)
    center_latitude, center_longitude = scene.local.to_wgs84(found.center_easting, found.center_northing)
    risk = settings.protection_risk
    return Fix(
        status=status,
        time=frame.time,
        reason=reason,
        reason_code=code,
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
        log10_chance=found.log10_chance,
        probability=found.probability,
        protection_radius_m=protection_radius(found.covariance, found.probability, risk),
        center_protection_radius_m=protection_radius(found.center_covariance, found.probability, risk),
        candidates=tuple(candidates),
        alternatives=alternatives,
        name=frame.name,
    )


def in_doubt(
    hypotheses: Sequence[Hypothesis], scene: Scene, settings: Settings, decision: Decision
) -> list[Hypothesis]:
    """The places of which a second opinion can change the answer, likeliest first.

    None where the likeliest is surer than the risk that is taken, and where exactly it is as well. Else the likeliest
    and its rivals, down to a fiftieth of its probability. A place below that takes at most 2 % from the likeliest, and
    could only be answered instead of it if its local features were fifty times as telling as the likeliest's own.
    """
    places = [_alternative(h, scene, settings, decision) for h in hypotheses]
    beliefs = _believe(hypotheses, places, scene, decision)
    order = sorted(range(len(places)), key=lambda index: (-beliefs[index].probability, index))
    if not order:
        return []
    likeliest = beliefs[order[0]].probability
    exact = _chances(hypotheses, decision)[order[0]].blocks <= math.log10(decision.witness_chance)
    if likeliest >= 1.0 - settings.protection_risk and exact:
        return []
    return [hypotheses[index] for index in order if beliefs[index].probability > _RIVAL * likeliest]


def _chances(hypotheses: Sequence[Hypothesis], decision: Decision) -> list[Chances]:
    """How often chance reaches what each place's witnesses say."""
    return [decision.log10_chances(h.peak.score, h.registration.evidence, h.detail, _support(h)) for h in hypotheses]


def _believe(
    hypotheses: Sequence[Hypothesis], places: Sequence[Alternative], scene: Scene, decision: Decision
) -> list[Belief]:
    return believe(
        _chances(hypotheses, decision),
        [retrieval_share(h.peak.order, h.peak.listed, h.peak.lists, decision.miss_share) for h in hypotheses],
        [_prior_factor(place, scene.prior) for place in places],
        _answers(places),
        decision,
    )


def _support(hypothesis: Hypothesis) -> float | None:
    """What local features speak for a place with: nothing where they see none, or another."""
    features = hypothesis.features
    if features is None:
        return None
    return 0.0 if features.reason or _apart(hypothesis) > 0.0 else features.score


def _apart(hypothesis: Hypothesis) -> float:
    """How far away local features put a place, metres; 0 where they were not asked, or mean the same place."""
    place, features = hypothesis.registration, hypothesis.features
    if features is None or features.reason:
        return 0.0
    apart = math.hypot(features.easting - place.easting, features.northing - place.northing)
    return 0.0 if apart <= _AGREE_PX * hypothesis.view.patch.gsd else apart


def _answers(places: Sequence[Alternative]) -> list[int]:
    """The number of each place's answer: places closer together than ``SAME_ANSWER_M`` share one."""
    answers: list[int] = []
    for index, place in enumerate(places):
        near = (
            answers[other]
            for other in range(index)
            if math.hypot(
                place.center_easting - places[other].center_easting,
                place.center_northing - places[other].center_northing,
            )
            <= SAME_ANSWER_M
        )
        answers.append(next(near, index))
    return answers


def _prior_factor(place: Alternative, prior: SearchPrior | None) -> float:
    if prior is None:
        return 1.0
    apart = math.hypot(place.easting - prior.easting, place.northing - prior.northing)
    sigma = math.sqrt(prior.sigma_m**2 + float(np.linalg.eigvalsh(place.covariance)[-1]))
    return prior_factor(apart, sigma, prior.radius_m)


def _alternative(hypothesis: Hypothesis, scene: Scene, settings: Settings, decision: Decision) -> Alternative:
    """What a registered place says of the aircraft, if it is right; nothing yet of whether it is."""
    place, peak, features = hypothesis.registration, hypothesis.peak, hypothesis.features
    offset, offset_covariance = _offset(hypothesis, scene.tilt_sigma_deg, settings)
    center_covariance = place.covariance + (settings.registration_sigma_m**2 + settings.map_sigma_m**2) * np.eye(2)
    center_covariance = center_covariance + _displaced(hypothesis, offset, scene.tilt_sigma_deg, settings)
    if features is not None and decision.log10_features(features.score) <= math.log10(decision.witness_chance):
        # Two opinions, each of which is more than chance, that do not agree.
        center_covariance = center_covariance + _apart(hypothesis) ** 2 * np.eye(2)
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
        # A turn about the plumb line and the same attitude's heading differ by half of pitch times roll.
        heading_sigma_deg=math.hypot(place.turn_sigma_deg, math.degrees(math.radians(scene.tilt_sigma_deg) ** 2 / 2)),
        height_m=hypothesis.view.height * (1 + place.correction.scale),
        score=place.votes,
        log10_chance=0.0,
        witnesses=Witnesses(
            peak=peak.score,
            blocks=place.evidence,
            order=peak.order,
            listed=peak.listed,
            lists=peak.lists,
            detail=hypothesis.detail,
            features=_support(hypothesis),
        ),
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


def _displaced(
    hypothesis: Hypothesis, offset: NDArray[np.float64], tilt_sigma_deg: float, settings: Settings
) -> NDArray[np.float64]:
    """(2, 2) covariance of what roofs displace the image's middle by, if the frame was matched by them, m^2.

    What stands above the ground is seen further out by its height times the lean of the view, known or not.
    """
    view, scale = hypothesis.view, hypothesis.registration.correction.scale
    slope = offset / (view.height * (1 + scale))
    unknown = math.tan(math.radians(tilt_sigma_deg)) ** 2 * np.eye(2)
    rise = mean_square_rise(scale, settings.height_sigma, view.height)
    return np.asarray(rise * (unknown + np.outer(slope, slope)))


def _status(
    belief: Belief, chances: Chances, hypothesis: Hypothesis, decision: Decision
) -> tuple[FixStatus, ReasonCode, str]:
    """The status for what is believed of the likeliest place, and what to say of it."""
    peak, features = hypothesis.peak, hypothesis.features
    named = zip(("peak", "blocks", "peak in detail", "local features"), chances, strict=True)
    reached = ", ".join(f"its {name} at 10^{chance:.1f}" for name, chance in named if chance is not None)
    told = f"chance reaches {reached}; retrieval's number {peak.order} of {peak.listed}"
    if features is not None and features.reason:
        told += f"; {features.reason}"
    elif _apart(hypothesis) > 0.0:
        told += f"; local features put it {_apart(hypothesis):.1f} m away"
    if belief.log10_chance > math.log10(decision.fix_chance) or belief.probability < decision.fix_probability:
        reason = f"no place stands out, the likeliest is right with {_percent(belief.probability)}: {told}"
        return FixStatus.NO_FIX, ReasonCode.NOT_FOUND, reason
    if min(chances.blocks, chances.features or 0.0) <= math.log10(decision.witness_chance):
        return FixStatus.REFINED, ReasonCode.NONE, ""
    # The place stands out as a whole, but its parts do not say where exactly.
    return FixStatus.COARSE, ReasonCode.BLOCKS_DISAGREE, f"the place is sure, but not to metres: {told}"


def _implausible(hypothesis: Hypothesis, sigmas: PoseSigmas | None) -> str:
    """What of a fitted pose is further from the frame's telemetry than telemetry errs; usually nothing.

    A frame that was matched by its roofs looks as if it had been taken lower by their height, which is no error of the
    telemetry; and roofs of unequal heights make it lean.
    """
    if sigmas is None:
        return ""
    place = hypothesis.registration
    correction, lean_sigma = place.correction, math.hypot(sigmas.tilt_deg, _LEAN_SHARED * place.lean_sigma_deg)
    lean = math.degrees(math.atan(math.hypot(*correction.lean)))
    off = max(correction.scale, -correction.scale - HIGHEST_M / hypothesis.view.height)
    for value, sigma, words in (
        (abs(correction.turn_deg), sigmas.heading_deg, f"its heading would be {abs(correction.turn_deg):.0f}° off"),
        (off, sigmas.scale, f"its height would be {100 * abs(correction.scale):.0f} % off"),
        (lean, lean_sigma, f"it would lean {lean:.0f}° more than it says"),
    ):
        if value > _PLAUSIBLE * sigma:
            return words
    return ""


def _percent(probability: float) -> str:
    return f"{100 * probability:.0f} %" if probability < 0.99 else f"{100 * probability:.1f} %"
