"""The plan of a place: a curved street network, blocks, land uses, water, big roads and railways.

Blocks are convex polygons cut recursively out of a square in plan coordinates (u, v); a smooth warp bends the plan into
the east-north frame, so that streets curve and whole quarters turn while neighbours stay neighbours.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from . import landuse
from . import materials as mat
from . import palette as palettes
from .scene import SceneBuilder, World
from .shapes import (
    Array,
    along,
    arc_length,
    clip_half_plane,
    densify,
    inset,
    offset_line,
    outward_normals,
    ribbon,
    signed_area,
    smooth_line,
    tangents,
)


@dataclass(frozen=True)
class Warp:
    """Plan (u, v) -> east, north, both in metres: a turn and a sum of long plane waves."""

    angle: float
    wave: Array
    shift: Array
    phase: Array

    @staticmethod
    def draw(rng: np.random.Generator, strength: float) -> Warp:
        """A random warp; `strength` about 0.05 (nearly straight streets) to 0.3 (winding ones)."""
        length = rng.uniform(260, 900, 4)
        turn = rng.uniform(0, 2 * np.pi, 4)
        k = 2 * np.pi / length
        wave = np.stack([k * np.cos(turn), k * np.sin(turn)], axis=1)
        direction = rng.uniform(0, 2 * np.pi, 4)
        amplitude = 0.5 * strength / k * rng.uniform(0.4, 1.0, 4)
        shift = amplitude[:, None] * np.stack([np.cos(direction), np.sin(direction)], axis=1)
        return Warp(float(rng.uniform(0, np.pi / 2)), wave, shift, rng.uniform(0, 2 * np.pi, 4))

    def __call__(self, plan: Array) -> Array:
        """Map points (..., 2)."""
        bent = plan + np.sin(plan @ self.wave.T + self.phase) @ self.shift
        c, s = np.cos(self.angle), np.sin(self.angle)
        return bent @ np.array([[c, s], [-s, c]])


@dataclass(frozen=True)
class Street:
    """A straight street in the plan, from one end to the other; rank 0 main road ... 3 lane or track."""

    start: Array
    end: Array
    width: float
    rank: int


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
    "suburban": Plan({"detached": 7, "rows": 2, "park": 1.2, "sports": 0.8, "apartments": 0.8, "commercial": 0.7,
                      "forest": 0.8, "meadow": 0.8, "bare": 0.3, "school": 0.5}, (170, 300), (0.05, 0.34), 0.10, 0.3, 0.12,
                     0.12),
    "dense": Plan({"rows": 6, "apartments": 2.5, "commercial": 2.5, "park": 1.0, "school": 0.8, "sports": 0.5,
                   "industrial": 0.6, "car_park": 0.6, "bare": 0.3}, (130, 240), (0.03, 0.25), 0.12, 0.4, 0.2, 0.15),
    "rural": Plan({"field": 7, "meadow": 2.5, "forest": 3, "orchard": 1.2, "scrub": 1.3, "farm": 1.6, "greenhouses": 0.4,
                   "detached": 0.7, "bare": 0.3, "solar": 0.15}, (160, 360), (0.04, 0.25), 0.22, 0.35, 0.1, 0.08, 0.1),
    "industrial": Plan({"industrial": 6, "car_park": 1.2, "commercial": 1.4, "bare": 1.2, "meadow": 0.8, "rows": 0.6,
                        "containers": 1.2, "solar": 0.4, "forest": 0.4}, (180, 320), (0.02, 0.12), 0.06, 0.3, 0.25, 0.4),
    "mixed": Plan({"rows": 2.5, "detached": 2.5, "apartments": 1.3, "commercial": 1.0, "industrial": 1.5, "park": 1.0,
                   "school": 0.7, "sports": 0.8, "field": 1.8, "forest": 1.4, "meadow": 1.0, "orchard": 0.6, "scrub": 0.6,
                   "car_park": 0.5, "bare": 0.5, "containers": 0.3, "farm": 0.4}, (150, 280), (0.04, 0.3), 0.15, 0.45,
                  0.15, 0.15),
}

# Block area (m²) at which a land use is no longer cut by streets, the rank of these streets, and whether built up.
_CUT: dict[str, tuple[float, float, int]] = {
    "detached": (4500, 11000, 2), "rows": (2200, 6500, 2), "apartments": (6000, 14000, 2), "commercial": (4000, 11000, 2),
    "industrial": (9000, 26000, 2), "park": (12000, 40000, 3), "sports": (14000, 40000, 2), "school": (14000, 32000, 2),
    "field": (9000, 50000, 3), "meadow": (9000, 50000, 3), "orchard": (9000, 36000, 3), "forest": (20000, 80000, 3),
    "scrub": (20000, 80000, 3), "farm": (5000, 12000, 3), "greenhouses": (6000, 16000, 3), "car_park": (3500, 12000, 2),
    "bare": (6000, 25000, 2), "containers": (8000, 25000, 2), "solar": (15000, 40000, 3),
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

    _crossing_works(b, rng, palette, plan)

    half = 0.5 * size_m * 1.5 + 150
    square = np.array([[-half, -half], [half, -half], [half, half], [-half, half]])
    blocks, streets = _cut_land(rng, square, plan, weights)
    street_scale = rng.uniform(0.85, 1.2)
    verge = rng.uniform(0.0, 3.5) if rng.random() < plan.paved else 0.0
    if verge == 0.0:
        # Country roads are a class narrower.
        street_scale *= 0.75
    for street in streets:
        _street(b, rng, palette, warp, street, street_scale, verge)
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


def _cut_land(rng: np.random.Generator, square: Array, plan: Plan, weights: dict[str, float],
              ) -> tuple[list[tuple[Array, str, Array]], list[Street]]:
    """Recursive cutting into blocks with a land use each. Returns blocks (polygon, use, edge half widths) and streets."""
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
        normal = np.array([axis[0] * np.cos(skew) - axis[1] * np.sin(skew),
                           axis[0] * np.sin(skew) + axis[1] * np.cos(skew)])
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


def _pieces(line: Array, count: int) -> list[Array]:
    """A polyline in runs of at most `count` segments, so that only what is in view is painted."""
    return [line[i:i + count + 1] for i in range(0, len(line) - 1, count)]


def _street(b: SceneBuilder, rng: np.random.Generator, palette: palettes.Palette, warp: Warp, street: Street,
            scale: float, verge: float) -> None:
    """Pavements, carriageway, marks, trees and parked cars of one street."""
    line = warp(densify(np.stack([street.start, street.end]), 9.0))
    if not b.in_reach(line):
        return
    width = street.width * scale
    half = 0.5 * width
    total = float(arc_length(line)[-1])
    major = street.rank <= 1
    tone = palette.asphalt if major else palette.local_asphalt
    tone = palettes.vary(rng, tone, 5)
    unpaved = street.rank == 3 and rng.random() < 0.7
    layer = 8.0 if street.rank == 0 else (5.2 if street.rank == 1 else 5.0)
    material = mat.ASPHALT
    if unpaved:
        tone, material = palettes.vary(rng, palette.soil, 8), mat.SOIL
    for piece in _pieces(line, 4):
        if not b.in_reach(piece):
            continue
        outer = ribbon(piece, half, -half)
        b.occupy(outer)
        if street.rank <= 2 and verge > 0.5:
            side = ribbon(piece, half + verge, -half - verge)
            b.ground(side, palette.pavement, mat.PAVING, 7.0 if street.rank == 0 else 4.0)
            b.occupy(ribbon(piece, half + 0.6 * verge, -half - 0.6 * verge))
        else:
            b.ground(ribbon(piece, half + 1.8, -half - 1.5), palettes.vary(rng, palette.grass, 6), mat.GRASS, 3.9)
        b.ground(outer, tone, material, layer)
        if unpaved:
            b.lines([offset_line(piece, d) for d in (-0.8, 0.8)], 0.5, palettes.vary(rng, tone, 10), mat.SOIL,
                    layer + 0.1)
            b.lines([piece], 0.7, palettes.vary(rng, palette.grass, 8), mat.GRASS, layer + 0.1)
        elif rng.random() < 0.25:
            d, w = rng.uniform(-0.6, 0.6) * half, rng.uniform(0.6, 0.35 * width)
            b.lines([offset_line(piece, d)], w, palettes.vary(rng, tone, 9), mat.ASPHALT, layer + 0.05)
    if unpaved or street.rank == 3:
        return
    _marks(b, rng, palette, line, total, half, street.rank, layer)
    if verge > 1.2 and rng.random() < (0.75 if major else 0.45) * (0.5 + palette.lushness):
        _street_trees(b, rng, palette, line, total, half + 0.55 * verge)
    spacing = np.arange(8.0, max(total - 8.0, 8.1), 5.6)
    if len(spacing) and width > 5.0:
        point, tangent = along(line, spacing)
        left = np.stack([-tangent[:, 1], tangent[:, 0]], axis=1)
        heading = np.arctan2(tangent[:, 1], tangent[:, 0])
        for side in (1.0, -1.0):
            if width > 6.5:
                b.slots(point + side * (half - 1.15) * left, heading, rng.uniform(0.05, 0.5) * min(verge, 1.0))
            jitter = rng.uniform(-2, 2, (len(point), 1)) * tangent
            b.slots(point + jitter + side * 0.25 * width * left, heading, (0.09 if major else 0.03) * (1.0 if verge else 0.35))


def _marks(b: SceneBuilder, rng: np.random.Generator, palette: palettes.Palette, line: Array, total: float, half: float,
           rank: int, layer: float) -> None:
    """Lane lines, stop lines and zebra crossings."""
    mark = palettes.vary(rng, palette.mark, 8)
    yellow = palettes.vary(rng, (214, 176, 70), 10)
    if half > 3.0 and total > 40:
        centre = yellow if rng.random() < 0.4 else mark
        dash, period = rng.choice([2.0, 3.0, 4.0]), rng.choice([6.0, 9.0, 10.0])
        offsets: list[tuple[float, bool]] = [(0.0, rank == 0 or rng.random() < 0.3)]
        if half > 6.0:
            offsets += [(-0.5 * half, False), (0.5 * half, False)]
        if rank <= 1 or rng.random() < 0.3:
            offsets += [(half - 0.35, True), (0.35 - half, True)]
        if rank <= 1:
            offsets += [(half - 2.3, True)] if rng.random() < 0.3 else []
        for offset, solid in offsets:
            colour = centre if offset == 0 else mark
            if solid:
                inner = along(line, np.linspace(14, total - 14, max(2, int(total / 12))))[0] if total > 50 else line
                for piece in _pieces(offset_line(inner, offset), 3):
                    b.lines([piece], 0.16, colour, mat.MARK, layer + 0.3)
                continue
            begin = np.arange(12.0, total - 12.0, period)
            if len(begin) == 0:
                continue
            first, last = along(line, begin), along(line, begin + dash)
            for (p, t), (q, _) in zip(zip(*first, strict=True), zip(*last, strict=True), strict=True):
                shift = offset * np.array([-t[1], t[0]])
                b.lines([np.stack([p + shift, q + shift])], 0.15, colour, mat.MARK, layer + 0.3)
    if half > 2.6 and total > 45:
        spots = [s for s in (9.0, total - 9.0) if rng.random() < (0.6 if rank <= 1 else 0.3)]
        if total > 160 and rng.random() < 0.4:
            spots.append(rng.uniform(40, total - 40))
        for spot in spots:
            (p,), (t,) = along(line, np.array([spot]))
            left = np.array([-t[1], t[0]])
            stripe = rng.uniform(0.45, 0.6)
            for d in np.arange(0.5 - half, half - 0.5, 2 * stripe):
                corner = p + d * left
                b.lines([np.stack([corner - 1.6 * t, corner + 1.6 * t])], stripe, mark, mat.MARK, layer + 0.4)
            if rng.random() < 0.6:
                stop = p + (3.2 if spot < 0.5 * total else -3.2) * t
                b.lines([np.stack([stop + 0.3 * left, stop + half * left * 0.95])], 0.4, mark, mat.MARK, layer + 0.4)


def _street_trees(b: SceneBuilder, rng: np.random.Generator, palette: palettes.Palette, line: Array, total: float,
                  offset: float) -> None:
    step = rng.uniform(6.5, 14.0)
    radius = rng.uniform(1.6, 3.6)
    colour = palettes.vary(rng, palette.leaf, 8)
    for side in (1.0, -1.0):
        if rng.random() < 0.2:
            continue
        s = np.arange(12.0, total - 10.0, step)
        s = s[rng.random(len(s)) < 0.85] if len(s) else s
        if len(s) == 0:
            continue
        s = s + rng.normal(0, 0.5, len(s))
        p, t = along(line, s)
        left = np.stack([-t[:, 1], t[:, 0]], axis=1)
        r = radius * rng.uniform(0.7, 1.25, len(s))
        b.trees(p + side * offset * left, r, 2.1 * r + 1.5,
                np.asarray(colour) + rng.normal(0, 4, (len(s), 1)), anywhere=True)


def _crossing_works(b: SceneBuilder, rng: np.random.Generator, palette: palettes.Palette, plan: Plan) -> None:
    """Rivers, highways and railways that cross the whole place regardless of its blocks."""
    reach = b.reach * 1.5

    def course(bends: float) -> Array:
        angle = rng.uniform(0, 2 * np.pi)
        direction = np.array([np.cos(angle), np.sin(angle)])
        left = np.array([-direction[1], direction[0]])
        s = np.linspace(-reach, reach, 7)
        wander = np.cumsum(rng.normal(0, bends, 7))
        wander += rng.uniform(-0.3, 0.3) * b.size_m - wander[3]
        return smooth_line(s[:, None] * direction + wander[:, None] * left, 10.0)

    if rng.random() < plan.river:
        line = course(rng.uniform(15, 75))
        half = rng.uniform(2.5, 6) if rng.random() < 0.45 else rng.uniform(7, 24)
        s = arc_length(line)
        breadth = half * (1 + 0.25 * np.sin(s / rng.uniform(30, 70)) + 0.12 * np.sin(s / rng.uniform(11, 19)))
        bank = rng.uniform(1.5, 7)
        walled = rng.random() < 0.4
        stony = palettes.vary(rng, palette.concrete if walled else palette.soil, 8)
        for i in range(0, len(line) - 1, 3):
            k = slice(i, i + 4)
            piece, w = line[k], breadth[k] if not walled else np.full(len(line[k]), half)
            if len(piece) < 2 or not b.in_reach(piece):
                continue
            b.occupy(ribbon(piece, w + bank, -w - bank))
            b.ground(ribbon(piece, w + bank + 4, -w - bank - 4), palettes.vary(rng, palette.grass, 2), mat.GRASS, 5.5)
            b.ground(ribbon(piece, w + bank, -w - bank), stony, mat.CONCRETE if walled else mat.SOIL, 5.6)
            b.ground(ribbon(piece, w, -w), palette.water, mat.WATER, 5.7)
            deep = ribbon(piece, 0.7 * w, -0.6 * w)
            b.ground(deep, palettes.vary(rng, tuple(0.93 * c for c in palette.water), 1),  # type: ignore[arg-type]
                     mat.WATER, 5.8)
        _bank_trees(b, rng, palette, line, half + bank + 2)
    if rng.random() < plan.highway:
        line = course(rng.uniform(10, 55))
        half = rng.uniform(9, 15)
        mark = palettes.vary(rng, palette.mark, 5)
        median = rng.uniform(1.0, 4.0)
        for piece in _pieces(line, 4):
            if not b.in_reach(piece):
                continue
            b.occupy(ribbon(piece, half + 7, -half - 7))
            b.ground(ribbon(piece, half + 7, -half - 7), palettes.vary(rng, palette.grass, 3), mat.GRASS, 8.5)
            b.ground(ribbon(piece, half, -half), palette.asphalt, mat.ASPHALT, 8.6)
            b.ground(ribbon(piece, median / 2, -median / 2), palettes.vary(rng, palette.grass, 6), mat.GRASS, 8.7)
            b.lines([offset_line(piece, d) for d in (half - 1.5, 1.5 - half, median / 2 + 0.5, -median / 2 - 0.5)], 0.2,
                    mark, mat.MARK, 8.8)
        _highway_lanes(b, rng, line, half, median, mark)
    if rng.random() < plan.railway:
        line = course(rng.uniform(3, 20))
        tracks = int(rng.integers(1, 4))
        half = 2.6 * tracks
        ballast = palettes.vary(rng, (122, 112, 104), 10)
        for piece in _pieces(line, 3):
            if not b.in_reach(piece):
                continue
            b.occupy(ribbon(piece, half + 3, -half - 3))
            b.ground(ribbon(piece, half + 3, -half - 3), palettes.vary(rng, palette.grass, 6), mat.GRASS, 8.9)
            b.ground(ribbon(piece, half, -half), ballast, mat.SOIL, 9.0)
            for k in range(tracks):
                centre = (k - 0.5 * (tracks - 1)) * 4.4
                b.lines([offset_line(piece, centre)], 2.4, palettes.vary(rng, (104, 94, 86), 4), mat.SOIL, 9.1)
                b.lines([offset_line(piece, centre + d) for d in (-0.72, 0.72)], 0.2, (150, 142, 136), mat.ROOF, 9.2)


def _highway_lanes(b: SceneBuilder, rng: np.random.Generator, line: Array, half: float, median: float,
                   mark: palettes.Colour) -> None:
    total = float(arc_length(line)[-1])
    begin = np.arange(0.0, total - 6, 12.0)
    p, t = along(line, begin)
    left = np.stack([-t[:, 1], t[:, 0]], axis=1)
    lanes = max(2, round((half - median / 2 - 2.0) / 3.6))
    pitch = (half - median / 2 - 2.0) / lanes
    heading = np.arctan2(t[:, 1], t[:, 0])
    for side in (1.0, -1.0):
        for k in range(lanes):
            centre = side * (median / 2 + 0.5 + (k + 0.5) * pitch)
            b.slots(p + centre * left + rng.uniform(-4, 4, (len(p), 1)) * t, heading, 0.13)
            if k:
                edge = p + side * (median / 2 + 0.5 + k * pitch) * left
                for a, d in zip(edge, t, strict=True):
                    b.lines([np.stack([a, a + 4.0 * d])], 0.18, mark, mat.MARK, 8.8)


def _bank_trees(b: SceneBuilder, rng: np.random.Generator, palette: palettes.Palette, line: Array, offset: float) -> None:
    t = tangents(line)
    left = np.stack([-t[:, 1], t[:, 0]], axis=1)
    keep = rng.random(len(line)) < rng.uniform(0.0, 0.9)
    for side in (1.0, -1.0):
        p = (line + side * left * (offset + rng.uniform(0, 6, (len(line), 1))) + rng.normal(0, 3, line.shape))[keep]
        r = rng.uniform(1.5, 4.2, len(p))
        b.trees(p, r, 2.2 * r + 1, np.asarray(palette.leaf) + rng.normal(0, 8, (len(p), 1)))
