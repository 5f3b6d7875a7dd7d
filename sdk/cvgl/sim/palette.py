"""The colours and building habits of one world, drawn once from its seed: no two places share them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .scene import Colour

# Families of roofs seen around the world: (form, RGB) with weights; a world mixes one or two families.
_FAMILIES: dict[str, tuple[list[tuple[str, Colour, float]], list[Colour]]] = {
    "tropical_metal": (
        [
            ("shed", (206, 212, 204), 2),
            ("gable", (170, 198, 182), 2),
            ("gable", (222, 224, 222), 2),
            ("flat", (176, 174, 168), 3),
            ("gable", (150, 70, 60), 1),
            ("gable", (128, 96, 78), 1),
            ("flat", (150, 150, 146), 2),
            ("gable", (214, 206, 178), 1),
            ("shed", (110, 140, 130), 1),
            ("gable", (96, 118, 150), 0.5),
        ],
        [(206, 202, 192), (188, 180, 168), (170, 168, 164), (200, 186, 168), (160, 146, 134)],
    ),
    "mediterranean": (
        [
            ("hip", (190, 112, 78), 4),
            ("gable", (178, 98, 68), 3),
            ("flat", (222, 214, 200), 2),
            ("hip", (206, 134, 98), 2),
            ("flat", (196, 190, 178), 1),
        ],
        [(232, 222, 204), (220, 204, 178), (240, 234, 222)],
    ),
    "northern": (
        [
            ("gable", (92, 88, 88), 3),
            ("gable", (126, 66, 52), 3),
            ("hip", (110, 92, 82), 1),
            ("gable", (70, 74, 80), 2),
            ("flat", (128, 128, 126), 1),
            ("gable", (146, 84, 62), 2),
        ],
        [(196, 180, 160), (170, 92, 72), (214, 206, 190), (150, 120, 96)],
    ),
    "american": (
        [
            ("hip", (132, 122, 112), 3),
            ("gable", (112, 106, 104), 3),
            ("hip", (150, 132, 112), 2),
            ("gable", (92, 84, 80), 2),
            ("gable", (140, 108, 92), 1),
            ("flat", (196, 196, 192), 0.6),
        ],
        [(212, 206, 196), (190, 178, 160), (168, 160, 152)],
    ),
    "arid": (
        [
            ("flat", (208, 192, 166), 4),
            ("flat", (188, 172, 150), 3),
            ("flat", (228, 220, 206), 2),
            ("flat", (168, 156, 142), 2),
            ("shed", (180, 160, 140), 0.5),
        ],
        [(204, 184, 154), (190, 170, 142), (222, 206, 180)],
    ),
    "modern_flat": (
        [
            ("flat", (150, 150, 148), 3),
            ("flat", (112, 112, 112), 2),
            ("flat", (204, 204, 200), 2),
            ("flat", (126, 134, 122), 1),
            ("gable", (120, 112, 108), 1),
            ("flat", (96, 112, 86), 0.6),
        ],
        [(200, 198, 194), (150, 148, 146), (176, 140, 118), (222, 220, 214)],
    ),
    "blue_steel": (
        [
            ("gable", (92, 124, 168), 3),
            ("gable", (126, 146, 172), 2),
            ("flat", (160, 162, 164), 2),
            ("gable", (176, 74, 62), 2),
            ("shed", (196, 200, 204), 1),
        ],
        [(196, 194, 190), (178, 176, 172), (206, 200, 186)],
    ),
}


@dataclass(frozen=True)
class Palette:
    """Colours are RGB 0-255. `roofs` are (form, colour, probability); `storey_m` the height of a floor."""

    roofs: tuple[tuple[str, Colour, float], ...]
    walls: tuple[Colour, ...]
    asphalt: Colour
    local_asphalt: Colour
    pavement: Colour
    concrete: Colour
    soil: Colour
    grass: Colour
    leaf: Colour
    needle: Colour
    water: Colour
    mark: Colour
    needle_share: float
    lushness: float
    storey_m: float
    height_scale: float
    spread: float

    def roof(self, rng: np.random.Generator, flat_only: bool = False) -> tuple[str, Colour]:
        """A roof form and colour, drawn by weight and varied a little."""
        options = [r for r in self.roofs if r[0] == "flat"] if flat_only else list(self.roofs)
        if not options:
            return "flat", vary(rng, (165, 163, 158), 22)
        weight = np.array([r[2] for r in options])
        form, colour, _ = options[int(rng.choice(len(options), p=weight / weight.sum()))]
        if rng.random() < 0.07:
            # Somebody always builds otherwise.
            other = list(_FAMILIES.values())[int(rng.integers(len(_FAMILIES)))][0]
            colour = other[int(rng.integers(len(other)))][1]
        return form, vary(rng, colour, self.spread + (8 if form == "flat" else 0))

    def wall(self, rng: np.random.Generator) -> Colour:
        """A facade colour."""
        return vary(rng, self.walls[int(rng.integers(len(self.walls)))], 12)


def vary(rng: np.random.Generator, colour: Colour, amount: float) -> Colour:
    """A colour moved at random: mostly in brightness, a third as much in hue."""
    shift = amount * rng.standard_normal() + amount / 4 * rng.standard_normal(3)
    return _colour(np.asarray(colour) + shift)


def _colour(rgb: NDArray[np.float64]) -> Colour:
    r, g, b = np.clip(rgb, 4, 250).tolist()
    return r, g, b


def mix(first: Colour, second: Colour, share: float) -> Colour:
    """The colour at `share` (0-1) of the way from the first to the second."""
    r, g, b = (p + share * (q - p) for p, q in zip(first, second, strict=True))
    return r, g, b


def draw(rng: np.random.Generator) -> Palette:
    """The palette of a world."""
    names = list(_FAMILIES)
    first, second = rng.choice(len(names), 2, replace=False)
    roofs = [(f, c, w) for f, c, w in _FAMILIES[names[first]][0]]
    share = float(rng.choice([0.1, 0.3, 0.7]))
    roofs += [(f, c, w * share) for f, c, w in _FAMILIES[names[second]][0]]
    # Within a family every place still has favourites.
    weights = np.array([r[2] for r in roofs]) * rng.gamma(1.2, 1.0, len(roofs))
    hue = rng.normal(0, 7, 3)
    roofs = [(f, _colour(np.asarray(c) + hue), float(w)) for (f, c, _), w in zip(roofs, weights, strict=True)]
    lush = float(rng.beta(2.2, 1.6))
    grey = rng.uniform(66, 112)
    dry, green = np.array([146, 136, 98.0]), np.array([84, 103, 58.0])
    soils: list[Colour] = [(150, 124, 94), (168, 116, 80), (176, 158, 128), (112, 92, 74), (138, 128, 112)]
    waters: list[Colour] = [
        (74, 84, 70),
        (58, 78, 84),
        (92, 96, 78),
        (50, 62, 62),
        (84, 104, 104),
        (40, 66, 84),
    ]

    def pick(options: list[Colour], amount: float) -> Colour:
        return vary(rng, options[int(rng.integers(len(options)))], amount)

    g = green + (1 - lush) * (dry - green)
    return Palette(
        roofs=tuple(roofs),
        walls=tuple(_FAMILIES[names[first]][1]),
        asphalt=vary(rng, (grey, grey, grey + 2), 5),
        local_asphalt=vary(rng, (grey + 9, grey + 8, grey + 6), 8),
        pavement=pick([(148, 142, 132), (132, 131, 128), (154, 132, 118), (162, 155, 142)], 9),
        concrete=pick([(152, 149, 142), (164, 159, 150), (134, 133, 130)], 9),
        soil=pick(soils, 9),
        grass=vary(rng, (float(g[0]), float(g[1]), float(g[2])), 7),
        leaf=pick([(58, 82, 40), (66, 92, 42), (76, 90, 52), (50, 72, 38), (86, 98, 56)], 6),
        needle=pick([(40, 58, 38), (48, 66, 46), (36, 52, 40)], 4),
        water=pick(waters, 8),
        mark=pick([(226, 226, 222), (232, 228, 210)], 5),
        needle_share=float(rng.choice([0.0, 0.15, 0.5, 0.9], p=[0.35, 0.3, 0.2, 0.15])),
        lushness=lush,
        storey_m=float(rng.uniform(2.8, 3.5)),
        height_scale=float(rng.uniform(0.7, 1.35)),
        spread=float(rng.uniform(5, 20)),
    )
