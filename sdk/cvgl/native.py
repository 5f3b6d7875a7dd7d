"""The compiled core, with a clear word where it is missing."""

from __future__ import annotations

try:
    from cvgl._native import correlate_blocks, fit_pose, orientation, rectify, warp_into
except ImportError as reason:
    raise ImportError(
        "the compiled core of cvgl (cvgl._native) is missing or was built for another Python: install the "
        f"package with `pip install .` (or `pip install -e .`) from the repository's root; {reason}"
    ) from reason

__all__ = ["correlate_blocks", "fit_pose", "orientation", "rectify", "warp_into"]
