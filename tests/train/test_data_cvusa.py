"""CVUSA: the lists of pairs without header, and every way in which they can be damaged."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from cvgl_train.data.base import DatasetError
from cvgl_train.data.cvusa import read_cvusa

# As published, the lists are not in the order of the ids.
TRAIN = ("0000005", "0000001", "0000012", "0044416")
VAL = ("0000008", "0000003")


def row(number: str) -> str:
    return f"bingmap/19/{number}.jpg,streetview/panos/{number}.jpg,streetview/annotations/{number}.png\n"


@pytest.fixture
def tree(tmp_path: Path, draw) -> Path:
    (tmp_path / "splits").mkdir()
    for name, ids in (("train", TRAIN), ("val", VAL)):
        (tmp_path / f"splits/{name}-19zl.csv").write_text("".join(row(number) for number in ids))
        for number in ids:
            draw(tmp_path, f"bingmap/19/{number}.jpg", f"streetview/panos/{number}.jpg")
    return tmp_path


@pytest.mark.parametrize("split, ids", [("train", TRAIN), ("test", VAL)])
def test_pairs_are_numbered_as_listed(tree: Path, readable, split: str, ids: tuple[str, ...]) -> None:
    found = read_cvusa(tree, split)
    assert [image.name for image in found.queries] == [f"streetview/panos/{number}.jpg" for number in ids]
    assert [image.name for image in found.references] == [f"bingmap/19/{number}.jpg" for number in ids]
    assert found.query_labels.tolist() == found.reference_labels.tolist() == list(range(len(ids)))
    assert [indices.tolist() for indices in found.matches] == [[i] for i in range(len(ids))]
    assert found.classes == len(ids)
    readable(found)


def test_line_ends_of_any_system(tree: Path) -> None:
    index = tree / "splits/val-19zl.csv"
    index.write_bytes(b"\xef\xbb\xbf" + index.read_bytes().replace(b"\n", b"\r\n") + b"\r\n")
    assert [image.name for image in read_cvusa(tree).references] == [f"bingmap/19/{number}.jpg" for number in VAL]


@pytest.mark.parametrize(
    "removed, split, named",
    [
        ("splits", "train", r"splits/train-19zl\.csv"),
        ("splits/train-19zl.csv", "train", r"train-19zl\.csv: no such file"),
        ("splits/val-19zl.csv", "test", r"val-19zl\.csv: no such file"),
        ("bingmap", "test", r"bingmap/19/0000008\.jpg.*2 of 4 images missing"),
        ("streetview/panos/0000012.jpg", "train", r"streetview/panos/0000012\.jpg.*1 of 8 images missing"),
    ],
)
def test_what_is_missing_is_named(tree: Path, removed: str, split: str, named: str) -> None:
    path = tree / removed
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(DatasetError, match=named):
        read_cvusa(tree, split)


@pytest.mark.parametrize(
    "data, named",
    [
        (b"", "empty"),
        (b"\n\n", "empty"),
        (row("0000008").encode() + b"bingmap/19/0000003.jpg\n", "line 2: malformed"),
        (b",streetview/panos/0000008.jpg,\n", "line 1: malformed"),
        (b"\xff\xfe\x00", "not readable"),
    ],
)
def test_damaged_lists_are_named(tree: Path, data: bytes, named: str) -> None:
    (tree / "splits/val-19zl.csv").write_bytes(data)
    with pytest.raises(DatasetError, match=rf"val-19zl\.csv: .*{named}"):
        read_cvusa(tree)


def test_there_are_two_splits(tree: Path) -> None:
    with pytest.raises(DatasetError, match=r"split.*found 'val'.*train or test"):
        read_cvusa(tree, "val")
