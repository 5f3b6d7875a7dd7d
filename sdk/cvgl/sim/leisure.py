"""Parks, sports grounds, schools."""

from __future__ import annotations

import numpy as np

from . import buildings
from . import materials as mat
from .palette import vary
from .scene import Colour
from .shapes import Array, blob, inset, inside_convex, rectangle, signed_area
from .site import Site, centre_scaled, frontages, lot, paths


def park(site: Site, polygon: Array) -> None:
    """Lawns, paths, clumps of trees, now and then a pond, a pavilion, a playground."""
    rng, palette = site.rng, site.palette
    site.lawn(polygon)
    span = np.sqrt(signed_area(polygon))
    for _ in range(int(rng.integers(2, 7))):
        site.stain(
            polygon,
            (0.08 * span, 0.25 * span),
            palette.grass,
            vary(rng, palette.grass, 12),
            mat.GRASS,
            1.2,
            0.25,
        )
    paths(site, polygon, int(rng.integers(2, 5)))
    if rng.random() < 0.45:
        centre = rng.dirichlet(np.ones(len(polygon)) * 3) @ polygon
        pond = blob(rng, centre, rng.uniform(0.1, 0.22) * span, 20)
        if inside_convex(polygon, pond, 2.0).all():
            outline = site.outline(pond, 4.0)
            site.b.ground(centre_scaled(outline, 1.12), vary(rng, palette.soil, 10), mat.SOIL, 1.75)
            site.b.ground(outline, palette.water, mat.WATER, 1.8)
            site.b.occupy(outline)
    if rng.random() < 0.6:
        centre = rng.dirichlet(np.ones(len(polygon)) * 3) @ polygon
        plaza = blob(rng, centre, rng.uniform(6, 16), 16, 0.1)
        site.patch(plaza, vary(rng, palette.pavement, 14), mat.PAVING, 1.78)
        hut = site.place(rectangle(centre, rng.uniform(0, 3), rng.uniform(4, 9), rng.uniform(4, 8)))
        if hut is not None:
            buildings.gable(site.b, rng, hut, 3.2, palette.wall(rng), palette.roof(rng)[1], hip=1.0)
    if rng.random() < 0.4:
        _court(site, polygon)
    for _ in range(int(rng.integers(3, 9))):
        centre = rng.dirichlet(np.ones(len(polygon))) @ polygon
        clump = centre + rng.normal(0, rng.uniform(5, 16), (int(rng.integers(4, 28)), 2))
        site.plant(clump[inside_convex(polygon, clump)], (1.8, 5.0))
    site.plant(site.scatter(polygon, rng.uniform(14, 30)), (1.6, 5.2))


def _court(site: Site, polygon: Array) -> None:
    """A painted ball court."""
    rng = site.rng
    length, width = [(28.0, 15.0), (34.0, 17.0), (40.0, 20.0)][int(rng.integers(3))]
    centre = rng.dirichlet(np.ones(len(polygon)) * 3) @ polygon
    frame = rectangle(centre, rng.choice([0, np.pi / 2]) + rng.normal(0, 0.1), length, width)
    if not inside_convex(polygon, frame, 1.0).all() or site.place(frame) is None:
        return
    tones: list[Colour] = [(58, 110, 150), (70, 122, 88), (168, 84, 62), (120, 116, 112), (86, 100, 160)]
    first, second = rng.choice(len(tones), 2, replace=False)
    site.patch(frame, vary(rng, tones[first], 8), mat.SYNTHETIC, 2.0)
    inner = centre_scaled(frame, 0.82)
    site.patch(inner, vary(rng, tones[second], 8), mat.SYNTHETIC, 2.1)
    loop = np.vstack([inner, inner[:1]])
    middle = np.stack([0.5 * (inner[0] + inner[1]), 0.5 * (inner[3] + inner[2])])
    angle = np.linspace(0, 2 * np.pi, 17)
    circle = centre + 2.0 * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    site.b.lines(
        [site.warp(loop[i : i + 2]) for i in range(4)] + [site.warp(middle), site.warp(circle)],
        0.14,
        (236, 236, 232),
        mat.MARK,
        2.2,
    )


def sports(site: Site, polygon: Array) -> None:
    """A football pitch, often inside a running track, with stands and courts."""
    rng, palette = site.rng, site.palette
    site.lawn(polygon)
    centre = polygon.mean(axis=0)
    _, direction, _, _ = frontages(polygon, 0.0)[0]
    room = inset(polygon, 3.0)
    angle = float(np.arctan2(direction[1], direction[0]))
    for scale in (1.0, 0.85, 0.7, 0.55, 0.42):
        track = _stadium(centre, angle, 84 * scale, 44 * scale)
        if len(room) >= 3 and inside_convex(room, track).all() and site.b.is_free(site.outline(track)):
            break
    else:
        _court(site, polygon)
        park(site, polygon)
        return
    site.b.occupy(site.outline(track))
    with_track = rng.random() < 0.6
    grass = vary(rng, (82, 112, 62), 10)
    if with_track:
        tone = vary(rng, [(170, 88, 68), (150, 74, 62), (84, 108, 150), (178, 108, 84)][int(rng.integers(4))], 8)
        site.b.ground(site.outline(track, 5.0), tone, mat.SYNTHETIC, 2.0)
        for k in range(1, 6):
            lane = _stadium(centre, angle, 84 * scale, (44 - 1.22 * k * 1.2) * scale)
            loop = site.warp(np.vstack([lane, lane[:1]]))
            site.b.lines([loop[i : i + 2] for i in range(len(loop) - 1)], 0.08, (226, 214, 206), mat.MARK, 2.1)
        site.b.ground(site.outline(_stadium(centre, angle, 84 * scale, 35.5 * scale), 5.0), grass, mat.GRASS, 2.2)
    pitch = rectangle(centre, angle, 100 * scale, 62 * scale)
    stripes = int(rng.integers(6, 16))
    for k in range(stripes):
        piece = buildings.part(pitch, k / stripes, (k + 1) / stripes, 0, 1)
        site.patch(piece, buildings.shade(grass, 1.0 + (0.09 if k % 2 else 0.0)), mat.GRASS, 2.3)
    white: Colour = (236, 238, 234)
    boxes = [
        (0.0, 1.0, 0.0, 1.0),
        (0.0, 0.16, 0.2, 0.8),
        (0.84, 1.0, 0.2, 0.8),
        (0.0, 0.055, 0.36, 0.64),
        (0.945, 1.0, 0.36, 0.64),
        (0.0, 0.5, 0.0, 1.0),
    ]
    for u0, u1, v0, v1 in boxes:
        box = buildings.part(centre_scaled(pitch, 0.95), u0, u1, v0, v1)
        loop = site.warp(np.vstack([box, box[:1]]))
        site.b.lines([loop[i : i + 2] for i in range(4)], 0.14, white, mat.MARK, 2.4)
    ring = np.linspace(0, 2 * np.pi, 25)
    site.b.lines(
        [site.warp(centre + 9.15 * scale * np.stack([np.cos(ring), np.sin(ring)], axis=1))],
        0.14,
        white,
        mat.MARK,
        2.4,
    )
    for mouth in (0.02, 0.98):
        worn = blob(rng, buildings.at(pitch, mouth, 0.5), 5 * scale)
        site.patch(worn, vary(rng, palette.soil, 10), mat.SOIL, 2.35)
    if rng.random() < 0.6:
        normal = np.array([-np.sin(angle), np.cos(angle)])
        stand = site.place(rectangle(centre + (50 * scale) * normal, angle, rng.uniform(30, 70) * scale, 9))
        if stand is not None:
            buildings.shed(site.b, rng, stand, 7.0, palette.wall(rng), palette.roof(rng)[1], windows=False)
    for _ in range(int(rng.integers(0, 4))):
        _court(site, polygon)
    site.plant(site.scatter(polygon, rng.uniform(9, 18)), (1.6, 4.2))


def _stadium(centre: Array, angle: float, straight: float, radius: float) -> Array:
    """The outline of a running track: two straights and two half circles."""
    t = np.linspace(-np.pi / 2, np.pi / 2, 14)
    right = np.stack([0.5 * straight + radius * np.cos(t), radius * np.sin(t)], axis=1)
    left = -right
    outline = np.vstack([right, left])
    c, s = np.cos(angle), np.sin(angle)
    return centre + outline @ np.array([[c, s], [-s, c]])


def school(site: Site, polygon: Array) -> None:
    """Long winged buildings round a yard with a court."""
    rng, palette = site.rng, site.palette
    site.pave(polygon) if rng.random() < 0.5 else site.lawn(polygon)
    wall, roof = palette.wall(rng), palette.roof(rng)
    height = site.height(float(rng.integers(2, 5)))
    depth = rng.uniform(10, 15)
    for start, direction, inward, length in frontages(polygon, 40)[: int(rng.integers(1, 4))]:
        s0, setback = rng.uniform(5, 12), rng.uniform(4, 12)
        quad_plan = lot(start, direction, inward, s0, min(length - 2 * s0, rng.uniform(35, 90)), setback, depth)
        if not inside_convex(polygon, quad_plan).all():
            continue
        quad = site.place(quad_plan)
        if quad is None:
            continue
        if roof[0] == "flat":
            buildings.flat(site.b, rng, quad, height, wall, roof[1])
        else:
            buildings.gable(site.b, rng, quad, height, wall, roof[1], pitch=0.4, hip=rng.choice([0, 1]))
    for _ in range(3):
        _court(site, polygon)
    yard = blob(rng, polygon.mean(axis=0), 0.2 * np.sqrt(signed_area(polygon)), 18, 0.15)
    if inside_convex(polygon, yard).all():
        site.patch(yard, vary(rng, palette.grass, 14), mat.GRASS, 1.3, phase=int(rng.integers(256)))
    site.plant(site.scatter(polygon, rng.uniform(9, 16)), (1.6, 4.5))
