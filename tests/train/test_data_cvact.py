"""CVACT: MATLAB's indices from 1, three splits in two folders, positions, and damaged indices."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.io import savemat

from cvgl_train.data.base import DatasetError
from cvgl_train.data.cvact import read_cvact

# Ids as panoramas have them: 22 characters, hyphens and leading underscores among them.
IDS = [f"{start}aBcDeFgHiJkLmNoPqRsT{end}" for start, end in zip("_-0zA9bY", "-_aB3xQ7", strict=True)]
UTM = np.array([[690000.0 + 10.5 * i, 6090000.0 - 3.25 * i] for i in range(len(IDS))])
TRAIN, VAL, TEST = [8, 1, 4], [2, 3], [5, 2, 7, 6]
"""From 1."""


def index(**changed: Any) -> dict[str, Any]:
    def column(numbers: list[int]) -> np.ndarray:
        return np.array(numbers, np.uint32)[:, None]

    def mask(numbers: list[int]) -> np.ndarray:
        return np.isin(np.arange(1, len(IDS) + 1), numbers)[:, None]

    whole = {
        "panoIds": np.array(IDS),
        "utm": UTM,
        "trainSet": {"train": mask(TRAIN), "trainInd": column(TRAIN)},
        "valSet": {"val": mask(VAL), "valInd": column(VAL)},
        "valSetAll": {"val": mask(TEST), "valInd": column(TEST)},
    }
    return {name: value for name, value in {**whole, **changed}.items() if value is not None}


@pytest.fixture
def tree(tmp_path: Path, draw) -> Path:
    savemat(tmp_path / "ACT_data.mat", index())
    for folder, numbers in (("ANU_data_small", TRAIN + VAL), ("ANU_data_test", TEST)):
        for number in numbers:
            name = IDS[number - 1]
            draw(tmp_path, f"{folder}/streetview/{name}_grdView.jpg")
            draw(tmp_path, f"{folder}/satview_polish/{name}_satView_polish.jpg")
    return tmp_path


@pytest.mark.parametrize(
    "split, folder, numbers",
    [("train", "ANU_data_small", TRAIN), ("val", "ANU_data_small", VAL), ("test", "ANU_data_test", TEST)],
)
def test_splits(tree: Path, readable, split: str, folder: str, numbers: list[int]) -> None:
    found = read_cvact(tree, split)
    ids = [IDS[number - 1] for number in numbers]
    assert [image.name for image in found.queries] == [f"{folder}/streetview/{i}_grdView.jpg" for i in ids]
    assert [image.name for image in found.references] == [
        f"{folder}/satview_polish/{i}_satView_polish.jpg" for i in ids
    ]
    assert found.query_labels.tolist() == found.reference_labels.tolist() == list(range(len(ids)))
    assert [indices.tolist() for indices in found.matches] == [[i] for i in range(len(ids))]
    assert found.frame == "metres"
    np.testing.assert_array_equal(found.query_positions, UTM[np.array(numbers) - 1])
    np.testing.assert_array_equal(found.reference_positions, found.query_positions)
    readable(found)


def test_ids_in_cells(tree: Path) -> None:
    savemat(tree / "ACT_data.mat", index(panoIds=np.array(IDS, object)[:, None]))
    assert read_cvact(tree, "val").queries[0].name == f"ANU_data_small/streetview/{IDS[1]}_grdView.jpg"


def test_pairs_with_a_missing_image_can_be_left_out(tree: Path) -> None:
    (tree / f"ANU_data_small/streetview/{IDS[7]}_grdView.jpg").unlink()
    with pytest.raises(DatasetError, match=f"{IDS[7]}_grdView.*allow_missing.*1 of 6"):
        read_cvact(tree, "train")
    found = read_cvact(tree, "train", allow_missing=True)
    assert [image.name.split("/")[-1][:22] for image in found.queries] == [IDS[0], IDS[3]]
    assert found.query_labels.tolist() == [0, 1]
    np.testing.assert_array_equal(found.query_positions, UTM[[0, 3]])
    shutil.rmtree(tree / "ANU_data_small/satview_polish")
    (tree / "ANU_data_small/satview_polish").mkdir()
    with pytest.raises(DatasetError, match="not one image"):
        read_cvact(tree, "train", allow_missing=True)


@pytest.mark.parametrize(
    "removed, split, named",
    [
        ("ACT_data.mat", "train", r"ACT_data\.mat: no such file"),
        ("ANU_data_small", "train", "ANU_data_small/streetview: no such folder"),
        ("ANU_data_small/satview_polish", "val", "ANU_data_small/satview_polish: no such folder"),
        ("ANU_data_test", "test", "ANU_data_test/streetview: no such folder"),
        (f"ANU_data_test/satview_polish/{IDS[1]}_satView_polish.jpg", "test", f"{IDS[1]}_satView_polish.jpg"),
    ],
)
def test_what_is_missing_is_named(tree: Path, removed: str, split: str, named: str) -> None:
    path = tree / removed
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(DatasetError, match=named):
        read_cvact(tree, split)


@pytest.mark.parametrize(
    "changed, named",
    [
        ({"panoIds": None}, "panoIds: no such variable"),
        ({"panoIds": np.array([["a", "b"], ""], object)}, "panoIds"),
        ({"utm": None}, "utm: no such variable"),
        ({"utm": UTM[:3]}, "utm: malformed"),
        ({"utm": np.full_like(UTM, np.nan)}, "utm: not numbers"),
        ({"trainSet": None}, "trainSet: no such variable"),
        ({"trainSet": {"train": 1}}, r"trainSet\.trainInd: no such field"),
        ({"trainSet": np.array([[1.0]])}, r"trainSet\.trainInd: no such field"),
        ({"trainSet": {"trainInd": np.array([[0], [1]])}}, r"trainSet\.trainInd: not indices.*found 0"),
        ({"trainSet": {"trainInd": np.array([[9]])}}, r"trainSet\.trainInd: not indices.*found 9.*1 to 8"),
        ({"trainSet": {"trainInd": np.array([[1.5]])}}, r"trainSet\.trainInd: not indices"),
        ({"trainSet": {"trainInd": np.zeros((0, 1))}}, r"trainSet\.trainInd: not indices"),
        ({"trainSet": {"trainInd": "all of them"}}, r"trainSet\.trainInd: not numbers"),
    ],
)
def test_a_damaged_index_is_named(tree: Path, changed: dict[str, Any], named: str) -> None:
    savemat(tree / "ACT_data.mat", index(**changed))
    with pytest.raises(DatasetError, match=rf"ACT_data\.mat: {named}"):
        read_cvact(tree, "train")


@pytest.mark.parametrize("data", [b"", b"not MATLAB", None])
def test_an_index_that_is_not_matlab(tree: Path, data: bytes | None) -> None:
    path = tree / "ACT_data.mat"
    path.write_bytes(path.read_bytes()[:300] if data is None else data)
    with pytest.raises(DatasetError, match=r"ACT_data\.mat"):
        read_cvact(tree, "train")


def test_splits_that_are_not(tree: Path) -> None:
    with pytest.raises(DatasetError, match=r"split.*train or val or test"):
        read_cvact(tree, "validation")
