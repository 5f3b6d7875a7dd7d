"""What is believed at one time: a mixture of Gaussians, and the probability of being somewhere else altogether.

Each component is a Kalman filter's state. A frame splits every component into the cases that one of its places is
right and that none is; components that say the same are merged again. What is lost is spread evenly over the map, so
that a frame's places can also begin anew.

Sources: the mixture, Sorenson and Alspach, Automatica 7 (1971); the cases and their probabilities, Bar-Shalom and
Tse, Automatica 11 (1975), with the strength of a match as in Lerro and Bar-Shalom, IEEE Trans. AES 29 (1993); merging,
Runnalls, IEEE Trans. AES 43 (2007), equation 21.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from cvgl import lasting
from cvgl.fix import Alternative
from cvgl.geometry import wrap_degrees
from cvgl.tracking.evidence import Sight, lean_of, log_ratio
from cvgl.tracking.motion import MAP, POSITION, SCALE, SIZE, SWAY, TILT, TURN, VELOCITY, Dynamics, Motion

__all__ = ["Chances", "Mixture", "advance", "common_errors", "merge", "moments", "see", "step"]

Array = NDArray[np.float64]

# Of the smallest variance of a match, the share that may be the map's: what is left is the match's own.
_MOST_COMMON = 0.95
# A fitted heading (degrees) and scale are never surer than this: photos' own headings scatter, and so does the ground.
_TURN_FLOOR_DEG = 1.0
_SCALE_FLOOR = 0.02
# Whether a view matches by chance is new once the camera has moved by this share of its height, or by time.
_NEW_VIEW_HEIGHTS = 0.5
_NEW_VIEW_S = 20.0
# Its scatter within metres, as far as it is not the map's, is new much sooner.
_NEW_SCATTER_HEIGHTS = 0.1
_NEW_SCATTER_S = 2.0
# A view that should be matched is not this often for reasons that nobody knows: a bird, a glare.
_SPOILT = 0.01
# How much a frame registers the right place at all is learnt over so many frames of the flight.
_MEMORY = 30.0
# What the chance of it that is stated beforehand counts for, frames.
_STATED = 2.0
_COMPONENTS = 16
_MERGED_PER_KEPT = 3
# After a day all is lost.
_LONGEST_S = 86400.0
_LOST_SHARE = 0.5
_NEGLIGIBLE = 1e-6


@dataclass(frozen=True)
class Chances:
    """Probabilities that the filter takes as given.

    Args:
        found: that the right place is among those that a frame registered.
        lost_per_s: that within a second the aircraft turns out to be elsewhere: carried off, or mistaken before.
        bounds: (west, south, east, north) of the map, over which a lost aircraft is spread, metres.
    """

    found: float
    lost_per_s: float
    bounds: tuple[float, float, float, float]

    @property
    def map_area(self) -> float:
        """Square metres."""
        west, south, east, north = self.bounds
        return (east - west) * (north - south)

    def anywhere(self) -> tuple[Array, Array]:
        """Mean (2,) and covariance (2, 2) of a position that is evenly spread over the map."""
        west, south, east, north = self.bounds
        sides = np.array([east - west, north - south])
        return np.array([west + east, south + north]) / 2, np.diag(sides**2 / 12)


@dataclass(frozen=True)
class Mixture:
    """What is believed at one time.

    Args:
        time: seconds; minus infinity before anything was seen.
        weights: (N,) probabilities of the components; with ``lost`` they sum to 1.
        means: (N, 12) of the state, see `cvgl.tracking.motion`.
        covariances: (N, 12, 12).
        paces: (N,) at which of the motion's paces each flies.
        own: (N,) whether the component holds that a place of the frame at this time is right.
        matched: (N,) the same of the last frame that had any places.
        lost: probability of being anywhere on the map.
        motion: velocity that was given for this time; None where the state holds the velocity itself.
        leans: (2, 2) and (2, 2), what the state's TILT and SWAY move the view by at this time, metres; None if unknown.
        seen: (K, 2) places of the last frame that had any, metres.
        seen_at: its time.
        confirmed: whether any frame has ever been believed; until then there is only what was said of the start.
        hits, frames: of the frames with places, how many had the right one, as believed; old ones count for less.
    """

    time: float
    weights: Array = field(default_factory=lambda: np.empty(0))
    means: Array = field(default_factory=lambda: np.empty((0, SIZE)))
    covariances: Array = field(default_factory=lambda: np.empty((0, SIZE, SIZE)))
    paces: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    own: NDArray[np.bool_] = field(default_factory=lambda: np.empty(0, bool))
    matched: NDArray[np.bool_] = field(default_factory=lambda: np.empty(0, bool))
    lost: float = 1.0
    motion: Motion | None = None
    leans: tuple[Array, Array] | None = None
    seen: Array = field(default_factory=lambda: np.empty((0, 2)))
    seen_at: float = -math.inf
    confirmed: bool = False
    hits: float = 0.0
    frames: float = 0.0

    @classmethod
    def around(
        cls, time: float, circles: Sequence[tuple[float, float, float]], lost: float, model: Dynamics
    ) -> Mixture:
        """Somewhere in circles (easting, northing, sigma), each as likely, or lost."""
        paces = np.tile(np.arange(len(model.speed_sigmas)), len(circles))
        states = [model.start(pace) for pace in paces]
        means, covariances = np.empty((len(paces), SIZE)), np.empty((len(paces), SIZE, SIZE))
        for row, (mean, covariance) in enumerate(states):
            easting, northing, sigma = circles[row // len(model.speed_sigmas)]
            means[row], covariances[row] = mean, covariance
            means[row, POSITION] = easting, northing
            covariances[row, POSITION, POSITION] = max(sigma, 0.1) ** 2 * np.eye(2)
        weights = np.full(len(paces), (1.0 - lost) / max(len(paces), 1))
        unseen = np.zeros(len(paces), bool)
        return cls(time, weights, means, covariances, paces, unseen, unseen, lost if circles else 1.0)


def advance(
    mixture: Mixture, time: float, motion: Motion | None, model: Dynamics, chances: Chances, *, unseen: bool = False
) -> Mixture:
    """What is believed at a later time, before anything is seen there.

    Args:
        mixture: at an earlier time.
        time: seconds.
        motion: velocity that was given for that time, or None.
        model, chances: of the filter.
        unseen: whether nothing is seen there. Then whoever changes pace may have taken any course as well, since an
            aircraft turns at once; where there is a frame, it tells.
    """
    # A start has no time of its own: it holds when the first frame comes.
    elapsed = min(max(time - mixture.time, 0.0), _LONGEST_S) if math.isfinite(mixture.time) else 0.0
    weights, states = mixture.weights, (mixture.means, mixture.covariances)
    paces, matched = mixture.paces, mixture.matched
    turned = np.zeros(len(weights), bool)
    count, change = len(model.speed_sigmas), model.change_of_pace(elapsed)
    if motion is None and change > 0.0 and len(weights):
        # Every component may fly on at each pace.
        to = np.repeat(np.arange(count), len(weights))
        parts = np.where(to == np.tile(paces, count), 1.0 - change * (count - 1), change)
        turned = (to != np.tile(paces, count)) & unseen
        weights, paces, matched = np.tile(weights, count) * parts, to, np.tile(matched, count)
        states = (np.tile(mixture.means, (count, 1)), np.tile(mixture.covariances, (count, 1, 1)))
    means, covariances = model.move(*states, paces, elapsed, motion, mixture.motion, turned)
    weights = weights * math.exp(-chances.lost_per_s * elapsed)
    # What has spread over as much as the map says no more than that the aircraft is somewhere on it.
    spread = 2 * math.pi * np.exp(0.5 * _log_det(covariances[:, POSITION, POSITION]))
    keep = spread < _LOST_SHARE * chances.map_area
    weights = weights[keep]
    return replace(
        mixture,
        time=time,
        weights=weights,
        means=means[keep],
        covariances=covariances[keep],
        paces=paces[keep],
        own=np.zeros(len(weights), bool),
        matched=matched[keep],
        lost=1.0 - float(weights.sum()),
        motion=motion,
    )


def step(mixture: Mixture, sight: Sight, model: Dynamics, chances: Chances) -> Mixture:
    """What is believed at a frame's time once it has been seen, from what was believed before."""
    motion = None if sight.velocity is None else Motion(*sight.velocity, sight.velocity_sigma, sight.seen)
    known = sight.heading is not None and sight.lean_m > 0
    if motion is None or not motion.seen or not known or mixture.leans is None:
        # What frames show of the motion cannot be used where it cannot be told from how the tilt moved it.
        moved = advance(mixture, sight.time, None if sight.seen else motion, model, chances)
        return replace(see(moved, sight, model, chances), leans=_now(moved, sight, model) if known else None)
    # Frames show how the view went. It goes as the aircraft does, and as the tilt moves it while the vehicle turns.
    moved = advance(_swung(mixture, mixture.leans, 1.0), sight.time, motion, model, chances)
    leans = _now(moved, sight, model)
    swing = (np.hstack(leans) - np.hstack(mixture.leans)) / max(sight.time - mixture.time, 1e-3)
    moved = replace(_swung(moved, leans, -1.0), motion=replace(motion, swing=swing))
    return replace(see(moved, sight, model, chances), leans=leans)


def _now(mixture: Mixture, sight: Sight, model: Dynamics) -> tuple[Array, Array]:
    """What the tilt moves a frame's view by: as its likeliest place is measured, else by what it came with.

    One and the same for the view's motion and for its match: a difference between the two would tell the tilt.
    """
    if sight.places:
        return _leans_of(sight.places[0], sight, model, _correction(mixture))
    return lean_of(sight.lean_m, (sight.heading or 0.0) + sight.turned)


def _swung(mixture: Mixture, leans: tuple[Array, Array], sign: float) -> Mixture:
    """The same with the positions of views instead of aircraft, or back with a ``sign`` of -1."""
    swing = np.eye(SIZE)
    for part, lean in zip((TILT, SWAY), leans, strict=True):
        swing[POSITION, part] = sign * lean
    means, covariances = mixture.means @ swing.T, swing @ mixture.covariances @ swing.T
    return replace(mixture, means=means, covariances=covariances)


def _correction(mixture: Mixture) -> float:
    """Of the given height, as a logarithm, by all components."""
    return float(mixture.weights @ mixture.means[:, SCALE]) / max(float(mixture.weights.sum()), 1e-300)


def see(mixture: Mixture, sight: Sight, model: Dynamics, chances: Chances) -> Mixture:
    """What is believed once a frame has been seen, at the frame's time."""
    places = sight.places
    if not places:
        # Each step has split every component by pace.
        return merge(mixture, _COMPONENTS)
    # Of each place, and of where each component has come since: how new the view is.
    fresh = [_novelty(mixture, sight, _apart(place, mixture.seen), _NEW_VIEW_HEIGHTS, _NEW_VIEW_S) for place in places]
    nearest = min(_apart(place, mixture.seen) for place in places)
    scatter = _novelty(mixture, sight, nearest, _NEW_SCATTER_HEIGHTS, _NEW_SCATTER_S)
    new = _novelty(mixture, sight, nearest, _NEW_VIEW_HEIGHTS, _NEW_VIEW_S)
    velocity = mixture.means[:, VELOCITY] + (0.0 if mixture.motion is None else mixture.motion.velocity)
    speed = np.sqrt((velocity**2).sum(axis=1) + np.trace(mixture.covariances[:, VELOCITY, VELOCITY], axis1=1, axis2=2))
    gone = speed * (max(sight.time - mixture.seen_at, 0.0) if len(mixture.seen) else 0.0)
    moved = np.array([_novelty(mixture, sight, float(metres), _NEW_VIEW_HEIGHTS, _NEW_VIEW_S) for metres in gone])
    correction = _correction(mixture)
    looks = [_look(place, sight, model, scatter, correction) for place in places]
    found = (_STATED * chances.found + mixture.hits) / (_STATED + mixture.frames)
    areas = [min(area, chances.map_area) for area in sight.areas or (sight.area,) * len(places)]
    weights, means, covariances, paces, own = [], [], [], [], []
    # A view that was matched is matched again until it is new, and one that was not is not.
    finds = moved * found + (1.0 - moved) * mixture.matched
    # Of a component's cases: none of the places is right, or one of them.
    with np.errstate(divide="ignore"):
        prior, find_logs = np.log(mixture.weights), np.log(finds)
        lost_log = math.log(mixture.lost) if mixture.lost > 0 else -math.inf
    missed = np.log(np.maximum(1.0 - finds, _SPOILT))
    cases, heard, updated = [missed], [missed], []
    for look, place, told, area in zip(looks, places, fresh, areas, strict=True):
        noises = look.noises(mixture.means, mixture.covariances)
        mean, covariance, density = _correct(mixture.means, mixture.covariances, look.value, look.design, noises)
        says = log_ratio(place) + density - look.clutter + math.log(area)
        cases.append(find_logs + says)
        # What it said before it says again, right or wrong.
        heard.append(find_logs + told * says)
        updated.append((mean, covariance))
    ratio = np.stack(cases)
    ratio += prior + np.logaddexp.reduce(heard, axis=0) - np.logaddexp.reduce(ratio, axis=0)
    # What is lost may be where it was looked for, or where nobody looked.
    searched = [area / chances.map_area for area in areas]
    anew = np.array(
        [
            lost_log + math.log(told * found * share) + log_ratio(place)
            for place, told, share in zip(places, fresh, searched, strict=True)
        ]
    )
    # The same holds of its view: new if it was lost since the last frame, and else as new as that of any component.
    kept = float(mixture.weights.sum())
    roams = float(mixture.weights @ np.where(mixture.matched, 1.0, moved)) / kept if kept > 0 else 1.0
    still = lost_log + math.log1p(-roams * min(fresh) * found * min(sight.area / chances.map_area, 1.0))
    for row, (mean, covariance) in enumerate([(mixture.means, mixture.covariances), *updated]):
        weights.append(ratio[row])
        means.append(mean)
        covariances.append(covariance)
        paces.append(mixture.paces)
        own.append(np.full(len(mean), row > 0))
    count = len(model.speed_sigmas)
    for log_weight, look in zip(anew, looks, strict=True):
        for pace in range(count):
            mean, covariance = _begin(look, model, pace, None if mixture.motion is None else mixture.motion.sigma)
            weights.append(np.array([log_weight - math.log(count)]))
            means.append(mean[None])
            covariances.append(covariance[None])
            paces.append(np.array([pace]))
            own.append(np.ones(1, bool))
    logs = np.append(np.concatenate(weights), still)
    shares = np.exp(logs - np.logaddexp.reduce(logs))
    believing = np.concatenate(own)
    right = float(shares[:-1][believing].sum())
    fading = 1.0 - new / _MEMORY
    seen = replace(
        mixture,
        weights=shares[:-1],
        means=np.concatenate(means),
        covariances=np.concatenate(covariances),
        paces=np.concatenate(paces),
        own=believing,
        matched=believing,
        confirmed=mixture.confirmed or right > 0.5,
        hits=fading * mixture.hits + new * right,
        frames=fading * mixture.frames + new,
        lost=float(shares[-1]),
        seen=np.array([[place.easting, place.northing] for place in places]),
        seen_at=sight.time,
    )
    return merge(seen, _COMPONENTS)


def merge(mixture: Mixture, most: int) -> Mixture:
    """At most so many components: negligible ones go, and those whose merging changes least become one."""
    heaviest = np.argsort(-mixture.weights, kind="stable")[: _MERGED_PER_KEPT * most]
    keep = np.sort(heaviest[mixture.weights[heaviest] > _NEGLIGIBLE * mixture.weights.max(initial=0.0)])
    weights, means, covariances = mixture.weights[keep], mixture.means[keep], mixture.covariances[keep]
    paces, own, matched = mixture.paces[keep], mixture.own[keep], mixture.matched[keep]
    gone = float(mixture.weights.sum() - weights.sum())
    if len(weights) > most:
        kinds = 4 * paces + 2 * own + matched
        alive = np.ones(len(weights), bool)
        rows = np.arange(len(weights))
        costs = _cost(rows[:, None], rows, weights, means, covariances, kinds)
        costs[np.tril_indices(len(weights))] = np.inf
        for _ in range(len(weights) - most):
            first, second = divmod(int(np.argmin(costs)), len(weights))
            pair = [first, second]
            weights[first], means[first], covariances[first] = moments(weights[pair], means[pair], covariances[pair])
            alive[second] = False
            costs[second], costs[:, second] = np.inf, np.inf
            again = np.where(alive, _cost(np.array(first), rows, weights, means, covariances, kinds), np.inf)
            costs[first, first + 1 :], costs[:first, first] = again[first + 1 :], again[:first]
        arrays = (weights, means, covariances, paces, own, matched)
        weights, means, covariances, paces, own, matched = (values[alive] for values in arrays)
    lost = min(mixture.lost + gone, 1.0)
    return replace(
        mixture,
        weights=weights,
        means=means,
        covariances=covariances,
        paces=paces,
        own=own,
        matched=matched,
        lost=lost,
    )


def moments(weights: Array, means: Array, covariances: Array) -> tuple[float, Array, Array]:
    """Weight, mean and covariance of several components together."""
    total = float(weights.sum())
    share = weights / total
    mean = share @ means
    apart = means - mean
    return total, mean, np.asarray(np.einsum("n,nij->ij", share, covariances) + (share * apart.T) @ apart)


@dataclass(frozen=True)
class _Look:
    """A place as a measurement of the state: its value, how the state makes it, its noise, and the density by chance.

    Args:
        value: (4,) easting and northing of the aircraft, turn in radians, logarithm of the scale.
        design: (4, 12).
        noise: (4, 4), but for what is unsure of the design.
        unsure: variances of the scale and the turn, radians squared, under which the design has the tilt.
        clutter: logarithm of the density of turn and scale at wrong places.
    """

    value: Array
    design: Array
    noise: Array
    unsure: tuple[float, float]
    clutter: float

    def noises(self, means: Array, covariances: Array) -> Array:
        """(N, 4, 4) noise to components of means (N, 12) and covariances (N, 12, 12).

        The tilt's way on the ground is known as well as the fitted height and heading are, so that a large tilt seems
        to change with their errors. Taken as known, such changes would tell the tilt.
        """
        design = np.zeros((2, SIZE))
        for part in (TILT, SWAY):
            design[:, part] = self.design[:2, part]
        moved = means @ design.T
        square = design @ covariances @ design.T + moved[:, :, None] * moved[:, None, :]
        across = np.array([[0.0, 1.0], [-1.0, 0.0]])
        scale, turn = self.unsure
        noises = np.tile(self.noise, (len(means), 1, 1))
        noises[:, :2, :2] += scale * square + turn * across @ square @ across.T
        return noises


def _look(place: Alternative, sight: Sight, model: Dynamics, new: float, correction: float) -> _Look:
    design, noise = np.zeros((4, SIZE)), np.zeros((4, 4))
    lean, common = common_errors(place, model)
    design[:2, POSITION] = np.eye(2)
    design[:2, TILT], design[:2, SWAY] = _leans_of(place, sight, model, correction)
    design[:2, MAP] = common / model.map_sigma * np.eye(2)
    # What one view got wrong by itself, the same view gets wrong again.
    noise[:2, :2] = (place.covariance - (common**2 + lean**2) * np.eye(2)) / new
    fitted = math.radians(math.hypot(place.heading_sigma_deg, _TURN_FLOOR_DEG)) ** 2
    turn, passing = 0.0, 1.0 - lasting.HEADING.lasting
    if sight.heading is None:
        noise[2, 2] = 1.0
        spread = 1.0
    else:
        design[2, TURN] = 1.0
        turn = math.radians(wrap_degrees(place.heading_deg - sight.heading))
        noise[2, 2] = fitted + passing * model.turn_sigma**2
        spread = model.turn_sigma**2 + fitted
    design[3, SCALE] = 1.0
    scale = math.log(place.height_m / sight.height)
    noise[3, 3] = _SCALE_FLOOR**2 + (1.0 - lasting.HEIGHT.lasting) * model.scale_sigma**2
    by_chance = turn - math.radians(sight.turned) if sight.heading is not None else 0.0
    clutter = _log_normal(by_chance, spread)
    clutter += _log_normal(scale - math.log(sight.scaled), model.scale_sigma**2 + _SCALE_FLOOR**2)
    value = np.array([place.easting, place.northing, turn, scale])
    return _Look(value, design, noise, (_SCALE_FLOOR**2 / new, fitted / new), clutter)


def _leans_of(place: Alternative, sight: Sight, model: Dynamics, correction: float) -> tuple[Array, Array]:
    # By the height that the flight knows: a fitted one scatters more, and a tilt does not change by that.
    lean, _ = common_errors(place, model)
    return lean_of(lean * sight.height * math.exp(correction) / place.height_m, place.heading_deg)


def common_errors(place: Alternative, model: Dynamics) -> tuple[float, float]:
    """Sigmas in metres of the aircraft's position by the camera's tilt, and of the match by the map's error.

    They are parts of the covariances that the place came with: what the aircraft's has beyond the middle's is tilt.
    """
    lean = _least(place.covariance - place.center_covariance)
    common = min(model.map_sigma**2, _MOST_COMMON * _least(place.center_covariance))
    return math.sqrt(lean), math.sqrt(common)


def _correct(
    means: Array, covariances: Array, value: Array, design: Array, noises: Array
) -> tuple[Array, Array, Array]:
    """Kalman's update of every component (Joseph's form), and the logarithm of the density of what was measured.

    Args:
        means, covariances: (N, 12) and (N, 12, 12).
        value: (M,) that was measured, ``design`` (M, 12) how the state makes it, ``noises`` (N, M, M).
    """
    apart = value - means @ design.T
    spread = design @ covariances @ design.T + noises
    gain = covariances @ design.T @ np.linalg.inv(spread)
    left = np.eye(SIZE) - gain @ design
    updated = left @ covariances @ left.transpose(0, 2, 1) + gain @ noises @ gain.transpose(0, 2, 1)
    squared = np.einsum("ni,ni->n", apart, np.linalg.solve(spread, apart[..., None])[..., 0])
    density = -0.5 * (squared + np.linalg.slogdet(2 * math.pi * spread)[1])
    return means + np.einsum("nij,nj->ni", gain, apart), (updated + updated.transpose(0, 2, 1)) / 2, density


def _begin(look: _Look, model: Dynamics, pace: int, velocity_sigma: float | None) -> tuple[Array, Array]:
    """The state of an aircraft of which only one place is known: what a position without a prior becomes."""
    mean, covariance = model.start(pace)
    if velocity_sigma is not None:
        covariance[VELOCITY, VELOCITY] = velocity_sigma**2 * np.eye(2)
    other = look.design.copy()
    other[:, POSITION] = 0.0
    mean[POSITION] = look.value[:2]
    noise = look.noises(mean[None], covariance[None])
    crossed = covariance @ other[:2].T
    covariance[:, POSITION] = -crossed
    covariance[POSITION, :] = -crossed.T
    covariance[POSITION, POSITION] = other[:2] @ crossed + noise[0, :2, :2]
    # Turn and scale say nothing of the position, so they can be taken in by themselves.
    rest = look.value[2:], look.design[2:], noise[:, 2:, 2:]
    means, covariances, _ = _correct(mean[None], covariance[None], *rest)
    return means[0], covariances[0]


def _apart(place: Alternative, seen: Array) -> float:
    """Metres from a place to the nearest of those seen (K, 2) before; infinite without any."""
    return float(np.hypot(*(np.array([place.easting, place.northing]) - seen).T).min(initial=math.inf))


def _novelty(mixture: Mixture, sight: Sight, moved: float, heights: float, seconds: float) -> float:
    """How much of a frame's word is its own, 0 to 1: the same view again says the same again, right or wrong.

    Args:
        moved: metres that the camera has moved since the last frame that told any places.
        heights: how far the camera has to move, in its heights above ground, until a view is new but for 1 / e.
        seconds: the same by time alone.
    """
    if not len(mixture.seen):
        return 1.0
    elapsed = max(sight.time - mixture.seen_at, 0.0)
    return max(-math.expm1(-moved / (heights * sight.height) - elapsed / seconds), 1e-3)


def _cost(
    one: NDArray[np.int64],
    other: NDArray[np.int64],
    weights: Array,
    means: Array,
    covariances: Array,
    kinds: NDArray[np.int64],
) -> Array:
    """What merging components with others changes, judged by their positions and velocities; indices broadcast.

    Those that believe the frame and those that do not are kept apart, so that both can be told; and so are paces.
    """
    both = weights[one] + weights[other]
    share = weights[one] / both
    cost = np.zeros(both.shape)
    for first in (POSITION.start, VELOCITY.start):
        second = first + 1
        a, b, c = covariances[:, first, first], covariances[:, first, second], covariances[:, second, second]
        x, y = means[one, first] - means[other, first], means[one, second] - means[other, second]
        across = share * (1 - share)
        joint = (share * a[one] + (1 - share) * a[other] + across * x * x) * (
            share * c[one] + (1 - share) * c[other] + across * y * y
        ) - (share * b[one] + (1 - share) * b[other] + across * x * y) ** 2
        logs = np.log(np.maximum(a * c - b * b, 1e-30))
        cost += both * np.log(np.maximum(joint, 1e-30)) - weights[one] * logs[one] - weights[other] * logs[other]
    # Merging what is not alike is never cheaper than anything that is.
    return np.where(kinds[one] == kinds[other], cost / 2, 1e9)


def _log_det(matrices: Array) -> Array:
    value = matrices[:, 0, 0] * matrices[:, 1, 1] - matrices[:, 0, 1] * matrices[:, 1, 0]
    return np.asarray(np.log(np.maximum(value, 1e-30)))


def _log_normal(value: float, variance: float) -> float:
    return -0.5 * (value**2 / variance + math.log(2 * math.pi * variance))


def _least(covariance: Array) -> float:
    return max(float(np.linalg.eigvalsh(covariance)[0]), 0.0)
