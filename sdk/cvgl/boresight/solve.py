"""The camera that explains a flight's fixes best: robust least squares over focal length, mount, time and height.

Three things are measured in every sight and predicted for every camera: where the image's middle lies, seen from the
aircraft's GNSS position; the scale; and the direction of image-up. Each parameter has a wide prior, so that what a
flight does not determine stays where it was, and is recognised by an uncertainty that the flight did not reduce.

A gimbal may be tilted anew during a flight. Such a flight falls into parts: each has a tilt of its own, and the lens,
the map's shift and everything else are common to all.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from cvgl.boresight.sights import Sight, azimuth_of
from cvgl.camera import Camera
from cvgl.geometry import Mount, camera_to_enu, wrap_degrees
from cvgl.rectify import ground_offset

__all__ = ["FEWEST_SIGHTS", "Estimate", "Parameter", "Residuals", "Solution", "looks_at", "parameters", "solve"]

# Sights below this number determine nothing that could be checked.
FEWEST_SIGHTS = 6
# Student's t with this many degrees of freedom: a match in the wrong place or a jump of the receiver pulls little.
_FREEDOM = 4.0
_ROUNDS = 40
_SETTLED = 1e-5
# Of the scale of one match, relative: relief, and height read from a barometer.
_SCALE_SIGMA = 0.02
# A parameter counts as determined where the flight makes it at least this much surer than it was before.
_SURER = 0.5


@dataclass(frozen=True)
class Parameter:
    """One of the things that are looked for.

    Args:
        name: of it.
        unit: it is given in.
        prior_sigma: how far off it may be.
        step: for its derivative.
    """

    name: str
    unit: str
    prior_sigma: float
    step: float


_ROLL, _PITCH = Parameter("mount_roll", "deg", 15.0, 1e-3), Parameter("mount_pitch", "deg", 15.0, 1e-3)
_COMMON = (
    Parameter("focal_length", "log", 0.3, 1e-4),
    Parameter("mount_yaw", "deg", 30.0, 1e-3),
    Parameter("time_offset", "s", 1.0, 1e-3),
    Parameter("map_east", "m", 3.0, 1e-2),
    Parameter("map_north", "m", 3.0, 1e-2),
    # Take-off is not the ground that is flown over, and what is matched are roofs and trees as well as ground: in
    # simulated towns the matched height is three metres too low.
    Parameter("height_offset", "m", 4.0, 1e-2),
)
_FOCAL, _YAW, _TIME, _EAST, _NORTH, _HEIGHT = range(len(_COMMON))


def parameters(parts: int) -> tuple[Parameter, ...]:
    """What is looked for in a flight of so many parts: what they have in common, then roll and pitch of each.

    The tilt of a flight of one part is ``mount_roll`` and ``mount_pitch``, that of part k of several ``mount_roll_k``
    and ``mount_pitch_k``, counted from 1.
    """
    if parts == 1:
        return (*_COMMON, _ROLL, _PITCH)
    numbered = [replace(tilt, name=f"{tilt.name}_{part + 1}") for part in range(parts) for tilt in (_ROLL, _PITCH)]
    return (*_COMMON, *numbered)


@dataclass(frozen=True)
class Estimate:
    """What a flight says of one parameter.

    Args:
        value: of it, in the parameter's unit; the focal length in pixels.
        sigma: standard deviation, in the same unit.
        determined: whether the flight says it: False where its uncertainty is about what it was before.
    """

    value: float
    sigma: float
    determined: bool


@dataclass(frozen=True)
class Residuals:
    """What is left unexplained, one entry a sight.

    Args:
        forward_m, right_m: of the image's middle on the ground, measured less predicted, along and across image-up.
        scale: natural logarithm of the measured over the predicted scale.
        azimuth_deg: measured less predicted.
        weight: 0 to 1, how much the fit believes the sight.
    """

    forward_m: NDArray[np.float64]
    right_m: NDArray[np.float64]
    scale: NDArray[np.float64]
    azimuth_deg: NDArray[np.float64]
    weight: NDArray[np.float64]


@dataclass(frozen=True)
class Solution:
    """A camera for each part of the flight, how sure they are, and what they leave unexplained.

    Args:
        cameras: the one the fit started from, with what was determined put in; one a part, alike but for their tilt.
        estimates: by parameter name; ``focal_length`` in pixels of ``fx``.
        residuals: under the fitted parameters.
    """

    cameras: tuple[Camera, ...]
    estimates: dict[str, Estimate]
    residuals: Residuals

    @property
    def camera(self) -> Camera:
        """The camera as it hung at the end of the flight."""
        return self.cameras[-1]


def solve(
    sights: Sequence[Sight],
    cameras: Sequence[Camera],
    parts: Sequence[int],
    gnss_sigma_m: float = 2.5,
    heading_sigma_deg: float = 3.0,
) -> Solution:
    """Fit the parameters to sights that were taken with cameras near the true ones.

    Args:
        sights: at least :data:`FEWEST_SIGHTS`.
        cameras: that they were matched with, one for each part of the flight, alike but for roll and pitch.
        parts: of each sight, the index of its camera.
        gnss_sigma_m: of one position of the receiver, on each axis.
        heading_sigma_deg: of one reported heading.

    Returns:
        The fitted cameras: where the focal length is determined ``fx`` and ``fy`` keep their ratio, where the mount is,
        it is replaced; lens distortion and principal point are the given ones.

    Raises:
        FrameError: some sight's camera would not look at the ground.
    """
    count = len(sights)
    wanted = parameters(len(cameras))
    prior = np.array([parameter.prior_sigma for parameter in wanted])
    start = np.zeros(len(wanted))
    start[_YAW] = cameras[0].mount.yaw_deg
    start[len(_COMMON) :] = [angle for c in cameras for angle in (c.mount.roll_deg, c.mount.pitch_deg)]
    values = start.copy()
    whiten = [np.linalg.inv(np.linalg.cholesky(s.covariance + gnss_sigma_m**2 * np.eye(2))) for s in sights]
    spread = np.ones(3)
    weights = np.ones(count)
    design = np.zeros((4 * count, len(wanted)))

    def misfit(supposed: NDArray[np.float64]) -> NDArray[np.float64]:
        return _whitened(sights, parts, cameras[0], supposed, whiten, heading_sigma_deg, spread)

    for _ in range(_ROUNDS):
        residual = misfit(values)
        # The variance of each kind of residual is what the flight shows, but never less than what was stated.
        spread = spread * np.maximum(_kinds(residual, weights), 1.0 / spread)
        residual = misfit(values)
        weights = (_FREEDOM + 4.0) / (_FREEDOM + (residual.reshape(count, 4) ** 2).sum(axis=1))
        for index, parameter in enumerate(wanted):
            moved = values.copy()
            moved[index] += parameter.step
            design[:, index] = (misfit(moved) - residual) / parameter.step
        each = np.repeat(weights, 4)[:, None]
        information = design.T @ (each * design) + np.diag(1 / prior**2)
        gradient = design.T @ (each[:, 0] * residual) + (values - start) / prior**2
        change = -np.linalg.solve(information, gradient)
        values = values + change
        if float(np.abs(change / prior).max()) < _SETTLED:
            break
    sigmas = np.sqrt(np.diag(np.linalg.inv(information)))
    estimates = {}
    for parameter, value, sigma, before in zip(wanted, values, sigmas, prior, strict=True):
        estimates[parameter.name] = Estimate(float(value), float(sigma), bool(sigma < _SURER * before))
    focal = estimates["focal_length"]
    fx = cameras[0].fx * math.exp(focal.value)
    estimates["focal_length"] = Estimate(fx, fx * focal.sigma, focal.determined)
    fitted = tuple(_fitted(camera, estimates, part, len(cameras)) for part, camera in enumerate(cameras))
    return Solution(fitted, estimates, _residuals(sights, parts, cameras[0], values, weights))


def looks_at(sight: Sight, camera: Camera, height: float) -> NDArray[np.float64]:
    """(2,) east and north from the aircraft to the image's middle on the ground, metres, as the camera's mount has it.

    The direction of image-up is the matched one, which is ten times as sure as a compass.

    Raises:
        FrameError: the camera would not look at the ground.
    """
    azimuth = azimuth_of(camera_to_enu(camera.mount, sight.heading, sight.pitch, sight.roll))
    heading = sight.heading + wrap_degrees(sight.azimuth - azimuth)
    return ground_offset(camera, camera_to_enu(camera.mount, heading, sight.pitch, sight.roll), height)


def _fitted(camera: Camera, estimates: dict[str, Estimate], part: int, parts: int) -> Camera:
    suffix = "" if parts == 1 else f"_{part + 1}"
    names = {"roll_deg": f"mount_roll{suffix}", "pitch_deg": f"mount_pitch{suffix}", "yaw_deg": "mount_yaw"}
    mount = {angle: estimates[name].value for angle, name in names.items() if estimates[name].determined}
    focal = estimates["focal_length"]
    grown = focal.value / camera.fx if focal.determined else 1.0
    return replace(camera, fx=camera.fx * grown, fy=camera.fy * grown, mount=replace(camera.mount, **mount))


def _predicted(
    sight: Sight, part: int, camera: Camera, values: NDArray[np.float64]
) -> tuple[NDArray[np.float64], float, float]:
    """(2,) easting and northing of the image's middle, m/px, and azimuth of image-up, degrees."""
    focal = math.exp(values[_FOCAL])
    roll, pitch = values[len(_COMMON) + 2 * part :][:2].tolist()
    mount = Mount(roll, pitch, float(values[_YAW]))
    supposed = replace(camera, fx=camera.fx * focal, fy=camera.fy * focal, mount=mount)
    height = float(sight.height + values[_HEIGHT])
    moved = 0.0 if sight.velocity is None else values[_TIME] * sight.velocity
    center = sight.gnss + moved + looks_at(sight, supposed, height) + values[[_EAST, _NORTH]]
    return center, height / supposed.fx, azimuth_of(camera_to_enu(mount, sight.heading, sight.pitch, sight.roll))


def _whitened(
    sights: Sequence[Sight],
    parts: Sequence[int],
    camera: Camera,
    values: NDArray[np.float64],
    whiten: Sequence[NDArray[np.float64]],
    heading_sigma_deg: float,
    spread: NDArray[np.float64],
) -> NDArray[np.float64]:
    """(4 N,) predicted less measured, in standard deviations: two of the middle, scale and azimuth of each sight."""
    rows = []
    for sight, part, root in zip(sights, parts, whiten, strict=True):
        center, gsd, azimuth = _predicted(sight, part, camera, values)
        turn_sigma = math.hypot(heading_sigma_deg, sight.azimuth_sigma)
        rows += [
            *(root @ (center - sight.center) / spread[0]),
            math.log(gsd / sight.gsd) / (_SCALE_SIGMA * spread[1]),
            wrap_degrees(azimuth - sight.azimuth) / (turn_sigma * spread[2]),
        ]
    return np.array(rows)


def _kinds(residual: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """(3,) weighted root mean square of the residuals by kind: middle, scale, azimuth."""
    squares = residual.reshape(-1, 4) ** 2
    share = weights / weights.sum()
    return np.sqrt(np.array([share @ squares[:, :2].mean(axis=1), share @ squares[:, 2], share @ squares[:, 3]]))


def _residuals(
    sights: Sequence[Sight],
    parts: Sequence[int],
    camera: Camera,
    values: NDArray[np.float64],
    weights: NDArray[np.float64],
) -> Residuals:
    along, across, scale, turn = [], [], [], []
    for sight, part in zip(sights, parts, strict=True):
        center, gsd, azimuth = _predicted(sight, part, camera, values)
        east, north = sight.center - center
        up = math.radians(sight.azimuth)
        along.append(east * math.sin(up) + north * math.cos(up))
        across.append(east * math.cos(up) - north * math.sin(up))
        scale.append(math.log(sight.gsd / gsd))
        turn.append(wrap_degrees(sight.azimuth - azimuth))
    believed = np.clip(weights, 0.0, 1.0)
    return Residuals(np.array(along), np.array(across), np.array(scale), np.array(turn), believed)
