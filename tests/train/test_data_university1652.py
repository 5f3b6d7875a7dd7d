"""University-1652: the official tree, both directions, and every way in which it can be incomplete."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from cvgl_train.data.base import DatasetError
from cvgl_train.data.university1652 import read_university1652

NUMBERS = (1, 18, 19, 36, 37, 54)
TRAIN = ("0839", "0001", "0002")
TEST = ("0010", "0003")
EXTRA = ("0004", "0005", "0100")


@pytest.fixture
def tree(tmp_path: Path, draw) -> Path:
    for top, ids in (
        ("train/{}", TRAIN),
        ("test/query_{}", TEST),
        ("test/gallery_{}", TEST + EXTRA),
    ):
        for place in ids:
            draw(tmp_path, *(f"{top.format('drone')}/{place}/image-{number:02d}.jpeg" for number in NUMBERS))
            draw(tmp_path, f"{top.format('satellite')}/{place}/{place}.jpg")
            draw(tmp_path, *(f"{top.format('street')}/{place}/{number}.jpg" for number in (1, 2)))
    for place in TRAIN:
        draw(tmp_path, f"train/google/{place}/1.JPG", f"train/google/{place}/2.png")
    (tmp_path / "train/drone/.DS_Store").write_bytes(b"x")
    (tmp_path / "train/drone/0001/.DS_Store").write_bytes(b"x")
    (tmp_path / "train/drone/0001/._image-01.jpeg").write_bytes(b"x")
    (tmp_path / "train/satellite/readme.txt").write_text("x")
    return tmp_path


def matched(found) -> list[tuple[str, list[str]]]:
    return [
        (query.name, [found.references[i].name for i in indices])
        for query, indices in zip(found.queries, found.matches, strict=True)
    ]


def test_training_pairs_a_building_by_its_folder(tree: Path, readable) -> None:
    found = read_university1652(tree, "train")
    assert (len(found.queries), len(found.references), found.classes) == (18, 3, 3)
    assert found.query_labels.tolist() == [0] * 6 + [1] * 6 + [2] * 6
    assert found.reference_labels.tolist() == [0, 1, 2]
    assert [image.name for image in found.references] == [f"train/satellite/{i}/{i}.jpg" for i in sorted(TRAIN)]
    assert matched(found)[0] == ("train/drone/0001/image-01.jpeg", ["train/satellite/0001/0001.jpg"])
    readable(found)


@pytest.mark.parametrize("queries, count", [("street", 6), ("google", 6)])
def test_training_on_street_images(tree: Path, readable, queries: str, count: int) -> None:
    found = read_university1652(tree, "train", queries=queries)
    assert len(found.queries) == count
    assert found.reference_labels.tolist() == [0, 1, 2]
    readable(found)


def test_the_test_has_distractors(tree: Path, readable) -> None:
    found = read_university1652(tree)
    assert (len(found.queries), len(found.references), found.classes) == (12, 5, 2)
    assert not found.unmatched
    assert found.reference_labels.tolist() == [0, -1, -1, 1, -1]  # 0003 0004 0005 0010 0100
    assert matched(found)[6] == ("test/query_drone/0010/image-01.jpeg", ["test/gallery_satellite/0010/0010.jpg"])
    readable(found)


@pytest.mark.parametrize("view, each", [("drone", 6), ("street", 2)])
def test_from_satellite_to_the_gallery_of_a_view(tree: Path, readable, view: str, each: int) -> None:
    found = read_university1652(tree, queries=view, gallery=view)
    assert (len(found.queries), len(found.references)) == (5 * each, 2)
    assert found.unmatched
    assert [len(indices) for indices in found.matches].count(0) == 3 * each
    readable(found)
    turned = found.reversed()
    assert not turned.unmatched
    assert [image.name for image in turned.queries] == [
        "test/query_satellite/0003/0003.jpg",
        "test/query_satellite/0010/0010.jpg",
    ]
    assert len(turned.references) == 5 * each
    assert [len(indices) for indices in turned.matches] == [each, each]
    for query, indices in zip(turned.queries, turned.matches, strict=True):
        place = query.name.split("/")[2]
        assert {turned.references[i].name.split("/")[2] for i in indices} == {place}
    assert turned.reference_labels.tolist().count(-1) == 3 * each


@pytest.mark.parametrize("distance, numbers", [("long", (1, 18)), ("middle", (19, 36)), ("short", (37, 54))])
def test_by_distance(tree: Path, distance: str, numbers: tuple[int, int]) -> None:
    found = read_university1652(tree, distance=distance)
    assert [image.name for image in found.queries] == [
        f"test/query_drone/{place}/image-{number:02d}.jpeg" for place in sorted(TEST) for number in numbers
    ]


def test_the_order_of_the_disk_does_not_matter(tree: Path, request: pytest.FixtureRequest) -> None:
    first = read_university1652(tree, "train")
    request.getfixturevalue("backwards")
    second = read_university1652(tree, "train")
    assert [image.name for image in first.queries] == [image.name for image in second.queries]
    assert matched(first) == matched(second)
    assert first.query_labels.tolist() == second.query_labels.tolist()


@pytest.mark.parametrize(
    "removed, split, options, named",
    [
        ("train", "train", {}, "train/drone"),
        ("train/drone", "train", {}, "train/drone"),
        ("train/satellite", "train", {}, "train/satellite"),
        ("train/street", "train", {"queries": "street"}, "train/street"),
        ("train/google", "train", {"queries": "google"}, "train/google"),
        ("train/satellite/0839", "train", {}, "0839"),
        ("test/query_drone", "test", {}, "test/query_drone"),
        ("test/gallery_satellite", "test", {}, "test/gallery_satellite"),
        ("test/gallery_satellite/0010", "test", {}, "0010"),
        ("test/gallery_satellite/0100/0100.jpg", "test", {}, "gallery_satellite/0100"),
        ("test/gallery_drone", "test", {"gallery": "drone"}, "test/gallery_drone"),
        ("test/gallery_drone/0003", "test", {"gallery": "drone"}, "0003"),
        ("test/query_satellite", "test", {"gallery": "drone"}, "test/query_satellite"),
        ("test/query_street", "test", {"queries": "street"}, "test/query_street"),
    ],
)
def test_what_is_missing_is_named(tree: Path, removed: str, split: str, options: dict, named: str) -> None:
    path = tree / removed
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(DatasetError, match=named):
        read_university1652(tree, split, **options)


def test_the_error_says_what_the_tree_looks_like(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"train/\{drone,satellite,street,google\}/<id>/"):
        read_university1652(tmp_path / "absent")
    (tmp_path / "test/query_drone").mkdir(parents=True)
    with pytest.raises(DatasetError, match=r"query_drone: no folders of places"):
        read_university1652(tmp_path)


@pytest.mark.parametrize(
    "split, options, field",
    [
        ("val", {}, "split"),
        ("test", {"queries": "google"}, "queries"),
        ("test", {"queries": "plane"}, "queries"),
        ("test", {"gallery": "street"}, "gallery"),
        ("train", {"gallery": "drone"}, "gallery"),
        ("test", {"distance": "far"}, "distance"),
        ("test", {"distance": "long", "queries": "street"}, "distance"),
    ],
)
def test_options_that_cannot_be(tree: Path, split: str, options: dict, field: str) -> None:
    with pytest.raises(DatasetError) as caught:
        read_university1652(tree, split, **options)
    assert caught.value.field == field


def test_distances_need_numbered_images(tree: Path, draw) -> None:
    draw(tree, "test/query_drone/0003/picture.jpeg")
    with pytest.raises(DatasetError, match=r"picture\.jpeg"):
        read_university1652(tree, distance="long")


def test_a_damaged_image_is_named_when_it_is_read(tree: Path) -> None:
    (tree / "train/satellite/0001/0001.jpg").write_bytes(b"not an image")
    found = read_university1652(tree, "train")
    with pytest.raises(DatasetError, match=r"satellite/0001/0001\.jpg"):
        found.references[0].read()
