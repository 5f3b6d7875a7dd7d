"""Places that look alike: where the map around a frame's place matches itself."""

from __future__ import annotations

import math
from dataclasses import dataclass

from cvgl.basemap import Basemap
from cvgl.correlate import REDUCTION
from cvgl.native import alike_places
from cvgl.orientation import map_field, orientation_field
from cvgl.rectify import Patch

__all__ = ["LookAlike", "look_alikes"]

# A place is like another if the map correlates with itself there by at least this share. Places in ordinary towns reach
# 0.1 to 0.3, a row of equal houses 0.6 and more.
_ALIKE = 0.5
# Two places of which this share of the frame's own correlation peak is reached are rivals; less is none.
_REACHED = 0.5
# As many as are looked at.
_MOST = 2
# The native correlation takes blocks up to this side and shifts up to this far, pixels.
_LARGEST = 256
# The frame's peak at a place that looks alike is this close to where the map's own is, reduced pixels.
_NEAR_PX = 2


@dataclass(frozen=True)
class LookAlike:
    """A place that looks like another.

    Args:
        easting, northing: metres.
        similarity: correlation of the map there with the map at the other place, as a share of the other's with itself.
        peak_ratio: the frame's correlation there, as a share of its correlation at the other place.
    """

    easting: float
    northing: float
    similarity: float
    peak_ratio: float


def look_alikes(
    basemap: Basemap, patch: Patch, easting: float, northing: float, reach_m: float, apart_m: float
) -> list[LookAlike]:
    """Places around a frame's where the map looks the same, and the frame matches as well; best first.

    The windows that are searched for a frame give one peak each, so a second one in the same window (the next house of
    a row) is never seen. The map's autocorrelation over what the frame covers shows where such a peak must be.

    Args:
        basemap: grey.
        patch: the frame as registered, at ``REDUCTION`` times the basemap's GSD.
        easting, northing: where its middle lies, metres.
        reach_m: how far around is looked.
        apart_m: closer than this is the same place.
    """
    size = patch.mask.shape[0]
    search = min(math.ceil(reach_m / patch.gsd), _LARGEST)
    if size > _LARGEST:
        return []
    column, row = basemap.to_pixel(easting, northing)
    side = size + 2 * search
    left = round(float(column) + 0.5 - side * REDUCTION / 2)
    top = round(float(row) + 0.5 - side * REDUCTION / 2)
    ground, _ = map_field(basemap.pixels, left, top, side, REDUCTION)
    seen = orientation_field(patch.image, patch.mask)
    return [
        LookAlike(easting + right * patch.gsd, northing - down * patch.gsd, similarity, ratio)
        for right, down, similarity, ratio in alike_places(
            seen, ground, search, apart_m / patch.gsd, _ALIKE, _REACHED, _NEAR_PX, _MOST
        )
    ]
