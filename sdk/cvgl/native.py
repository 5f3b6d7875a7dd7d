"""The compiled core, with a clear word where it is missing."""

from __future__ import annotations

from pathlib import Path

try:
    from cvgl._native import (
        Template,
        alike_places,
        best_match,
        block_corners,
        correlate_blocks,
        fit_pose,
        gpu_warp_arguments,
        gpu_warp_head,
        ground_field,
        judge_blocks,
        match_windows,
        orientation,
        peak_covariances,
        pose_design,
        rectify,
        reduce,
        refit_pose,
        register_looks,
        resample,
        standardise,
        warp_into,
    )
    from cvgl._native import __file__ as _file
except ImportError as reason:
    raise ImportError(
        "the compiled core of cvgl (cvgl._native) is missing or was built for another Python: install the "
        f"package with `pip install .` (or `pip install -e .`) from the repository's root; {reason}"
    ) from reason

__all__ = [
    "FOLDER",
    "Template",
    "alike_places",
    "best_match",
    "block_corners",
    "correlate_blocks",
    "fit_pose",
    "gpu_warp_arguments",
    "gpu_warp_head",
    "ground_field",
    "judge_blocks",
    "match_windows",
    "orientation",
    "peak_covariances",
    "pose_design",
    "rectify",
    "reduce",
    "refit_pose",
    "register_looks",
    "resample",
    "standardise",
    "warp_into",
]

FOLDER = Path(_file).parent
"""Where what was compiled lies: an editable install has it elsewhere than the package's Python files."""
