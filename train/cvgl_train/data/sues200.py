"""SUES-200: 200 places from a drone at four heights and from a satellite."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from .base import CrossViewSet, DatasetError
from .folders import class_images, class_set, need_choice, need_folder

__all__ = ["HEIGHTS", "read_sues200"]

HEIGHTS = (150, 200, 250, 300)
"""Metres."""

TREE = (
    "SUES-200, divided by its authors' script, has Training/<height>/{drone,satellite}/<id>/ and "
    "Testing/<height>/{query_drone,query_satellite,gallery_drone,gallery_satellite}/<id>/, height 150, 200, 250, 300"
)


def read_sues200(
    root: Path | str,
    split: str = "test",
    *,
    height: int | None = None,
    gallery: str = "satellite",
) -> CrossViewSet:
    """A split of SUES-200 (Zhu et al., IEEE TCSVT 2023; github.com/Reza-Zhu/SUES-200-Benchmark).

    The tree that the authors' script makes of the published archive (``satellite-view/<id>`` and drone images by
    height), ``<id>`` being 0001 to 0200::

        Training/{150,200,250,300}/{drone,satellite}/<id>/                  120 places
        Testing/{150,200,250,300}/{query_drone,query_satellite}/<id>/       80 others
        Testing/{150,200,250,300}/{gallery_drone,gallery_satellite}/<id>/   all 200

    A place has 50 drone images a height, ``0.jpg`` to ``49.jpg``, and one satellite image, ``0.png``, of which the
    tree has a copy for each height. A query matches the satellite image of its place. `query_heights` is known.

    Args:
        root: the folder that has Training and Testing.
        split: "train" or "test".
        height: 150, 200, 250 or 300, as in the published tables; None: all four against one copy of the satellites.
        gallery: of the test. "satellite": query_drone against gallery_satellite; "drone": gallery_drone against
            query_satellite, to be `reversed` into the official satellite-to-drone test; its distractors have no match.

    Raises:
        DatasetError: a tree that is not the official one, or an option that cannot be.
    """
    root = need_folder(Path(root), TREE)
    need_choice(split, "split", ("train", "test"))
    need_choice(gallery, "gallery", ("satellite",) if split == "train" else ("satellite", "drone"))
    if height is not None and height not in HEIGHTS:
        raise DatasetError("no such height", field="height", found=height, expected=" or ".join(map(str, HEIGHTS)))
    turned = gallery == "drone"
    if split == "train":
        top, drone, satellite = "Training", "drone", "satellite"
    elif turned:
        top, drone, satellite = "Testing", "gallery_drone", "query_satellite"
    else:
        top, drone, satellite = "Testing", "query_drone", "gallery_satellite"
    wanted = HEIGHTS if height is None else (height,)
    queries, heights = [], []
    for each in wanted:
        found = class_images(root, f"{top}/{each}/{drone}", TREE)
        queries += found
        heights += [float(each)] * len(found)
    references = class_images(root, f"{top}/{wanted[0]}/{satellite}", TREE)
    made = class_set("sues-200", split, queries, references, root, unmatched=turned)
    return replace(made, query_heights=np.array(heights))
