"""DenseUAV: the official tree, upper-case endings, old tiles and the lists of positions."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from cvgl_train.data.base import DatasetError
from cvgl_train.data.denseuav import read_denseuav

TRAIN = ("000010", "000002")
TEST = ("002256", "002300", "000003")
HEIGHTS = (80, 90, 100)


def place_of(place: str) -> tuple[float, float]:
    return 30.3 + int(place) * 1e-5, 120.3 + int(place) * 2e-5


def line(split: str, place: str, name: str) -> str:
    latitude, longitude = place_of(place)
    return f"/data/{split}/drone/{place}/{name} E{longitude:.9f} N{latitude:.9f} 98.4\n"


@pytest.fixture
def tree(tmp_path: Path, draw) -> Path:
    for top, ids in (
        ("train/{}", TRAIN),
        ("test/query_{}", TEST),
        ("test/gallery_{}", TRAIN + TEST),
    ):
        for place in ids:
            draw(tmp_path, *(f"{top.format('drone')}/{place}/H{height}.JPG" for height in HEIGHTS))
            for height in HEIGHTS:
                draw(tmp_path, f"{top.format('satellite')}/{place}/H{height}.tif")
                draw(tmp_path, f"{top.format('satellite')}/{place}/H{height}_old.tif")
    texts = {
        split: "".join(line(split, place, f"H{height}.JPG") for place in ids for height in HEIGHTS)
        for split, ids in (("train", TRAIN), ("test", TEST))
    }
    for name, text in (*texts.items(), ("ALL", texts["train"] + texts["test"])):
        (tmp_path / f"Dense_GPS_{name}.txt").write_text(text)
    return tmp_path


@pytest.mark.parametrize("old, each", [(True, 6), (False, 3)])
def test_training(tree: Path, readable, old: bool, each: int) -> None:
    found = read_denseuav(tree, "train", old=old)
    assert (len(found.queries), len(found.references), found.classes) == (6, 2 * each, 2)
    assert found.query_labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert found.reference_labels.tolist() == [0] * each + [1] * each
    assert [image.name.split("/")[-1] for image in found.queries[:3]] == ["H100.JPG", "H80.JPG", "H90.JPG"]
    assert found.query_heights.tolist() == [100, 80, 90] * 2
    assert [len(indices) for indices in found.matches] == [each] * 6
    readable(found)


def test_the_gallery_holds_the_places_of_training_too(tree: Path, readable) -> None:
    found = read_denseuav(tree)
    assert (len(found.queries), len(found.references), found.classes) == (9, 30, 3)
    assert found.reference_labels.tolist().count(-1) == 12
    assert found.frame == "wgs84"
    for images, positions in (
        (found.queries, found.query_positions),
        (found.references, found.reference_positions),
    ):
        expected = [place_of(image.name.split("/")[2]) for image in images]
        np.testing.assert_allclose(positions, expected, atol=1e-8)
    for query, indices in zip(found.queries, found.matches, strict=True):
        place = query.name.split("/")[2]
        assert {found.references[i].name.split("/")[2] for i in indices} == {place}
        assert len(indices) == 6
    readable(found)


def test_from_satellite_to_drone(tree: Path) -> None:
    turned = read_denseuav(tree, gallery="drone").reversed()
    assert (len(turned.queries), len(turned.references)) == (18, 15)
    assert {len(indices) for indices in turned.matches} == {3}
    assert turned.query_positions is not None and turned.reference_positions is not None


def test_the_last_line_of_a_place_counts_as_in_the_authors_evaluation(tree: Path) -> None:
    index = tree / "Dense_GPS_train.txt"
    index.write_text(index.read_text() + "train/drone/000002/H80.JPG E121.5 N31.5 80\n")
    found = read_denseuav(tree, "train")
    assert found.query_positions is not None
    assert found.query_positions[0].tolist() == [31.5, 121.5]


def test_the_order_of_the_disk_does_not_matter(tree: Path, request: pytest.FixtureRequest) -> None:
    first = read_denseuav(tree)
    request.getfixturevalue("backwards")
    second = read_denseuav(tree)
    assert [image.name for image in first.references] == [image.name for image in second.references]
    assert first.query_labels.tolist() == second.query_labels.tolist()


@pytest.mark.parametrize(
    "removed, split, options, named",
    [
        ("train/drone", "train", {}, "train/drone"),
        ("train/satellite", "train", {}, "train/satellite"),
        ("train/satellite/000010", "train", {}, "000010"),
        ("Dense_GPS_train.txt", "train", {}, "Dense_GPS_train.txt"),
        ("Dense_GPS_ALL.txt", "test", {}, "Dense_GPS_ALL.txt"),
        ("test/query_drone", "test", {}, "test/query_drone"),
        ("test/gallery_satellite", "test", {}, "test/gallery_satellite"),
        ("test/gallery_drone", "test", {"gallery": "drone"}, "test/gallery_drone"),
        ("test/query_satellite", "test", {"gallery": "drone"}, "test/query_satellite"),
    ],
)
def test_what_is_missing_is_named(tree: Path, removed: str, split: str, options: dict, named: str) -> None:
    path = tree / removed
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(DatasetError, match=named):
        read_denseuav(tree, split, **options)


@pytest.mark.parametrize(
    "text, named",
    [
        ("", "empty"),
        ("train/drone/000002/H80.JPG\n", "line 1"),
        ("train/drone/000002/H80.JPG 120.3 30.3 80\n", "line 1.*malformed"),
        ("H80.JPG E120.3 N30.3 80\n", "line 1.*malformed"),
        (line("train", "000002", "H80.JPG") + "\n" + "a/000010/H80.JPG Ehere N30.3 80\n", "line 3.*not a number"),
        ("a/000010/H80.JPG E120.3 Nnan 80\n", "line 1.*not a number"),
        ("a/000010/H80.JPG E220.3 N30.3 80\n", "line 1.*not a place"),
        (line("train", "000002", "H80.JPG"), "no position.*000010"),
    ],
)
def test_damaged_lists_are_named(tree: Path, text: str, named: str) -> None:
    (tree / "Dense_GPS_train.txt").write_text(text)
    with pytest.raises(DatasetError, match=rf"Dense_GPS_train\.txt.*{named}"):
        read_denseuav(tree, "train")


def test_a_drone_image_says_its_height(tree: Path, draw) -> None:
    draw(tree, "train/drone/000002/low.JPG")
    with pytest.raises(DatasetError, match=r"low\.JPG.*H80"):
        read_denseuav(tree, "train")


@pytest.mark.parametrize("split, options, field", [("val", {}, "split"), ("train", {"gallery": "drone"}, "gallery")])
def test_options_that_cannot_be(tree: Path, split: str, options: dict, field: str) -> None:
    with pytest.raises(DatasetError) as caught:
        read_denseuav(tree, split, **options)
    assert caught.value.field == field
