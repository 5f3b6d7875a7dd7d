"""What the filter estimates, and how it changes from one time to another."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cvgl import lasting
from cvgl.settings import Settings

__all__ = ["LEANING", "MAP", "POSITION", "SCALE", "SIZE", "SWAY", "TILT", "TURN", "VELOCITY", "Dynamics", "Motion"]

Array = NDArray[np.float64]

# The state: metres and m/s in the local tangent plane, and errors that last longer than one frame.
POSITION = slice(0, 2)  # of the aircraft, east and north
VELOCITY = slice(2, 4)  # over ground; where a velocity is given, its error
TILT = slice(4, 6)  # lasting, of the camera, forward and right; in standard deviations of that part
MAP = slice(6, 8)  # what is wrong with every match here by the map's georeference; metres
TURN = 8  # lasting error of the given heading, radians
SCALE = 9  # lasting: logarithm of the true height above ground over the given one
SWAY = slice(10, 12)  # the tilt that passes, as TILT
SIZE = 12
# The parts that move a view over the ground while the aircraft stays.
LEANING = [*range(SIZE)[TILT], *range(SIZE)[SWAY]]

# An aircraft of which nothing is known keeps its velocity for so long, seconds (e-folding).
_SPEED_S = 20.0
# How long an aircraft keeps its pace on average, seconds.
_PACE_S = 60.0


@dataclass(frozen=True)
class Motion:
    """A velocity over ground that was given, mean since the frame before.

    Args:
        east, north: m/s.
        sigma: of each component, m/s.
        seen: whether the frames told it. Then it is that of the view, by the given heading and height: their lasting
            errors turn and stretch it, and the camera's tilt moves the view whenever the vehicle turns. A filter that
            took it for the aircraft's own would find the tilt confirmed to be none, since matches move with the view.
        swing: (2, 4) m/s that the view went besides the aircraft for each standard deviation of TILT and SWAY; None
            where that is not known or nothing.
    """

    east: float
    north: float
    sigma: float
    seen: bool = False
    swing: Array | None = None

    @property
    def velocity(self) -> Array:
        """(2,) m/s."""
        return np.array([self.east, self.north])


@dataclass(frozen=True)
class Dynamics:
    """How the state spreads with time; every error is a first-order Gauss-Markov process of a stationary spread.

    Source: Maybeck, Stochastic Models, Estimation, and Control, volume 1 (1979), 4.11; for a velocity and the position
    that it integrates to, Singer, IEEE Trans. AES 6 (1970), one order lower.

    Args:
        speed_sigmas: of each component of an unknown velocity, m/s, at each pace: whether an aircraft crawls or hurries
            is not known, but it does so for a while.
        map_sigma: of the map's georeference, metres.
        turn_sigma: of a given heading, radians; how much of it lasts, `cvgl.lasting` says.
        scale_sigma: of a given height, relative; as above.
    """

    speed_sigmas: tuple[float, ...]
    map_sigma: float
    turn_sigma: float
    scale_sigma: float

    @classmethod
    def of(cls, settings: Settings) -> Dynamics:
        """As a mission's settings state it; the greatest speed is taken as two sigma of the faster pace."""
        return cls(
            (settings.max_speed_m_s / 8, settings.max_speed_m_s / 2),
            settings.map_sigma_m,
            math.radians(settings.heading_sigma_deg),
            settings.height_sigma,
        )

    def change_of_pace(self, elapsed: float) -> float:
        """Probability that after some seconds an aircraft flies at another pace, the same for each of the others."""
        count = len(self.speed_sigmas)
        return -math.expm1(-elapsed / _PACE_S * count / max(count - 1, 1)) / count if count > 1 else 0.0

    def start(self, pace: int) -> tuple[Array, Array]:
        """Mean (12,) and covariance (12, 12) of the state before anything was seen; of the position it says nothing."""
        spread = self._stationary()
        spread[VELOCITY] = self.speed_sigmas[pace]
        return np.zeros(SIZE), np.diag(spread**2)

    def _stationary(self) -> Array:
        """(12,) sigmas that errors have when nothing is known of them; of position and velocity 0."""
        spread = np.zeros(SIZE)
        spread[TILT], spread[SWAY], spread[MAP] = 1.0, 1.0, self.map_sigma
        spread[TURN] = lasting.HEADING.lasting_sigma * self.turn_sigma
        spread[SCALE] = lasting.HEIGHT.lasting_sigma * self.scale_sigma
        return spread

    def move(
        self,
        means: Array,
        covariances: Array,
        paces: NDArray[np.int64],
        elapsed: float,
        motion: Motion | None,
        before: Motion | None,
        turned: NDArray[np.bool_],
    ) -> tuple[Array, Array]:
        """Means (N, 12) and covariances (N, 12, 12) after some seconds.

        Args:
            paces: (N,) of each component.
            elapsed: seconds, 0 or more.
            motion: the velocity that was given for this time, or None.
            before: the velocity that was given for the time before it, whose error the state now holds, or None where
                the state holds the velocity itself.
            turned: (N,) which may have taken any course.
        """
        means, covariances = means.copy(), covariances.copy()
        if motion is None:
            if before is not None:
                means[:, VELOCITY] += before.velocity
                if before.swing is not None:
                    tilts = means[:, LEANING]
                    square = covariances[:, LEANING][:, :, LEANING] + tilts[:, :, None] * tilts[:, None, :]
                    covariances[:, VELOCITY, VELOCITY] += before.swing @ square @ before.swing.T
            sigma, lasts, carried = np.array(self.speed_sigmas)[paces], _SPEED_S, np.zeros(2)
            means[turned, VELOCITY] = 0.0
            covariances[turned, VELOCITY, :] = 0.0
            covariances[turned, :, VELOCITY] = 0.0
            covariances[turned, VELOCITY, VELOCITY] = (sigma[turned] ** 2)[:, None, None] * np.eye(2)
        else:
            if before is None or before.seen != motion.seen:
                # What one source is wrong by, another is not.
                means[:, VELOCITY] = 0.0
                covariances[:, VELOCITY, :] = covariances[:, :, VELOCITY] = 0.0
                covariances[:, VELOCITY, VELOCITY] = motion.sigma**2 * np.eye(2)
            sigma, lasts = np.full(len(means), motion.sigma), lasting.VELOCITY.lasting_s
            carried = motion.velocity
        if elapsed <= 0.0:
            return means, covariances
        keep = math.exp(-elapsed / lasts)
        reach = lasts * (1.0 - keep)
        shift = carried * elapsed + reach * means[:, VELOCITY]
        kept = np.ones(SIZE)
        kept[VELOCITY] = keep
        kept[TILT], kept[SWAY] = np.exp(-elapsed / np.array([lasting.TILT.lasting_s, lasting.TILT.passing_s]))
        kept[TURN], kept[SCALE] = np.exp(-elapsed / np.array([lasting.HEADING.lasting_s, lasting.HEIGHT.lasting_s]))
        decay = np.tile(kept, (len(means), 1))
        decay[:, MAP] = np.exp(-np.hypot(*shift.T) / lasting.MAP_REACH_M)[:, None]
        step = decay[:, :, None] * np.eye(SIZE)
        step[:, POSITION, VELOCITY] = reach * np.eye(2)
        stationary = np.tile(self._stationary(), (len(means), 1))
        stationary[:, VELOCITY] = sigma[:, None]
        noise = (stationary**2 * (1 - decay**2))[:, :, None] * np.eye(SIZE)
        variance = (sigma**2)[:, None, None] * np.eye(2)
        grown = max(2 * elapsed / lasts - 3 + 4 * keep - keep**2, 0.0)
        noise[:, POSITION, POSITION] = lasts**2 * grown * variance
        noise[:, POSITION, VELOCITY] = noise[:, VELOCITY, POSITION] = lasts * (1 - keep) ** 2 * variance
        if motion is not None and motion.seen:
            step[:, POSITION, TURN] = np.array([carried[1], -carried[0]]) * elapsed
            step[:, POSITION, SCALE] = carried * elapsed
        moved = np.einsum("nij,nj->ni", step, means)
        moved[:, POSITION] += carried * elapsed
        return moved, step @ covariances @ step.transpose(0, 2, 1) + noise
