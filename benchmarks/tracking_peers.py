"""Other filters over the same frames as `cvgl.tracking.Tracker`: what it is measured against."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from cvgl.fix import Alternative
from cvgl.lasting import MAP_REACH_M, TILT, VELOCITY
from cvgl.settings import Settings
from cvgl.tracking import Sight
from cvgl.tracking.evidence import lean_of, log_ratio
from cvgl.tracking.mixture import common_errors
from cvgl.tracking.motion import Dynamics

__all__ = ["Gated", "Particles", "Peer", "Told"]

Array = NDArray[np.float64]
Bounds = tuple[float, float, float, float]


@dataclass(frozen=True)
class Told:
    """A filter's answer: position (2,) and covariance (2, 2), None where lost; whether it took the frame's match."""

    position: Array | None = None
    covariance: Array | None = None
    accepted: bool = False


class Peer(Protocol):
    """What takes a sequence of sights."""

    def update(self, sight: Sight) -> Told:
        """Take in a frame and answer."""


class Gated:
    """One Kalman filter of position and velocity (or its error), fed the likeliest place of each frame.

    Args:
        settings: of the mission.
        gate: innovations beyond this many sigmas are refused; None takes everything.
        least_odds: log10 of the odds that a place needs to be looked at.
        patience: refusals in a row after which the filter starts anew.
    """

    def __init__(self, settings: Settings, gate: float | None, least_odds: float = 2.0, patience: int = 5) -> None:
        self._speed = settings.max_speed_m_s / 2
        self._gate, self._least, self._patience = gate, least_odds, patience
        self._x: Array | None = None
        self._p = np.zeros((4, 4))
        self._time = 0.0
        self._given: Array | None = None
        self._refused = 0

    def update(self, sight: Sight) -> Told:
        """Take in a frame and answer."""
        if self._x is not None:
            self._advance(sight)
        self._time = sight.time
        self._given = None if sight.velocity is None else np.array(sight.velocity)
        best = max(sight.places, key=lambda place: place.log10_odds, default=None)
        if best is None or best.log10_odds < self._least:
            return self._told(False)
        z, r = np.array([best.easting, best.northing]), best.covariance
        if self._x is None:
            self._begin(z, r, sight)
            return self._told(True)
        s = self._p[:2, :2] + r
        apart = z - self._x[:2]
        if self._gate is not None and float(apart @ np.linalg.solve(s, apart)) > self._gate**2:
            self._refused += 1
            if self._refused >= self._patience:
                self._begin(z, r, sight)
            return self._told(self._refused == 0)
        self._refused = 0
        gain = self._p[:, :2] @ np.linalg.inv(s)
        self._x = self._x + gain @ apart
        self._p = self._p - gain @ self._p[:2]
        return self._told(True)

    def _begin(self, z: Array, r: Array, sight: Sight) -> None:
        sigma = self._speed if sight.velocity is None else sight.velocity_sigma
        self._x, self._p, self._refused = np.array([*z, 0.0, 0.0]), np.diag([0.0, 0.0, sigma**2, sigma**2]), 0
        self._p[:2, :2] = r

    def _advance(self, sight: Sight) -> None:
        assert self._x is not None
        dt = sight.time - self._time
        given = np.zeros(2) if sight.velocity is None else np.array(sight.velocity)
        sigma, lasts = (self._speed, 20.0) if sight.velocity is None else (sight.velocity_sigma, 30.0)
        if sight.velocity is None and self._given is not None:
            self._x[2:] += self._given
        keep = math.exp(-dt / lasts)
        reach = lasts * (1 - keep)
        f = np.eye(4)
        f[:2, 2:], f[2:, 2:] = reach * np.eye(2), keep * np.eye(2)
        q = np.zeros((4, 4))
        q[:2, :2] = lasts**2 * (2 * dt / lasts - 3 + 4 * keep - keep**2) * np.eye(2)
        q[:2, 2:] = q[2:, :2] = lasts * (1 - keep) ** 2 * np.eye(2)
        q[2:, 2:] = (1 - keep**2) * np.eye(2)
        self._x = f @ self._x + np.array([*(given * dt), 0.0, 0.0])
        self._p = f @ self._p @ f.T + sigma**2 * q

    def _told(self, accepted: bool) -> Told:
        if self._x is None or math.sqrt(float(np.linalg.eigvalsh(self._p[:2, :2])[-1])) > 150.0:
            return Told()
        return Told(self._x[:2].copy(), self._p[:2, :2].copy(), accepted)


class Particles:
    """A particle filter of the same model: position, velocity (or its error), tilt and map error.

    Source: Gordon, Salmond, Smith: Novel approach to nonlinear/non-Gaussian Bayesian state estimation, IEE Proceedings
    F 140 (1993); particles are also drawn at a frame's places, for the share that is lost.

    Args:
        settings: of the mission.
        bounds: of the map.
        count: particles.
        seed: of the draws.
    """

    def __init__(self, settings: Settings, bounds: Bounds, count: int, seed: int) -> None:
        self._model = Dynamics.of(settings)
        self._settings = settings
        self._rng = np.random.default_rng(seed)
        self._count = count
        west, south, east, north = bounds
        self._area = (east - west) * (north - south)
        self._p = self._rng.uniform([west, south], [east, north], (count, 2))
        self._low, self._high = np.array([west, south]), np.array([east, north])
        self._v = self._rng.normal(0, self._model.speed_sigmas[-1], (count, 2))
        self._tilt, self._sway = self._rng.normal(size=(2, count, 2))
        self._map = self._rng.normal(0, self._model.map_sigma, (count, 2))
        self._w = np.full(count, 1.0 / count)
        self._time: float | None = None
        self._given: Array | None = None

    def update(self, sight: Sight) -> Told:
        """Take in a frame and answer."""
        if self._time is not None:
            self._advance(sight)
        self._time = sight.time
        self._given = None if sight.velocity is None else np.array(sight.velocity)
        best = 0.0
        if sight.places:
            best = self._weigh(sight)
        mean = self._w @ self._p
        apart = self._p - mean
        covariance = (self._w * apart.T) @ apart
        if math.sqrt(float(np.linalg.eigvalsh(covariance)[-1])) > 150.0:
            return Told()
        return Told(mean, covariance + 0.01 * np.eye(2), best > 0.9)

    def _weigh(self, sight: Sight) -> float:
        """Weights by the frame's places; the share of them that holds that one of the places is right."""
        # Some of the particles begin anew at the frame's places, with the weight that the lost ones have.
        self._jump(sight)
        likely = np.full(self._count, 1.0 - self._settings.match_probability)
        right = np.zeros(self._count)
        area = min(sight.area, self._area)
        for place in sight.places:
            apart = np.array([place.easting, place.northing]) - self._seen(place)
            lean, common = common_errors(place, self._model)
            noise = place.covariance - (lean**2 + common**2) * np.eye(2)
            squared = np.einsum("ni,ij,nj->n", apart, np.linalg.inv(noise), apart)
            density = np.exp(-0.5 * squared) / (2 * math.pi * math.sqrt(float(np.linalg.det(noise))))
            right += self._settings.match_probability * math.exp(log_ratio(place)) * density * area
        self._w = self._w * (likely + right)
        self._w /= self._w.sum()
        share = float(self._w @ (right / (likely + right)))
        if 1.0 / float(self._w @ self._w) < self._count / 2:
            picked = np.searchsorted(np.cumsum(self._w), (np.arange(self._count) + self._rng.random()) / self._count)
            picked = np.minimum(picked, self._count - 1)
            state = (self._p, self._v, self._tilt, self._sway, self._map)
            self._p, self._v, self._tilt, self._sway, self._map = (values[picked] for values in state)
            self._w = np.full(self._count, 1.0 / self._count)
            # Regularised: copies are moved apart by a little of the spread.
            spread = np.sqrt(np.maximum(np.var(self._p, axis=0), 1e-4))
            self._p = self._p + self._rng.normal(size=self._p.shape) * 0.2 * np.minimum(spread, 5.0)
        return share

    def _seen(self, place: Alternative) -> Array:
        lean, common = common_errors(place, self._model)
        lasts, passes = lean_of(lean, place.heading_deg)
        seen: Array = (
            self._p + self._tilt @ lasts.T + self._sway @ passes.T + common / self._model.map_sigma * self._map
        )
        return seen

    def _jump(self, sight: Sight) -> None:
        share = self._count // 20
        places: Sequence = sight.places
        moved = self._rng.choice(self._count, share, replace=False)
        weights = np.exp([log_ratio(place) for place in places])
        drawn = self._rng.choice(len(places), share, p=weights / weights.sum())
        held = float(self._w[moved].sum())
        self._p[moved] = [
            self._rng.multivariate_normal([places[k].easting, places[k].northing], places[k].covariance) for k in drawn
        ]
        self._v[moved] = self._rng.normal(
            0, self._model.speed_sigmas[-1] if self._given is None else sight.velocity_sigma, (share, 2)
        )
        self._tilt[moved], self._sway[moved] = self._rng.normal(size=(2, share, 2))
        self._map[moved] = self._rng.normal(0, self._model.map_sigma, (share, 2))
        # The lost are even over the map: at a place they have its density, not the one that they were drawn with.
        lost = max(2e-5, 1e-3 * held)
        density = [
            1.0 / self._area * 2 * math.pi * math.sqrt(float(np.linalg.det(places[k].covariance))) for k in drawn
        ]
        self._w[moved] = lost * np.asarray(density) / share
        self._w /= self._w.sum()

    def _advance(self, sight: Sight) -> None:
        dt = sight.time - (self._time or 0.0)
        given = np.zeros(2) if sight.velocity is None else np.array(sight.velocity)
        if sight.velocity is None:
            sigma, lasts = self._model.speed_sigmas[-1], 20.0
            if self._given is not None:
                self._v = self._v + self._given
        else:
            sigma, lasts = sight.velocity_sigma, VELOCITY.lasting_s
            if self._given is None:
                self._v = self._rng.normal(0, sigma, self._v.shape)
        keep = math.exp(-dt / lasts)
        reach = lasts * (1 - keep)
        q11 = max(lasts**2 * (2 * dt / lasts - 3 + 4 * keep - keep**2), 0.0)
        root = np.linalg.cholesky(
            sigma**2 * np.array([[q11, lasts * (1 - keep) ** 2], [lasts * (1 - keep) ** 2, 1 - keep**2]])
            + 1e-9 * np.eye(2)
        )
        noise = self._rng.normal(size=(self._count, 2, 2)) @ root.T
        self._p = self._p + given * dt + reach * self._v + noise[:, :, 0]
        self._v = keep * self._v + noise[:, :, 1]
        for states, lasts in ((self._tilt, TILT.lasting_s), (self._sway, TILT.passing_s)):
            keep = math.exp(-dt / lasts)
            states *= keep
            states += math.sqrt(1 - keep**2) * self._rng.normal(size=states.shape)
        fade = math.exp(-float(np.hypot(*(given + self._w @ self._v))) * dt / MAP_REACH_M)
        draw = self._rng.normal(0, self._model.map_sigma, self._map.shape)
        self._map = fade * self._map + math.sqrt(1 - fade**2) * draw
