"""Training: it learns, it survives a kill, it refuses what does not fit, and it follows from its seed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import rasterio
import torch
from rasterio.transform import from_origin
from typer.testing import CliRunner

from cvgl.camera import Camera
from cvgl.errors import CvglError, MapError, ModelError
from cvgl.imagery import MapSource
from cvgl.sim.views import MapImage, ViewSettings
from cvgl_train.adapt import adapt, read_map
from cvgl_train.cli import app
from cvgl_train.data.batch import Batch
from cvgl_train.models.nano import Nano, NanoConfig, load_weights, save_weights
from cvgl_train.pairs import MapPairs, clustered_places
from cvgl_train.recipes import read_recipe
from cvgl_train.training.loop import pick_device
from cvgl_train.training.source import StreamSource
from cvgl_train.training.stream import FitSettings, fit, retrieval

SMALL = NanoConfig(widths=(12, 16, 24), blocks=(0, 0, 0), reduced=4, descriptor_size=32, input_px=32)
CAMERA = Camera.from_field_of_view(320, 240, 60.0)
FAST = FitSettings(minutes=5, steps=6, batch=12, validate=24, checkpoint_seconds=1e9)


def picture(size: int = 480) -> np.ndarray:
    rng = np.random.default_rng(2)
    coarse = rng.integers(0, 255, (size // 12, size // 12, 3)).astype(np.uint8)
    return cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC)


@pytest.fixture(scope="module")
def pairs() -> MapPairs:
    rgb = picture()
    image = MapImage.of(rgb, np.ones(rgb.shape[:2], bool), 0.5, -120.0, 120.0)
    return MapPairs(image, ViewSettings(CAMERA, 35.0, 1.0, tile_px=32, offset_m=3.0, light=0.3))


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("map") / "town.tif"
    rgb = picture()
    profile = {"driver": "GTiff", "width": 480, "height": 480, "count": 3, "dtype": "uint8", "crs": "EPSG:32633"}
    with rasterio.open(path, "w", transform=from_origin(500000, 5000000, 0.5, 0.5), **profile) as file:
        file.write(rgb.transpose(2, 0, 1))
    return path


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("start") / "start.npz"
    save_weights(Nano(SMALL), path)
    return path


def test_training_learns_to_tell_places_apart(pairs: MapPairs, tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = Nano(SMALL)
    record = fit(net, pairs, tmp_path, replace(FAST, steps=40, batch=24), device="cpu")
    assert record["steps"] == 40
    held = StreamSource(pairs, 24, 0.25, seed=99).held_back(48)
    untrained = retrieval(Nano(SMALL), held, torch.device("cpu"))
    trained = retrieval(net, held, torch.device("cpu"))
    assert trained["R@5"] > untrained["R@5"] + 0.2


def test_batches_follow_from_the_generator_alone(pairs: MapPairs) -> None:
    first, second = (pairs.draw(np.random.default_rng([3, 1]), 10) for _ in range(2))
    assert torch.equal(first.images, second.images) and torch.equal(first.queries, second.queries)
    assert first.images.shape == (20, 3, 32, 32)


def test_a_batch_holds_near_and_far_negatives() -> None:
    covered = np.ones((60, 60), bool)
    places = clustered_places(np.random.default_rng(0), 200, covered, 10.0, 100.0, 0.5)
    apart = np.linalg.norm(places[:, None] - places[None], axis=2)[~np.eye(200, dtype=bool)]
    assert places.shape == (200, 2) and places.min() >= 0 and places.max() <= 600
    assert (apart < 80).mean() > 0.05 and (apart > 200).mean() > 0.3


def test_a_collapsed_network_retrieves_nothing() -> None:
    class Collapsed(Nano):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.ones(len(x), 4) / 2

    images, numbers = torch.zeros(10, 3, 32, 32), torch.arange(10)
    batch = Batch(images, images, numbers, torch.zeros(10, 10, dtype=torch.bool), numbers, numbers)
    assert retrieval(Collapsed(SMALL), batch, torch.device("cpu")) == {"R@1": 0.0, "R@5": 0.0}


def test_an_adaptation_is_resumed_where_it_stopped(town: Path, start: Path, tmp_path: Path) -> None:
    with MapSource.open(town) as source:
        first = adapt(source, CAMERA, 35.0, start, 5, tmp_path, tile_size_m=32, settings=FAST)
        assert first.record["steps"] == 6 and first.gsd_m == 1.0
        longer = replace(FAST, steps=9)
        second = adapt(source, CAMERA, 35.0, start, 5, tmp_path, tile_size_m=32, settings=longer)
        assert second.record["steps"] == 9
        assert second.record["seconds"] > first.record["seconds"]
        assert len(second.record["curve"]) == len(first.record["curve"]) + 1
        assert load_weights(second.weights).config == SMALL
        with pytest.raises(ModelError, match="another run"):
            adapt(source, CAMERA, 35.0, start, 5, tmp_path, tile_size_m=32, settings=FAST, seed=1)
    assert not (tmp_path / "map.npy").exists()


def test_time_used_before_a_kill_counts(pairs: MapPairs, tmp_path: Path) -> None:
    settings = FitSettings(minutes=0.02, batch=8, validate=8, checkpoint_seconds=1e9)
    record = fit(Nano(SMALL), pairs, tmp_path, settings, device="cpu")
    again = fit(Nano(SMALL), pairs, tmp_path, settings, device="cpu")
    assert record["seconds"] >= 1.2 and again["steps"] == record["steps"]


def test_a_damaged_checkpoint_is_named(pairs: MapPairs, tmp_path: Path) -> None:
    (tmp_path / "checkpoint.pt").write_bytes(b"nothing")
    with pytest.raises(ModelError, match=r"checkpoint\.pt"):
        fit(Nano(SMALL), pairs, tmp_path, FAST, device="cpu")


def test_the_map_is_read_in_strips_and_in_place(town: Path, tmp_path: Path) -> None:
    with MapSource.open(town) as source:
        image = read_map(source, 0.5, tmp_path / "map.npy")
        west, _, _, north = source.bounds
        whole, valid = source.read(west, north, image.rgba.shape[1], image.rgba.shape[0], 0.5)
    assert np.array_equal(image.rgba[..., 3] > 0, valid)
    assert np.abs(image.rgba[..., :3].astype(int) - whole).mean() < 1


def test_a_map_smaller_than_a_tile_is_refused(town: Path, start: Path, tmp_path: Path) -> None:
    with MapSource.open(town) as source, pytest.raises(MapError, match="no place for a tile"):
        adapt(source, CAMERA, 35.0, start, 1, tmp_path, tile_size_m=2000, settings=FAST)


def test_an_unknown_device_is_refused() -> None:
    with pytest.raises(ModelError, match="no such device"):
        pick_device("abacus")


@pytest.mark.parametrize(
    ("recipe", "changes", "message"),
    [
        ("nano-nothing", [], "no such recipe"),
        ("nano-base", ["minuets=3"], "no field to change"),
        ("nano-base", ["kind=adapt"], "no field to change"),
    ],
)
def test_recipes_refuse_what_they_do_not_know(recipe: str, changes: list[str], message: str) -> None:
    with pytest.raises(CvglError, match=message):
        read_recipe(recipe, changes, ["base", "adapt", "method"])


def test_recipes_that_ship_are_read_and_changed() -> None:
    kind, values = read_recipe("nano-base", ["minutes=2.5", "enlarge=[1]"], ["base", "adapt"])
    assert kind == "base" and values["minutes"] == 2.5 and values["enlarge"] == [1]


def test_the_command_adapts_to_a_map(town: Path, start: Path, tmp_path: Path) -> None:
    CAMERA.to_yaml(tmp_path / "camera.yaml")
    fields = {"map": town, "camera": tmp_path / "camera.yaml", "init": start, "out": tmp_path / "run"}
    changes = [f"{key}={value}" for key, value in fields.items()]
    result = CliRunner().invoke(app, ["nano-adapt", *changes, "minutes=0.01", "height_m=30", "device=cpu"])
    assert result.exit_code == 0, result.output
    assert (tmp_path / "run" / "weights.npz").exists() and "held-back views" in result.output
