"""CVM-Net and NetVLAD."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from cvgl.errors import ModelError
from cvgl_train.checkpoint import load_model, save_model
from cvgl_train.models.base import View
from cvgl_train.models.cvm_net import CvmNet
from cvgl_train.models.netvlad import NetVlad, sample_features
from cvgl_train.models.siamese import vgg16_convolutions
from cvgl_train.registry import create_model

SMALL: dict[str, Any] = {
    "vgg_width": 2,
    "clusters": 3,
    "descriptor_size": 10,
    "query_size": (32, 64),
    "reference_size": (48, 48),
}
NAMES = ("cvm-net-1", "cvm-net-2")


def small(name: str, **changes: Any) -> CvmNet:
    torch.manual_seed(0)
    model = create_model(name, **{**SMALL, **changes})
    assert isinstance(model, CvmNet)
    return model


def images(view: View, count: int = 3, seed: int = 1) -> Tensor:
    size = SMALL[f"{view}_size"]
    return torch.randn(count, 3, *size, generator=torch.Generator().manual_seed(seed))


def clustered(count: int = 600, clusters: int = 5, size: int = 8, spread: float = 0.1) -> NDArray[np.float32]:
    """Unit vectors round a few directions."""
    rng = np.random.default_rng(2)
    centres = rng.standard_normal((clusters, size))
    values = centres[rng.integers(0, clusters, count)] + spread * rng.standard_normal((count, size))
    return (values / np.linalg.norm(values, axis=1, keepdims=True)).astype(np.float32)


VGG = 14_714_688
FROZEN = 1_735_488
VLAD = 512 * 64 + 64 + 64 * 512
REDUCE = 64 * 512 * 4096 + 4096
ALIGN = 2 * (512 * 512 + 512) + (9 * 512 * 512 + 512) + (512 * 512 + 512)


@pytest.mark.parametrize(
    ("name", "whole"), [("cvm-net-1", 2 * VGG + 2 * VLAD + REDUCE), ("cvm-net-2", 2 * VGG + ALIGN + VLAD + REDUCE)]
)
def test_parameters_are_those_of_the_papers_layers(name: str, whole: int) -> None:
    with torch.device("meta"):
        model = create_model(name)
    assert sum(p.numel() for p in model.parameters()) == whole
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == whole - 2 * FROZEN
    groups = model.parameter_groups()
    assert sum(p.numel() for p in groups["backbone"]) == 2 * (VGG - FROZEN)
    assert sum(p.numel() for group in groups.values() for p in group) == whole - 2 * FROZEN
    assert (model.info.descriptor_size, model.info.metric, model.info.shared) == (4096, "cosine", False)


@pytest.mark.parametrize("name", NAMES)
def test_descriptors_have_the_chosen_size_and_unit_length_in_both_views(name: str) -> None:
    model = small(name).eval()
    views: tuple[View, ...] = ("query", "reference")
    for view in views:
        height, width = SMALL[f"{view}_size"]
        assert model.local_features(images(view), view).shape == (3, 16, height // 16, width // 16)
        descriptors = model.embed(images(view), view)
        assert descriptors.shape == (3, 10)
        assert torch.allclose(descriptors.norm(dim=1), torch.ones(3))


def test_the_first_has_a_netvlad_a_view_and_the_second_one_for_both() -> None:
    assert set(small("cvm-net-1").vlad) == {"query", "reference"}
    assert set(small("cvm-net-2").vlad) == {"both"}
    assert small("cvm-net-1").align is None
    assert small("cvm-net-2", aligned=False).align is None
    for name in NAMES:
        model = small(name).eval()
        same = torch.randn(2, 3, 48, 48)
        assert not torch.allclose(model(same, "query").descriptor, model(same, "reference").descriptor)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("frozen", [0, 3])
def test_the_gradient_reaches_what_is_trained_and_only_that(name: str, frozen: int) -> None:
    model = small(name, frozen_stages=frozen, vgg_width=8, dropout=0.0).train()
    query, reference = model.forward_pair(images("query"), images("reference"))
    (query.descriptor * reference.descriptor).sum().backward()
    for key, p in model.named_parameters():
        # The first convolutions of three stages: 2 + 2 + 3 of them.
        stage_3 = key.startswith("local.") and int(key.split(".")[3]) < 17
        assert p.requires_grad is not (frozen == 3 and stage_3), key
        assert (p.grad is not None and bool(p.grad.any())) is p.requires_grad, key


def test_dropout_changes_training_and_nothing_else() -> None:
    model = small("cvm-net-1", vgg_width=8)
    first, second = (model.train()(images("query"), "query").descriptor for _ in range(2))
    assert not torch.allclose(first, second)
    first, second = (model.eval()(images("query"), "query").descriptor for _ in range(2))
    assert torch.equal(first, second)
    # In the fourth and fifth stage: after three convolutions each.
    assert len(model.local["query"].dropped) == 6


def test_the_local_features_are_vggs_up_to_the_last_relu() -> None:
    model = small("cvm-net-1").eval()
    donor = vgg16_convolutions(2)
    state = {f"features.{key}": value for key, value in donor.state_dict().items()}
    assert model.load_backbone({**state, "classifier.0.bias": torch.zeros(1)}) == ["classifier.0.bias"]
    for view in ("query", "reference"):
        assert torch.allclose(model.local[view](images("query")), donor[:-1](images("query")))
    with pytest.raises(ModelError, match=r"missing: features\.0\.bias"):
        model.load_backbone({key: value for key, value in state.items() if key != "features.0.bias"})


@settings(max_examples=20, deadline=None)
@given(st.integers(2, 5), st.integers(1, 6), st.integers(1, 3), st.integers(1, 4), st.integers(0, 999))
def test_netvlad_is_its_definition(clusters: int, size: int, height: int, width: int, seed: int) -> None:
    torch.manual_seed(seed)
    layer = NetVlad(clusters, size)
    x = torch.randn(2, size, height, width)
    found = layer(x).detach().numpy()
    assert found.shape == (2, clusters * size)
    weights = layer.assignment.weight.detach().double().numpy()[:, :, 0, 0]
    assert layer.assignment.bias is not None
    biases = layer.assignment.bias.detach().double().numpy()
    centres = layer.centres.detach().double().numpy()
    for image, row in zip(x.double().numpy(), found, strict=True):
        vlad = np.zeros((clusters, size))
        for i in range(height):
            for j in range(width):
                local = image[:, i, j] / np.linalg.norm(image[:, i, j])
                scores = np.exp(weights @ local + biases)
                for k in range(clusters):
                    vlad[k] += scores[k] / scores.sum() * (local - centres[k])
        vlad /= np.linalg.norm(vlad, axis=1, keepdims=True)
        assert np.abs(row - vlad.ravel() / np.linalg.norm(vlad)).max() < 1e-4


def test_netvlad_starts_from_clusters_with_a_nearly_hard_assignment() -> None:
    samples = clustered()
    layer = NetVlad(5, 8)
    alpha = layer.set_centres(samples, seed=0)
    centres = layer.centres.detach().numpy()
    squares = ((samples[:, None] - centres[None]) ** 2).sum(2)
    order = np.sort(squares, axis=1)
    assert alpha == pytest.approx(np.log(100) / (order[:, 1] - order[:, 0]).mean(), rel=1e-3)
    with torch.no_grad():
        shares = layer.assign(torch.from_numpy(samples).T[None, :, :, None])[0].T.numpy()
    # The softmax over -alpha x squared distance, by definition.
    expected = np.exp(-alpha * (squares - order[:, :1]))
    assert np.abs(shares - expected / expected.sum(1, keepdims=True)).max() < 1e-3
    assert (shares.argmax(1) == squares.argmin(1)).all()
    assert np.median(shares.max(1)) > 0.95


def test_centres_do_not_depend_on_anything_but_samples_and_seed() -> None:
    first, second = NetVlad(5, 8), NetVlad(5, 8)
    assert first.set_centres(clustered(), seed=3) == second.set_centres(clustered(), seed=3)
    assert all(torch.equal(one, other) for one, other in zip(first.parameters(), second.parameters(), strict=True))


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        (clustered(4), "at least 5"),
        (np.repeat(clustered(4), 9, 0), "at least 5"),
        (clustered(size=7), "wrong features"),
    ],
)
def test_too_few_or_other_samples_are_refused(samples: NDArray[np.float32], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        NetVlad(5, 8).set_centres(samples, seed=0)


def test_sampling_takes_so_many_of_an_image_and_no_more_images_than_needed() -> None:
    drawn: list[int] = []

    def batches() -> Iterator[Tensor]:
        for n in range(10):
            drawn.append(n)
            yield torch.randn(2, 3, 4, 4)

    rows = sample_features(lambda x: x, batches(), 0, per_image=5, total=18)
    assert rows.shape == (18, 3) and len(drawn) == 2
    assert np.allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)
    assert len(np.unique(rows, axis=0)) == 18
    with pytest.raises(ModelError, match="no training images"):
        sample_features(lambda x: x, iter(()), 0)


@pytest.mark.parametrize("name", NAMES)
def test_a_model_prepares_its_netvlads_from_training_images(name: str) -> None:
    model = small(name).train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    asked: list[View] = []

    def batches(view: View) -> Iterator[Tensor]:
        asked.append(view)
        return iter([images(view, 6, seed) for seed in range(4)])

    model.initialise(batches, seed=0)
    assert asked == ["query", "reference"]
    assert model.training and model.vlad.training
    changed = {key.split(".")[0] for key, value in model.state_dict().items() if not torch.equal(value, before[key])}
    assert changed == {"vlad"}
    model.eval()
    views: tuple[View, ...] = ("query", "reference")
    for view in views:
        layer = model.vlad["both" if name == "cvm-net-2" else view]
        assert isinstance(layer, NetVlad)
        with torch.no_grad():
            local = F.normalize(model.local_features(images(view, 6, 0), view), dim=1)
            shares = layer.assign(local).transpose(1, 2).flatten(0, 1)
            nearest = torch.cdist(local.flatten(2).transpose(1, 2).flatten(0, 1), layer.centres).argmin(1)
        assert (shares.argmax(1) == nearest).float().mean() > 0.99


@pytest.mark.parametrize("name", NAMES)
def test_a_checkpoint_comes_back_the_same(name: str, tmp_path: Path) -> None:
    model = small(name).eval()
    save_model(model, tmp_path / "model.pt", {})
    again = load_model(tmp_path / "model.pt")
    assert (again.settings, again.info) == (model.settings, model.info)
    assert torch.equal(again.embed(images("reference"), "reference"), model.embed(images("reference"), "reference"))


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"clusters": 1}, "clusters"),
        ({"query_size": (8, 64)}, "query_size"),
        ({"reference_size": (64,)}, "reference_size"),
        ({"descriptor_size": 0}, "descriptor_size"),
        ({"frozen_stages": 6}, "frozen_stages"),
        ({"dropout": 1.0}, "dropout"),
        ({"vgg_width": 0}, "vgg_width"),
    ],
)
def test_settings_that_cannot_be_are_refused_by_name(changes: dict[str, Any], field: str) -> None:
    with pytest.raises(ModelError) as raised:
        small("cvm-net-1", **changes)
    assert raised.value.field == field
