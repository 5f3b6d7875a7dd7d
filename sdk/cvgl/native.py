"""The compiled core, with a clear word where it is missing."""

from __future__ import annotations

try:
    from cvgl._native import (
        Template,
        best_match,
        block_corners,
        correlate_blocks,
        fit_pose,
        ground_field,
        judge_blocks,
        orientation,
        pose_design,
        rectify,
        reduce,
        resample,
        standardise,
        warp_into,
    )
except ImportError as reason:
    raise ImportError(
        "the compiled core of cvgl (cvgl._native) is missing or was built for another Python: install the "
        f"package with `pip install .` (or `pip install -e .`) from the repository's root; {reason}"
    ) from reason

__all__ = [
    "Template",
    "best_match",
    "block_corners",
    "correlate_blocks",
    "fit_pose",
    "ground_field",
    "judge_blocks",
    "orientation",
    "pose_design",
    "rectify",
    "reduce",
    "resample",
    "standardise",
    "warp_into",
]
