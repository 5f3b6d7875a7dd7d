"""CVUSA: panoramas from roads of the USA and the satellite images around them."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from .base import CrossViewSet, DatasetError
from .folders import image, need_choice, need_file, need_folder, need_images

__all__ = ["read_cvusa"]

TREE = (
    "CVUSA has splits/train-19zl.csv and splits/val-19zl.csv with rows of three paths, "
    "bingmap/19/<id>.jpg, streetview/panos/<id>.jpg and an annotation"
)

FILES = {"train": "train-19zl.csv", "test": "val-19zl.csv"}


def read_cvusa(root: Path | str, split: str = "test") -> CrossViewSet:
    """A split of CVUSA (Workman et al., ICCV 2015), as Zhai et al. (CVPR 2017) divided it.

    The official tree::

        bingmap/19/<id>.jpg             satellite, 750 x 750
        streetview/panos/<id>.jpg       panorama, 1232 x 224, north in its middle
        splits/train-19zl.csv           35532 pairs
        splits/val-19zl.csv             8884 pairs

    The lists have no header; a row is the satellite's path, the panorama's and that of an annotation, which is not
    read. A panorama matches the satellite image of its row, and pairs are numbered as the list has them.

    Args:
        root: the folder that has splits, bingmap and streetview.
        split: "train", or "test", which is the list called val: there is no third one.

    Raises:
        DatasetError: a tree or a list that is not the official one.
    """
    root = need_folder(Path(root), TREE)
    index = need_file(root / "splits" / FILES[need_choice(split, "split", tuple(FILES))], TREE)
    satellites, panoramas = [], []
    try:
        with open(index, newline="", encoding="utf-8-sig") as file:
            for number, row in enumerate(csv.reader(file), 1):
                columns = [text.strip() for text in row]
                if not any(columns):
                    continue
                if len(columns) < 2 or not columns[0] or not columns[1]:
                    raise DatasetError(
                        "malformed line", file=index, field=f"line {number}", found=",".join(row), expected=TREE
                    )
                satellites.append(columns[0])
                panoramas.append(columns[1])
    except (OSError, UnicodeDecodeError, csv.Error) as reason:
        raise DatasetError(f"not readable as a list: {reason}", file=index) from reason
    if not satellites:
        raise DatasetError("empty", file=index, expected=TREE)
    need_images(root, panoramas + satellites, index, TREE)
    pairs = np.arange(len(satellites))
    return CrossViewSet(
        "cvusa",
        split,
        [image(root, name) for name in panoramas],
        [image(root, name) for name in satellites],
        list(pairs[:, None]),
        pairs,
        pairs.copy(),
    )
