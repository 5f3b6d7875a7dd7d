"""Where people work: shops and offices, industry, container yards, car parks, solar farms, building land."""

from __future__ import annotations

import numpy as np

from . import buildings
from . import materials as mat
from .palette import vary
from .scene import Colour
from .shapes import (
    Array,
    clip_segments,
    inset,
    inside_convex,
    offset_line,
    rectangle,
    signed_area,
    smooth_line,
)
from .site import Site, bounding, depth_here, frontages, lot, stacks, stalls


def commercial(site: Site, polygon: Array) -> None:
    """Large irregular buildings filling a block, some with courts."""
    rng, palette = site.rng, site.palette
    site.pave(polygon)
    storeys = float(np.clip(rng.gamma(3, 1.5) * palette.height_scale, 1, 13))
    for start, direction, inward, length in frontages(polygon, 14):
        s = rng.uniform(0, 3)
        while s < length - 10:
            width = min(rng.uniform(11, 38), length - s)
            depth = min(rng.uniform(12, 34), 0.5 * depth_here(polygon, start, direction, inward, s) - 0.5)
            if depth > 7:
                quad = site.place(lot(start, direction, inward, s, width, rng.uniform(0, 2.5), depth))
                if quad is not None:
                    height = site.height(max(1, round(storeys * rng.uniform(0.5, 1.6))))
                    wall, roof = palette.wall(rng), palette.roof(rng, flat_only=True)[1]
                    buildings.flat(site.b, rng, quad, height, wall, roof, clutter=1.5)
                    if rng.random() < 0.35 and min(width, depth) > 14:
                        u, v = rng.uniform(0.05, 0.4, 2)
                        _tower(site, buildings.part(quad, u, u + 0.5, v, v + 0.5), height, wall, roof)
            s += width + (rng.uniform(0, 0.5) if rng.random() < 0.7 else rng.uniform(3, 9))
    middle = inset(polygon, 30.0)
    if len(middle) >= 3 and signed_area(middle) > 300:
        stalls(site, middle[:4] if len(middle) == 4 else bounding(middle), polygon)
    site.plant(site.scatter(polygon, 16.0), (1.2, 3.0))


def _tower(site: Site, quad: Array, base: float, wall: Colour, roof: Colour) -> None:
    """A set-back upper part on a building."""
    top = base + site.height(float(site.rng.integers(1, 6)))
    site.b.prism(quad, base, top, wall, vary(site.rng, roof, 15), base=(base, roof), windows=True)


def industrial(site: Site, polygon: Array) -> None:
    """Halls in paved yards with trucks, tanks, stacks."""
    rng, palette = site.rng, site.palette
    site.pave(polygon)
    for start, direction, inward, length in frontages(polygon, 25)[:3]:
        s = rng.uniform(3, 9)
        while s < length - 16:
            width = min(rng.uniform(16, 75), length - s - 2)
            depth = min(rng.uniform(18, 60), depth_here(polygon, start, direction, inward, s) - 8)
            setback = rng.uniform(3, 14)
            s += width + rng.uniform(3, 14)
            if depth < 12:
                continue
            plan = lot(start, direction, inward, s - width, width, setback, depth)
            if not inside_convex(polygon, plan, -1.0).all():
                continue
            quad = site.place(plan)
            if quad is None:
                continue
            buildings.hall(site.b, rng, palette, quad)
            if rng.random() < 0.5:
                office = site.place(lot(start, direction, inward, s - width, rng.uniform(8, 18), setback - 8, 8))
                if office is not None:
                    buildings.flat(
                        site.b,
                        rng,
                        office,
                        site.height(2),
                        palette.wall(rng),
                        palette.roof(rng, flat_only=True)[1],
                    )
    for _ in range(int(rng.poisson(1.5))):
        centre = rng.dirichlet(np.ones(len(polygon))) @ polygon
        radius = rng.uniform(2.5, 9)
        square = site.warp(rectangle(centre, 0.0, 2 * radius, 2 * radius))
        if site.b.is_free(square) and inside_convex(polygon, centre[None], radius + 2)[0]:
            site.b.occupy(square)
            site.b.unit()
            buildings.tank(site.b, rng, square.mean(axis=0), radius, 0.0, rng.uniform(5, 15))
    stalls(
        site, bounding(inset(polygon, 6.0)) if len(inset(polygon, 6.0)) >= 3 else polygon[:4], polygon
    ) if rng.random() < 0.25 and len(polygon) >= 4 else None
    stacks(site, polygon, int(rng.poisson(5)), (2.4, 8.0))
    site.plant(site.scatter(polygon, 22.0), (1.3, 3.2))


def containers(site: Site, polygon: Array) -> None:
    """A yard of stacked containers in bays."""
    rng = site.rng
    site.pave(polygon)
    tones: list[Colour] = [
        (160, 66, 52),
        (60, 92, 140),
        (80, 120, 84),
        (196, 150, 62),
        (200, 200, 196),
        (120, 82, 62),
        (176, 96, 60),
        (50, 70, 96),
    ]
    frame = bounding(polygon)
    length, depth = buildings.lengths(frame)
    direction, inward = (frame[1] - frame[0]) / length, (frame[3] - frame[0]) / depth
    y = rng.uniform(3, 8)
    while y < depth - 6:
        x = rng.uniform(3, 10)
        tiers = int(rng.integers(1, 4))
        while x < length - 14:
            step = 12.4 if rng.random() < 0.7 else 6.3
            if rng.random() < 0.82:
                for k in range(int(rng.integers(1, 4))):
                    quad_plan = lot(frame[0], direction, inward, x, step - 0.3, y + 2.6 * k, 2.45)
                    if inside_convex(polygon, quad_plan, 1.0).all():
                        quad = site.place(quad_plan)
                        if quad is not None:
                            tone = vary(rng, tones[int(rng.integers(len(tones)))], 10)
                            site.b.unit()
                            site.b.prism(
                                quad,
                                0,
                                2.6 * int(rng.integers(1, tiers + 1)),
                                buildings.shade(tone, 0.9),
                                tone,
                            )
            x += step
        y += rng.uniform(10, 19)


def car_park(site: Site, polygon: Array) -> None:
    """A parking area with planted edges."""
    site.lawn(polygon)
    inner = inset(polygon, site.rng.uniform(1.0, 3.0))
    if len(inner) >= 3:
        stalls(site, bounding(inner), inner)
    site.plant(site.scatter(polygon, 8.0), (1.3, 3.0))


def solar(site: Site, polygon: Array) -> None:
    """A solar farm."""
    rng = site.rng
    site.lawn(polygon)
    inner = inset(polygon, 6.0)
    if len(inner) < 3:
        return
    pitch = rng.uniform(5, 9)
    angle = rng.normal(0, 0.08) - getattr(site.warp, "angle", 0.0)
    direction = np.array([np.cos(angle), np.sin(angle)])
    normal = np.array([-direction[1], direction[0]])
    reach = inner @ normal
    colour = vary(rng, (42, 54, 92), 6)
    first, last = clip_segments(inner, np.arange(reach.min(), reach.max(), pitch)[:, None] * normal, direction)
    for a, z in zip(first, last, strict=True):
        length = float(np.hypot(*(z - a)))
        s = 0.0
        while s < length - 8:
            run = min(rng.uniform(18, 40), length - s)
            quad = site.place(lot(a, direction, normal, s, run, 0, 0.5 * pitch))
            if quad is not None:
                site.b.unit()
                site.b.face(buildings.lift(quad, np.array([0.8, 0.8, 2.2, 2.2])), vary(rng, colour, 2), mat.GLASS)
            s += run + 1.5


def bare(site: Site, polygon: Array) -> None:
    """Cleared or building ground: tracks, heaps, a few machines."""
    rng, palette = site.rng, site.palette
    ground = vary(rng, palette.soil, 12)
    site.patch(polygon, ground, mat.SOIL, 1.0)
    for _ in range(int(rng.integers(5, 22))):
        green = rng.random() < 0.35
        site.stain(
            polygon,
            (2, 19),
            ground,
            vary(rng, palette.grass if green else ground, 16),
            mat.GRASS if green else mat.SOIL,
            1.1,
        )
    for _ in range(int(rng.integers(1, 5))):
        line = site.warp(smooth_line(rng.dirichlet(np.ones(len(polygon)) * 0.7, 4) @ polygon, 5.0))
        tone = buildings.shade(ground, rng.uniform(0.85, 1.15))
        site.b.lines([offset_line(line, d) for d in (-1.0, 1.0)], 0.6, tone, mat.SOIL, 1.3)
    stacks(site, polygon, int(rng.poisson(4)), (2.4, 9.0))
    if rng.random() < 0.4:
        start, direction, inward, length = frontages(polygon, 0.0)[0]
        shell = lot(start, direction, inward, 0.25 * length, min(0.4 * length, 40), 8, 18)
        if inside_convex(polygon, shell).all():
            quad = site.place(shell)
            if quad is not None:
                buildings.flat(
                    site.b,
                    rng,
                    quad,
                    site.height(float(rng.integers(1, 5))),
                    palette.concrete,
                    palette.concrete,
                )
    site.plant(site.scatter(polygon, 18.0), (0.6, 2.2))
