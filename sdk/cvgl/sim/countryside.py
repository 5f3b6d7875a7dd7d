"""Fields, meadows, woods, orchards, scrub, farms."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from . import buildings
from . import materials as mat
from .palette import mix, vary
from .scene import Colour
from .shapes import (
    Array,
    blob,
    clip_segments,
    densify,
    inset,
    inside_convex,
    offset_line,
    rectangle,
    smooth_line,
)
from .site import Site, bounding, centre_scaled, lot, paths, stacks


def field(site: Site, polygon: Array) -> None:
    """A crop: broad strips, rows, tramlines, headland, wet patches, hedge or ditch at the edges."""
    rng, palette = site.rng, site.palette
    margin = rng.uniform(0.5, 3.0)
    site.lawn(polygon)
    field = inset(polygon, margin)
    if len(field) < 3:
        return
    phase = int(rng.integers(256))
    base = vary(rng, (112, 108, 72) if rng.random() < 0.6 else palette.soil, 12)
    site.patch(field, base, mat.CROP, 1.1, phase=phase)
    edge = field[1] - field[0]
    angle = float(np.arctan2(edge[1], edge[0])) + (0.0 if rng.random() < 0.8 else rng.normal(0, 0.3))
    direction = np.array([np.cos(angle), np.sin(angle)])
    normal = np.array([-direction[1], direction[0]])
    reach = field @ normal
    for _ in range(int(rng.integers(3, 14))):
        site.stain(field, (3, 24), base, buildings.shade(base, rng.uniform(0.84, 1.16)), mat.CROP, 1.2)

    def strips(step: float, width: float, tone: Callable[[], Colour], layer: float, inner: Array) -> None:
        offsets = np.arange(reach.min() + rng.uniform(0, step), reach.max(), step)
        first, last = clip_segments(inner, offsets[:, None] * normal, direction)
        for a, z in zip(first, last, strict=True):
            line = site.warp(densify(np.stack([a, z]), 25.0))
            if site.b.in_reach(line):
                site.b.lines([line], width, tone(), mat.CROP, layer, phase=phase)

    kind = rng.random()
    if kind < 0.55:
        step = rng.uniform(4, 22)
        amount = rng.uniform(0.02, 0.07)
        strips(
            step,
            step * rng.uniform(0.4, 1.0),
            lambda: buildings.shade(base, 1 + amount * rng.standard_normal()),
            1.3,
            field,
        )
    if kind > 0.35:
        step = rng.uniform(0.9, 3.2)
        factor = rng.choice([0.8, 0.87, 1.12])
        strips(
            step,
            0.45 * step,
            lambda: buildings.shade(base, factor + 0.02 * rng.standard_normal()),
            1.4,
            field,
        )
    if rng.random() < 0.6:
        step = rng.uniform(10, 30)
        for shift in (-0.9, 0.9):
            inner = inset(field, rng.uniform(3, 7))
            if len(inner) >= 3:
                offsets = np.arange(reach.min() + 0.5 * step, reach.max(), step) + shift
                first, last = clip_segments(inner, offsets[:, None] * normal, direction)
                for a, z in zip(first, last, strict=True):
                    site.b.lines(
                        [site.warp(densify(np.stack([a, z]), 25.0))],
                        0.45,
                        buildings.shade(base, 0.86),
                        mat.CROP,
                        1.5,
                        phase=phase,
                    )
    for i in range(len(polygon)):
        if rng.random() < 0.3:
            a, z = polygon[i], polygon[(i + 1) % len(polygon)]
            n = int(np.hypot(*(z - a)) / rng.uniform(2.5, 9))
            if n > 1:
                t = rng.uniform(0, 1, (n, 1))
                site.plant(a + (z - a) * t + rng.normal(0, 0.8, (n, 2)), (0.9, 3.6))
    if rng.random() < 0.3:
        site.plant(rng.dirichlet(np.ones(len(field)), int(rng.integers(1, 4))) @ field, (3.0, 5.5), needle_share=0.1)
    if rng.random() < 0.08:
        centre = rng.dirichlet(np.ones(len(field)) * 2) @ field
        hut = site.place(rectangle(centre, angle, rng.uniform(4, 12), rng.uniform(4, 8)))
        if hut is not None:
            buildings.house(site.b, rng, palette, hut, 3.2, windows=False)


def meadow(site: Site, polygon: Array) -> None:
    """Grassland with trodden tracks, wet and dry patches, bushes."""
    rng, palette = site.rng, site.palette
    site.lawn(polygon)
    for _ in range(int(rng.integers(4, 18))):
        colour, material = (palette.grass, mat.GRASS) if rng.random() < 0.85 else (palette.soil, mat.SOIL)
        site.stain(polygon, (3, 30), palette.grass, vary(rng, colour, 12), material, 1.2)
    if rng.random() < 0.7:
        ends = rng.dirichlet(np.ones(len(polygon)) * 0.4, 4) @ polygon
        line = site.warp(smooth_line(ends, 5.0))
        for d in (-0.8, 0.8):
            site.b.lines([offset_line(line, d)], 0.5, vary(rng, palette.soil, 10), mat.SOIL, 1.6)
    for _ in range(int(rng.integers(1, 6))):
        centre = rng.dirichlet(np.ones(len(polygon))) @ polygon
        clump = centre + rng.normal(0, rng.uniform(3, 14), (int(rng.integers(2, 22)), 2))
        site.plant(clump[inside_convex(polygon, clump)], (0.8, 4.2))


def forest(site: Site, polygon: Array) -> None:
    """Closed or open woodland of mixed sizes, with clearings and a track."""
    rng, palette = site.rng, site.palette
    floor = vary(rng, buildings.shade(palette.leaf, 0.85), 5)
    site.patch(polygon, floor, mat.FOREST_FLOOR, 1.0)
    size = rng.uniform(2.0, 4.2)
    needle = float(np.clip(palette.needle_share + rng.normal(0, 0.3), 0, 1))
    points = site.scatter(polygon, size * rng.uniform(1.05, 1.6), even=True)
    keep = np.ones(len(points), bool)
    for _ in range(int(rng.integers(0, 5))):
        centre = rng.dirichlet(np.ones(len(polygon))) @ polygon
        radius = rng.uniform(5, 26)
        clearing = blob(rng, centre, radius, 24, 0.5)
        if inside_convex(polygon, clearing).all():
            keep &= np.hypot(*(points - centre).T) > 0.8 * radius
            meadow = mix(palette.grass, floor, 0.5)
            site.patch(clearing, vary(rng, meadow, 7), mat.GRASS, 1.2, phase=int(rng.integers(256)))
    if rng.random() < 0.5:
        line = smooth_line(rng.dirichlet(np.ones(len(polygon)) * 0.4, 3) @ polygon, 6.0)
        site.b.lines([site.warp(line)], rng.uniform(2, 3.5), vary(rng, palette.soil, 8), mat.SOIL, 1.5)
        gap = np.min(np.hypot(*(points[:, None] - line[None, ::2]).transpose(2, 0, 1)), axis=1) if len(points) else keep
        keep &= gap > 2.8
    # Stands differ in age across a wood.
    wave = np.sin(points @ rng.normal(0, 0.03, 2) + rng.uniform(0, 6))
    young = wave > rng.uniform(0.3, 1.2)
    site.plant(points[keep & ~young], (0.7 * size, 1.35 * size), needle_share=needle, tone=10)
    site.plant(points[keep & young], (0.35 * size, 0.7 * size), needle_share=needle, tone=8)


def orchard(site: Site, polygon: Array) -> None:
    """Trees or vines in rows over grass or bare soil."""
    rng, palette = site.rng, site.palette
    bare = rng.random() < 0.6
    site.patch(
        polygon,
        vary(rng, palette.soil if bare else palette.grass, 9),
        mat.SOIL if bare else mat.GRASS,
        1.0,
        phase=int(rng.integers(256)),
    )
    inner = inset(polygon, 2.5)
    if len(inner) < 3:
        return
    row, step = rng.uniform(3.0, 8.0), rng.uniform(2.2, 7.0)
    radius = min(0.42 * min(row, step), 2.8)
    edge = inner[1] - inner[0]
    direction = edge / np.hypot(*edge)
    normal = np.array([-direction[1], direction[0]])
    reach_n, reach_d = inner @ normal, inner @ direction
    v, u = np.meshgrid(
        np.arange(reach_n.min() + 1, reach_n.max(), row), np.arange(reach_d.min() + 1, reach_d.max(), step)
    )
    points = u.reshape(-1, 1) * direction + v.reshape(-1, 1) * normal
    points = points + rng.normal(0, 0.12 * radius + 0.1, points.shape)
    points = points[inside_convex(inner, points) & (rng.random(len(points)) < rng.uniform(0.75, 0.99))]
    site.plant(points, (0.7 * radius, 1.15 * radius), needle_share=0.0, slim=1.5, tone=6)


def scrub(site: Site, polygon: Array) -> None:
    """Dry open land: soil, rocks, terraces, scattered bushes."""
    rng, palette = site.rng, site.palette
    ground = vary(rng, palette.soil, 8)
    site.patch(polygon, ground, mat.SOIL, 1.0)
    for _ in range(int(rng.integers(6, 30))):
        dry = rng.random() < 0.6
        site.stain(
            polygon,
            (2, 26),
            ground,
            vary(rng, palette.grass if dry else ground, 13),
            mat.GRASS if dry else mat.SOIL,
            1.1,
        )
    if rng.random() < 0.6:
        paths(site, polygon, int(rng.integers(1, 4)))
    points = site.scatter(polygon, rng.uniform(3.5, 9), even=True)
    density = 0.5 + 0.5 * np.sin(points @ rng.normal(0, 0.06, 2) + rng.uniform(0, 6)) * np.sin(
        points @ rng.normal(0, 0.05, 2)
    )
    site.plant(points[rng.random(len(points)) < density], (0.5, 2.4), needle_share=0.0, slim=1.3, tone=12)


def farm(site: Site, polygon: Array) -> None:
    """A farmyard: house, barns, silos, machinery, trees."""
    rng, palette = site.rng, site.palette
    site.lawn(polygon)
    centre = polygon.mean(axis=0)
    yard = blob(rng, centre, rng.uniform(14, 28), 18)
    site.patch(yard, vary(rng, palette.soil if rng.random() < 0.6 else palette.concrete, 9), mat.SOIL, 1.3)
    angle = rng.uniform(0, np.pi)
    for k in range(int(rng.integers(3, 8))):
        turn = angle + rng.choice([0, np.pi / 2]) + rng.normal(0, 0.05)
        where = centre + rng.uniform(8, 32) * np.array([np.cos(2.4 * k + angle), np.sin(2.4 * k + angle)])
        size = (rng.uniform(9, 13), rng.uniform(8, 10)) if k == 0 else (rng.uniform(12, 42), rng.uniform(8, 18))
        plan = rectangle(where, turn, *size)
        if inside_convex(polygon, plan, 1.0).all():
            quad = site.place(plan)
            if quad is not None:
                buildings.gable(
                    site.b,
                    rng,
                    quad,
                    rng.uniform(3.5, 6.5),
                    palette.wall(rng),
                    palette.roof(rng)[1],
                    pitch=rng.uniform(0.3, 0.8),
                )
    for _ in range(int(rng.integers(0, 4))):
        where = centre + rng.normal(0, 18, 2)
        ring = site.place(rectangle(where, 0, 5, 5))
        if ring is not None:
            site.b.unit()
            buildings.tank(site.b, rng, ring.mean(axis=0), 2.4, 0.0, rng.uniform(6, 12))
    stacks(site, centre_scaled(yard, 0.9), 4, (2.0, 6.0))
    site.plant(site.scatter(polygon, rng.uniform(9, 20)), (1.5, 4.8))


def greenhouses(site: Site, polygon: Array) -> None:
    """Foil tunnels in parallel."""
    rng = site.rng
    site.patch(polygon, vary(rng, site.palette.soil, 9), mat.SOIL, 1.0)
    frame = bounding(inset(polygon, 3.0)) if len(inset(polygon, 3.0)) >= 3 else bounding(polygon)
    length, depth = buildings.lengths(frame)
    direction, inward = (frame[1] - frame[0]) / length, (frame[3] - frame[0]) / depth
    x = 2.0
    while x < length - 10:
        width, y = rng.uniform(12, 36), 2.0
        while y < depth - 15:
            deep = rng.uniform(22, 60)
            plan = lot(frame[0], direction, inward, x, width, y, deep)
            y += deep + rng.uniform(2, 6)
            if rng.random() < 0.85 and inside_convex(polygon, plan, 0.5).all():
                quad = site.place(plan)
                if quad is not None:
                    buildings.greenhouse(site.b, rng, quad)
        x += width + rng.uniform(1.5, 4)
