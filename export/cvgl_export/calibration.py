"""Tiles for INT8: some that give ranges, some that choose the layers, and others that judge."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cvgl.errors import ModelError
from cvgl_train.data.base import DatasetError
from cvgl_train.models.base import ViewInput

from .tile_sources import open_tiles
from .tiles import ParityTiles, Progress, image_key

__all__ = ["RANGE_TILES", "Calibration", "calibrated_tiles", "some"]

RANGE_TILES = 128
"""Tiles that give ranges, at most; views of them do too."""


@dataclass(frozen=True, eq=False)
class Calibration:
    """Tiles of which none judges.

    Args:
        ranges: give the ranges of activations and the means of their errors.
        held: not seen by those; choose which layers are INT8.
    """

    ranges: ParityTiles
    held: ParityTiles

    def check(self, judging: ParityTiles) -> None:
        """Refuse tiles that serve two purposes.

        Raises:
            ModelError: a reference image is among two of the three.
        """
        seen: dict[bytes, str] = {}
        for name, tiles in (("judging", judging), ("ranges", self.ranges), ("held", self.held)):
            for tile in tiles.reference:
                other = seen.setdefault(image_key(tile), name)
                if other != name:
                    raise ModelError(
                        "a tile serves two purposes", field="calibration", found=f"{other} and {name}", expected="one"
                    )


def calibrated_tiles(
    source: str | Path | None,
    query: ViewInput,
    reference: ViewInput,
    *,
    count: int,
    progress: Progress | None = None,
) -> tuple[ParityTiles, Calibration]:
    """Tiles to judge on and, without any of these, tiles to calibrate with.

    Procedural tiles are of three worlds, those to judge on the same as for any other precision. Of a folder, a map or
    a gallery, tiles are drawn once and parted by chance: half of them judge where there are not enough for all, and of
    the rest a third gives ranges. No tile serves twice, but where tiles overlap, as a gallery's do, they share ground.

    Args:
        source, query, reference, progress: as `open_tiles` has them.
        count: of tiles to judge on, at most. As many are held back, so that a search among them is as hard.

    Raises:
        DatasetError, GalleryError, MapError: as `open_tiles`, or too few tiles for all three.
    """
    ranges = min(RANGE_TILES, max(count, 16))

    def opened(number: int, seed: int = 0) -> ParityTiles:
        return open_tiles(source, query, reference, count=number, seed=seed, progress=progress)

    if source is None:
        return opened(count), Calibration(opened(ranges, 1), opened(count, 2))
    every = opened(2 * count + ranges)
    total = len(every.reference)
    judged = min(count, total // 2)
    first = judged + min(ranges, (total - judged) // 3)
    if min(judged, first - judged, total - first) < 2:
        raise DatasetError(
            "too few tiles to calibrate INT8 on other ones than it is judged on",
            file=source,
            field="tiles",
            found=total,
            expected="8 or more",
        )
    order = np.random.default_rng(66).permutation(total)
    judging, seen, held = (some(every, np.sort(part)) for part in np.split(order, [judged, first]))
    return judging, Calibration(seen, held)


def some(tiles: ParityTiles, references: NDArray[np.int64] | Sequence[int]) -> ParityTiles:
    """These references, by index, and the queries whose tiles they are."""
    chosen = np.asarray(references, np.int64)
    place = np.full(len(tiles.reference), -1)
    place[chosen] = np.arange(len(chosen))
    queries = np.flatnonzero(place[tiles.truth] >= 0)
    return replace(
        tiles,
        query=tiles.query[queries],
        reference=tiles.reference[chosen],
        truth=place[tiles.truth[queries]],
        names=tuple(tiles.names[index] for index in chosen),
        query_mask=None if tiles.query_mask is None else tiles.query_mask[queries],
        reference_mask=None if tiles.reference_mask is None else tiles.reference_mask[chosen],
    )
