"""Procedural towns of about a kilometre, as pictures that are rendered once and kept."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cvgl.files import atomic_path
from cvgl.sim import STYLES, World, render_map

__all__ = ["CELL_STRIDES", "rendering", "town"]

# Side of a town: so many strides of a tile's grid.
CELL_STRIDES = 48
_FIRST_SEED = 4100
# Sides of the worlds that tell one rendering from another, metres, and their detail, m/px.
_PROBE_M, _PROBE_GSD = 100.0, 0.5


@cache
def rendering() -> str:
    """Eight hexadecimal digits that change with what procedural worlds look like, whatever the cause.

    They belong to the name of all that is kept: pictures of another rendering are pictures of other places.
    """
    digest = hashlib.sha256()
    for style in STYLES:
        digest.update(render_map(World.generate(_FIRST_SEED, _PROBE_M, style), _PROBE_GSD).tobytes())
    return digest.hexdigest()[:8]


def town(folder: Path, number: int, cell_m: float, side: int) -> NDArray[np.uint8]:
    """RGB (side, side, 3) of a town, ``cell_m`` metres a side; read if it was rendered before.

    Args:
        folder: of the pictures.
        number: of the town, from 0; styles take turns.
        cell_m: its side, metres.
        side: of the picture, pixels.
    """
    file = folder / f"town-{rendering()}-{number}-{side}px.npy"
    if not file.is_file():
        picture = render_map(World.generate(_FIRST_SEED + number, cell_m, STYLES[number % len(STYLES)]), cell_m / side)
        with atomic_path(file) as temporary, temporary.open("wb") as opened:
            np.save(opened, picture)
    return np.asarray(np.load(file))
