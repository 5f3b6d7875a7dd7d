"""The two projections of the one renderer, both as a 3 x 4 matrix: a map seen from afar and a camera."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True)
class View:
    """A projection of ENU metres onto an image.

    matrix (3, 4): (east, north, up, 1) -> (x w, y w, w) pixels, the centre of the first pixel at (0, 0);
    eye (4,): homogeneous place of the observer, its last element 0 for a direction infinitely far away;
    size (width, height) pixels; near: the least w that is drawn; gsd: metres per pixel on the ground, mid-
    image, of the finished picture: `oversampling` times coarser than this one, it decides how much detail is
    worth painting; bounds: west, south, east, north of the ground in view (m).
    """

    matrix: Array
    eye: Array
    size: tuple[int, int]
    near: float
    gsd: float
    oversampling: int
    bounds: tuple[float, float, float, float]

    def project(self, points: NDArray[np.floating]) -> NDArray[np.float64]:
        """Points (N, 3) in ENU metres to pixels (N, 2); points behind `near` are pulled up to it."""
        # Spelled out, because BLAS wakes its threads for such small matrices and loses more than it gains.
        x, y, z = points[:, 0], points[:, 1], points[:, 2]
        a, b, c = self.matrix
        out = np.empty((len(points), 2))
        out[:, 0] = a[0] * x + a[1] * y + a[2] * z + a[3]
        out[:, 1] = b[0] * x + b[1] * y + b[2] * z + b[3]
        if self.eye[3] != 0:
            out /= np.maximum(c[0] * x + c[1] * y + c[2] * z + c[3], self.near)[:, None]
        return out

    def depth(self, points: NDArray[np.floating]) -> NDArray[np.float64]:
        """The w (N,) of points (N, 3): metres along the optical axis, or 1 for a map."""
        c = self.matrix[2]
        return np.asarray(c[0] * points[:, 0] + c[1] * points[:, 1] + c[2] * points[:, 2] + c[3])

    @property
    def pixel_to_ground(self) -> Array:
        """(3, 3) homography from pixels to (east, north, 1) at height 0."""
        return np.asarray(np.linalg.inv(self.matrix[:, [0, 1, 3]]))

    def distance(self, xy: NDArray[np.floating]) -> NDArray[np.float64]:
        """How far (N,) places (N, 2 or 3) are from the observer along the ground (m): what is farther is
        painted first."""
        if self.eye[3] == 0:
            return np.asarray(-(xy[:, :2] @ self.eye[:2]) / max(float(np.hypot(*self.eye[:2])), 1e-9))
        return np.hypot(xy[:, 0] - self.eye[0], xy[:, 1] - self.eye[1])


def map_view(
    west: float,
    north: float,
    width: int,
    height: int,
    gsd: float,
    oversampling: int = 1,
    tilt_deg: float = 0.0,
    azimuth_deg: float = 0.0,
    grid: Array | None = None,
) -> View:
    """A map of width x height finished pixels, `west`/`north` its outer edges (m).

    Seen `tilt_deg` off nadir from the direction `azimuth_deg`, what stands above the ground leans away from
    there; the ground itself stays in place. `grid` (2, 3) takes (east, north, 1) to the map's own
    coordinates, in which `west` and `north` are then given; by default they are the same.
    """
    fine = gsd / oversampling
    lean = np.tan(np.radians(tilt_deg))
    a = np.radians(azimuth_deg)
    eye = np.array([lean * np.sin(a), lean * np.cos(a), 1.0, 0.0])
    to_grid = np.eye(2, 3) if grid is None else grid
    # A point at height z is seen where the ground is at xy - z * eye.
    flat = np.column_stack([to_grid[:, :2], -to_grid[:, :2] @ eye[:2], to_grid[:, 2]])
    matrix = np.vstack([(flat[0] - [0, 0, 0, west]) / fine, ([0, 0, 0, north] - flat[1]) / fine, [0, 0, 0, 1.0]])
    matrix[:2, 3] -= 0.5
    corners = np.array([[x, y] for x in (west, west + width * gsd) for y in (north, north - height * gsd)])
    ground = (corners - to_grid[:, 2]) @ np.linalg.inv(to_grid[:, :2]).T
    low, high = ground.min(axis=0), ground.max(axis=0)
    return View(
        matrix,
        eye,
        (width * oversampling, height * oversampling),
        0.5,
        gsd,
        oversampling,
        (float(low[0]), float(low[1]), float(high[0]), float(high[1])),
    )


def camera_view(
    intrinsics: Array, rotation: Array, position: Array, size: tuple[int, int], oversampling: int = 1
) -> View:
    """A pinhole camera. `intrinsics` (3, 3) and `size` belong to the finished picture; `rotation` (3, 3)
    camera to ENU; `position` (3,) ENU metres."""
    outer = np.column_stack([rotation.T, -rotation.T @ position])
    width, height = size
    corners = np.array(
        [
            [-0.5, -0.5, 1],
            [width - 0.5, -0.5, 1],
            [width - 0.5, height - 0.5, 1],
            [-0.5, height - 0.5, 1],
            [(width - 1) / 2, (height - 1) / 2, 1],
        ],
        float,
    )
    rays = corners @ np.linalg.inv(intrinsics).T @ rotation.T
    up = position[2]
    # Rays at or above the horizon are followed to where nothing is recognised any more.
    reach = np.where(rays[:, 2] < -1e-6, up / np.maximum(-rays[:, 2], 1e-6), np.inf)
    reach = np.minimum(reach, 12 * up / np.maximum(np.hypot(rays[:, 0], rays[:, 1]), 1e-6))
    ground = position[:2] + reach[:, None] * rays[:, :2]
    middle = float(np.linalg.norm(np.append(ground[4] - position[:2], up)))
    low, high = ground.min(axis=0), ground.max(axis=0)
    fine = intrinsics.copy()
    fine[:2, :2] *= oversampling
    fine[:2, 2] = (fine[:2, 2] + 0.5) * oversampling - 0.5
    focal = float(np.sqrt(abs(intrinsics[0, 0] * intrinsics[1, 1])))
    return View(
        fine @ outer,
        np.append(position, 1.0),
        (width * oversampling, height * oversampling),
        max(0.08 * up, 0.5),
        middle / focal,
        oversampling,
        (float(low[0]), float(low[1]), float(high[0]), float(high[1])),
    )
