"""GTA-UAV: entries with overlaps, tiles by zoom, positions in metres, and damaged entries."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cvgl_train.data.base import DatasetError
from cvgl_train.data.gta_uav import read_gta_uav

TILES = ("4_5_10.png", "5_10_20.png", "6_20_41.png", "6_21_40.png", "6_21_41.png", "7_0_127.png")


def entry(number: int, positive: dict[str, float], partial: dict[str, float], height: float = 501.8) -> dict[str, Any]:
    both = dict(sorted({**positive, **partial}.items()))
    return {
        "drone_img_dir": "drone/images",
        "drone_img_name": f"500_0001_{number:010d}.png",
        "drone_loc_x_y": [3633.25 + number, 7140.5],
        "sate_img_dir": "satellite",
        "pair_pos_sate_img_list": list(positive),
        "pair_pos_sate_weight_list": list(positive.values()),
        "pair_pos_sate_loc_x_y_list": [[0.0, 0.0] for _ in positive],
        "pair_pos_semipos_sate_img_list": list(both),
        "pair_pos_semipos_sate_weight_list": list(both.values()),
        "pair_pos_semipos_sate_loc_x_y_list": [[0.0, 0.0] for _ in both],
        "drone_metadata": {"height": height, "drone_roll": 4.6, "drone_pitch": 2.0, "drone_yaw": 41.0},
    }


def entries() -> list[dict[str, Any]]:
    return [
        entry(1, {"5_10_20.png": 0.58}, {"6_20_41.png": 0.22, "4_5_10.png": 0.26}),
        entry(2, {"6_21_40.png": 0.41, "6_21_41.png": 0.62}, {"5_10_20.png": 0.2}, 101),
        entry(3, {}, {"4_5_10.png": 0.3}),
        entry(4, {"6_21_40.png": 0.5}, {}),
    ]


@pytest.fixture
def tree(tmp_path: Path, draw) -> Path:
    draw(tmp_path, *(f"satellite/{name}" for name in TILES))
    draw(tmp_path, *(f"drone/images/500_0001_{number:010d}.png" for number in (1, 2, 3, 4)))
    for area in ("cross", "same"):
        for split in ("train", "test"):
            used = entries()[: 4 if area == "cross" else 1]
            (tmp_path / f"{area}-area-drone2sate-{split}.json").write_text(json.dumps(used, indent=4))
    return tmp_path


def named(found, lists) -> list[list[str]]:
    return [[found.references[i].name.removeprefix("satellite/") for i in indices] for indices in lists]


@pytest.mark.parametrize("split", ["train", "test"])
def test_positive_tiles(tree: Path, readable, split: str) -> None:
    found = read_gta_uav(tree, split)
    # The third drone image has no positive tile.
    assert [image.name[-5] for image in found.queries] == ["1", "2", "4"]
    assert [image.name for image in found.references] == [f"satellite/{name}" for name in TILES]
    assert named(found, found.matches) == [["5_10_20.png"], ["6_21_41.png", "6_21_40.png"], ["6_21_40.png"]]
    assert found.semi is not None
    assert named(found, found.semi) == [["4_5_10.png", "6_20_41.png"], ["5_10_20.png"], []]
    assert found.reference_labels.tolist() == [-1, 0, -1, 1, 2, -1]
    assert found.query_labels.tolist() == [0, 2, 1]
    assert found.query_heights.tolist() == [501.8, 101, 501.8]
    readable(found)


def test_partly_overlapping_tiles_can_count_as_true(tree: Path) -> None:
    found = read_gta_uav(tree, positives="pos_semipos")
    assert named(found, found.matches) == [
        ["5_10_20.png", "4_5_10.png", "6_20_41.png"],
        ["6_21_41.png", "6_21_40.png", "5_10_20.png"],
        ["4_5_10.png"],
        ["6_21_40.png"],
    ]
    assert found.semi is None


def test_areas_have_lists_of_their_own(tree: Path) -> None:
    assert len(read_gta_uav(tree, area="same").queries) == 1


def test_positions_are_metres_to_the_east_and_north(tree: Path) -> None:
    found = read_gta_uav(tree)
    assert found.frame == "metres"
    np.testing.assert_allclose(found.query_positions[0], [3634.25, -7140.5])
    # Centres as the authors' lists give them.
    expected = [[3801.6, -7257.6], [3628.8, -7084.8], [3542.4, -7171.2], [3715.2, -6998.4], [3715.2, -7171.2]]
    np.testing.assert_allclose(found.reference_positions[:5], expected)


def test_the_order_of_the_disk_does_not_matter(tree: Path, request: pytest.FixtureRequest) -> None:
    first = read_gta_uav(tree)
    request.getfixturevalue("backwards")
    second = read_gta_uav(tree)
    assert [image.name for image in first.references] == [image.name for image in second.references]
    assert first.query_labels.tolist() == second.query_labels.tolist()


@pytest.mark.parametrize(
    "removed, match",
    [
        ("cross-area-drone2sate-test.json", r"cross-area-drone2sate-test\.json: no such file"),
        ("drone", r"drone/images/500_0001_0000000001\.png.*3 of 3 images missing"),
        ("drone/images/500_0001_0000000004.png", r"500_0001_0000000004\.png.*1 of 3 images missing"),
        ("satellite", "satellite: no such folder"),
        ("satellite/5_10_20.png", r"\[0\]\.pair_pos_sate_img_list.*5_10_20\.png"),
        ("satellite/4_5_10.png", r"\[0\]\.pair_pos_semipos_sate_img_list.*4_5_10\.png"),
    ],
)
def test_what_is_missing_is_named(tree: Path, removed: str, match: str) -> None:
    path = tree / removed
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(DatasetError, match=match):
        read_gta_uav(tree)


@pytest.mark.parametrize(
    "field, value, match",
    [
        ("drone_img_dir", None, r"\[1\]\.drone_img_dir: missing"),
        ("drone_img_name", None, r"\[1\]\.drone_img_name: missing"),
        ("drone_img_name", 7, r"\[1\]\.drone_img_name: malformed"),
        ("sate_img_dir", None, r"\[1\]\.sate_img_dir: missing"),
        ("sate_img_dir", "elsewhere", "sate_img_dir: tiles in several folders"),
        ("drone_loc_x_y", None, r"\[1\]\.drone_loc_x_y: missing"),
        ("drone_loc_x_y", [1.0], r"\[1\]\.drone_loc_x_y: malformed"),
        ("drone_loc_x_y", [1.0, float("nan")], r"\[1\]\.drone_loc_x_y: malformed"),
        ("pair_pos_sate_img_list", None, r"\[1\]\.pair_pos_sate_img_list: missing"),
        ("pair_pos_sate_img_list", "5_10_20.png", r"\[1\]\.pair_pos_sate_img_list: malformed"),
        ("pair_pos_sate_weight_list", None, r"\[1\]\.pair_pos_sate_weight_list: missing"),
        ("pair_pos_sate_weight_list", [0.5], r"\[1\]\.pair_pos_sate_weight_list: malformed.*2 numbers"),
        ("pair_pos_semipos_sate_img_list", None, r"\[1\]\.pair_pos_semipos_sate_img_list: missing"),
        ("pair_pos_semipos_sate_weight_list", ["a"] * 3, r"\[1\]\.pair_pos_semipos_sate_weight_list: malformed"),
        ("drone_metadata", None, r"\[1\]\.drone_metadata\.height: missing"),
        ("drone_metadata", {"height": "high"}, r"\[1\]\.drone_metadata\.height: malformed"),
    ],
)
def test_damaged_entries_are_named(tree: Path, field: str, value: Any, match: str) -> None:
    damaged = entries()
    if value is None:
        del damaged[1][field]
    else:
        damaged[1][field] = value
    path = tree / "cross-area-drone2sate-test.json"
    path.write_text(json.dumps(damaged))
    with pytest.raises(DatasetError, match=rf"cross-area-drone2sate-test\.json: {match}"):
        read_gta_uav(tree)


@pytest.mark.parametrize(
    "text, match",
    [
        ("", "not readable as JSON"),
        ("[{]", "not readable as JSON"),
        ("{}", "not a list"),
        ("[]", "not a list"),
        ("[3]", r"\[0\]: not an entry"),
        (json.dumps([entry(3, {}, {"4_5_10.png": 0.3})]), "no drone image has a true tile"),
    ],
)
def test_damaged_lists_are_named(tree: Path, text: str, match: str) -> None:
    (tree / "cross-area-drone2sate-test.json").write_text(text)
    with pytest.raises(DatasetError, match=rf"cross-area-drone2sate-test\.json: .*{match}"):
        read_gta_uav(tree)


def test_a_tile_says_where_it_is(tree: Path, draw) -> None:
    draw(tree, "satellite/overview.png")
    with pytest.raises(DatasetError, match=r"overview\.png.*<zoom>_<x>_<y>"):
        read_gta_uav(tree)


@pytest.mark.parametrize(
    "split, options, field",
    [("val", {}, "split"), ("test", {"area": "all"}, "area"), ("test", {"positives": "semi"}, "positives")],
)
def test_options_that_cannot_be(tree: Path, split: str, options: dict, field: str) -> None:
    with pytest.raises(DatasetError) as caught:
        read_gta_uav(tree, split, **options)
    assert caught.value.field == field
