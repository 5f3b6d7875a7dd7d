"""Registration of a frame to the basemap, and the evidence for or against it.

The frame's patch is cut into blocks. Every block is correlated by itself around where a hypothesis puts it, so every
block has an opinion of its own; a pose of the camera (position, heading, height and the two tilts, six numbers) is
fitted to them, and the evidence is how well the blocks' own surfaces agree with the places where the fitted pose puts
them. A wrong place may have a high correlation peak; it does not make thirty separate blocks agree.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from cvgl.basemap import Basemap
from cvgl.native import (
    block_corners,
    correlate_blocks,
    fit_pose,
    judge_blocks,
    peak_covariances,
    pose_design,
    refit_pose,
    standardise,
)
from cvgl.orientation import map_field, orientation_field
from cvgl.rectify import Patch
from cvgl.roofs import HIGHEST_M

__all__ = [
    "SEARCH_PX",
    "Correction",
    "Ground",
    "PoseSigmas",
    "Registration",
    "block_side",
    "ground_around",
    "register",
]

# A block sees this far beyond the hypothesis, pixels of the basemap.
SEARCH_PX = 16
# A block votes for the fitted pose if its own best place is this close, pixels.
_VOTE_PX = 3.0
# Blocks with a smaller share of seen pixels say nothing.
_SEEN = 0.8
_FEWEST_BLOCKS = 8
# How far from the pose's prediction a block's peak is looked for, pixels, as the fit converges.
_TRUST_PX = (8, 6, 4, 4, 3)
# Rounds of reweighting for each of them.
_ROUNDS = 3
# Heights that a block may have, as the roof of a building.
_RISES_M = np.linspace(0.0, HIGHEST_M, 5)
# What a block must gain, in standard deviations a step, to be taken for higher than the ground.
_RISE_COST = 0.2
# Standard deviation of one block's peak, pixels. Twice what the residuals of good matches show, since neighbouring
# blocks see the same leaning buildings: their errors are not independent, and a stiffer fit judges better.
_BLOCK_SIGMA_PX = 2.0
# The same for a pose's covariance: so many blocks together tell what one would that erred by itself. Over procedural
# places errors are likeliest under 2 to 3.
_SHARED = 2.0


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
        turn = math.radians(self.turn_deg)
        cosine, sine = math.cos(turn), math.sin(turn)
        turned = np.array([[cosine, sine, 0.0], [-sine, cosine, 0.0], [0.0, 0.0, 1.0]])
        east, north = self.lean
        slope = math.hypot(east, north)
        if slope == 0.0:
            return np.asarray(turned @ rotation)
        axis = np.array([north, -east, 0.0]) * (math.atan(slope) / slope)
        return np.asarray(cv2.Rodrigues(axis)[0] @ turned @ rotation)


@dataclass(frozen=True)
class Registration:
    """A frame placed on the basemap.

    Args:
        easting, northing: of the image's middle on the ground, metres in the local tangent plane.
        covariance: (2, 2) of it, m^2, from the fit alone.
        correction: of the attitude and height the frame came with, with the sigma of its turn.
        blocks: number of blocks with an opinion.
        votes: share of blocks whose own best place agrees with the pose.
        evidence: agreement of the blocks' surfaces with the pose, in standard deviations of chance (Fisher's method
            over the blocks' ranks); chance alone gives about 0 to 4 since the pose was chosen to please.
        residual_m: root mean square disagreement of the voting blocks, metres.
        lean_sigma_deg: of the correction's lean, each axis, from the fit alone.
    """

    easting: float
    northing: float
    covariance: NDArray[np.float64]
    correction: Correction
    turn_sigma_deg: float
    blocks: int
    votes: float
    evidence: float
    residual_m: float
    lean_sigma_deg: float = 0.0


def block_side(footprint_short_px: float) -> int:
    """Side of the blocks, pixels: about five across the footprint's short side, within what correlates well."""
    return min(max(round(footprint_short_px / 4.4), 20), 48)


@dataclass(frozen=True)
class Ground:
    """The basemap around a hypothesis, as registration reads it.

    Args:
        field: (n, n) complex64 orientation field, n being the patch's size and the reach on both sides.
        known: (n, n) 255 where the basemap has data; None for everywhere.
        easting, northing: of its middle, metres: the hypothesis, to the basemap's whole pixels.
    """

    field: NDArray[np.complex64]
    known: NDArray[np.uint8] | None
    easting: float
    northing: float


def ground_around(basemap: Basemap, size: int, reduction: int, easting: float, northing: float) -> Ground:
    """The ground that a patch of (size, size) at ``reduction`` times the basemap's GSD is registered on.

    Args:
        basemap: grey.
        size: of the patch, its pixels.
        reduction: 1 to 3.
        easting, northing: where the patch's middle is supposed to be, metres.
    """
    full = size * reduction
    column, row = basemap.to_pixel(easting, northing)
    left, top = round(float(column) - (full - 1) / 2), round(float(row) - (full - 1) / 2)
    middle_easting, middle_northing = basemap.to_local(left + (full - 1) / 2, top + (full - 1) / 2)
    side = size + 2 * (SEARCH_PX // reduction)
    field, known = map_field(basemap.pixels, left - SEARCH_PX, top - SEARCH_PX, side, reduction)
    return Ground(field, known, float(middle_easting), float(middle_northing))


def register(
    basemap: Basemap,
    patch: Patch,
    easting: float,
    northing: float,
    applied: Correction,
    height: float,
    side: int,
    sigmas: PoseSigmas,
    ahead: NDArray[np.float64] | None = None,
    ground: Ground | None = None,
) -> Registration | None:
    """Register a patch around a hypothesis.

    Args:
        basemap: grey.
        patch: grey (size, size), made with ``applied`` already in it, at the basemap's GSD or a whole multiple of it:
            at twice the GSD a look costs a fifth. Evidence at different multiples does not compare.
        easting, northing: where its middle is supposed to be, metres.
        applied: what the patch has been corrected by; the prior on the pose counts from no correction.
        height: above ground that the patch was made with, metres.
        side: of the blocks, pixels of the basemap.
        sigmas: what the fit may change, and how much.
        ahead: (2,) east and north of the patch's middle from the point below the camera by the attitude that the frame
            came with, metres: what a change of tilt does is developed about it. None for a camera that looks down.
        ground: :func:`ground_around` that place, where several patches share it; by default it is made.

    Returns:
        The registration, or None where too few blocks see both the frame and the basemap.
    """
    reduction = round(patch.gsd / basemap.gsd)
    gsd, side, search = basemap.gsd * reduction, side // reduction, SEARCH_PX // reduction
    size = patch.mask.shape[0]
    if ground is None:
        ground = ground_around(basemap, size, reduction, easting, northing)
    corners = block_corners(patch.mask, ground.known, side, search, _SEEN)
    if len(corners) < _FEWEST_BLOCKS:
        return None
    surfaces = correlate_blocks(orientation_field(patch.image, patch.mask), ground.field, corners, side, search, 1)
    design, lean = pose_design(corners, side, size, gsd, height, *patch.offset, *(0.0, 0.0) if ahead is None else ahead)
    prior_mean = -np.array([0.0, 0.0, math.radians(applied.turn_deg), applied.scale, *applied.lean])
    turn_weight, tilt_weight = math.radians(sigmas.heading_deg) ** -2, math.radians(sigmas.tilt_deg) ** -2
    prior_weight = np.array([0.0, 0.0, turn_weight, sigmas.scale**-2, tilt_weight, tilt_weight])
    # Where the blocks together are best without any change of pose.
    y, x = divmod(standardise(surfaces), 2 * search + 1)
    start = np.array([(x - search) * gsd, -(y - search) * gsd, 0.0, 0.0, 0.0, 0.0])
    sigma = _BLOCK_SIGMA_PX * gsd
    pose, information, measured = fit_pose(
        surfaces,
        design,
        lean,
        _RISES_M,
        start,
        prior_mean,
        prior_weight,
        gsd,
        _RISE_COST,
        sigma,
        [max(trust // reduction, 2) for trust in _TRUST_PX],
        _ROUNDS,
    )
    evidence, votes, spread = judge_blocks(surfaces, design, lean, _RISES_M, pose, measured, gsd, _VOTE_PX)
    if reduction == 1:
        # The evidence is that of the stiffer fit: its law of chance is.
        peaks = peak_covariances(surfaces, measured, lean, _RISES_M, gsd)
        pose, covariance = refit_pose(pose, measured, peaks, design, prior_mean, prior_weight)
        covariance = _SHARED * covariance
    else:
        covariance = np.asarray(np.linalg.inv(information) * max(1.0, spread / sigma) ** 2)
    east, north, turn, scale, lean_east, lean_north = pose.tolist()
    return Registration(
        easting=ground.easting + east,
        northing=ground.northing + north,
        covariance=covariance[:2, :2],
        correction=Correction(
            applied.turn_deg + math.degrees(turn),
            applied.scale + scale,
            (applied.lean[0] + lean_east, applied.lean[1] + lean_north),
        ),
        turn_sigma_deg=math.degrees(math.sqrt(covariance[2, 2])),
        blocks=len(corners),
        votes=votes,
        evidence=evidence,
        residual_m=spread,
        lean_sigma_deg=math.degrees(math.sqrt((covariance[4, 4] + covariance[5, 5]) / 2)),
    )
