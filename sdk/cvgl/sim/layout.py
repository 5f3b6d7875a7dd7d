"""The plan of a place: a curved street network, blocks, land uses, water, big roads and railways.

Blocks are convex polygons cut recursively out of a square in plan coordinates (u, v); a smooth warp bends the
plan into the east-north frame, so that streets curve and whole quarters turn while neighbours stay
neighbours.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from . import crossings, landuse
from . import palette as palettes
from .scene import SceneBuilder, World
from .shapes import Array, clip_half_plane, densify, inset, outward_normals, signed_area
from .streets import Street, Warp, lay_street


@dataclass(frozen=True)
class Plan:
    """The habits of a style: land-use weights, how finely the land is cut, how winding the streets are."""

    uses: dict[str, float]
    district_m: tuple[float, float]
    winding: tuple[float, float]
    skew: float
    river: float
    highway: float
    railway: float
    paved: float = 1.0
    """The chance that streets have pavements and parked cars; elsewhere they run between grass verges."""


_PLANS: dict[str, Plan] = {
    "suburban": Plan(
        {
            "detached": 7,
            "rows": 2,
            "park": 1.2,
            "sports": 0.8,
            "apartments": 0.8,
            "commercial": 0.7,
            "forest": 0.8,
            "meadow": 0.8,
            "bare": 0.3,
            "school": 0.5,
        },
        (170, 300),
        (0.05, 0.34),
        0.10,
        0.3,
        0.12,
        0.12,
    ),
    "dense": Plan(
        {
            "rows": 6,
            "apartments": 2.5,
            "commercial": 2.5,
            "park": 1.0,
            "school": 0.8,
            "sports": 0.5,
            "industrial": 0.6,
            "car_park": 0.6,
            "bare": 0.3,
        },
        (130, 240),
        (0.03, 0.25),
        0.12,
        0.4,
        0.2,
        0.15,
    ),
    "rural": Plan(
        {
            "field": 7,
            "meadow": 2.5,
            "forest": 3,
            "orchard": 1.2,
            "scrub": 1.3,
            "farm": 1.6,
            "greenhouses": 0.4,
            "detached": 0.7,
            "bare": 0.3,
            "solar": 0.15,
        },
        (160, 360),
        (0.04, 0.25),
        0.22,
        0.35,
        0.1,
        0.08,
        0.1,
    ),
    "industrial": Plan(
        {
            "industrial": 6,
            "car_park": 1.2,
            "commercial": 1.4,
            "bare": 1.2,
            "meadow": 0.8,
            "rows": 0.6,
            "containers": 1.2,
            "solar": 0.4,
            "forest": 0.4,
        },
        (180, 320),
        (0.02, 0.12),
        0.06,
        0.3,
        0.25,
        0.4,
    ),
    "mixed": Plan(
        {
            "rows": 2.5,
            "detached": 2.5,
            "apartments": 1.3,
            "commercial": 1.0,
            "industrial": 1.5,
            "park": 1.0,
            "school": 0.7,
            "sports": 0.8,
            "field": 1.8,
            "forest": 1.4,
            "meadow": 1.0,
            "orchard": 0.6,
            "scrub": 0.6,
            "car_park": 0.5,
            "bare": 0.5,
            "containers": 0.3,
            "farm": 0.4,
        },
        (150, 280),
        (0.04, 0.3),
        0.15,
        0.45,
        0.15,
        0.15,
    ),
}

# Block area (m²) at which a land use is no longer cut by streets, the rank of these streets, and whether
# built up.
_CUT: dict[str, tuple[float, float, int]] = {
    "detached": (4500, 11000, 2),
    "rows": (2200, 6500, 2),
    "apartments": (6000, 14000, 2),
    "commercial": (4000, 11000, 2),
    "industrial": (9000, 26000, 2),
    "park": (12000, 40000, 3),
    "sports": (14000, 40000, 2),
    "school": (14000, 32000, 2),
    "field": (9000, 50000, 3),
    "meadow": (9000, 50000, 3),
    "orchard": (9000, 36000, 3),
    "forest": (20000, 80000, 3),
    "scrub": (20000, 80000, 3),
    "farm": (5000, 12000, 3),
    "greenhouses": (6000, 16000, 3),
    "car_park": (3500, 12000, 2),
    "bare": (6000, 25000, 2),
    "containers": (8000, 25000, 2),
    "solar": (15000, 40000, 3),
}

_WIDTH = ((13.0, 22.0), (9.0, 13.0), (5.5, 8.0), (3.0, 4.5))


def build(seed: int, size_m: float, style: str) -> World:
    """Lay out the whole place, see `World.generate`."""
    rng = np.random.default_rng([seed, 1])
    palette = palettes.draw(np.random.default_rng([seed, 2]))
    plan = _PLANS[style]
    b = SceneBuilder(size_m, rng)
    warp = Warp.draw(rng, rng.uniform(*plan.winding))
    weights = {use: w * rng.gamma(1.3, 1 / 1.3) for use, w in plan.uses.items()}
    background = palette.grass

    crossings.crossing_works(b, rng, palette, plan.river, plan.highway, plan.railway)
    b.close_barriers()

    half = 0.5 * size_m * 1.5 + 150
    square = np.array([[-half, -half], [half, -half], [half, half], [-half, half]])
    blocks, streets = _cut_land(rng, square, plan, weights)
    street_scale = rng.uniform(0.85, 1.2)
    verge = rng.uniform(0.0, 3.5) if rng.random() < plan.paved else 0.0
    if verge == 0.0:
        # Country roads are a class narrower.
        street_scale *= 0.75
    for street in streets:
        lay_street(b, rng, palette, warp, street, street_scale, verge)
    for polygon, use, edges in blocks:
        outline = warp(densify(np.vstack([polygon, polygon[:1]]), 15.0)[:-1])
        if b.in_reach(outline):
            inner = inset(polygon, np.where(edges > 0, edges * street_scale + (verge if edges.max() > 2.5 else 0), 0.0))
            if len(inner) >= 3 and signed_area(inner) > 60:
                landuse.fill(landuse.Site(b, rng, palette, warp), use, inner)
    return b.finish(seed, style, background)


def _split(polygon: Array, edges: Array, normal: Array, offset: float, width: float) -> list[tuple[Array, Array]]:
    """Cut a convex polygon by a line into two, carrying the half street width of every edge along."""
    out = []
    for sign in (1.0, -1.0):
        piece = clip_half_plane(polygon, sign * normal, sign * offset)
        if len(piece) < 3:
            continue
        n_old, o_old = outward_normals(polygon)
        n_new, o_new = outward_normals(piece)
        # Each edge of the piece lies on one old edge, or on the cut.
        match = (n_new @ n_old.T) - 10 * np.abs(o_new[:, None] - o_old[None, :])
        best = match.argmax(axis=1)
        kept = match[np.arange(len(piece)), best] > 0.99
        out.append((piece, np.where(kept, edges[best], 0.5 * width)))
    return out


def _cut_land(
    rng: np.random.Generator,
    square: Array,
    plan: Plan,
    weights: dict[str, float],
) -> tuple[list[tuple[Array, str, Array]], list[Street]]:
    """Recursive cutting into blocks with a land use each. Returns blocks (polygon, use, edge half widths) and
    streets."""
    uses = list(weights)
    share = np.array([weights[u] for u in uses])
    share /= share.sum()
    blocks: list[tuple[Array, str, Array]] = []
    streets: list[Street] = []
    stack: list[tuple[Array, Array, str | None, float, int]] = [(square, np.zeros(4), None, 0.0, 0)]
    while stack:
        polygon, edges, use, target, depth = stack.pop()
        area = signed_area(polygon)
        if use is None and area < rng.uniform(*plan.district_m) ** 2:
            use = uses[int(rng.choice(len(uses), p=share))]
            target = rng.uniform(*_CUT[use][:2])
        if use is not None and area < target:
            blocks.append((polygon, use, edges))
            continue
        sides = np.roll(polygon, -1, axis=0) - polygon
        length = np.hypot(sides[:, 0], sides[:, 1])
        axis = sides[length.argmax()] / length.max()
        skew = rng.normal(0, plan.skew) if rng.random() < 0.6 else 0.0
        normal = np.array(
            [axis[0] * np.cos(skew) - axis[1] * np.sin(skew), axis[0] * np.sin(skew) + axis[1] * np.cos(skew)]
        )
        reach = polygon @ normal
        offset = reach.min() + (reach.max() - reach.min()) * rng.uniform(0.36, 0.64)
        if use is None:
            rank = 0 if depth < 2 else (1 if rng.random() < 0.7 else 2)
        else:
            rank = _CUT[use][2]
        width = rng.uniform(*_WIDTH[rank])
        if use in ("field", "meadow", "orchard", "forest", "scrub", "park", "solar") and rng.random() < 0.65:
            # Neighbouring fields meet at a hedge or a ditch, not at a road.
            width = 0.0
        ends = _chord(polygon, normal, offset)
        if ends is not None and width > 0:
            streets.append(Street(ends[0], ends[1], width, rank))
        for piece, piece_edges in _split(polygon, edges, normal, offset, width):
            stack.append((piece, piece_edges, use, target, depth + 1))
    return blocks, streets


def _chord(polygon: Array, normal: Array, offset: float) -> tuple[Array, Array] | None:
    side = polygon @ normal - offset
    points = []
    for i in range(len(polygon)):
        j = (i + 1) % len(polygon)
        if (side[i] <= 0) != (side[j] <= 0):
            points.append(polygon[i] + side[i] / (side[i] - side[j]) * (polygon[j] - polygon[i]))
    return (points[0], points[1]) if len(points) == 2 else None
