"""Registration of a frame to the basemap, and the evidence for or against it.

The frame's patch is cut into blocks. Every block is correlated by itself around where a hypothesis puts it, so every
block has an opinion of its own; a pose of the camera (position, heading, height and the two tilts, six numbers) is
fitted to them, and the evidence is how well the blocks' own surfaces agree with the places where the fitted pose puts
them. A wrong place may have a high correlation peak; it does not make thirty separate blocks agree.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from cvgl.basemap import Basemap
from cvgl.orientation import orientation_field
from cvgl.rectify import Patch

__all__ = ["Correction", "PoseSigmas", "Registration", "block_side", "register"]

# A block sees this far beyond the hypothesis, pixels of the basemap.
SEARCH_PX = 16
# A block votes for the fitted pose if its own best place is this close, pixels.
_VOTE_PX = 3.0
# Blocks with a smaller share of seen pixels say nothing.
_SEEN = 0.8
_FEWEST_BLOCKS = 8
# How far from the pose's prediction a block's peak is looked for, pixels, as the fit converges.
_TRUST_PX = (8, 6, 4, 4)
# Buildings up to this height are looked for, in this many steps.
_TALLEST_M = 12.0
_RISES = 7
# Standard deviation of one block's peak, pixels. Twice what the residuals of good matches show, since neighbouring
# blocks see the same leaning buildings: their errors are not independent, and a stiffer fit judges better.
_BLOCK_SIGMA_PX = 2.0


@dataclass(frozen=True)
class PoseSigmas:
    """How well the frame's attitude and height were known before: standard deviations.

    Args:
        heading_deg: of the heading.
        scale: of the height, relative.
        tilt_deg: of roll and pitch, each.
    """

    heading_deg: float
    scale: float
    tilt_deg: float


@dataclass(frozen=True)
class Correction:
    """How a frame's attitude and height differ from what it came with.

    Args:
        turn_deg: heading, clockwise.
        scale: height, relative.
        lean: (east, north) further lean of the optical axis, metres on the ground per metre of height.
    """

    turn_deg: float = 0.0
    scale: float = 0.0
    lean: tuple[float, float] = (0.0, 0.0)

    def rotation(self, rotation: NDArray[np.float64]) -> NDArray[np.float64]:
        """A camera-to-ENU rotation (3, 3) with this correction."""
        turn = np.radians(self.turn_deg)
        turned = np.array([[np.cos(turn), np.sin(turn), 0], [-np.sin(turn), np.cos(turn), 0], [0, 0, 1.0]])
        east, north = self.lean
        slope = float(np.hypot(east, north))
        axis = np.array([north, -east, 0.0]) * (np.arctan(slope) / slope if slope > 0 else 0.0)
        return np.asarray(cv2.Rodrigues(axis)[0] @ turned @ rotation)


@dataclass(frozen=True)
class Registration:
    """A frame placed on the basemap.

    Args:
        easting, northing: of the image's middle on the ground, metres in the local tangent plane.
        below: (2,) easting and northing of the point below the camera.
        center_covariance, covariance: (2, 2) of the two, m^2, from the fit alone.
        correction: of the attitude and height the frame came with, with the sigma of its turn.
        blocks: number of blocks with an opinion.
        votes: share of blocks whose own best place agrees with the pose.
        evidence: agreement of the blocks' surfaces with the pose, in standard deviations of chance (Fisher's method
            over the blocks' ranks); chance alone gives about 2 to 5 since the pose was chosen to please.
        residual_m: root mean square disagreement of the voting blocks, metres.
    """

    easting: float
    northing: float
    below: NDArray[np.float64]
    center_covariance: NDArray[np.float64]
    covariance: NDArray[np.float64]
    correction: Correction
    turn_sigma_deg: float
    blocks: int
    votes: float
    evidence: float
    residual_m: float


def block_side(footprint_short_px: float) -> int:
    """Side of the blocks, pixels: about five across the footprint's short side, within what correlates well."""
    return int(np.clip(round(footprint_short_px / 4.4), 20, 48))


def register(
    basemap: Basemap,
    patch: Patch,
    easting: float,
    northing: float,
    applied: Correction,
    height: float,
    side: int,
    sigmas: PoseSigmas,
) -> Registration | None:
    """Register a patch around a hypothesis.

    Args:
        basemap: grey, at the patch's GSD.
        patch: grey (size, size), made with ``applied`` already in it.
        easting, northing: where its middle is supposed to be, metres.
        applied: what the patch has been corrected by; the prior on the pose counts from no correction.
        height: above ground that the patch was made with, metres.
        side: of the blocks, pixels.
        sigmas: what the fit may change, and how much.

    Returns:
        The registration, or None where too few blocks see both the frame and the basemap.
    """
    gsd = basemap.gsd
    size = patch.mask.shape[0]
    column, row = basemap.to_pixel(easting, northing)
    left, top = round(float(column) - (size - 1) / 2), round(float(row) - (size - 1) / 2)
    grey = basemap.read(left - SEARCH_PX, top - SEARCH_PX, size + 2 * SEARCH_PX, size + 2 * SEARCH_PX)
    known = None if grey.min() > 0 else (grey > 0).astype(np.uint8)
    ground = orientation_field(grey, known)
    field = orientation_field(patch.image, patch.mask)
    corners = _block_corners(patch.mask, grey, side)
    if len(corners) < _FEWEST_BLOCKS:
        return None
    surfaces = _surfaces(field, ground, corners, side)
    middle = (size - 1) / 2
    # Offsets of the blocks' middles from the patch's middle, metres east and north.
    offsets = (corners[:, ::-1] + (side - 1) / 2 - middle) * (gsd, -gsd)
    design = _design(offsets, height)
    prior_mean = -np.array([0.0, 0.0, np.radians(applied.turn_deg), applied.scale, *applied.lean])
    tilt = np.radians(sigmas.tilt_deg)
    prior_weight = np.array(
        [0.0, 0.0, np.radians(sigmas.heading_deg) ** -2, sigmas.scale**-2, tilt**-2, tilt**-2], dtype=np.float64
    )
    # Where the blocks together are best without any change of pose.
    total = surfaces.sum(axis=0)
    y, x = np.unravel_index(int(total.argmax()), total.shape)
    pose = np.array([(x - SEARCH_PX) * gsd, -(y - SEARCH_PX) * gsd, 0.0, 0.0, 0.0, 0.0])
    # What stands above the ground is seen away from the point below the camera, by its height over the camera's.
    lean = (offsets + patch.offset) / height
    rises = np.linspace(0.0, _TALLEST_M, _RISES)
    sigma = _BLOCK_SIGMA_PX * gsd
    information = np.diag(prior_weight)
    weights = np.ones(len(corners))
    measured = np.zeros((len(corners), 2))
    for trust in _TRUST_PX:
        predicted = _predict(design, pose)
        rise = _best_rises(surfaces, predicted, lean, rises, gsd, trust)
        parallax = lean * rise[:, None]
        measured = _local_peaks(surfaces, (predicted + parallax) / (gsd, -gsd), trust) * (gsd, -gsd) - parallax
        for _ in range(4):
            residual = np.linalg.norm(measured - _predict(design, pose), axis=1)
            # Student's t weights: a block on a facade or a moved shadow is far off, and must not count.
            weights = 5.0 / (4.0 + (residual / (1.5 * sigma)) ** 2)
            information = np.einsum("b,bki,bkj->ij", weights, design, design) / sigma**2 + np.diag(prior_weight)
            right = np.einsum("b,bki,bk->i", weights, design, measured) / sigma**2 + prior_weight * prior_mean
            pose = np.linalg.solve(information, right)
    predicted = _predict(design, pose)
    residual = np.linalg.norm(measured - predicted, axis=1)
    agreeing = residual < _VOTE_PX * gsd
    spread = float(np.sqrt((residual[agreeing] ** 2).mean() / 2)) if agreeing.any() else _VOTE_PX * gsd
    covariance: NDArray[np.float64] = np.asarray(np.linalg.inv(information) * max(1.0, spread / sigma) ** 2)
    evidence, votes = _evidence(surfaces, predicted, lean, rises, gsd)
    start_easting, start_northing = basemap.to_local(left + middle, top + middle)
    center = np.array([float(start_easting), float(start_northing)]) + pose[:2]
    below, below_covariance = _below(center, patch.offset, pose, covariance, height)
    return Registration(
        easting=float(center[0]),
        northing=float(center[1]),
        below=below,
        center_covariance=covariance[:2, :2],
        covariance=below_covariance,
        correction=Correction(
            applied.turn_deg + float(np.degrees(pose[2])),
            applied.scale + float(pose[3]),
            (applied.lean[0] + float(pose[4]), applied.lean[1] + float(pose[5])),
        ),
        turn_sigma_deg=float(np.degrees(np.sqrt(covariance[2, 2]))),
        blocks=len(corners),
        votes=votes,
        evidence=evidence,
        residual_m=spread,
    )


def _block_corners(mask: NDArray[np.uint8], grey: NDArray[np.uint8], side: int) -> NDArray[np.int64]:
    """(B, 2) rows and columns of the upper left corners of the blocks that see frame and basemap."""
    size = mask.shape[0]
    start = (size % side) // 2
    corners = []
    for row in range(start, size - side + 1, side):
        for column in range(start, size - side + 1, side):
            seen = np.count_nonzero(mask[row : row + side, column : column + side])
            if seen < _SEEN * side * side:
                continue
            below = grey[row + SEARCH_PX : row + SEARCH_PX + side, column + SEARCH_PX : column + SEARCH_PX + side]
            if np.count_nonzero(below) >= _SEEN * side * side:
                corners.append((row, column))
    return np.array(corners, dtype=np.int64).reshape(-1, 2)


def _surfaces(
    field: NDArray[np.complex64], ground: NDArray[np.complex64], corners: NDArray[np.int64], side: int
) -> NDArray[np.float32]:
    """(B, 2 SEARCH + 1, 2 SEARCH + 1) correlation surfaces, each of mean 0 and deviation 1."""
    reach = side + 2 * SEARCH_PX
    blocks = np.zeros((len(corners), reach, reach), np.complex64)
    windows = np.empty((len(corners), reach, reach), np.complex64)
    for index, (row, column) in enumerate(corners):
        blocks[index, :side, :side] = field[row : row + side, column : column + side]
        windows[index] = ground[row : row + reach, column : column + reach]
    spectrum = np.fft.fft2(windows) * np.conj(np.fft.fft2(blocks))
    extent = 2 * SEARCH_PX + 1
    surfaces = np.fft.ifft2(spectrum).real[:, :extent, :extent].astype(np.float32)
    surfaces -= surfaces.mean(axis=(1, 2), keepdims=True)
    deviation = surfaces.std(axis=(1, 2), keepdims=True)
    return surfaces / np.maximum(deviation, 1e-6)


def _design(offsets: NDArray[np.float64], height: float) -> NDArray[np.float64]:
    """(B, 2, 6) derivative of the blocks' displacement (east, north) by the pose: shift, turn, scale, tilts.

    To first order a camera that leans by (a, b) more than assumed sees the point drawn at (x, y) from the middle
    displaced by (a x + b y) (x, y) / height.
    """
    x, y = offsets[:, 0], offsets[:, 1]
    one, zero = np.ones_like(x), np.zeros_like(x)
    east = np.column_stack([one, zero, y, x, x * x / height, x * y / height])
    north = np.column_stack([zero, one, -x, y, x * y / height, y * y / height])
    return np.stack([east, north], axis=1)


def _predict(design: NDArray[np.float64], pose: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(design @ pose)


def _local_peaks(
    surfaces: NDArray[np.float32], around: NDArray[np.float64], radius: int
) -> NDArray[np.float64]:
    """(B, 2) best displacement of each block within ``radius`` pixels of a prediction, to a fraction of a pixel."""
    extent = surfaces.shape[1]
    out = np.empty((len(surfaces), 2))
    for index, surface in enumerate(surfaces):
        x0, y0 = np.clip(np.round(around[index]).astype(int) + SEARCH_PX, 0, extent - 1)
        left, top = max(0, x0 - radius), max(0, y0 - radius)
        part = surface[top : y0 + radius + 1, left : x0 + radius + 1]
        y, x = np.unravel_index(int(part.argmax()), part.shape)
        out[index] = _sub_pixel(surface, left + int(x), top + int(y))
    return out - SEARCH_PX


def _sub_pixel(surface: NDArray[np.float32], x: int, y: int) -> tuple[float, float]:
    """Vertex of the parabolas through a maximum and its neighbours."""
    extent = surface.shape[0]
    dx = dy = 0.0
    if 0 < x < extent - 1:
        before, here, after = (float(v) for v in surface[y, x - 1 : x + 2])
        bend = before - 2 * here + after
        dx = float(np.clip(0.5 * (before - after) / bend, -0.5, 0.5)) if bend < 0 else 0.0
    if 0 < y < extent - 1:
        before, here, after = (float(v) for v in surface[y - 1 : y + 2, x])
        bend = before - 2 * here + after
        dy = float(np.clip(0.5 * (before - after) / bend, -0.5, 0.5)) if bend < 0 else 0.0
    return x + dx, y + dy


def _best_rises(
    surfaces: NDArray[np.float32],
    predicted: NDArray[np.float64],
    lean: NDArray[np.float64],
    rises: NDArray[np.float64],
    gsd: float,
    trust: int,
) -> NDArray[np.float64]:
    """(B,) height above the ground at which each block agrees best with a predicted place."""
    # The best value within ``trust`` pixels of every place.
    kernel = np.ones((2 * trust + 1, 2 * trust + 1), np.uint8)
    reach = np.stack([cv2.dilate(surface, kernel) for surface in surfaces])
    places = (predicted[:, None] + lean[:, None] * rises[None, :, None]) / (gsd, -gsd)
    values = _at(reach, places)
    # Ground unless something higher is clearly better.
    return np.asarray(rises[(values - 0.15 * np.arange(len(rises))).argmax(axis=1)])


def _at(surfaces: NDArray[np.float32], places: NDArray[np.float64]) -> NDArray[np.float32]:
    """(B, K) values of surfaces (B, n, n) at places (B, K, 2), pixels from their middles."""
    extent = surfaces.shape[1]
    whole = np.clip(np.round(places).astype(int) + SEARCH_PX, 0, extent - 1)
    return np.asarray(surfaces[np.arange(len(surfaces))[:, None], whole[..., 1], whole[..., 0]])


def _evidence(
    surfaces: NDArray[np.float32],
    predicted: NDArray[np.float64],
    lean: NDArray[np.float64],
    rises: NDArray[np.float64],
    gsd: float,
) -> tuple[float, float]:
    """Fisher's combination of the blocks' ranks at the predicted places, and the share of free votes for them."""
    extent = surfaces.shape[1]
    places = (predicted[:, None] + lean[:, None] * rises[None, :, None]) / (gsd, -gsd)
    values = _at(surfaces, places).max(axis=1)
    better = (surfaces >= values[:, None, None]).sum(axis=(1, 2)) / extent**2
    # A block far from the middle may choose among several places: as many chances as are two pixels apart.
    chances = 1.0 + np.linalg.norm(places[:, -1] - places[:, 0], axis=1) / 3.0
    surprise = -np.log(-np.expm1(chances * np.log1p(-np.minimum(better, 1 - 1e-9))))
    best = surfaces.reshape(len(surfaces), -1).argmax(axis=1)
    own = np.column_stack([best % extent, best // extent]) - SEARCH_PX
    votes = np.linalg.norm(own[:, None] - places, axis=2).min(axis=1) < _VOTE_PX
    return float((surprise.sum() - len(surfaces)) / np.sqrt(len(surfaces))), float(votes.mean())


def _below(
    center: NDArray[np.float64],
    offset: NDArray[np.float64],
    pose: NDArray[np.float64],
    covariance: NDArray[np.float64],
    height: float,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The point below the camera and its covariance, from the fitted middle of the image and the fitted tilts."""
    turn, scale = pose[2], pose[3]
    turned = offset + turn * np.array([offset[1], -offset[0]])
    lean = turned + height * pose[4:]
    below = center - (1 + scale) * lean
    jacobian = np.zeros((2, 6))
    jacobian[:, :2] = np.eye(2)
    jacobian[:, 2] = -(1 + scale) * np.array([offset[1], -offset[0]])
    jacobian[:, 3] = -lean
    jacobian[:, 4:] = -(1 + scale) * height * np.eye(2)
    return below, jacobian @ covariance @ jacobian.T
