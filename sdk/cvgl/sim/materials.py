"""What surfaces are made of: how rough they look, and how season and day change their colour."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .appearance import SEASONS, Appearance

(
    ASPHALT,
    PAVING,
    CONCRETE,
    SOIL,
    GRASS,
    CROP,
    WATER,
    MARK,
    ROOF,
    WALL,
    GLASS,
    LEAF,
    NEEDLE,
    SYNTHETIC,
    CAR,
    FOREST_FLOOR,
    PLASTER,
    POOL,
) = range(18)
COUNT = 18

# The texture code a surface carries in the fourth image channel: below 128 a hard surface, from 128 on
# vegetation (whose patches also change hue); the low seven bits are the strength of the grain.
TEXTURE = np.zeros(COUNT, np.uint8)
for _material, _code in {
    ASPHALT: 26,
    PAVING: 38,
    CONCRETE: 32,
    SOIL: 90,
    GRASS: 128 + 46,
    CROP: 128 + 40,
    WATER: 14,
    MARK: 30,
    ROOF: 24,
    WALL: 10,
    GLASS: 4,
    LEAF: 128 + 104,
    NEEDLE: 128 + 104,
    SYNTHETIC: 12,
    CAR: 0,
    FOREST_FLOOR: 128 + 80,
    PLASTER: 16,
    POOL: 8,
}.items():
    TEXTURE[_material] = _code

# Jitter between pictures of one place: materials that weather, grow or get wet vary more than paint does.
_VARIES = np.ones(COUNT)
_VARIES[[GRASS, CROP, LEAF, SOIL, WATER]] = 1.8
_VARIES[[MARK, SYNTHETIC, CAR, GLASS]] = 0.5

# What a field grown with crop state k looks like in each season (RGB): k is fixed per field.
_CROP_STATE = np.array(
    [
        [[96, 122, 60], [128, 128, 72], [134, 112, 80], [112, 96, 74]],
        [[128, 108, 82], [92, 124, 62], [150, 138, 92], [122, 106, 84]],
        [[106, 132, 62], [170, 152, 98], [118, 98, 74], [100, 104, 66]],
        [[118, 98, 76], [70, 104, 54], [98, 116, 64], [128, 110, 88]],
        [[150, 146, 62], [120, 132, 76], [126, 108, 84], [104, 94, 72]],
        [[110, 118, 74], [150, 138, 90], [112, 122, 70], [110, 112, 72]],
        [[84, 112, 58], [84, 112, 58], [108, 110, 62], [96, 100, 66]],
        [[132, 120, 92], [142, 126, 92], [124, 106, 78], [118, 104, 84]],
    ],
    dtype=np.float32,
)

# Season shifts of vegetation: (target RGB, weight) per season.
_GRASS_SHIFT = {
    "spring": ((104, 120, 70), 0.30),
    "summer": ((118, 124, 72), 0.10),
    "autumn": ((134, 122, 74), 0.32),
    "winter": ((122, 112, 82), 0.48),
}
_LEAF_SHIFT = {
    "spring": ((104, 128, 62), 0.35),
    "summer": ((60, 86, 44), 0.0),
    "autumn": ((148, 112, 54), 0.40),
    "winter": ((104, 92, 78), 0.58),
}


def tint(
    colour: NDArray[np.float32], material: NDArray[np.uint8], phase: NDArray[np.uint8], appearance: Appearance
) -> NDArray[np.float32]:
    """Summer colours (N, 3) RGB turned into those of a day. `phase` (N,) tells fields and trees apart."""
    colour = colour.astype(np.float32, copy=True)
    season = SEASONS.index(appearance.season)
    wet = np.random.default_rng([appearance.jitter_seed, 1])
    gain = 1 + appearance.jitter * _VARIES[:, None] * (
        wet.standard_normal((COUNT, 1)) + 0.15 * wet.standard_normal((COUNT, 3))
    )
    crop = material == CROP
    if crop.any():
        state = _CROP_STATE[phase[crop] % len(_CROP_STATE), season]
        colour[crop] = 0.35 * colour[crop] + 0.65 * state * (colour[crop].mean(1, keepdims=True) / 105.0)
    for which, (target, weight) in (
        (GRASS, _GRASS_SHIFT[appearance.season]),
        (LEAF, _LEAF_SHIFT[appearance.season]),
    ):
        rows = material == which
        if weight and rows.any():
            # Neither lawns nor trees turn all at once: the share goes with the plant.
            share = weight * (0.45 + 1.1 * (phase[rows] * np.uint8(37)) / 255.0)[:, None]
            bright = colour[rows].mean(1, keepdims=True) / np.mean(target)
            colour[rows] += np.minimum(share, 0.9) * (np.array(target) * bright - colour[rows])
    return colour * gain[material].astype(np.float32)
