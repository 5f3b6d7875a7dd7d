"""The base model's data: a place looks the same on all its days and through the drone's camera."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cvgl_train import places as module
from cvgl_train.places import Place, PlacePairs, dated_place, load_place, render_place


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return load_place(render_place(11, tmp_path_factory.mktemp("places") / "place.npz", days=1, frames=3))


def gradients(image: np.ndarray) -> np.ndarray:
    grey = image.astype(np.float32).mean(axis=2)
    dy, dx = np.gradient(grey)
    strength = np.hypot(dx, dy)
    return strength / (strength.std() + 1e-6)


def agreement(a: np.ndarray, b: np.ndarray, mask: np.ndarray) -> float:
    return float(np.corrcoef(gradients(a)[mask], gradients(b)[mask])[0, 1])


def test_the_days_of_a_place_show_the_same_ground(place: Place) -> None:
    first, second = place.images
    assert first.rgba.shape == second.rgba.shape and not np.array_equal(first.rgba, second.rgba)
    mask = np.ones(first.rgba.shape[:2], bool)
    shifted = np.roll(second.rgba[..., :3], 60, axis=1)
    same = agreement(first.rgba[..., :3], second.rgba[..., :3], mask)
    assert same > agreement(first.rgba[..., :3], shifted, mask) + 0.05


def test_a_rendered_frame_lies_where_it_says(place: Place) -> None:
    for frame, mask, center in zip(place.frames, place.masks, place.centers, strict=True):
        assert mask.mean() > 0.4 and not frame[~mask].any()
        there = module.reference_tile(place.images[0], *center, place.settings)[0]
        away = module.reference_tile(place.images[0], center[0] - 30, center[1] + 20, place.settings)[0]
        middle = mask.copy()
        middle[:40], middle[88:], middle[:, :40], middle[:, 88:] = False, False, False, False
        if there[middle].std() > 25:
            assert agreement(frame, there, middle) > agreement(frame, away, middle)


def test_a_rendered_place_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "place.npz"
    path.write_bytes(b"finished")
    assert render_place(1, path).read_bytes() == b"finished"


def test_pairs_are_of_the_places_and_follow_from_the_generator(place: Place) -> None:
    source = PlacePairs([place, place], per_batch=2)
    first, second = (source.draw(np.random.default_rng(4), 9) for _ in range(2))
    assert first.images.shape == (18, 3, 128, 128)
    assert bool((first.images == second.images).all())
    assert sorted(set(first.groups.tolist())) == [0, 1]
    # Offsets between a tile and its view, in units of the tile.
    assert float((first.queries - first.references).abs().max()) < 0.2


@pytest.mark.data
def test_imagery_of_several_dates_lies_on_one_grid(cvgl_data: Path) -> None:
    files = sorted((cvgl_data / "maps" / "naip").glob("*.tif"))[:2]
    if len(files) < 2:
        pytest.skip("no NAIP imagery in the shared data")
    place = dated_place(files, 1.0, 0)
    a, b = (image.rgba for image in place.images)
    assert a.shape == b.shape and place.references == 2
    mask = (a[..., 3] > 0) & (b[..., 3] > 0)
    assert agreement(a[..., :3], b[..., :3], mask) > 0.3
