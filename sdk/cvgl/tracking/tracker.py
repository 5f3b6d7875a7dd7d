"""A sequence of frames as one aircraft that moves: what each frame says is weighed by where the aircraft can be."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from cvgl.fix import Alternative
from cvgl.frame import Prior
from cvgl.geo import LocalFrame
from cvgl.settings import Settings
from cvgl.tracking.evidence import Sight, lean_of, log_ratio
from cvgl.tracking.history import History
from cvgl.tracking.mixture import Chances, Mixture, advance, common_errors, moments, step
from cvgl.tracking.motion import MAP, POSITION, SCALE, SIZE, SWAY, TILT, TURN, Dynamics, Motion
from cvgl.tracking.protection import mixture_radius

__all__ = ["Answer", "Expected", "Tracker"]

Array = NDArray[np.float64]

# An answer is given where the filter is at least this sure of it...
_SURE = 0.99
# ...and, where this frame tells no places, holds no others that are together more likely than this.
_RIVALS = 0.001
# Otherwise the answer covers all that is possible, as long as one place is likelier than all others together; whether
# what it covers is still of use, the settings' limit says.
_LIKELY = 0.5
# A frame is looked for near the track where one place is at least this likely.
_NEAR = 0.9
# Components this many sigmas from the likeliest are another place.
_SAME_MODE_SIGMAS = 4.0
# A start that was given is mistaken this often.
_WRONG_START = 0.02
# A heading or a height is corrected for the search from so many of its sigmas on, and by at most so many.
_USUAL, _FURTHEST = 1.25, 5.0
# So many frames in a row that are older than all that is kept: the clock was set back.
_SET_BACK = 3
# A match this strong (e-folds) that is not accepted is told apart from one that says nothing.
_STRONG = math.log(20.0)


@dataclass(frozen=True)
class Answer:
    """Where the aircraft is at one time.

    Args:
        time: seconds.
        accepted: whether the frame of this time found a place of its own that the filter agrees with.
        reason: why there is no position, or why none of the frame's places was accepted; may be empty.
        implausible: whether a strong match was refused because the aircraft cannot have come there.
        probability: that the aircraft is about where the position says, rather than somewhere else altogether.
        protection_radius_m: the position is off by more than this with at most the settings' risk; infinite while the
            last frame that registered any places matches none of them.
        mean: (12,) of the state, None where the position is not known well enough to be of use.
        covariance: (12, 12), None with it.
        place: the accepted one.
    """

    time: float
    accepted: bool = False
    reason: str = ""
    implausible: bool = False
    probability: float = 0.0
    protection_radius_m: float = math.inf
    mean: Array | None = None
    covariance: Array | None = None
    place: Alternative | None = None

    @property
    def sigma_m(self) -> float:
        """Standard deviation of the position along its worst direction, metres; infinite without a position."""
        return math.inf if self.covariance is None else _worst(self.covariance[POSITION, POSITION])

    @property
    def turn_deg(self) -> tuple[float, float]:
        """What a given heading has to be corrected by, degrees, and its sigma."""
        if self.mean is None or self.covariance is None:
            return 0.0, math.inf
        return math.degrees(self.mean[TURN]), math.degrees(math.sqrt(self.covariance[TURN, TURN]))

    @property
    def scale(self) -> float:
        """What a given height has to be multiplied by."""
        return 1.0 if self.mean is None else math.exp(self.mean[SCALE])

    def middle(self, offset: Array, heading_deg: float, lean_m: float) -> tuple[Array, Array]:
        """Where a camera that found no place of its own looks: position (2,) and covariance (2, 2), metres.

        Args:
            offset: (2,) east and north from the aircraft to the image's middle, as its attitude was given.
            heading_deg: of the vehicle.
            lean_m: what the tilt's sigma is on the ground.
        """
        if self.mean is None or self.covariance is None:
            raise ValueError("an answer without a position")
        to_middle = np.zeros((2, SIZE))
        to_middle[:, POSITION] = np.eye(2)
        to_middle[:, TILT], to_middle[:, SWAY] = lean_of(lean_m, heading_deg)
        swing = math.radians(self.turn_deg[1]) * np.array([offset[1], -offset[0]])
        return to_middle @ self.mean + offset, to_middle @ self.covariance @ to_middle.T + np.outer(swing, swing)


@dataclass(frozen=True)
class Expected:
    """How to look for a frame: around a prior, or all over the map; with what its heading and height are corrected by.

    Args:
        prior: None for all of the map.
        turn_deg: to be added to the given heading, degrees.
        scale: to be multiplied with the given height.
    """

    prior: Prior | None = None
    turn_deg: float = 0.0
    scale: float = 1.0


class Tracker:
    """A Bayes filter over position, velocity, and the errors of heading, height, tilt and map.

    It never raises on what flight brings. A frame that comes late is taken in at its own time if that is no further
    back than the settings' history; one that is older is left out, and the third such in a row is taken as a clock
    that was set back: the sequence begins anew, lost. Of frames with the same time the first that found any place
    counts. The same frames in another order of arrival give the same answers, once all have come.

    Args:
        local: the local tangent plane.
        settings: of the mission.
        bounds: (west, south, east, north) of the map, metres.
    """

    def __init__(self, local: LocalFrame, settings: Settings, bounds: tuple[float, float, float, float]) -> None:
        self._local = local
        self._settings = settings
        self._model = Dynamics.of(settings)
        self._chances = Chances(settings.match_probability, settings.loss_per_s, bounds)
        self._older = 0
        self._accepted = False
        self._history = self._begin(())

    def reset(self, prior: Prior | Sequence[Prior] | None = None) -> None:
        """Begin a sequence: at a known start, at one of several, or lost."""
        circles = () if prior is None else (prior,) if isinstance(prior, Prior) else tuple(prior)
        at = []
        for circle in circles:
            easting, northing = self._local.to_local(circle.latitude, circle.longitude)
            at.append((float(easting), float(northing), circle.sigma_m))
        self._older = 0
        self._accepted = bool(at)
        self._history = self._begin(at)

    def expect(self, time: float, velocity: tuple[float, float] | None = None, sigma: float = 1.0) -> Expected:
        """Where to look at a time, and how: near the track where the last frame was accepted, else all over the map.

        Args:
            time: seconds.
            velocity: (east, north) m/s, mean since the frame before; None where unknown.
            sigma: of each component, m/s.
        """
        seen = self._history.at(time) if self._accepted and math.isfinite(time) else None
        if seen is None:
            return Expected()
        motion = None if velocity is None else Motion(*velocity, sigma)
        mixture = advance(seen, time, motion, self._model, self._chances)
        if mixture.lost > 0.5:
            return Expected()
        expected = Expected()
        if mixture.confirmed:
            # A frame's own search is made for the usual errors; others are taken out, as far as they can be believed.
            _, mean, _ = moments(mixture.weights, mixture.means, mixture.covariances)
            sigmas = np.array([self._model.turn_sigma, self._model.scale_sigma])
            wrong = mean[[TURN, SCALE]]
            wrong = np.where(np.abs(wrong) > _USUAL * sigmas, wrong, 0.0)
            turn, scale = np.clip(wrong, -_FURTHEST * sigmas, _FURTHEST * sigmas)
            expected = Expected(None, math.degrees(turn), math.exp(scale))
        mode = _together(mixture, np.ones(len(mixture.weights), bool))
        weight, mean, covariance = moments(mixture.weights[mode], mixture.means[mode], mixture.covariances[mode])
        if weight < _NEAR:
            return expected
        latitude, longitude = self._local.to_wgs84(*mean[POSITION])
        prior = Prior(float(latitude), float(longitude), _worst(covariance[POSITION, POSITION]))
        return replace(expected, prior=prior)

    def update(self, sight: Sight) -> Answer:
        """Take in a frame, and say where the aircraft was at its time."""
        if not math.isfinite(sight.time):
            return Answer(sight.time, reason="time: not a finite number")
        if not self._history.takes(sight):
            seen = self._history.at(sight.time)
            if seen is not None and seen.time == sight.time:
                return replace(self._answer(seen), accepted=False, reason="the same time as a frame before")
            self._older += 1
            if self._older < _SET_BACK:
                return Answer(sight.time, reason=f"older than the {self._settings.track_history_s:g} s that are kept")
            self.reset()
        self._older = 0
        earlier, after = self._history.add(sight)
        reason = _implausible(earlier, sight)
        answer = self._answer(after)
        if not answer.accepted and reason:
            answer = replace(answer, implausible=True, reason=_and(reason, answer.reason))
        if answer.accepted and answer.mean is not None:
            answer = replace(answer, place=min(sight.places, key=lambda place: self._apart(place, answer)))
        if after is self._history.last:
            self._accepted = answer.accepted
        return answer

    def _apart(self, place: Alternative, answer: Answer) -> float:
        """Metres between where a place puts the aircraft and where the answer's state, tilt included, expects that."""
        if answer.mean is None:
            return math.inf
        lean, common = common_errors(place, self._model)
        lasts, passes = lean_of(lean, place.heading_deg)
        expected = answer.mean[POSITION] + lasts @ answer.mean[TILT] + passes @ answer.mean[SWAY]
        expected = expected + common / self._model.map_sigma * answer.mean[MAP]
        return math.hypot(place.easting - expected[0], place.northing - expected[1])

    def estimate(self, time: float) -> Answer:
        """Where the aircraft is at a time at or after the last frame's, or at one within the history."""
        mixture = self._history.at(time) if math.isfinite(time) else None
        if mixture is None:
            return Answer(time, reason="a time that nothing is known of")
        if mixture.time == time:
            return self._answer(mixture)
        return self._answer(advance(mixture, time, None, self._model, self._chances, unseen=True))

    def _begin(self, circles: Sequence[tuple[float, float, float]]) -> History:
        start = Mixture.around(-math.inf, circles, _WRONG_START, self._model)
        return History(start, self._step, self._settings.track_history_s)

    def _step(self, mixture: Mixture, sight: Sight) -> Mixture:
        return step(mixture, sight, self._model, self._chances)

    def _answer(self, mixture: Mixture) -> Answer:
        if not len(mixture.weights):
            return Answer(mixture.time, reason="no place found yet")
        if not mixture.confirmed:
            return Answer(mixture.time, reason="no frame has confirmed the start yet")
        every = np.ones(len(mixture.weights), bool)
        mode = _together(mixture, every)
        # After a displacement, too, frames match nothing near the track: however rare displacements are, a radius holds
        # only where the last frame does.
        vouched = float(mixture.weights[mixture.matched].sum()) >= _SURE * float(mixture.weights.sum())
        if (weight := float(mixture.weights[mode].sum())) >= _SURE:
            # Where the aircraft is does not hang on this frame alone: what holds it to be mistaken counts as well.
            believing = mixture.own & _together(mixture, mixture.own)
            accepted = float(mixture.weights[believing].sum()) >= _SURE
            if accepted or (vouched and float(mixture.weights.sum()) - weight <= _RIVALS):
                return self._told(mixture, mode, Answer(mixture.time, accepted=accepted), vouched)
        reason = f"the likeliest place is {100 * weight:.1f} % sure"
        if weight <= _LIKELY:
            return Answer(mixture.time, reason=reason, probability=weight)
        # All that is possible, with what is lost anywhere on the map.
        mean, covariance = self._model.start(-1)
        mean[POSITION], covariance[POSITION, POSITION] = self._chances.anywhere()
        everything = replace(
            mixture,
            weights=np.append(mixture.weights, mixture.lost),
            means=np.concatenate([mixture.means, mean[None]]),
            covariances=np.concatenate([mixture.covariances, covariance[None]]),
        )
        told = self._told(everything, np.append(every, True), Answer(mixture.time, reason=reason), vouched)
        return replace(told, probability=weight)

    def _told(self, mixture: Mixture, which: NDArray[np.bool_], answer: Answer, vouched: bool) -> Answer:
        """The answer that some components give together, if it is known well enough to be of use.

        Args:
            vouched: whether there can be a protection radius.
        """
        weights, means, covariances = mixture.weights[which], mixture.means[which], mixture.covariances[which]
        probability, mean, covariance = moments(weights, means, covariances)
        sigma = _worst(covariance[POSITION, POSITION])
        if sigma > self._settings.track_limit_m:
            known = f"the position is known to {sigma:.0f} m only"
            return replace(answer, accepted=False, reason=_and(answer.reason, known), probability=probability)
        radius = math.inf
        if vouched:
            left = self._settings.protection_risk - (1.0 - float(mixture.weights.sum()))
            apart, spreads = mixture.means[:, POSITION] - mean[POSITION], mixture.covariances[:, POSITION, POSITION]
            radius = mixture_radius(mixture.weights, apart, spreads, left)
        return replace(answer, probability=probability, protection_radius_m=radius, mean=mean, covariance=covariance)


def _together(mixture: Mixture, among: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """(N,) which components are about where the likeliest of some is."""
    if not among.any():
        return among
    positions, spreads = mixture.means[:, POSITION], mixture.covariances[:, POSITION, POSITION]
    lead = int(np.argmax(np.where(among, mixture.weights, -1.0)))
    apart = positions - positions[lead]
    squared = np.einsum("ni,ni->n", apart, np.linalg.solve(spreads + spreads[lead], apart[..., None])[..., 0])
    return np.asarray(squared <= _SAME_MODE_SIGMAS**2)


def _and(*reasons: str) -> str:
    return "; ".join(reason for reason in reasons if reason)


def _implausible(earlier: Mixture, sight: Sight) -> str:
    """What to say of a strong match if it is not accepted."""
    if not sight.places or log_ratio(sight.places[0]) < _STRONG or not len(earlier.weights):
        return ""
    place = np.array([sight.places[0].easting, sight.places[0].northing])
    apart = float(np.hypot(*(place - earlier.means[int(np.argmax(earlier.weights)), POSITION])))
    elapsed = sight.time - earlier.time
    if not 0 < elapsed < math.inf:
        return f"implausible motion: {apart:.0f} m from where the aircraft was"
    return f"implausible motion: {apart / elapsed:.0f} m/s, {apart:.0f} m in {elapsed:.1f} s"


def _worst(covariance: Array) -> float:
    return math.sqrt(max(float(np.linalg.eigvalsh(covariance)[-1]), 0.0))
