"""What the readers of published trees share: folders that must be there, images by class, lists of lines."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from .base import CrossViewSet, DatasetError, ImageFile, labels_of

__all__ = [
    "IMAGE_ENDINGS",
    "ClassImage",
    "class_images",
    "class_set",
    "image",
    "image_names",
    "missing_images",
    "need_choice",
    "need_file",
    "need_folder",
    "need_images",
    "need_number",
    "numbered_lines",
]

IMAGE_ENDINGS = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp", ".webp")
"""Of image files, in upper or lower case."""

ClassImage = tuple[str, ImageFile]
"""The id of a place and an image of it."""


def need_choice(value: str, field: str, allowed: Sequence[str]) -> str:
    """The value, if it is allowed.

    Raises:
        DatasetError: it is not.
    """
    if value not in allowed:
        raise DatasetError("no such choice", field=field, found=value, expected=" or ".join(allowed))
    return value


def need_folder(path: Path, tree: str) -> Path:
    """The path, if a folder is there.

    Args:
        tree: what the dataset's official tree looks like, for the error.

    Raises:
        DatasetError: there is none.
    """
    if not path.is_dir():
        raise DatasetError("not a folder" if path.exists() else "no such folder", file=path, expected=tree)
    return path


def need_file(path: Path, tree: str) -> Path:
    """The path, if a file is there; otherwise as `need_folder`."""
    if not path.is_file():
        raise DatasetError("not a file" if path.exists() else "no such file", file=path, expected=tree)
    return path


def need_number(text: str, file: Path, field: str) -> float:
    """The finite number that a text says.

    Raises:
        DatasetError: it says none.
    """
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise DatasetError("not a number", file=file, field=field, found=text, expected="a finite number")
    return value


def numbered_lines(path: Path, tree: str) -> list[tuple[str, str]]:
    """The lines of a text file that are not blank, each with "line N", counted from 1, for errors.

    Raises:
        DatasetError: no such file, not text, or nothing in it.
    """
    try:
        text = need_file(path, tree).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as reason:
        raise DatasetError(f"not readable as text: {reason}", file=path) from reason
    lines = [(f"line {number}", line.strip()) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
    if not lines:
        raise DatasetError("empty", file=path, expected=tree)
    return lines


def image(root: Path, name: str) -> ImageFile:
    """The image at a path below the dataset's folder, which is also its name there."""
    return ImageFile(root / name, name)


def image_names(folder: Path) -> list[str]:
    """The names of the images in a folder, sorted."""
    # What begins with a dot are leftovers of file managers, which some archives contain.
    with os.scandir(folder) as entries:
        names = [entry.name for entry in entries]
    return sorted(name for name in names if name.lower().endswith(IMAGE_ENDINGS) and not name.startswith("."))


def missing_images(root: Path, names: Iterable[str]) -> set[str]:
    """Those of the paths below the dataset's folder where no file is. Each folder is listed only once."""
    listed: dict[str, frozenset[str]] = {}
    missing = set()
    for name in names:
        folder, _, file = name.rpartition("/")
        if folder not in listed:
            path = root / folder
            listed[folder] = frozenset(os.listdir(path)) if path.is_dir() else frozenset()
        if file not in listed[folder]:
            missing.add(name)
    return missing


def need_images(root: Path, names: Sequence[str], index: Path, tree: str, hint: str = "") -> None:
    """Check that every image of an index is there.

    Raises:
        DatasetError: one is not; it names the first of them and their number.
    """
    missing = missing_images(root, names)
    if missing:
        first = next(name for name in names if name in missing)
        raise DatasetError(
            f"no such image, which {index.name} lists{hint}",
            file=root / first,
            field=index.name,
            found=f"{len(missing)} of {len(set(names))} images missing",
            expected=tree,
        )


def class_images(root: Path, folder: str, tree: str) -> list[ClassImage]:
    """Every image of a folder that has one folder per place, sorted by place and name whatever the disk's order.

    Args:
        root: of the dataset.
        folder: below it.
        tree: for the error.

    Raises:
        DatasetError: no such folder, no places in it, or a place without an image.
    """
    path = need_folder(root / folder, tree)
    with os.scandir(path) as entries:
        places = sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))
    if not places:
        raise DatasetError("no folders of places in it", file=path, expected=tree)
    found = []
    for place in places:
        names = image_names(path / place)
        if not names:
            raise DatasetError("no image in it", file=path / place, expected=" or ".join(IMAGE_ENDINGS))
        found += [(place, image(root, f"{folder}/{place}/{name}")) for name in names]
    return found


def class_set(
    name: str,
    split: str,
    queries: Sequence[ClassImage],
    references: Sequence[ClassImage],
    root: Path,
    *,
    unmatched: bool = False,
) -> CrossViewSet:
    """A set in which images match that have the same place.

    Class numbers count the places that have both views, in sorted order.

    Args:
        name, split: of the set.
        queries, references: images, each with the id of its place.
        root: for the error.
        unmatched: the queries are the gallery, see `CrossViewSet`: then it is every reference that needs a match.

    Raises:
        DatasetError: a place that must have both views has only one.
    """
    of_queries, of_references = {place for place, _ in queries}, {place for place, _ in references}
    lonely = sorted(of_references - of_queries if unmatched else of_queries - of_references)
    if lonely:
        here, there = (references, queries) if unmatched else (queries, references)
        example = next(shot for place, shot in here if place == lonely[0])
        raise DatasetError(
            "a place that the other view does not have",
            file=example.path.parent,
            field="id",
            found=lonely[0],
            expected=f"the same id beside {there[0][1].path.parent.relative_to(root)}",
        )
    labels = labels_of(sorted(of_queries & of_references))
    indices: dict[str, list[int]] = {}
    for index, (place, _) in enumerate(references):
        indices.setdefault(place, []).append(index)
    arrays = {place: np.array(found, np.int64) for place, found in indices.items()}
    nothing = np.empty(0, np.int64)
    return CrossViewSet(
        name,
        split,
        [shot for _, shot in queries],
        [shot for _, shot in references],
        [arrays.get(place, nothing) for place, _ in queries],
        np.array([labels.get(place, -1) for place, _ in queries], np.int64),
        np.array([labels.get(place, -1) for place, _ in references], np.int64),
        unmatched=unmatched,
    )
