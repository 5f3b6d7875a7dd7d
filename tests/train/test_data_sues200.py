"""SUES-200: the divided tree, one height and all of them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from cvgl_train.data.base import DatasetError
from cvgl_train.data.sues200 import HEIGHTS, read_sues200

TRAIN = ("0001", "0120", "0007")
TEST = ("0002", "0200")
DRONES = 3


@pytest.fixture
def tree(tmp_path: Path, draw) -> Path:
    for height in HEIGHTS:
        for top, ids in (
            (f"Training/{height}/{{}}", TRAIN),
            (f"Testing/{height}/query_{{}}", TEST),
            (f"Testing/{height}/gallery_{{}}", TRAIN + TEST),
        ):
            for place in ids:
                draw(tmp_path, *(f"{top.format('drone')}/{place}/{number}.jpg" for number in range(DRONES)))
                draw(tmp_path, f"{top.format('satellite')}/{place}/0.png")
    return tmp_path


@pytest.mark.parametrize("height", HEIGHTS)
def test_one_height(tree: Path, readable, height: int) -> None:
    found = read_sues200(tree, height=height)
    assert (len(found.queries), len(found.references), found.classes) == (2 * DRONES, 5, 2)
    assert found.query_heights.tolist() == [height] * 6
    assert found.reference_labels.tolist() == [-1, 0, -1, -1, 1]  # 0001 0002 0007 0120 0200
    assert {image.name.split("/")[1] for image in (*found.queries, *found.references)} == {str(height)}
    assert [indices.tolist() for indices in found.matches] == [[1]] * 3 + [[4]] * 3
    readable(found)


def test_all_heights_share_the_satellites(tree: Path, readable) -> None:
    found = read_sues200(tree, "train")
    assert (len(found.queries), len(found.references), found.classes) == (4 * 3 * DRONES, 3, 3)
    assert sorted(set(found.query_heights.tolist())) == list(HEIGHTS)
    for image, height in zip(found.queries, found.query_heights, strict=True):
        assert image.name.startswith(f"Training/{height:.0f}/drone/")
    for image, label, indices in zip(found.queries, found.query_labels, found.matches, strict=True):
        place = image.name.split("/")[3]
        assert sorted(TRAIN)[label] == place
        assert [found.references[i].name for i in indices] == [f"Training/150/satellite/{place}/0.png"]
    readable(found)


def test_from_satellite_to_drone(tree: Path) -> None:
    found = read_sues200(tree, height=200, gallery="drone")
    assert found.unmatched
    turned = found.reversed()
    assert [image.name for image in turned.queries] == [f"Testing/200/query_satellite/{i}/0.png" for i in TEST]
    assert (len(turned.references), [len(indices) for indices in turned.matches]) == (5 * DRONES, [DRONES, DRONES])


def test_the_order_of_the_disk_does_not_matter(tree: Path, request: pytest.FixtureRequest) -> None:
    first = read_sues200(tree)
    request.getfixturevalue("backwards")
    second = read_sues200(tree)
    assert [image.name for image in first.queries] == [image.name for image in second.queries]
    assert first.query_labels.tolist() == second.query_labels.tolist()


@pytest.mark.parametrize(
    "removed, split, options, named",
    [
        ("Training", "train", {}, "Training/150/drone"),
        ("Testing/250", "test", {}, "Testing/250/query_drone"),
        ("Testing/150/gallery_satellite", "test", {}, "Testing/150/gallery_satellite"),
        ("Testing/300/gallery_satellite/0200", "test", {"height": 300}, "0200"),
        ("Testing/300/gallery_drone/0002", "test", {"height": 300, "gallery": "drone"}, "0002"),
        ("Training/150/drone/0007/0.jpg", "train", {"height": 150}, None),
        ("Training/150/satellite/0007/0.png", "train", {"height": 150}, "satellite/0007"),
    ],
)
def test_what_is_missing_is_named(tree: Path, removed: str, split: str, options: dict, named: str | None) -> None:
    path = tree / removed
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    if named is None:
        # Numbers of drone images are not part of the tree: a place with fewer is a place.
        assert len(read_sues200(tree, split, **options).queries) == 3 * DRONES - 1
        return
    with pytest.raises(DatasetError, match=named):
        read_sues200(tree, split, **options)


def test_an_undivided_archive_is_told_so(tmp_path: Path) -> None:
    (tmp_path / "satellite-view/0001").mkdir(parents=True)
    with pytest.raises(DatasetError, match=r"Testing/150/query_drone: no such folder.*divided by its authors' script"):
        read_sues200(tmp_path)


@pytest.mark.parametrize(
    "split, options, field",
    [
        ("val", {}, "split"),
        ("test", {"height": 100}, "height"),
        ("test", {"gallery": "street"}, "gallery"),
        ("train", {"gallery": "drone"}, "gallery"),
    ],
)
def test_options_that_cannot_be(tree: Path, split: str, options: dict, field: str) -> None:
    with pytest.raises(DatasetError) as caught:
        read_sues200(tree, split, **options)
    assert caught.value.field == field
