"""How long errors last: what a sigma of the settings means over a flight, to the filter and to the simulator alike.

A sigma says how far one frame is wrong. What many frames say together depends on how much of that they share: a mount
that hangs wrong is wrong in every frame, and no average takes it out. Each error here is the sum of a lasting and a
passing part, both first-order Gauss-Markov processes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

__all__ = ["HEADING", "HEIGHT", "MAP_REACH_M", "TILT", "VELOCITY", "Law"]


@dataclass(frozen=True)
class Law:
    """How an error's variance is shared between what lasts and what passes.

    Args:
        lasting: share of the variance that lasts, 0 to 1.
        lasting_s: e-folding time of that part, seconds.
        passing_s: e-folding time of the rest; 0 where it is new in every frame.
    """

    lasting: float
    lasting_s: float
    passing_s: float = 0.0

    @property
    def lasting_sigma(self) -> float:
        """Of the lasting part, as a share of the whole sigma."""
        return math.sqrt(self.lasting)

    @property
    def passing_sigma(self) -> float:
        """Of the passing part, as a share of the whole sigma."""
        return math.sqrt(1.0 - self.lasting)


TILT = Law(lasting=0.9, lasting_s=600.0, passing_s=20.0)
"""Of the camera, by ``tilt_sigma_deg`` or ``attitude_sigma_deg``. A mount is wrong in the same way for long, a gimbal's
or an attitude solution's level wanders for tens of seconds after the vehicle has accelerated."""

HEADING = Law(lasting=0.5, lasting_s=300.0)
"""By ``heading_sigma_deg``: iron near the compass and declination last, a camera's lag behind its vehicle passes."""

HEIGHT = Law(lasting=0.8, lasting_s=100.0)
"""By ``height_sigma``: a barometer drifts, and the ground rises and falls over a kilometre of flight."""

VELOCITY = Law(lasting=1.0, lasting_s=30.0)
"""By ``velocity_sigma_m_s`` or what frames tell: wind, and the drift of an inertial solution."""

MAP_REACH_M = 200.0
"""E-folding distance over the ground of the map's error by ``map_sigma_m``. A georeference stays where it is: the error
belongs to the place, so that hovering does not average it."""
