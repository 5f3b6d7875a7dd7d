"""VIGOR: panoramas of four cities that stand anywhere in satellite tiles which overlap."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .base import CrossViewSet, DatasetError, labels_of
from .folders import image, need_choice, need_folder, need_images, need_number, numbered_lines

__all__ = ["CITIES", "read_vigor"]

TREE = (
    "VIGOR has {Chicago,NewYork,SanFrancisco,Seattle}/{panorama,satellite}/ and splits/<City>/ with "
    "satellite_list.txt, same_area_balanced_train.txt, same_area_balanced_test.txt and pano_label_balanced.txt "
    "(corrected labels: splits__corrected/<City>/, names that end in __corrected.txt)"
)

CITIES = {
    ("same", "train"): ("Chicago", "NewYork", "SanFrancisco", "Seattle"),
    ("same", "test"): ("Chicago", "NewYork", "SanFrancisco", "Seattle"),
    ("cross", "train"): ("NewYork", "Seattle"),
    ("cross", "test"): ("Chicago", "SanFrancisco"),
}
"""Cities by area and split."""

LINE = "<panorama> and four times <satellite> <dx> <dy>"


def read_vigor(root: Path | str, split: str = "test", *, area: str = "same", labels: str = "original") -> CrossViewSet:
    """A split of VIGOR (Zhu, Yang and Chen, CVPR 2021; github.com/Jeff-Zilence/VIGOR).

    The official tree::

        <City>/panorama/<id>,<latitude>,<longitude>,.jpg
        <City>/satellite/satellite_<latitude>_<longitude>.png
        splits/<City>/satellite_list.txt                            every tile of the city
        splits/<City>/same_area_balanced_{train,test}.txt
        splits/<City>/pano_label_balanced.txt                       all panoramas of the city, for the cross area

    A line of the labels is a panorama and four tiles that show its place, each with the panorama's offset from the
    tile's centre in pixels, which is not read beyond a check. The first tile has it near its centre and is the one true
    match; the three others are `semi`. The references are every tile of the split's cities, in training too; classes
    number the tiles that are some panorama's match.

    Args:
        root: the folder that has the cities and splits.
        split: "train" or "test".
        area: "same" (four cities, panoramas divided) or "cross" (New York and Seattle for training, Chicago and San
            Francisco for the test).
        labels: "original", or "corrected" (Lentsch et al., SliceMatch, CVPR 2023; github.com/tudelft-iv/SliceMatch),
            in splits__corrected.

    Raises:
        DatasetError: a tree or a list that is not the official one.
    """
    root = need_folder(Path(root), TREE)
    need_choice(split, "split", ("train", "test"))
    need_choice(area, "area", ("same", "cross"))
    need_choice(labels, "labels", ("original", "corrected"))
    top, ending = ("splits", "") if labels == "original" else ("splits__corrected", "__corrected")
    stem = f"same_area_balanced_{split}" if area == "same" else "pano_label_balanced"
    panoramas: list[str] = []
    tiles: list[str] = []
    rows: list[list[int]] = []
    positions: dict[str, list[tuple[float, float]]] = {"panorama": [], "satellite": []}
    for city in CITIES[area, split]:
        for folder in positions:
            need_folder(root / city / folder, TREE)
        listing = root / top / city / "satellite_list.txt"
        numbers: dict[str, int] = {}
        for where, name in numbered_lines(listing, TREE):
            positions["satellite"].append(_tile_position(name, listing, where))
            numbers[name] = len(tiles)
            tiles.append(f"{city}/satellite/{name}")
        need_images(root, tiles[-len(numbers) :], listing, TREE)
        index = root / top / city / f"{stem}{ending}.txt"
        found = []
        for where, line in numbered_lines(index, TREE):
            columns = line.split()
            if len(columns) != 13:
                raise DatasetError("malformed line", file=index, field=where, found=line, expected=LINE)
            for offset in (2, 3, 5, 6, 8, 9, 11, 12):
                need_number(columns[offset], index, where)
            for tile in columns[1:13:3]:
                if tile not in numbers:
                    raise DatasetError(
                        "no such tile", file=index, field=where, found=tile, expected=f"one of {listing}"
                    )
            rows.append([numbers[tile] for tile in columns[1:13:3]])
            positions["panorama"].append(_panorama_position(columns[0], index, where))
            found.append(f"{city}/panorama/{columns[0]}")
        need_images(root, found, index, TREE)
        panoramas += found
    first = [tiles[row[0]] for row in rows]
    classes = labels_of(first)
    return CrossViewSet(
        "vigor",
        split,
        [image(root, name) for name in panoramas],
        [image(root, name) for name in tiles],
        [np.array(row[:1], np.int64) for row in rows],
        np.array([classes[name] for name in first], np.int64),
        np.array([classes.get(name, -1) for name in tiles], np.int64),
        semi=[_others(row) for row in rows],
        query_positions=np.array(positions["panorama"], np.float64),
        reference_positions=np.array(positions["satellite"], np.float64),
    )


def _others(row: list[int]) -> NDArray[np.int64]:
    return np.array([tile for tile in row[1:] if tile != row[0]], np.int64)


def _panorama_position(name: str, file: Path, where: str) -> tuple[float, float]:
    """Latitude and longitude that the name of a panorama says."""
    parts = name.rsplit(",", 3)
    if len(parts) != 4:
        raise DatasetError(
            "a panorama without position", file=file, field=where, found=name, expected="<id>,<lat>,<lon>,.jpg"
        )
    return need_number(parts[1], file, where), need_number(parts[2], file, where)


def _tile_position(name: str, file: Path, where: str) -> tuple[float, float]:
    """Latitude and longitude of the centre that the name of a tile says."""
    parts = Path(name).stem.split("_")
    if len(parts) != 3 or parts[0] != "satellite":
        raise DatasetError(
            "a tile without position", file=file, field=where, found=name, expected="satellite_<lat>_<lon>.png"
        )
    return need_number(parts[1], file, where), need_number(parts[2], file, where)
