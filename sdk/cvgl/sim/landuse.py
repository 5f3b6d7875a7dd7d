"""Which function builds which land use."""

from __future__ import annotations

from collections.abc import Callable

from . import countryside, homes, leisure, works
from .shapes import Array
from .site import Site

_FILL: dict[str, Callable[[Site, Array], None]] = {
    "rows": homes.rows,
    "detached": homes.detached,
    "apartments": homes.apartments,
    "commercial": works.commercial,
    "industrial": works.industrial,
    "containers": works.containers,
    "car_park": works.car_park,
    "solar": works.solar,
    "bare": works.bare,
    "park": leisure.park,
    "sports": leisure.sports,
    "school": leisure.school,
    "field": countryside.field,
    "meadow": countryside.meadow,
    "forest": countryside.forest,
    "orchard": countryside.orchard,
    "scrub": countryside.scrub,
    "farm": countryside.farm,
    "greenhouses": countryside.greenhouses,
}


def fill(site: Site, use: str, polygon: Array) -> None:
    """Build a block. `polygon` is convex, counter-clockwise, in plan coordinates."""
    _FILL[use](site, polygon)
