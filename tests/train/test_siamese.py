"""The siamese networks of the PSSR paper."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor

from cvgl.errors import ModelError
from cvgl_train.checkpoint import load_model, save_model
from cvgl_train.models.siamese import Siamese, vgg16_convolutions
from cvgl_train.registry import create_model
from cvgl_train.weights import load_backbone

SMALL: dict[str, dict[str, Any]] = {
    "vgg16": {"image_size": 32, "vgg_width": 8, "head": (12, 8, 6)},
    "resnet50": {"image_size": 32, "backbone": "resnet18", "head": (12, 8, 6)},
}


def small(name: str, **settings: Any) -> Siamese:
    torch.manual_seed(0)
    model = create_model(name, **{**SMALL[name], **settings})
    assert isinstance(model, Siamese)
    return model


def images(count: int = 3, size: int = 32, seed: int = 1) -> Tensor:
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("name", "convolutions", "features"),
    # VGG-16's 138 357 544 less its 123 642 856 of the classifier; ResNet-50's 25 557 032 less 2 049 000.
    [("vgg16", 138_357_544 - 123_642_856, 512), ("resnet50", 25_557_032 - 2_049_000, 2048)],
)
@pytest.mark.parametrize("shared", [True, False])
def test_parameters_are_the_published_backbones_and_three_layers(
    name: str, convolutions: int, features: int, shared: bool
) -> None:
    with torch.device("meta"):
        model = create_model(name, shared=shared)
    head = features * 512 + 512 + 512 * 256 + 256 + 256 * 256 + 256
    groups = {key: sum(p.numel() for p in group) for key, group in model.parameter_groups().items()}
    copies = 1 if shared else 2
    assert groups == {"backbone": copies * convolutions, "head": copies * head}
    assert sum(groups.values()) == sum(p.numel() for p in model.parameters())
    assert (model.info.descriptor_size, model.info.metric, model.info.shared) == (256, "cosine", shared)
    assert model.info.query.height == model.info.reference.width == 224
    assert model.timm_name == f"{name}.tv_in1k"


@pytest.mark.parametrize("name", list(SMALL))
def test_descriptors_have_the_last_layers_size_and_unit_length(name: str) -> None:
    model = small(name).eval()
    descriptors = model.embed(images(), "query")
    assert descriptors.shape == (3, 6)
    assert torch.allclose(descriptors.norm(dim=1), torch.ones(3))
    assert not torch.allclose(descriptors[0], descriptors[1])


@pytest.mark.parametrize("name", list(SMALL))
def test_views_share_all_weights_or_none(name: str) -> None:
    one, two = small(name).eval(), small(name, shared=False).eval()
    assert torch.equal(one.embed(images(), "query"), one.embed(images(), "reference"))
    assert not torch.allclose(two.embed(images(), "query"), two.embed(images(), "reference"))
    assert sum(p.numel() for p in two.parameters()) == 2 * sum(p.numel() for p in one.parameters())


@pytest.mark.parametrize("name", list(SMALL))
@pytest.mark.parametrize("shared", [True, False])
def test_the_gradient_reaches_every_parameter(name: str, shared: bool) -> None:
    model = small(name, shared=shared, image_size=64).train()
    for key, p in model.named_parameters():
        if key.endswith("bn2.weight"):
            # timm starts residual branches at nothing, and nothing behind such a scale learns in the first step.
            torch.nn.init.ones_(p)
    query, reference = model.forward_pair(images(4, 64), images(4, 64, seed=2))
    (query.descriptor * reference.descriptor).sum().backward()
    for key, p in model.named_parameters():
        assert p.grad is not None and p.grad.isfinite().all() and p.grad.any(), key


def test_vgg_convolutions_are_torchvisions() -> None:
    with torch.device("meta"):
        whole = torchvision.models.vgg16()
        ours = vgg16_convolutions()
    assert {f"features.{key}": value.shape for key, value in ours.state_dict().items()} == {
        key: value.shape for key, value in whole.state_dict().items() if key.startswith("features.")
    }
    assert [type(layer) for layer in ours] == [type(layer) for layer in whole.features]


def test_the_signal_survives_vggs_thirteen_layers_from_random_weights() -> None:
    torch.manual_seed(0)
    with torch.no_grad():
        out = vgg16_convolutions(16)(torch.randn(2, 3, 64, 64))
    assert 0.03 < out.std() < 30


@pytest.mark.parametrize("shared", [True, False])
def test_public_weights_of_vgg_go_into_every_backbone(shared: bool, tmp_path: Path) -> None:
    donor = vgg16_convolutions(8)
    state = {f"features.{key}": value for key, value in donor.state_dict().items()}
    classifier = {"classifier.0.weight": torch.zeros(2), "pre_logits.fc1.weight": torch.zeros(2)}
    torch.save({**state, **classifier}, tmp_path / "vgg.pth")
    model = small("vgg16", shared=shared)
    assert sorted(load_backbone(model, tmp_path / "vgg.pth")) == sorted(classifier)
    for backbone in model.backbones.values():
        assert all(torch.equal(value, donor.state_dict()[key]) for key, value in backbone.state_dict().items())


def test_torchvisions_resnet_loads_without_its_classifier() -> None:
    torch.manual_seed(7)
    donor = torchvision.models.resnet18().eval()
    model = small("resnet50", head=(5,)).eval()
    # Files from before PyTorch 0.4.1, such as resnet50-19c8e357.pth, do not count batches.
    old = {key: value for key, value in donor.state_dict().items() if not key.endswith("num_batches_tracked")}
    assert sorted(model.load_backbone(old)) == ["fc.bias", "fc.weight"]
    assert sorted(model.load_backbone(donor.state_dict())) == ["fc.bias", "fc.weight"]
    donor.fc = model.heads["both"]
    with torch.no_grad():
        assert torch.allclose(model(images(), "query").descriptor, donor(images()), atol=1e-4)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("vgg16", ("features.28.bias", None), "missing: features.28.bias"),
        ("vgg16", ("features.0.weight", (4, 3, 3, 3)), r"features.0.weight \(4, 3, 3, 3\) for \(8, 3, 3, 3\)"),
        ("vgg16", ("features.40.weight", (4,)), "not of this network: features.40.weight"),
        ("resnet50", ("layer4.1.bn2.weight", None), "missing: layer4.1.bn2.weight"),
    ],
)
def test_weights_of_another_network_are_refused_by_name(
    name: str, change: tuple[str, tuple[int, ...] | None], message: str
) -> None:
    model = small(name)
    prefix = "features." if name == "vgg16" else ""
    state = {prefix + key: value for key, value in model.backbones["both"].state_dict().items()}
    key, shape = change
    state.pop(key, None)
    if shape is not None:
        state[key] = torch.zeros(shape)
    with pytest.raises(ModelError, match=message):
        model.load_backbone(state)


@pytest.mark.parametrize("name", list(SMALL))
def test_a_checkpoint_comes_back_the_same(name: str, tmp_path: Path) -> None:
    model = small(name, shared=False).eval()
    save_model(model, tmp_path / "model.pt", {})
    again = load_model(tmp_path / "model.pt")
    assert (again.settings, again.info) == (model.settings, model.info)
    assert torch.equal(again.embed(images(), "reference"), model.embed(images(), "reference"))


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"backbone": "alexnet"}, "backbone"),
        ({"image_size": 31}, "image_size"),
        ({"head": ()}, "head"),
        ({"head": (8, 0)}, "head"),
        ({"vgg_width": 0}, "vgg_width"),
        ({"width": 3}, "width"),
    ],
)
def test_settings_that_cannot_be_are_refused_by_name(settings: dict[str, Any], field: str) -> None:
    with pytest.raises(ModelError) as raised:
        small("vgg16", **settings)
    assert raised.value.field == field
