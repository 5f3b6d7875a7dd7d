"""Visual odometry on the ground plane: how far the aircraft went between two frames, from the frames alone."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from cvgl.camera import Camera
from cvgl.rectify import Patch, rectify
from cvgl.refine import footprint_sides

__all__ = ["Glimpse", "Odometer", "Step", "compare"]

# Corners that are followed, and how many have to agree.
_CORNERS, _FEWEST = 150, 20
_AGREEING = 0.5
# A corner followed forth and back has to return to within this, and to fit the motion within that, pixels.
_RETURN_PX, _FIT_PX = 0.7, 1.5
# Flow is good to this where everything agrees, pixels.
_FLOOR_PX = 0.2
# Views of so many pixels a side are compared; a frame is the earlier one for a second, at most for half a minute.
_SIZE_PX, _KEY_S, _LONGEST_S = 192, 1.0, 30.0
# E-folds of the height within which two frames are seen at one detail.
_SAME_DETAIL = 0.3
# Frames that were turned or scaled against each other by more than their telemetry can explain do not belong together.
_LARGEST_TURN_DEG, _LARGEST_SCALE = 15.0, 0.15


@dataclass(frozen=True)
class Glimpse:
    """A small north-up view of a frame, kept to compare the next one with.

    Args:
        patch: grey; those that are compared have one size and one ground sampling distance.
        height: above ground that it was made with, metres.
        time: of the exposure, seconds.
    """

    patch: Patch
    height: float
    time: float


@dataclass(frozen=True)
class Step:
    """What lies between two frames.

    Args:
        east, north: that the aircraft went, metres.
        covariance: (2, 2) of it, m^2.
        turn_deg: of what is seen in the later view against the earlier one, clockwise; the headings told the rest.
        scale: of the later view over the earlier, as a logarithm.
        quality: share of the followed corners that agree, 0 to 1.
    """

    east: float
    north: float
    covariance: NDArray[np.float64]
    turn_deg: float
    scale: float
    quality: float


class Odometer:
    """Velocities from a sequence of frames: each is compared with one that is about a second older, or the last.

    Args:
        height_sigma: relative, of the heights that the frames come with.
        heading_sigma_deg: of their headings.
        max_speed_m_s: a greater velocity is not believed.
    """

    def __init__(self, height_sigma: float, heading_sigma_deg: float, max_speed_m_s: float) -> None:
        self._height_sigma = height_sigma
        self._heading_sigma = heading_sigma_deg
        self._max_speed = max_speed_m_s
        self._key: Glimpse | None = None

    def reset(self) -> None:
        """Forget the frame before."""
        self._key = None

    def velocity(
        self,
        grey: NDArray[np.uint8],
        camera: Camera,
        rotation: NDArray[np.float64],
        height: float,
        time: float,
        tilt_sigma_deg: float,
    ) -> tuple[tuple[float, float], float] | None:
        """Mean velocity (east, north) since an earlier frame, m/s, and the sigma of each component; None if unknown.

        Args:
            grey, camera, rotation, height: of the frame, as :func:`cvgl.rectify.rectify` takes them.
            time: of the exposure, seconds.
            tilt_sigma_deg: of what each frame's roll and pitch are wrong by on their own.

        Raises:
            FrameError: the camera does not look at the ground.
        """
        key, gsd = self._key, math.hypot(*footprint_sides(camera, height)) / _SIZE_PX
        # All are seen at one detail, as long as that is about right.
        if key is not None and abs(math.log(key.patch.gsd / gsd)) < _SAME_DETAIL:
            gsd = key.patch.gsd
        now = Glimpse(rectify(grey, camera, rotation, height, gsd, _SIZE_PX), height, time)
        elapsed = 0.0 if key is None else time - key.time
        if key is None or key.patch.gsd != gsd or not 0.0 < elapsed <= _LONGEST_S:
            self._key = now
            return None
        step = compare(key, now, tilt_sigma_deg, self._height_sigma, self._heading_sigma)
        if step is None or elapsed >= _KEY_S:
            self._key = now
        if step is None or math.hypot(step.east, step.north) > self._max_speed * elapsed:
            return None
        sigma = math.sqrt(float(np.linalg.eigvalsh(step.covariance)[-1])) / elapsed
        return (step.east / elapsed, step.north / elapsed), sigma


def compare(
    earlier: Glimpse, later: Glimpse, tilt_sigma_deg: float, height_sigma: float, heading_sigma_deg: float
) -> Step | None:
    """The step from one frame to a later one, or None where they share too little ground.

    Phase correlation finds the shift, sparse flow the points that agree with it, and a similarity through those the
    answer. Sources: Kuglin and Hines, IEEE Conference on Cybernetics and Society (1975); Bouguet, Pyramidal
    implementation of the Lucas Kanade feature tracker (2000).

    Args:
        earlier, later: views of one size and ground sampling distance.
        tilt_sigma_deg: of what each frame's roll and pitch are wrong by on their own; it moves the view, not the
            aircraft.
        height_sigma: relative, of the height that gives the views their metres.
        heading_sigma_deg: of the heading that both views were turned by.
    """
    one, two = earlier.patch, later.patch
    window = cv2.createHanningWindow(one.image.shape[::-1], cv2.CV_32F)
    (dx, dy), _ = cv2.phaseCorrelate(_whitened(one, window), _whitened(two, window))
    inner = cv2.erode(one.mask, np.ones((9, 9), np.uint8))
    corners = cv2.goodFeaturesToTrack(one.image, _CORNERS, 0.01, 5, mask=inner)
    if corners is None or len(corners) < _FEWEST:
        return None
    guess = corners + np.array([dx, dy], np.float32)
    how = {"winSize": (15, 15), "maxLevel": 2, "flags": cv2.OPTFLOW_USE_INITIAL_FLOW}
    there, found, _ = cv2.calcOpticalFlowPyrLK(one.image, two.image, corners, guess.copy(), **how)  # type: ignore[call-overload]
    back, returned, _ = cv2.calcOpticalFlowPyrLK(two.image, one.image, there, corners.copy(), **how)  # type: ignore[call-overload]
    good = (found.ravel() == 1) & (returned.ravel() == 1)
    good &= np.hypot(*(back - corners).reshape(-1, 2).T) < _RETURN_PX
    good &= _seen(two, there.reshape(-1, 2))
    if good.sum() < _FEWEST:
        return None
    start, end = corners.reshape(-1, 2)[good], there.reshape(-1, 2)[good]
    fit, agreeing = cv2.estimateAffinePartial2D(start, end, method=cv2.RANSAC, ransacReprojThreshold=_FIT_PX)
    if fit is None:
        return None
    kept = agreeing.ravel() == 1
    quality = float(kept.mean())
    if kept.sum() < _FEWEST or quality < _AGREEING:
        return None
    linear, shift = fit[:, :2], fit[:, 2]
    turn = math.degrees(math.atan2(linear[1, 0], linear[0, 0]))
    scale = 0.5 * math.log(max(float(np.linalg.det(linear)), 1e-9))
    if abs(turn) > _LARGEST_TURN_DEG or abs(scale) > _LARGEST_SCALE:
        return None
    middle = np.array([(one.image.shape[1] - 1) / 2, (one.image.shape[0] - 1) / 2])
    # The point of the earlier view that is in the middle of the later one.
    moved = (np.linalg.solve(linear, middle - shift) - middle) * one.gsd
    ground = np.array([moved[0], -moved[1]])
    step = ground - (two.offset - one.offset)
    residual = end[kept] - (start[kept] @ linear.T + shift)
    spread = one.gsd * max(math.sqrt(float((residual**2).mean()) / 4.0), _FLOOR_PX)
    lean = math.tan(math.radians(tilt_sigma_deg)) * math.hypot(earlier.height, later.height)
    covariance = (spread**2 + lean**2) * np.eye(2) + height_sigma**2 * np.outer(step, step)
    across = math.radians(heading_sigma_deg) * np.array([step[1], -step[0]])
    covariance += np.outer(across, across)
    return Step(float(step[0]), float(step[1]), covariance, turn, scale, quality)


def _whitened(patch: Patch, window: NDArray[np.float32]) -> NDArray[np.float32]:
    """The picture about its mean, fading to the edges and empty where the camera saw nothing."""
    seen = patch.mask > 0
    level = float(patch.image[seen].mean()) if seen.any() else 0.0
    return np.asarray((patch.image.astype(np.float32) - level) * seen * window, np.float32)


def _seen(patch: Patch, points: NDArray[np.float32]) -> NDArray[np.bool_]:
    size = patch.mask.shape[0]
    columns, rows = np.rint(points.T).astype(np.int64)
    inside = (columns >= 0) & (columns < size) & (rows >= 0) & (rows < size)
    return np.asarray(inside & (patch.mask[np.clip(rows, 0, size - 1), np.clip(columns, 0, size - 1)] > 0))
