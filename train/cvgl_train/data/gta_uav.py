"""GTA-UAV: drone images of a game at many heights and attitudes, and satellite tiles that overlap them in part."""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np
from numpy.typing import NDArray

from .base import CrossViewSet, DatasetError
from .folders import image, image_names, need_choice, need_file, need_folder, need_images

__all__ = ["read_gta_uav"]

TREE = "GTA-UAV has drone/images/, satellite/<zoom>_<x>_<y>.png and {cross,same}-area-drone2sate-{train,test}.json"

MAP_SIZE_M = 24576 * 0.45
"""Side of the satellite map: pixels at the finest zoom, times metres a pixel."""


def read_gta_uav(root: Path | str, split: str = "test", *, area: str = "cross", positives: str = "pos") -> CrossViewSet:
    """A split of GTA-UAV (Ji et al., Game4Loc, AAAI 2025; github.com/Yux1angJi/GTA-UAV).

    The official tree::

        drone/images/500_0001_0000024847.png       and so on
        satellite/<zoom>_<x>_<y>.png
        {cross,same}-area-drone2sate-{train,test}.json

    An entry of a list has, of a drone image, ``drone_img_dir``, ``drone_img_name``, ``drone_loc_x_y`` (where its centre
    is, metres from the map's north-west corner to the east and to the south), ``sate_img_dir``,
    ``pair_pos_sate_img_list`` with ``pair_pos_sate_weight_list`` (tiles and their overlap), the same two of
    ``pair_pos_semipos_sate_...`` (all that overlap in part, the positive ones among them) and
    ``drone_metadata.height``. The references are all tiles of the folder. Positions are east and north in metres, a
    tile's being its centre, and heights are above ground.

    Args:
        root: the folder that has the lists.
        split: "train" or "test".
        area: "cross" (other places in the test) or "same".
        positives: which tiles are true. "pos": the positive ones, the others being `semi`; "pos_semipos": all of both.
            The best overlap comes first. A drone image without a true tile is left out. Classes number the tiles that
            are some drone image's match; a drone image has that of its best.

    Raises:
        DatasetError: a tree or a list that is not the official one.
    """
    root = need_folder(Path(root), TREE)
    need_choice(split, "split", ("train", "test"))
    need_choice(area, "area", ("cross", "same"))
    need_choice(positives, "positives", ("pos", "pos_semipos"))
    index = need_file(root / f"{area}-area-drone2sate-{split}.json", TREE)
    kept = [entry for entry in _load(index) if entry.tiles(positives)]
    if not kept:
        raise DatasetError("no drone image has a true tile", file=index, field=f"pair_{positives}_sate_img_list")
    drones = [f"{entry.text('drone_img_dir')}/{entry.text('drone_img_name')}" for entry in kept]
    need_images(root, drones, index, TREE)
    folders = sorted({entry.text("sate_img_dir") for entry in kept})
    if len(folders) > 1:
        raise DatasetError("tiles in several folders", file=index, field="sate_img_dir", found=folders, expected="one")
    names = image_names(need_folder(root / folders[0], TREE))
    centres = [_centre(root / folders[0] / name) for name in names]
    numbers = {name: number for number, name in enumerate(names)}
    matches, semi = [], []
    for entry in kept:
        true = entry.numbers(positives, numbers)
        matches.append(true)
        both = entry.numbers("pos_semipos", numbers)
        semi.append(both[~np.isin(both, true)])
    matched = np.unique(np.concatenate(matches))
    labels = np.full(len(names), -1, np.int64)
    labels[matched] = np.arange(len(matched))
    return CrossViewSet(
        "gta-uav",
        split,
        [image(root, name) for name in drones],
        [image(root, f"{folders[0]}/{name}") for name in names],
        matches,
        labels[[found[0] for found in matches]],
        labels,
        semi=semi if positives == "pos" else None,
        query_positions=np.array([entry.position() for entry in kept], np.float64),
        reference_positions=np.array(centres, np.float64),
        frame="metres",
        query_heights=np.array([entry.height() for entry in kept], np.float64),
    )


@dataclass(frozen=True)
class _Entry:
    """An entry of a list, whose errors say where it is."""

    index: Path
    number: int
    value: dict[str, Any]

    def wrong(self, field: str, found: object, expected: str) -> DatasetError:
        message = "missing" if found is None else "malformed"
        return DatasetError(message, file=self.index, field=f"[{self.number}].{field}", found=found, expected=expected)

    def text(self, field: str) -> str:
        value = self.value.get(field)
        if not isinstance(value, str) or not value:
            raise self.wrong(field, value, "a text")
        return value

    def tiles(self, kind: str) -> list[str]:
        """Names of the tiles of that kind, the best overlap first."""
        names, weights = (self.value.get(f"pair_{kind}_sate_{part}_list") for part in ("img", "weight"))
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise self.wrong(f"pair_{kind}_sate_img_list", names, "a list of names")
        if not isinstance(weights, list) or len(weights) != len(names) or not all(map(_is_number, weights)):
            raise self.wrong(f"pair_{kind}_sate_weight_list", weights, f"a list of {len(names)} numbers")
        return [names[i] for i in sorted(range(len(names)), key=lambda i: -weights[i])]

    def numbers(self, kind: str, numbers: dict[str, int]) -> NDArray[np.int64]:
        """Where the tiles of that kind are among the references."""
        tiles = self.tiles(kind)
        for tile in tiles:
            if tile not in numbers:
                folder = self.index.parent / self.text("sate_img_dir")
                raise self.wrong(f"pair_{kind}_sate_img_list", tile, f"an image in {folder}")
        return np.array([numbers[tile] for tile in tiles], np.int64)

    def position(self) -> tuple[float, float]:
        """East and north: the list counts to the south."""
        value = self.value.get("drone_loc_x_y")
        if not isinstance(value, list) or len(value) != 2 or not all(map(_is_number, value)):
            raise self.wrong("drone_loc_x_y", value, "two numbers")
        return value[0], -value[1]

    def height(self) -> float:
        data = self.value.get("drone_metadata")
        value = data.get("height") if isinstance(data, dict) else None
        if not _is_number(value):
            raise self.wrong("drone_metadata.height", value, "metres")
        return float(value)


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _load(index: Path) -> list[_Entry]:
    try:
        value = json.loads(index.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as reason:
        raise DatasetError(f"not readable as JSON: {reason}", file=index) from reason
    if not isinstance(value, list) or not value:
        raise DatasetError("not a list of entries", file=index, found=type(value).__name__, expected=TREE)
    for number, entry in enumerate(value):
        if not isinstance(entry, dict):
            raise DatasetError("not an entry", file=index, field=f"[{number}]", found=entry, expected="an object")
    return [_Entry(index, number, entry) for number, entry in enumerate(value)]


def _centre(tile: Path) -> tuple[float, float]:
    """East and north of a tile's centre, which its name says."""
    match = re.fullmatch(r"(\d{1,2})_(\d+)_(\d+)", tile.stem)
    if match is None:
        raise DatasetError("a tile without position", file=tile, found=tile.name, expected="<zoom>_<x>_<y>.png")
    zoom, column, row = map(int, match.groups())
    side = MAP_SIZE_M / 2**zoom
    return (column + 0.5) * side, -(row + 0.5) * side
