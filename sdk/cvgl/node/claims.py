"""What a fix claims about itself, checked once more before a filter is told."""

from __future__ import annotations

import math
from dataclasses import replace

from cvgl.errors import CvglError
from cvgl.fix import Fix, FixStatus

__all__ = ["horizontal_covariance", "own_answer"]


def horizontal_covariance(fix: Fix) -> tuple[tuple[float, float], tuple[float, float]]:
    """Covariance of the position, rows and columns east and north, m^2.

    Raises:
        CvglError: none, or one that no filter can use (it would be read as certainty).
    """
    covariance = fix.covariance
    if covariance is None or covariance.shape != (2, 2):
        raise CvglError("a fix without its covariance", field="covariance", found=covariance, expected="2x2")
    (a, b), (c, d) = matrix = covariance.tolist()
    # Positive definite, by its leading minors; false for NaN as well.
    if not (math.isfinite(a + b + c + d) and a > 0 and a * d - b * c > 0):
        raise CvglError("not a covariance", field="covariance", found=matrix, expected="positive definite")
    return (a, b), (c, d)


def own_answer(fix: Fix) -> Fix:
    """What the frame itself was matched to, where the localiser's filter agrees; otherwise no fix, with the reason.

    A filter of ours and one of the autopilot in a row would count the same frames twice, and one that only follows the
    aircraft's motion would be news of nothing.
    """
    if fix.measured is None:
        return fix
    if fix.status is FixStatus.REFINED and fix.measured:
        return fix.measured
    # Why this frame gave none says more than that the filter went on without it.
    why = fix if fix.measured or not fix.measured.reason else fix.measured
    return replace(
        fix.measured,
        status=FixStatus.NO_FIX,
        reason=why.reason or fix.measured.reason,
        reason_code=why.reason_code or fix.measured.reason_code,
        latitude=math.nan,
        longitude=math.nan,
        covariance=None,
        protection_radius_m=math.inf,
    )
