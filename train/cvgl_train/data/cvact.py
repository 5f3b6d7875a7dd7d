"""CVACT: panoramas from the roads of Canberra and the satellite images around them, with positions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .base import CrossViewSet, DatasetError
from .folders import image, missing_images, need_choice, need_file, need_folder, need_images

__all__ = ["read_cvact"]

TREE = (
    "CVACT has ACT_data.mat, ANU_data_small/{streetview,satview_polish}/ and, for the large test, "
    "ANU_data_test/{streetview,satview_polish}/ with <id>_grdView.jpg and <id>_satView_polish.jpg"
)

SPLITS = {
    "train": ("ANU_data_small", "trainSet", "trainInd"),
    "val": ("ANU_data_small", "valSet", "valInd"),
    "test": ("ANU_data_test", "valSetAll", "valInd"),
}
"""Folder of the images, and where ACT_data.mat has the indices."""


def read_cvact(root: Path | str, split: str = "test", *, allow_missing: bool = False) -> CrossViewSet:
    """A split of CVACT (Liu and Li, CVPR 2019; github.com/Liumouliu/OriCNN).

    The official tree::

        ANU_data_small/streetview/<id>_grdView.jpg                  panorama
        ANU_data_small/satview_polish/<id>_satView_polish.jpg       satellite
        ANU_data_test/{streetview,satview_polish}/                  the same of the large test
        ACT_data.mat

    ACT_data.mat holds ``panoIds`` (P ids of panoramas), ``utm`` (P x 2 metres) and the structures ``trainSet`` (field
    ``trainInd``), ``valSet`` and ``valSetAll`` (field ``valInd``) with indices into them that count from 1, as MATLAB
    does. A panorama matches the satellite image of its id; pairs are numbered as the split lists them, and both images
    have the panorama's position.

    Args:
        root: the folder that has ACT_data.mat.
        split: "train" (35532 pairs), "val" (8884, the one that most papers call CVACT_val) or "test" (92802).
        allow_missing: leave out pairs of which an image is missing, as authors' readers do, instead of an error.

    Raises:
        DatasetError: a tree or an index that is not the official one.
    """
    root = need_folder(Path(root), TREE)
    folder, structure, field = SPLITS[need_choice(split, "split", tuple(SPLITS))]
    index = need_file(root / "ACT_data.mat", TREE)
    data = _load(index, ("panoIds", "utm", structure))
    ids = [_text(each, index) for each in data["panoIds"].ravel()]
    utm = data["utm"]
    if utm.shape != (len(ids), 2):
        raise DatasetError(
            "malformed", file=index, field="utm", found=utm.shape, expected=f"({len(ids)}, 2), as panoIds"
        )
    chosen = _indices(data[structure], index, structure, field, len(ids))
    need_folder(root / folder / "streetview", TREE)
    need_folder(root / folder / "satview_polish", TREE)
    grounds = [f"{folder}/streetview/{ids[i]}_grdView.jpg" for i in chosen]
    satellites = [f"{folder}/satview_polish/{ids[i]}_satView_polish.jpg" for i in chosen]
    if allow_missing:
        missing = missing_images(root, grounds + satellites)
        kept = [i for i in range(len(chosen)) if grounds[i] not in missing and satellites[i] not in missing]
        if not kept:
            raise DatasetError("not one image of this split", file=root / folder, field=structure, expected=TREE)
        chosen = chosen[kept]
        grounds, satellites = [grounds[i] for i in kept], [satellites[i] for i in kept]
    else:
        need_images(root, grounds + satellites, index, TREE, "; allow_missing leaves such pairs out")
    pairs = np.arange(len(chosen))
    positions = _numbers(utm[chosen], index, "utm")
    return CrossViewSet(
        "cvact",
        split,
        [image(root, name) for name in grounds],
        [image(root, name) for name in satellites],
        list(pairs[:, None]),
        pairs,
        pairs.copy(),
        query_positions=positions,
        reference_positions=positions.copy(),
        frame="metres",
    )


def _load(index: Path, names: tuple[str, ...]) -> dict[str, NDArray[Any]]:
    from scipy.io import loadmat

    try:
        data: dict[str, NDArray[Any]] = loadmat(index, variable_names=names)
    except Exception as reason:  # scipy raises whatever the damaged bytes lead to
        raise DatasetError(f"not readable as a MATLAB file: {reason}", file=index) from reason
    for name in names:
        if name not in data:
            raise DatasetError("no such variable", file=index, field=name, expected=TREE)
    return data


def _text(value: Any, index: Path) -> str:
    # A matrix of characters arrives as strings, a cell array as arrays of one string.
    if np.size(value) != 1:
        raise DatasetError("not a list of ids", file=index, field="panoIds", found=value, expected="one text each")
    return str(np.asarray(value).item()).strip()


def _numbers(values: NDArray[Any], index: Path, field: str) -> NDArray[np.float64]:
    try:
        numbers = np.asarray(values, np.float64)
    except (TypeError, ValueError):
        numbers = np.array([np.nan])
    if not np.isfinite(numbers).all():
        raise DatasetError("not numbers", file=index, field=field, expected="finite numbers")
    return numbers


def _indices(values: NDArray[Any], index: Path, structure: str, field: str, count: int) -> NDArray[np.int64]:
    """From 0."""
    where = f"{structure}.{field}"
    if values.dtype.names is None or field not in values.dtype.names or values.size != 1:
        raise DatasetError("no such field", file=index, field=where, found=values.dtype.names, expected=TREE)
    numbers = _numbers(values[field].item(), index, where).ravel()
    wrong = numbers[(numbers < 1) | (numbers > count) | (numbers % 1 != 0)]
    if not len(numbers) or len(wrong):
        found = float(wrong[0]) if len(wrong) else "none"
        raise DatasetError("not indices", file=index, field=where, found=found, expected=f"1 to {count}, as panoIds")
    return numbers.astype(np.int64) - 1
