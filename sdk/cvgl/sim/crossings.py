"""Rivers, highways and railways that cross a place."""

from __future__ import annotations

import numpy as np

from . import materials as mat
from . import palette as palettes
from .scene import SceneBuilder
from .shapes import Array, along, arc_length, offset_line, ribbon, smooth_line, tangents
from .streets import pieces


def crossing_works(
    b: SceneBuilder,
    rng: np.random.Generator,
    palette: palettes.Palette,
    river: float,
    highway: float,
    railway: float,
) -> None:
    """Cross the place, regardless of its blocks, by a river, highway, railway of these chances (0-1)."""
    reach = b.reach * 1.5

    def course(bends: float) -> Array:
        angle = rng.uniform(0, 2 * np.pi)
        direction = np.array([np.cos(angle), np.sin(angle)])
        left = np.array([-direction[1], direction[0]])
        s = np.linspace(-reach, reach, 7)
        wander = np.cumsum(rng.normal(0, bends, 7))
        wander += rng.uniform(-0.3, 0.3) * b.size_m - wander[3]
        return smooth_line(s[:, None] * direction + wander[:, None] * left, 10.0)

    if rng.random() < river:
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
            b.ground(
                ribbon(piece, w + bank + 4, -w - bank - 4),
                palettes.vary(rng, palette.grass, 2),
                mat.GRASS,
                5.5,
            )
            b.ground(ribbon(piece, w + bank, -w - bank), stony, mat.CONCRETE if walled else mat.SOIL, 5.6)
            b.ground(ribbon(piece, w, -w), palette.water, mat.WATER, 5.7)
            deep = ribbon(piece, 0.7 * w, -0.6 * w)
            b.ground(
                deep,
                palettes.mix(palette.water, (0.0, 0.0, 0.0), 0.07),
                mat.WATER,
                5.8,
            )
        _bank_trees(b, rng, palette, line, half + bank + 2)
    if rng.random() < highway:
        line = course(rng.uniform(10, 55))
        half = rng.uniform(9, 15)
        mark = palettes.vary(rng, palette.mark, 5)
        median = rng.uniform(1.0, 4.0)
        for piece in pieces(line, 4):
            if not b.in_reach(piece):
                continue
            b.occupy(ribbon(piece, half + 7, -half - 7))
            b.ground(ribbon(piece, half + 7, -half - 7), palettes.vary(rng, palette.grass, 3), mat.GRASS, 8.5)
            b.ground(ribbon(piece, half, -half), palette.asphalt, mat.ASPHALT, 8.6)
            b.ground(ribbon(piece, median / 2, -median / 2), palettes.vary(rng, palette.grass, 6), mat.GRASS, 8.7)
            b.lines(
                [offset_line(piece, d) for d in (half - 1.5, 1.5 - half, median / 2 + 0.5, -median / 2 - 0.5)],
                0.2,
                mark,
                mat.MARK,
                8.8,
            )
        _highway_lanes(b, rng, line, half, median, mark)
    if rng.random() < railway:
        line = course(rng.uniform(3, 20))
        tracks = int(rng.integers(1, 4))
        half = 2.6 * tracks
        ballast = palettes.vary(rng, (122, 112, 104), 10)
        for piece in pieces(line, 3):
            if not b.in_reach(piece):
                continue
            b.occupy(ribbon(piece, half + 3, -half - 3))
            b.ground(ribbon(piece, half + 3, -half - 3), palettes.vary(rng, palette.grass, 6), mat.GRASS, 8.9)
            b.ground(ribbon(piece, half, -half), ballast, mat.SOIL, 9.0)
            for track in range(tracks):
                centre = (track - 0.5 * (tracks - 1)) * 4.4
                b.lines([offset_line(piece, centre)], 2.4, palettes.vary(rng, (104, 94, 86), 4), mat.SOIL, 9.1)
                b.lines(
                    [offset_line(piece, centre + d) for d in (-0.72, 0.72)],
                    0.2,
                    (150, 142, 136),
                    mat.ROOF,
                    9.2,
                )


def _highway_lanes(
    b: SceneBuilder, rng: np.random.Generator, line: Array, half: float, median: float, mark: palettes.Colour
) -> None:
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


def _bank_trees(
    b: SceneBuilder, rng: np.random.Generator, palette: palettes.Palette, line: Array, offset: float
) -> None:
    t = tangents(line)
    left = np.stack([-t[:, 1], t[:, 0]], axis=1)
    keep = rng.random(len(line)) < rng.uniform(0.0, 0.9)
    for side in (1.0, -1.0):
        p = (line + side * left * (offset + rng.uniform(0, 6, (len(line), 1))) + rng.normal(0, 3, line.shape))[keep]
        r = rng.uniform(1.5, 4.2, len(p))
        b.trees(p, r, 2.2 * r + 1, np.asarray(palette.leaf) + rng.normal(0, 8, (len(p), 1)))
