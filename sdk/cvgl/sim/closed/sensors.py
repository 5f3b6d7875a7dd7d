"""What the vehicle is told of itself: the truth with each sensor's errors and gaps."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cvgl import lasting
from cvgl.sim.closed.noise import gaps, gauss_markov, lasting_errors
from cvgl.sim.closed.scenario import Scenario
from cvgl.sim.closed.trajectory import Trajectory

__all__ = ["Telemetry", "measure"]

_DRIFT_S = 120.0
_LEAST_HEIGHT_M = 2.0


@dataclass(frozen=True)
class Telemetry:
    """What is handed to the localiser with each frame; NaN where nothing is told.

    Args:
        present: (N,) whether there is a frame at all.
        height: (N,) metres above ground.
        heading: (N,) degrees clockwise from true north.
        attitude: (N, 2) pitch and roll, degrees.
        velocity: (N, 2) east and north over ground, m/s.
        velocity_sigma: that is told with it, m/s; None for the settings' own.
    """

    present: NDArray[np.bool_]
    height: NDArray[np.float64]
    heading: NDArray[np.float64]
    attitude: NDArray[np.float64]
    velocity: NDArray[np.float64]
    velocity_sigma: float | None


def measure(truth: Trajectory, scenario: Scenario, rng: np.random.Generator, *, stabilized: bool = True) -> Telemetry:
    """Sensors over a flight.

    Args:
        truth: what happened.
        scenario: errors and gaps.
        rng: draws them.
        stabilized: whether a gimbal carries the camera; its attitude is then not told.
    """
    count = len(truth)
    step = 1.0 / scenario.rate_hz
    kind = scenario.errors

    def errors(law: lasting.Law, columns: int = 1) -> NDArray[np.float64]:
        return lasting_errors(rng, law, count, step, columns, kind)

    heading = truth.heading + scenario.heading_sigma_deg * errors(lasting.HEADING)[:, 0] + scenario.heading_error_deg
    heading += scenario.heading_drift_deg * gauss_markov(rng, count, step, _DRIFT_S)[:, 0]
    scale = 1.0 + scenario.height_error + scenario.height_sigma * errors(lasting.HEIGHT)[:, 0]
    height = np.maximum(truth.position[:, 2] * scale + scenario.height_offset_m, _LEAST_HEIGHT_M)
    velocity = truth.velocity + scenario.velocity_sigma_m_s * errors(lasting.VELOCITY, 2)
    velocity += scenario.velocity_bias_m_s * rng.standard_normal(2)
    attitude = truth.vehicle + scenario.attitude_sigma_deg * errors(lasting.TILT, 2)
    present = ~gaps(rng, count, step, scenario.drop_frames, scenario.gap_s)
    no_heading = gaps(rng, count, step, scenario.drop_heading, scenario.gap_s) | (not scenario.heading_known)
    no_velocity = gaps(rng, count, step, scenario.drop_velocity, scenario.gap_s) | (not scenario.velocity_known)
    return Telemetry(
        present,
        height,
        np.where(no_heading, np.nan, heading % 360.0),
        np.full((count, 2), np.nan) if stabilized else attitude,
        np.where(no_velocity[:, None], np.nan, velocity),
        scenario.velocity_sigma_m_s if scenario.velocity_sigma_m_s > 0 else None,
    )
