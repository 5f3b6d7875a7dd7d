"""University-1652: buildings of 72 universities from drone, street and satellite."""

from __future__ import annotations

import re
from pathlib import Path

from .base import CrossViewSet, DatasetError
from .folders import class_images, class_set, need_choice, need_folder

__all__ = ["DISTANCES", "read_university1652"]

TREE = (
    "University-1652 has train/{drone,satellite,street,google}/<id>/ and "
    "test/{query_drone,gallery_drone,query_satellite,gallery_satellite,query_street,gallery_street}/<id>/"
)

DISTANCES = {"long": (1, 18), "middle": (19, 36), "short": (37, 54)}
"""First and last number of the drone images of each distance: the drone circles three times on its way down."""


def read_university1652(
    root: Path | str,
    split: str = "test",
    *,
    queries: str = "drone",
    gallery: str = "satellite",
    distance: str = "all",
) -> CrossViewSet:
    """A split of University-1652 (Zheng, Wei and Yang, ACM MM 2020; github.com/layumi/University1652-Baseline).

    The official tree, with folders of images by building, ``<id>`` being four digits::

        train/{drone,satellite,street,google}/<id>/                      701 buildings
        test/{query_drone,query_satellite,query_street}/<id>/            701 other buildings
        test/{gallery_drone,gallery_satellite,gallery_street}/<id>/      951: the same and 250 distractors

    A drone image is ``image-01.jpeg`` (farthest) to ``image-54.jpeg`` (nearest). A query matches the satellite image of
    its building. Heights and positions are not published.

    Args:
        root: the folder that has train and test.
        split: "train" or "test".
        queries: "drone", "street" or, in training only, "google" (street images of a search engine).
        gallery: of the test. "satellite": query_<view> against gallery_satellite. The same view as `queries`:
            gallery_<view> against query_satellite, to be `reversed` into the official satellite-to-drone test; its
            distractors have no match.
        distance: "all", or one of `DISTANCES`: a third of the drone images of each building, for results by distance.

    Raises:
        DatasetError: a tree that is not the official one, or an option that cannot be.
    """
    root = need_folder(Path(root), TREE)
    need_choice(split, "split", ("train", "test"))
    need_choice(queries, "queries", ("drone", "street", "google") if split == "train" else ("drone", "street"))
    need_choice(gallery, "gallery", ("satellite",) if split == "train" else ("satellite", queries))
    need_choice(distance, "distance", ("all", *DISTANCES) if queries == "drone" else ("all",))
    turned = gallery != "satellite"
    if split == "train":
        folders = (f"train/{queries}", "train/satellite")
    elif turned:
        folders = (f"test/gallery_{queries}", "test/query_satellite")
    else:
        folders = (f"test/query_{queries}", "test/gallery_satellite")
    found = class_images(root, folders[0], TREE)
    if distance != "all":
        first, last = DISTANCES[distance]
        found = [(place, shot) for place, shot in found if first <= _number(shot.path) <= last]
        if not found:
            raise DatasetError("no drone image of this distance", file=root / folders[0], field=distance)
    return class_set("university-1652", split, found, class_images(root, folders[1], TREE), root, unmatched=turned)


def _number(path: Path) -> int:
    match = re.fullmatch(r"image-(\d+)", path.stem)
    if match is None:
        raise DatasetError("a drone image without a number", file=path, found=path.name, expected="image-01.jpeg")
    return int(match.group(1))
