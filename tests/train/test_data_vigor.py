"""VIGOR: areas and their cities, semi-positive tiles, positions in names, corrected labels, damaged lists."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from cvgl_train.data.base import DatasetError
from cvgl_train.data.vigor import read_vigor

CITIES = ("Chicago", "NewYork", "SanFrancisco", "Seattle")
TILES = 6


def tile(city: str, number: int) -> str:
    return f"satellite_{41.8 + 0.001 * number:.12f}_-{87.6 + CITIES.index(city):.10f}.png"


def panorama(city: str, number: int) -> str:
    # Ids of panoramas have hyphens and underscores.
    return f"Ab_-x{number}{city},{41.8 + 0.001 * number:.6f},-{87.6 + CITIES.index(city):.6f},.jpg"


def row(city: str, number: int, tiles: tuple[int, ...]) -> str:
    parts = [panorama(city, number)]
    for count, each in enumerate(tiles):
        parts += [tile(city, each), f"{12.5 + count}", f"-{30.25 + count}"]
    return " ".join(parts) + "\n"


# Two panoramas of the training share a tile; tile 4 is nobody's match in the training.
TRAIN = [(0, (3, 1, 2, 5)), (1, (0, 1, 2, 3)), (2, (3, 4, 0, 1))]
TEST = [(3, (4, 3, 5, 2)), (4, (5, 4, 3, 2))]


@pytest.fixture
def tree(tmp_path: Path, draw) -> Path:
    for city in CITIES:
        draw(tmp_path, *(f"{city}/satellite/{tile(city, number)}" for number in range(TILES)))
        draw(tmp_path, *(f"{city}/panorama/{panorama(city, number)}" for number in range(5)))
        texts = {
            "same_area_balanced_train": TRAIN,
            "same_area_balanced_test": TEST,
            "pano_label_balanced": TRAIN + TEST,
        }
        for top, ending in (("splits", ""), ("splits__corrected", "__corrected")):
            folder = tmp_path / top / city
            folder.mkdir(parents=True)
            # The list is not sorted.
            listed = [tile(city, number) for number in reversed(range(TILES))]
            (folder / "satellite_list.txt").write_text("\n".join(listed) + "\n")
            for name, rows in texts.items():
                used = rows[:1] if ending else rows
                (folder / f"{name}{ending}.txt").write_text("".join(row(city, *each) for each in used))
    return tmp_path


@pytest.mark.parametrize(
    "area, split, cities, rows",
    [
        ("same", "train", CITIES, TRAIN),
        ("same", "test", CITIES, TEST),
        ("cross", "train", ("NewYork", "Seattle"), TRAIN + TEST),
        ("cross", "test", ("Chicago", "SanFrancisco"), TRAIN + TEST),
    ],
)
def test_areas(tree: Path, readable, area: str, split: str, cities: tuple[str, ...], rows: list) -> None:
    found = read_vigor(tree, split, area=area)
    assert [image.name for image in found.queries] == [
        f"{city}/panorama/{panorama(city, number)}" for city in cities for number, _ in rows
    ]
    assert [image.name for image in found.references] == [
        f"{city}/satellite/{tile(city, number)}" for city in cities for number in reversed(range(TILES))
    ]
    expected = [(city, tiles) for city in cities for _, tiles in rows]
    assert found.semi is not None
    for (city, tiles), true, semi in zip(expected, found.matches, found.semi, strict=True):
        names = [found.references[i].name for i in (*true, *semi)]
        assert names == [f"{city}/satellite/{tile(city, number)}" for number in tiles]
        assert len(true) == 1
    readable(found)


def test_classes_are_the_tiles_that_have_a_panorama(tree: Path) -> None:
    found = read_vigor(tree, "train", area="cross")
    # By name, that is by latitude: tiles 0, 3, 4, 5 of New York, then those of Seattle.
    assert found.query_labels.tolist() == [1, 0, 1, 2, 3, 5, 4, 5, 6, 7]
    assert found.reference_labels.tolist() == [3, 2, 1, -1, -1, 0, 7, 6, 5, -1, -1, 4]
    assert found.classes == 8


def test_positions_are_in_the_names(tree: Path) -> None:
    found = read_vigor(tree, "test", area="cross")
    np.testing.assert_allclose(found.query_positions[:2], [[41.8, -87.6], [41.801, -87.6]])
    np.testing.assert_allclose(found.reference_positions[[0, 5, 6]], [[41.805, -87.6], [41.8, -87.6], [41.805, -89.6]])
    assert found.frame == "wgs84"


def test_corrected_labels(tree: Path) -> None:
    found = read_vigor(tree, "test", labels="corrected")
    assert len(found.queries) == 4
    shutil.rmtree(tree / "splits__corrected")
    with pytest.raises(DatasetError, match=r"splits__corrected/Chicago/satellite_list\.txt: no such file"):
        read_vigor(tree, "test", labels="corrected")


def test_a_tile_that_is_listed_as_its_own_neighbour(tree: Path) -> None:
    index = tree / "splits/Chicago/same_area_balanced_test.txt"
    index.write_text(row("Chicago", 3, (4, 4, 5, 2)))
    found = read_vigor(tree)
    assert found.semi is not None
    assert len(found.semi[0]) == 2


@pytest.mark.parametrize(
    "removed, split, area, named",
    [
        ("NewYork", "train", "cross", "NewYork/panorama: no such folder"),
        ("Seattle/satellite", "train", "same", "Seattle/satellite: no such folder"),
        ("splits", "train", "same", r"splits/Chicago/satellite_list\.txt: no such file"),
        ("splits/Chicago/satellite_list.txt", "test", "cross", r"splits/Chicago/satellite_list\.txt: no such file"),
        ("splits/Seattle/same_area_balanced_train.txt", "train", "same", "Seattle/same_area_balanced_train"),
        ("splits/Seattle/same_area_balanced_test.txt", "test", "same", "Seattle/same_area_balanced_test"),
        ("splits/NewYork/pano_label_balanced.txt", "train", "cross", "NewYork/pano_label_balanced"),
        (f"Chicago/satellite/{tile('Chicago', 2)}", "test", "same", f"{tile('Chicago', 2)}.*1 of 6 images missing"),
        (f"Chicago/panorama/{panorama('Chicago', 3)}", "test", "same", f"{panorama('Chicago', 3)}.*1 of 2 images"),
    ],
)
def test_what_is_missing_is_named(tree: Path, removed: str, split: str, area: str, named: str) -> None:
    path = tree / removed
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(DatasetError, match=named):
        read_vigor(tree, split, area=area)


GOOD = row("Chicago", 3, (4, 3, 5, 2))


@pytest.mark.parametrize(
    "name, text, named",
    [
        ("same_area_balanced_test", "", "empty"),
        ("same_area_balanced_test", GOOD + GOOD.rsplit(" ", 1)[0] + "\n", "line 2: malformed"),
        ("same_area_balanced_test", GOOD.replace("12.5", "here", 1), "line 1: not a number.*'here'"),
        ("same_area_balanced_test", GOOD.replace(tile("Chicago", 5), "satellite_1_2.png"), "line 1: no such tile"),
        ("same_area_balanced_test", GOOD.replace(",", ";"), "line 1: a panorama without position"),
        ("same_area_balanced_test", GOOD.replace(",41.803000,", ",north,"), "line 1: not a number"),
        ("satellite_list", "tile.png\n", "line 1: a tile without position"),
        ("satellite_list", "satellite_41.8_west.png\n", "line 1: not a number"),
    ],
)
def test_damaged_lists_are_named(tree: Path, name: str, text: str, named: str) -> None:
    (tree / f"splits/Chicago/{name}.txt").write_text(text)
    with pytest.raises(DatasetError, match=rf"splits/Chicago/{name}\.txt: {named}"):
        read_vigor(tree)


@pytest.mark.parametrize(
    "split, options, field",
    [("val", {}, "split"), ("test", {"area": "other"}, "area"), ("test", {"labels": "new"}, "labels")],
)
def test_options_that_cannot_be(tree: Path, split: str, options: dict, field: str) -> None:
    with pytest.raises(DatasetError) as caught:
        read_vigor(tree, split, **options)
    assert caught.value.field == field
