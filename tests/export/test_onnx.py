"""A network becomes a bundle that gives the same descriptors, or no bundle appears."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from cvgl.errors import ModelError
from cvgl.model import Model
from cvgl_export import onnx as exporter
from cvgl_train.models.nano import Nano, NanoConfig, normalise, save_weights

SMALL = NanoConfig(widths=(8, 16, 32), blocks=(1, 0, 1), reduced=8, descriptor_size=48, input_px=64)


@pytest.fixture(scope="module")
def net() -> Nano:
    torch.manual_seed(0)
    net = Nano(SMALL)
    # Statistics and scales other than the initial ones, or folding them would prove nothing.
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.normal_(module.bias, std=0.2)
            torch.nn.init.normal_(module.running_mean, std=0.2)
            torch.nn.init.uniform_(module.running_var, 0.5, 1.5)
    return net.eval()


def patches(count: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (count, 8, 8, 3)).astype(np.uint8)
    masks = np.ones((count, 64, 64), bool)
    masks[:, :, :10] = False
    return np.repeat(np.repeat(coarse, 8, axis=1), 8, axis=2), masks


@pytest.fixture(scope="module")
def bundle(net: Nano, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("export")
    save_weights(net, folder / "weights.npz")
    record = {"minutes": 3}
    exporter.export_bundle(folder / "weights.npz", folder / "small.cvgl", 0.8, record, patches=normalise(*patches(6)))
    return folder / "small.cvgl"


@pytest.mark.parametrize("count", [1, 5])
def test_the_bundle_embeds_as_the_network_does(net: Nano, bundle: Path, count: int) -> None:
    rgb, masks = patches(count)
    with torch.no_grad():
        expected = net(normalise(rgb, masks)).numpy()
    model = Model.open(bundle)
    found = model.embed(np.ascontiguousarray(rgb[..., ::-1]), masks)
    assert found.shape == (count, 48)
    assert float((expected * found).sum(1).min()) > 0.9999


def test_the_bundle_says_what_it_is(bundle: Path) -> None:
    model = Model.open(bundle)
    assert model.name == "small" and model.architecture == "cvgl-nano"
    assert model.views["query"].gsd_m == 0.8 and model.views["query"] == model.views["reference"]
    assert model.training["minutes"] == 3
    assert model.training["export"]["least cosine"] > 0.9999


def test_weights_are_stored_in_half_precision_and_nothing_tells_where_it_was_made(net: Nano, bundle: Path) -> None:
    data = (bundle / "embed.onnx").read_bytes()
    parameters = sum(p.numel() for p in net.parameters())
    assert len(data) < 2.6 * parameters + 60_000
    assert str(Path(exporter.__file__).parents[2]).encode() not in data


def test_a_network_that_does_not_survive_export_is_not_shipped(
    net: Nano, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = exporter.write_onnx

    def damaged(source: Nano, path: Path) -> None:
        other = Nano(source.config)
        other.load_state_dict(source.state_dict())
        torch.nn.init.normal_(other.head.weight)
        honest(other.eval(), path)

    monkeypatch.setattr(exporter, "write_onnx", damaged)
    with pytest.raises(ModelError, match="other descriptors"):
        exporter.export_bundle(net, tmp_path / "bad.cvgl", 0.8, patches=normalise(*patches(4)))
    assert not (tmp_path / "bad.cvgl").exists()


def test_absent_weights_are_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"none\.npz"):
        exporter.export_bundle(tmp_path / "none.npz", tmp_path / "x.cvgl", 0.8)
