"""A simulated flight as a table: a row for every frame, what was true, told and answered."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["NO_FIX", "ROW", "STATUSES", "Rows", "covariance", "error", "nees"]

STATUSES = ("no_fix", "coarse", "refined")
NO_FIX, COARSE, REFINED = range(3)

ROW = np.dtype(
    [
        ("flight", "i4"),
        ("frame", "i4"),
        ("segment", "i4"),
        ("time", "f8"),
        ("true_east", "f8"),
        ("true_north", "f8"),
        ("true_height", "f8"),
        ("true_heading", "f8"),
        ("center_east", "f8"),
        ("center_north", "f8"),
        ("on_map", "?"),
        ("seen", "?"),
        ("told_height", "f8"),
        ("told_heading", "f8"),
        ("prior_east", "f8"),
        ("prior_north", "f8"),
        ("prior_sigma", "f8"),
        ("status", "i1"),
        ("east", "f8"),
        ("north", "f8"),
        ("var_east", "f8"),
        ("cov_east_north", "f8"),
        ("var_north", "f8"),
        ("heading", "f8"),
        ("heading_sigma", "f8"),
        ("probability", "f8"),
        ("protection_m", "f8"),
        ("measured_status", "i1"),
        ("measured_east", "f8"),
        ("measured_north", "f8"),
        ("measured_var_east", "f8"),
        ("measured_cov_east_north", "f8"),
        ("measured_var_north", "f8"),
        ("found_center_east", "f8"),
        ("found_center_north", "f8"),
        ("latency_ms", "f8"),
        ("render_ms", "f8"),
        ("reason", "U24"),
    ]
)
"""Metres in the tangent plane of the mission's gallery, degrees, m^2; NaN where there is none.

``true_*`` is the aircraft, ``center_*`` where the image's middle truly lies on the ground, ``on_map`` whether that is
on the mission's map; ``seen`` is False where the frame was dropped; ``prior_*`` is what the filter expected before the
frame, its sigma along the worst direction; ``east`` to ``protection_m`` is the answer, ``measured_*`` what this frame
by itself says of the aircraft, and ``found_center_*`` where the answer puts the image's middle; ``status`` counts in
:data:`STATUSES`, ``reason`` is a :class:`cvgl.fix.ReasonCode`."""

Rows = NDArray[np.void]


def error(rows: Rows, prefix: str = "") -> NDArray[np.float64]:
    """(N, 2) estimate less truth, metres east and north; ``prefix`` is "" or "measured_"."""
    return np.column_stack(
        [rows[f"{prefix}east"] - rows["true_east"], rows[f"{prefix}north"] - rows["true_north"]]
    ).astype(np.float64)


def covariance(rows: Rows, prefix: str = "") -> NDArray[np.float64]:
    """(N, 2, 2) covariance of the estimate, m^2."""
    between = rows[f"{prefix}cov_east_north"]
    return np.stack(
        [
            np.stack([rows[f"{prefix}var_east"], between], axis=-1),
            np.stack([between, rows[f"{prefix}var_north"]], axis=-1),
        ],
        axis=-2,
    ).astype(np.float64)


def nees(rows: Rows, prefix: str = "") -> NDArray[np.float64]:
    """(N,) normalised estimation error squared, 2 expected; NaN without an estimate or a positive covariance."""
    e = error(rows, prefix)
    variance_east, variance_north = rows[f"{prefix}var_east"], rows[f"{prefix}var_north"]
    between = rows[f"{prefix}cov_east_north"]
    determinant = variance_east * variance_north - between**2
    with np.errstate(invalid="ignore", divide="ignore"):
        value = variance_north * e[:, 0] ** 2 - 2 * between * e[:, 0] * e[:, 1] + variance_east * e[:, 1] ** 2
        return np.where((determinant > 0) & (variance_east > 0), value / determinant, np.nan)
