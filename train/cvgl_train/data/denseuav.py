"""DenseUAV: low flights over 14 universities and the satellite images below them, with positions."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .base import CrossViewSet, DatasetError
from .folders import ClassImage, class_images, class_set, need_choice, need_folder, need_number, numbered_lines

__all__ = ["read_denseuav"]

TREE = (
    "DenseUAV has train/{drone,satellite}/<id>/, "
    "test/{query_drone,query_satellite,gallery_drone,gallery_satellite}/<id>/ with H80, H90, H100 (.JPG; .tif and "
    "_old.tif), Dense_GPS_train.txt, Dense_GPS_test.txt and Dense_GPS_ALL.txt"
)


def read_denseuav(
    root: Path | str,
    split: str = "test",
    *,
    gallery: str = "satellite",
    old: bool = True,
) -> CrossViewSet:
    """A split of DenseUAV (Dai et al., IEEE TIP 2024; github.com/Dmmm1997/DenseUAV).

    The official tree, ``<id>`` being six digits::

        train/{drone,satellite}/<id>/                       2256 places
        test/{query_drone,query_satellite}/<id>/            777 others
        test/{gallery_drone,gallery_satellite}/<id>/        all 3033
        Dense_GPS_train.txt, Dense_GPS_test.txt, Dense_GPS_ALL.txt

    A place has drone images ``H80.JPG``, ``H90.JPG``, ``H100.JPG`` from so many metres, and satellite images of the
    same extents, ``H80.tif`` and, of an earlier date, ``H80_old.tif`` and so on. A line of the lists is
    ``<path>/<id>/<file> E<longitude> N<latitude> <height>``. A query matches every satellite image of its place, and as
    in the authors' evaluation a place has one position: that of its last line.

    Args:
        root: the folder that has train and test.
        split: "train" or "test".
        gallery: of the test. "satellite": query_drone against gallery_satellite; "drone": gallery_drone against
            query_satellite, to be `reversed` into the official satellite-to-drone test; its distractors have no match.
        old: take the older satellite images too, as the authors do.

    Raises:
        DatasetError: a tree or a list that is not the official one, or an option that cannot be.
    """
    root = need_folder(Path(root), TREE)
    need_choice(split, "split", ("train", "test"))
    need_choice(gallery, "gallery", ("satellite",) if split == "train" else ("satellite", "drone"))
    turned = gallery == "drone"
    if split == "train":
        folders = ("train/drone", "train/satellite")
    elif turned:
        folders = ("test/gallery_drone", "test/query_satellite")
    else:
        folders = ("test/query_drone", "test/gallery_satellite")
    # The galleries hold the places of training too, so the test needs the list of all.
    index = root / ("Dense_GPS_train.txt" if split == "train" else "Dense_GPS_ALL.txt")
    positions = _positions(index)
    queries = class_images(root, folders[0], TREE)
    references = class_images(root, folders[1], TREE)
    if not old:
        references = [(place, shot) for place, shot in references if not shot.path.stem.endswith("_old")]
    made = class_set("denseuav", split, queries, references, root, unmatched=turned)
    return replace(
        made,
        query_positions=_places(queries, positions, index),
        reference_positions=_places(references, positions, index),
        query_heights=np.array([_height(shot.path) for _, shot in queries]),
    )


def _positions(index: Path) -> dict[str, tuple[float, float]]:
    """Latitude and longitude of each place."""
    positions = {}
    for where, line in numbered_lines(index, TREE):
        columns = line.split()
        place = columns[0].replace("\\", "/").split("/")[-2:-1]
        if len(columns) < 3 or not place or not columns[1].startswith("E") or not columns[2].startswith("N"):
            raise DatasetError(
                "malformed line", file=index, field=where, found=line, expected="<path>/<id>/<file> E<deg> N<deg> <m>"
            )
        longitude, latitude = (need_number(text[1:], index, where) for text in columns[1:3])
        if abs(latitude) > 90 or abs(longitude) > 180:
            raise DatasetError("not a place on Earth", file=index, field=where, found=line)
        positions[place[0]] = (latitude, longitude)
    return positions


def _places(images: list[ClassImage], positions: dict[str, tuple[float, float]], index: Path) -> NDArray[np.float64]:
    for place, shot in images:
        if place not in positions:
            raise DatasetError("no position of this place", file=index, field="id", found=place, expected=shot.name)
    return np.array([positions[place] for place, _ in images], np.float64)


def _height(path: Path) -> float:
    match = re.fullmatch(r"H(\d+)", path.stem)
    if match is None:
        raise DatasetError(
            "a drone image without a height", file=path, found=path.name, expected="H80.JPG, H90.JPG or H100.JPG"
        )
    return float(match.group(1))
