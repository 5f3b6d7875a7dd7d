"""Buildings: bodies and roofs of many forms on four-cornered footprints.

A footprint is a counter-clockwise quad (4, 2) whose edge 0 -> 1 is the street front. Heights in metres above
ground.
"""

from __future__ import annotations

import numpy as np

from . import materials as mat
from .palette import Palette, vary
from .scene import Colour, SceneBuilder
from .shapes import Array


def at(quad: Array, u: Array | float, v: Array | float) -> Array:
    """Bilinear point(s) in a quad: u along the front 0-1, v from front to back 0-1. Returns (..., 2)."""
    u, v = np.asarray(u, float)[..., None], np.asarray(v, float)[..., None]
    return (1 - v) * ((1 - u) * quad[0] + u * quad[1]) + v * ((1 - u) * quad[3] + u * quad[2])


def part(quad: Array, u0: float, u1: float, v0: float, v1: float) -> Array:
    """The sub-quad between two fractions of the front and two of the depth."""
    return at(quad, np.array([u0, u1, u1, u0]), np.array([v0, v0, v1, v1]))


def lengths(quad: Array) -> tuple[float, float]:
    """Front length and depth (m)."""
    return float(np.hypot(*(quad[1] - quad[0]))), float(np.hypot(*(quad[3] - quad[0])))


def lift(polygon: Array, height: float | Array) -> Array:
    """A plane polygon (N, 2) at a height (number or one per vertex): (N, 3)."""
    return np.column_stack([polygon, np.broadcast_to(np.asarray(height, float), (len(polygon),))])


def shade(colour: Colour, factor: float) -> Colour:
    """A lighter or darker colour."""
    return (min(colour[0] * factor, 252.0), min(colour[1] * factor, 252.0), min(colour[2] * factor, 252.0))


def _body(b: SceneBuilder, quad: Array, tops: Array, wall: Colour, windows: bool) -> None:
    """Four walls up to a height per corner (4,)."""
    b.unit()
    for i in range(4):
        j = (i + 1) % 4
        b.face(
            np.array([[*quad[i], 0], [*quad[j], 0], [*quad[j], tops[j]], [*quad[i], tops[i]]]),
            wall,
            mat.WALL,
            wall=windows,
        )


def flat(
    b: SceneBuilder,
    rng: np.random.Generator,
    quad: Array,
    height: float,
    wall: Colour,
    roof: Colour,
    *,
    windows: bool = True,
    clutter: float = 1.0,
) -> None:
    """A flat roof inside a parapet, with stair heads, tanks, machines, patches, sometimes solar panels."""
    length, depth = lengths(quad)
    _body(b, quad, np.full(4, height), wall, windows)
    rim = shade(wall, rng.uniform(0.95, 1.15))
    b.face(lift(quad, height), rim, mat.PLASTER)
    edge = rng.uniform(0.25, 0.5)
    eu, ev = min(edge / length, 0.2), min(edge / depth, 0.2)
    inner = part(quad, eu, 1 - eu, ev, 1 - ev)
    b.face(lift(inner, height), roof, mat.CONCRETE, cast=False)
    if rng.random() < 0.35 and min(length, depth) > 6:
        # Roofs are often mended or extended in another colour.
        u, v = rng.uniform(0.0, 0.6, 2)
        patch = part(inner, u, u + rng.uniform(0.2, 0.4), v, v + rng.uniform(0.2, 0.4))
        b.face(lift(patch, height), vary(rng, roof, 22), mat.CONCRETE, cast=False)
    area = length * depth
    if rng.random() < 0.07 and area > 120:
        _panels(b, rng, inner, height, roof)
        return
    for _ in range(int(rng.poisson(clutter * min(0.8 + area / 70, 9)))):
        sx, sy = rng.uniform(0.8, 3.6, 2) if rng.random() < 0.7 else rng.uniform(2.5, 6.0, 2)
        su, sv = sx / length, sy / depth
        if su > 0.6 or sv > 0.6:
            continue
        u, v = rng.uniform(eu, 1 - eu - su), rng.uniform(ev, 1 - ev - sv)
        box = part(quad, u, u + su, v, v + sv)
        kind = rng.random()
        if kind < 0.2:
            tank(b, rng, box.mean(axis=0), 0.5 * min(sx, sy, 2.6), height, height + rng.uniform(1.2, 2.4), roof)
        elif kind < 0.55:
            b.prism(
                box,
                height,
                height + rng.uniform(0.5, 1.4),
                (150, 150, 150),
                vary(rng, (176, 178, 178), 20),
                base=(height, roof),
            )
        elif kind < 0.8:
            b.prism(box, height, height + rng.uniform(2.0, 3.0), wall, vary(rng, roof, 18), base=(height, roof))
        else:
            sheet = [(206, 212, 208), (150, 178, 160), (140, 84, 70), (120, 136, 156), (224, 224, 222)]
            b.prism(
                box,
                height,
                height + rng.uniform(1.8, 2.6),
                wall,
                vary(rng, sheet[int(rng.integers(len(sheet)))], 12),
                base=(height, roof),
            )


def _panels(b: SceneBuilder, rng: np.random.Generator, quad: Array, height: float, roof: Colour) -> None:
    """Rows of solar panels on a roof."""
    length, depth = lengths(quad)
    rows = max(1, int(depth / rng.uniform(2.6, 4.0)))
    colour = vary(rng, (38, 52, 92), 7)
    ends = sorted(rng.uniform(0.02, 0.98, 2)) if rng.random() < 0.5 else [0.03, 0.97]
    if ends[1] - ends[0] < 0.2:
        return
    used = rng.uniform(0.4, 1.0)
    for r in range(rows):
        if rng.random() < 0.12 or r / rows > used:
            continue
        row = part(quad, ends[0], ends[1], (r + 0.15) / rows, (r + 0.8) / rows)
        b.face(lift(row, height + 0.5), colour, mat.GLASS, base=(height, roof), width=0.6 * depth / rows)
        for k in range(1, int(length / 2.2)):
            u = k * 2.2 / length
            b.face(
                lift(part(row, u, u + 0.12 / length, 0, 1), height + 0.5),
                (120, 130, 150),
                mat.GLASS,
                cast=False,
                width=0.12,
            )


def tank(
    b: SceneBuilder,
    rng: np.random.Generator,
    center: Array,
    radius: float,
    low: float,
    high: float,
    roof: Colour | None = None,
) -> None:
    """An upright cylinder: a water tank on a roof, or a silo."""
    angle = np.linspace(0, 2 * np.pi, 10, endpoint=False) + rng.uniform(0, 1)
    ring = center + radius * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    colour = vary(rng, (186, 190, 192), 18)
    b.prism(ring, low, high, shade(colour, 0.9), colour, base=(low, roof) if roof else None)


def _ribs(b: SceneBuilder, slope: Array, colour: Colour, step: float, factor: float) -> None:
    """Fine seams down a roof slope (4, 3) whose edge 0 -> 1 is the eave."""
    length = float(np.linalg.norm(slope[1] - slope[0]))
    width = 0.22 * step
    tint = shade(colour, factor)
    for k in range(1, int(length / step)):
        u0, u1 = k * step / length, (k * step + width) / length
        b.face(
            np.array(
                [
                    slope[0] + u0 * (slope[1] - slope[0]),
                    slope[0] + u1 * (slope[1] - slope[0]),
                    slope[3] + u1 * (slope[2] - slope[3]),
                    slope[3] + u0 * (slope[2] - slope[3]),
                ]
            ),
            tint,
            mat.ROOF,
            cast=False,
            width=width,
        )


def gable(
    b: SceneBuilder,
    rng: np.random.Generator,
    quad: Array,
    height: float,
    wall: Colour,
    roof: Colour,
    *,
    pitch: float = 0.45,
    windows: bool = True,
    hip: float = 0.0,
    detail: bool = True,
) -> None:
    """A pitched roof, its ridge along the longer side; `hip` 0 gable ends, up to 1 fully hipped."""
    length, depth = lengths(quad)
    q = quad if length >= depth else np.roll(quad, -1, axis=0)
    span = min(length, depth)
    rise = 0.5 * span * pitch
    over = 1 + min(0.8 / span, 0.1)
    eave = q.mean(axis=0) + over * (q - q.mean(axis=0))
    _body(b, q, np.full(4, height), wall, windows)
    run = min(0.49, hip * 0.5 * span / max(length, depth))
    left, right = at(eave, run, 0.5), at(eave, 1 - run, 0.5)
    e = lift(eave, height)
    ridge_l, ridge_r = np.append(left, height + rise), np.append(right, height + rise)
    dirt = rng.uniform(0.94, 1.04, 2)
    end_colour = roof if hip > 0 else wall
    end_material = mat.ROOF if hip > 0 else mat.WALL
    b.face(np.array([e[3], e[0], ridge_l]), end_colour, end_material)
    b.face(np.array([e[1], e[2], ridge_r]), end_colour, end_material)
    slopes = (np.array([e[0], e[1], ridge_r, ridge_l]), np.array([e[2], e[3], ridge_l, ridge_r]))
    step = rng.uniform(0.8, 2.2)
    for slope, d in zip(slopes, dirt, strict=True):
        tone = shade(roof, float(d))
        b.face(slope, tone, mat.ROOF)
        if detail:
            _ribs(b, slope, tone, step, 0.93 if rng.random() < 0.6 else 1.06)
        if rng.random() < 0.12 and span > 6:
            u = rng.uniform(0.1, 0.4)
            mid = np.array(
                [
                    slope[0] + u * (slope[1] - slope[0]),
                    slope[0] + (u + 0.4) * (slope[1] - slope[0]),
                    slope[3] + (u + 0.4) * (slope[2] - slope[3]),
                    slope[3] + u * (slope[2] - slope[3]),
                ]
            )
            lo, hi = mid[0] + 0.2 * (mid[3] - mid[0]), mid[1] + 0.2 * (mid[2] - mid[1])
            b.face(
                np.array([lo, hi, mid[1] + 0.85 * (mid[2] - mid[1]), mid[0] + 0.85 * (mid[3] - mid[0])]),
                vary(rng, (38, 50, 86), 6),
                mat.GLASS,
                cast=False,
            )
    if detail and span < 14 and rng.random() < 0.5:
        at_ridge = left + rng.uniform(0.15, 0.85) * (right - left)
        side = np.array([[-0.5, -0.5], [0.5, -0.5], [0.5, 0.5], [-0.5, 0.5]]) * rng.uniform(0.7, 1.2)
        b.prism(
            at_ridge + side,
            height + 0.7 * rise,
            height + rise + 0.8,
            (128, 96, 84),
            (92, 84, 80),
            base=(height + 0.6 * rise, roof),
        )


def shed(
    b: SceneBuilder,
    rng: np.random.Generator,
    quad: Array,
    height: float,
    wall: Colour,
    roof: Colour,
    *,
    windows: bool = True,
) -> None:
    """One slope, rising to the front or to the back."""
    rise = lengths(quad)[1] * rng.uniform(0.06, 0.2)
    front = rng.random() < 0.5
    tops = height + rise * np.array([1, 1, 0, 0] if front else [0, 0, 1, 1], float)
    _body(b, quad, tops, wall, windows)
    slope = lift(quad, tops)
    b.face(slope, roof, mat.ROOF)
    _ribs(b, slope, roof, rng.uniform(0.8, 2.0), rng.choice([0.92, 1.07]))


def house(
    b: SceneBuilder,
    rng: np.random.Generator,
    palette: Palette,
    quad: Array,
    height: float,
    *,
    windows: bool = True,
    detail: bool = True,
) -> None:
    """A building of the place's habit."""
    form, roof = palette.roof(rng)
    wall = palette.wall(rng)
    if form == "flat" or height > 16:
        if form != "flat":
            roof = palette.roof(rng, flat_only=True)[1]
        flat(b, rng, quad, height, wall, roof, windows=windows)
    elif form == "shed":
        shed(b, rng, quad, height, wall, roof, windows=windows)
    else:
        gable(
            b,
            rng,
            quad,
            height,
            wall,
            roof,
            pitch=rng.uniform(0.25, 0.75),
            windows=windows,
            detail=detail,
            hip=rng.uniform(0.6, 1.0) if form == "hip" else 0.0,
        )


def hall(b: SceneBuilder, rng: np.random.Generator, palette: Palette, quad: Array) -> None:
    """An industrial hall: low gable, many small gables, or flat with skylights."""
    length, depth = lengths(quad)
    height = rng.uniform(5, 13)
    tones: list[Colour] = [
        (206, 210, 208),
        (176, 186, 190),
        (150, 164, 182),
        (188, 176, 158),
        (150, 156, 154),
        (232, 232, 228),
        (136, 160, 150),
        (160, 92, 76),
        (120, 134, 160),
    ]
    roof = vary(rng, tones[int(rng.integers(len(tones)))], 12)
    wall = palette.wall(rng)
    kind = rng.random()
    if kind < 0.4:
        gable(b, rng, quad, height, wall, roof, pitch=rng.uniform(0.1, 0.25), windows=False)
    elif kind < 0.65:
        count = int(rng.integers(2, 6))
        long_side = length >= depth
        for k in range(count):
            f0, f1 = k / count, (k + 1) / count
            piece = part(quad, f0, f1, 0, 1) if long_side else part(quad, 0, 1, f0, f1)
            gable(b, rng, piece, height, wall, vary(rng, roof, 5), pitch=rng.uniform(0.15, 0.35), windows=False)
    else:
        flat(b, rng, quad, height, wall, roof, windows=False, clutter=0.5)
        rows, columns = max(1, int(depth / 12)), max(1, int(length / 8))
        if rng.random() < 0.6:
            for r in range(rows):
                for c in range(columns):
                    u, v = (c + 0.4) / columns, (r + 0.45) / rows
                    b.face(
                        lift(part(quad, u, u + 1.2 / length, v, v + 3.0 / depth), height + 0.2),
                        (216, 226, 230),
                        mat.GLASS,
                        cast=False,
                        width=1.2,
                    )


def greenhouse(b: SceneBuilder, rng: np.random.Generator, quad: Array) -> None:
    """A row of foil tunnels."""
    length, _ = lengths(quad)
    count = max(1, int(length / rng.uniform(6, 9)))
    tone = vary(rng, (212, 218, 220), 10)
    for k in range(count):
        gable(
            b,
            rng,
            part(quad, k / count, (k + 0.94) / count, 0, 1),
            1.8,
            tone,
            vary(rng, tone, 6),
            pitch=0.5,
            windows=False,
            detail=False,
        )
