"""Where people live: terraces, detached houses, apartment blocks."""

from __future__ import annotations

import numpy as np

from . import buildings
from . import materials as mat
from .palette import vary
from .shapes import Array, inside_convex
from .site import Site, depth_here, frontages, lot, paths, stalls


def rows(site: Site, polygon: Array) -> None:
    """Terraces shoulder to shoulder along the streets, yards and sheds behind."""
    rng = site.rng
    site.pave(polygon) if rng.random() < 0.65 else site.lawn(polygon)
    frontage = rng.uniform(4.5, 9.0)
    usual = rng.uniform(9, 22)
    storeys = float(np.clip(rng.normal(3.0, 0.9) * site.palette.height_scale, 1.5, 7))
    gap = rng.uniform(0.02, 0.2)
    for start, direction, inward, length in frontages(polygon, 12):
        s = rng.uniform(0, 1.5)
        run = 0
        setback, depth, floors = 0.0, usual, storeys
        while s < length - frontage * 0.7:
            if run <= 0:
                run = int(rng.integers(2, 9))
                setback = rng.uniform(0, 1.8) if rng.random() < 0.7 else rng.uniform(2, 5)
                depth = usual * rng.uniform(0.8, 1.25)
                floors = storeys * rng.uniform(0.75, 1.3)
                form, roof = site.palette.roof(rng)
                shared = rng.random() < 0.3
            width = min(frontage * rng.uniform(0.75, 1.4) * (2.0 if rng.random() < 0.1 else 1.0), length - s)
            here = min(depth * rng.uniform(0.88, 1.1), 0.5 * depth_here(polygon, start, direction, inward, s) - 1.0)
            if here > 4.5 and rng.random() > gap:
                quad = site.place(lot(start, direction, inward, s, width, setback, here))
                if quad is not None:
                    height = site.height(max(1.0, round(floors + rng.normal(0, 0.6))))
                    if shared and form != "flat":
                        buildings.gable(
                            site.b,
                            rng,
                            quad,
                            height,
                            site.palette.wall(rng),
                            vary(rng, roof, 6),
                            pitch=0.5,
                            hip=0.0,
                        )
                    else:
                        buildings.house(site.b, rng, site.palette, quad, height)
                    if rng.random() < 0.45:
                        back = lot(
                            start,
                            direction,
                            inward,
                            s + rng.uniform(0, 0.3) * width,
                            width * rng.uniform(0.4, 0.7),
                            setback + here + rng.uniform(0, 1),
                            rng.uniform(2, 4.5),
                        )
                        if inside_convex(polygon, back).all():
                            extra = site.place(back)
                            if extra is not None:
                                buildings.house(site.b, rng, site.palette, extra, site.height(1), windows=False)
            s += width
            run -= 1
    _infill(site, polygon, rng.choice([0.0, 0.3, 0.9]), storeys)
    site.plant(site.scatter(polygon, rng.uniform(7, 18)), (1.0, 3.2))


def _infill(site: Site, polygon: Array, density: float, storeys: float) -> None:
    """Back buildings, workshops and sheds wherever a yard is still free."""
    rng = site.rng
    _, direction, inward, _ = frontages(polygon, 0.0)[0]
    for centre in site.scatter(polygon, 6.5, even=True):
        if rng.random() > density:
            continue
        size = rng.uniform(4, 13, 2)
        plan = lot(centre, direction, inward, -0.5 * size[0], size[0], -0.5 * size[1], size[1])
        if not inside_convex(polygon, plan).all():
            continue
        quad = site.place(plan)
        if quad is not None:
            floors = max(1.0, round(rng.uniform(0.2, 1.0) * storeys))
            buildings.house(site.b, rng, site.palette, quad, site.height(floors), windows=floors > 1)


def detached(site: Site, polygon: Array) -> None:
    """Single houses on garden lots: drives, sheds, hedges, pools, trees."""
    rng, palette = site.rng, site.palette
    site.lawn(polygon)
    lot_width = rng.uniform(13, 27)
    house_size = rng.uniform(8, 14)
    tidy = rng.uniform(0, 1)
    pools = 0.25 if rng.random() < 0.25 else 0.03
    for start, direction, inward, length in frontages(polygon, 16):
        s = rng.uniform(0.5, 4)
        setback = rng.uniform(2.5, 9)
        while s < length - 9:
            width = lot_width * rng.uniform(0.75, 1.35)
            deep = 0.5 * depth_here(polygon, start, direction, inward, min(s + 0.5 * width, length))
            garden = lot(start, direction, inward, s, min(width, length - s), 0.0, max(deep, 2.0))
            cover = rng.random()
            if cover < 0.75:
                site.patch(garden, vary(rng, palette.grass, 13), mat.GRASS, 1.5, phase=int(rng.integers(256)))
            elif cover < 0.87:
                site.pave(garden, 1.5)
            if rng.random() < 0.5:
                _hedge(site, garden[1], garden[2])
            here = min(house_size * rng.uniform(0.75, 1.25), deep - setback - 1)
            across = min(house_size * rng.uniform(0.85, 1.5), width - 3)
            s0 = s + rng.uniform(1, max(1.1, width - across - 1))
            s += width
            if here < 5.5 or across < 5.5 or rng.random() < 0.06:
                continue
            front = setback + rng.normal(0, 1.8) * (1 - tidy)
            plan = lot(start, direction, inward, s0, across, max(front, 0.8), here)
            turn = rng.normal(0, 0.25) * (1 - tidy) * (rng.random() < 0.5)
            quad = site.warp(plan)
            centre = quad.mean(axis=0)
            c, sn = np.cos(turn), np.sin(turn)
            quad = centre + (quad - centre) @ np.array([[c, sn], [-sn, c]])
            if not site.b.is_free(quad):
                continue
            site.b.occupy(quad)
            height = site.height(1.0 if rng.random() < 0.4 else 2.0)
            buildings.house(site.b, rng, palette, quad, height)
            if rng.random() < 0.5:
                u0, u1 = sorted(rng.uniform(0, 1, 2)) if rng.random() < 0.3 else (0.0, rng.uniform(0.35, 0.55))
                wing = site.warp(
                    lot(
                        start,
                        direction,
                        inward,
                        s0 + u0 * across,
                        max((u1 - u0) * across, 4),
                        max(front, 0.8) + 0.8 * here,
                        rng.uniform(3.5, 8),
                    )
                )
                buildings.house(site.b, rng, palette, wing, height * rng.uniform(0.6, 1.0))
                site.b.occupy(wing)
            _garden(site, plan, start, direction, inward, s0, across, front, here, deep, pools)
    site.plant(site.scatter(polygon, rng.uniform(8, 22)), (1.0, 4.2))


def _garden(
    site: Site,
    plan: Array,
    start: Array,
    direction: Array,
    inward: Array,
    s0: float,
    across: float,
    front: float,
    here: float,
    deep: float,
    pools: float,
) -> None:
    """Drive, terrace, shed or pool of a detached house."""
    rng, palette = site.rng, site.palette
    drive = lot(
        start,
        direction,
        inward,
        s0 + rng.uniform(-2.8, across - 3),
        rng.uniform(2.6, 5.5),
        -0.5,
        max(front, 0.8) + rng.uniform(0, here),
    )
    colour = [palette.concrete, palette.local_asphalt, palette.pavement][int(rng.integers(3))]
    site.patch(drive, vary(rng, colour, 12), mat.CONCRETE, 1.8)
    middle = site.warp(drive.mean(axis=0))
    ahead = site.warp(drive.mean(axis=0) + inward) - middle
    site.b.slots(middle[None], np.array([np.arctan2(ahead[1], ahead[0])]), 0.45)
    if rng.random() < 0.6:
        terrace = lot(
            start,
            direction,
            inward,
            s0 + rng.uniform(0, 0.5) * across,
            rng.uniform(3, 7),
            front + here - 0.3,
            rng.uniform(2, 5),
        )
        site.patch(terrace, vary(rng, palette.pavement, 14), mat.PAVING, 1.8)
    back = deep - front - here
    if back > 7 and rng.random() < pools:
        site.patch(
            lot(start, direction, inward, s0 + 0.2 * across, rng.uniform(5, 9), front + here + 3.2, 4),
            vary(rng, palette.pavement, 10),
            mat.PAVING,
            1.8,
        )
        site.patch(
            lot(
                start,
                direction,
                inward,
                s0 + 0.2 * across + 0.8,
                rng.uniform(3.5, 6.5),
                front + here + 3.9,
                2.6,
            ),
            vary(rng, (84, 172, 196), 12),
            mat.POOL,
            1.9,
        )
    elif back > 5 and rng.random() < 0.6:
        shed = site.place(
            lot(
                start,
                direction,
                inward,
                s0 + rng.uniform(-2, across - 2),
                rng.uniform(2.2, 4.5),
                deep - rng.uniform(3.5, 6),
                rng.uniform(2, 3.5),
            )
        )
        if shed is not None:
            buildings.house(site.b, rng, palette, shed, 2.4, windows=False, detail=False)


def _hedge(site: Site, a: Array, z: Array) -> None:
    length = float(np.hypot(*(z - a)))
    n = int(length / 1.5)
    if n > 2:
        t = np.linspace(0, 1, n)[:, None]
        points = site.warp(a + (z - a) * t + site.rng.normal(0, 0.15, (n, 2)))
        r = site.rng.uniform(0.7, 1.1, n)
        site.b.trees(points, r, 1.6 * r, np.asarray(site.palette.leaf) + site.rng.normal(0, 4, (n, 1)))


def apartments(site: Site, polygon: Array) -> None:
    """Slabs and towers in green or paved grounds with parking."""
    rng, palette = site.rng, site.palette
    site.lawn(polygon) if rng.random() < 0.6 else site.pave(polygon)
    storeys = float(np.clip(rng.gamma(4, 1.6) * palette.height_scale, 3, 14))
    for start, direction, inward, length in frontages(polygon, 25):
        s = rng.uniform(3, 8)
        while s < length - 18:
            width = min(rng.uniform(16, 52), length - s - 2)
            depth = rng.uniform(10, 16)
            setback = rng.uniform(3, 12)
            s += width + rng.uniform(4, 16)
            plan = lot(start, direction, inward, s - width, width, setback, depth)
            if not inside_convex(polygon, plan).all():
                continue
            quad = site.place(plan)
            if quad is None:
                continue
            height = site.height(round(storeys * rng.uniform(0.7, 1.25)))
            wall, roof = palette.wall(rng), palette.roof(rng, flat_only=True)[1]
            buildings.flat(site.b, rng, quad, height, wall, roof)
            if rng.random() < 0.4:
                wing = site.warp(
                    lot(
                        start,
                        direction,
                        inward,
                        s - width,
                        rng.uniform(9, 14),
                        setback + depth,
                        rng.uniform(8, 22),
                    )
                )
                if site.b.is_free(wing):
                    site.b.occupy(wing)
                    buildings.flat(site.b, rng, wing, height, wall, roof)
            if rng.random() < 0.5:
                stalls(site, lot(start, direction, inward, s - width, width, setback + depth + 2, 11.0), polygon)
    paths(site, polygon, 2)
    site.plant(site.scatter(polygon, rng.uniform(8, 16)), (1.5, 4.5))
