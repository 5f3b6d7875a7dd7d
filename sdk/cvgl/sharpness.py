"""How sharp a picture is: what motion or focus took from its finest detail, against what a map shows at that scale."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["sharpness"]

# Pixels between which fine and coarse differences are taken.
_FINE, _COARSE = 1, 6
# Directions (rows, columns) that differences are taken in: motion blurs along one of them and leaves another.
_DIRECTIONS = ((0, 1), (1, 0), (1, 1), (1, -1))


def sharpness(image: NDArray[np.uint8], mask: NDArray[np.uint8] | None = None) -> float:
    """Mean square of differences between neighbours over that of pixels further apart, in the blurriest direction.

    About 0.1 to 0.3 for aerial pictures at half a metre a pixel, whatever their contrast and brightness, and less the
    more they are blurred (0.05 by motion of ten pixels). NaN where too little is seen.

    Args:
        image: (H, W) grey.
        mask: (H, W), 0 where nothing is seen; by default where the image is 0.
    """
    grey = image.astype(np.float32)
    seen = (image if mask is None else mask) > 0
    return min(_ratio(grey, seen, *direction) for direction in _DIRECTIONS)


def _ratio(grey: NDArray[np.float32], seen: NDArray[np.bool_], down: int, right: int) -> float:
    fine, coarse = (_mean_square(grey, seen, down * lag, right * lag) for lag in (_FINE, _COARSE))
    return fine / coarse if coarse > 0.0 else float("nan")


def _mean_square(grey: NDArray[np.float32], seen: NDArray[np.bool_], down: int, right: int) -> float:
    height, width = grey.shape
    left = max(-right, 0)
    here = np.s_[: height - down, left : width - max(right, 0)]
    there = np.s_[down:, left + right : width - max(right, 0) + right]
    both = seen[here] & seen[there]
    if np.count_nonzero(both) < 256:
        return float("nan")
    return float(np.mean(np.square(grey[there] - grey[here])[both]))
