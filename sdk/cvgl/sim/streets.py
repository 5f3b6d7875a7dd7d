"""Streets: the bent plan they run in, their surfaces, marks, trees and parked cars."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from . import materials as mat
from . import palette as palettes
from .scene import SceneBuilder
from .shapes import Array, along, arc_length, densify, offset_line, ribbon


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


def pieces(line: Array, count: int) -> list[Array]:
    """A polyline in runs of at most `count` segments, so that only what is in view is painted."""
    return [line[i : i + count + 1] for i in range(0, len(line) - 1, count)]


def lay_street(
    b: SceneBuilder,
    rng: np.random.Generator,
    palette: palettes.Palette,
    warp: Warp,
    street: Street,
    scale: float,
    verge: float,
) -> None:
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
    for piece in pieces(line, 4):
        if not b.in_reach(piece):
            continue
        outer = ribbon(piece, half, -half)
        b.occupy(outer)
        if street.rank <= 2 and verge > 0.5:
            pavement = ribbon(piece, half + verge, -half - verge)
            b.ground(pavement, palette.pavement, mat.PAVING, 7.0 if street.rank == 0 else 4.0)
            b.occupy(ribbon(piece, half + 0.6 * verge, -half - 0.6 * verge))
        else:
            b.ground(ribbon(piece, half + 1.8, -half - 1.5), palettes.vary(rng, palette.grass, 6), mat.GRASS, 3.9)
        b.ground(outer, tone, material, layer)
        if unpaved:
            b.lines(
                [offset_line(piece, d) for d in (-0.8, 0.8)],
                0.5,
                palettes.vary(rng, tone, 10),
                mat.SOIL,
                layer + 0.1,
            )
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
            b.slots(
                point + jitter + side * 0.25 * width * left,
                heading,
                (0.09 if major else 0.03) * (1.0 if verge else 0.35),
            )


def _marks(
    b: SceneBuilder,
    rng: np.random.Generator,
    palette: palettes.Palette,
    line: Array,
    total: float,
    half: float,
    rank: int,
    layer: float,
) -> None:
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
                for piece in pieces(offset_line(inner, offset), 3):
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
                b.lines(
                    [np.stack([stop + 0.3 * left, stop + half * left * 0.95])],
                    0.4,
                    mark,
                    mat.MARK,
                    layer + 0.4,
                )


def _street_trees(
    b: SceneBuilder,
    rng: np.random.Generator,
    palette: palettes.Palette,
    line: Array,
    total: float,
    offset: float,
) -> None:
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
        b.trees(
            p + side * offset * left,
            r,
            2.1 * r + 1.5,
            np.asarray(colour) + rng.normal(0, 4, (len(s), 1)),
            anywhere=True,
        )
