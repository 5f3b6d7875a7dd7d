"""Every method by its name keeps the contract of a model, and what cannot be built is refused by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from torch.testing import assert_close

from cvgl.errors import ModelError
from cvgl_train import create_model, list_models
from cvgl_train.models.base import CrossViewModel, View
from cvgl_train.registry import METHODS

FSRA: dict[str, Any] = {"classes": 5, "image_size": 32, "width": 24, "depth": 1, "heads": 3, "bottleneck": 8}
SAIG: dict[str, Any] = {"width": 24, "heads": 3, "stem": (4, 8, 8, 8, 8, 16), "query_size": (32, 64)}
SMALL: dict[str, dict[str, Any]] = {
    "vit-baseline": FSRA,
    "fsra": FSRA,
    "lpn": {"backbone": "resnet18", "classes": 5, "image_size": 64, "bottleneck": 8, "blocks": 2},
    "frgeo": {"backbone": "convnext_atto", "query_size": (64, 128), "reference_size": (64, 64)},
    "saig-s": {**SAIG, "reference_size": (48, 48)},
    "saig-d": {**SAIG, "reference_size": (48, 48)},
    "dinov2-cvv": {"backbone": "vit_tiny_patch16_224", "image_size": 32, "depth": 1, "head_heads": 4},
    "vgg16": {"vgg_width": 4, "image_size": 64, "head": (16, 8)},
    "resnet50": {"image_size": 64, "head": (16, 8)},
    "cvm-net-1": {"vgg_width": 4, "clusters": 4, "descriptor_size": 16, "query_size": (64, 64),
                  "reference_size": (64, 64)},
    "cvm-net-2": {"vgg_width": 4, "clusters": 4, "descriptor_size": 16, "query_size": (64, 64),
                  "reference_size": (64, 64)},
    "cvgl-nano": {"widths": (8, 8, 8), "descriptor_size": 8, "input_px": 32},
}  # fmt: skip


def build(name: str) -> CrossViewModel:
    torch.manual_seed(0)
    return create_model(name, **SMALL[name]).eval()


def images(model: CrossViewModel, view: View) -> torch.Tensor:
    size = model.info.view(view)
    return torch.randn(2, 3, size.height, size.width, generator=torch.Generator().manual_seed(1))


def test_the_list_is_whole() -> None:
    assert list_models() == list(METHODS) == list(SMALL)
    assert all(method.summary for method in METHODS.values())


@pytest.mark.parametrize("name", SMALL)
def test_a_method_keeps_the_contract(name: str) -> None:
    model = build(name)
    assert model.info.name == name
    views: tuple[View, ...] = get_args(View)
    for view in views:
        with torch.no_grad():
            found = model.embed(images(model, view), view)
        assert found.shape == (2, model.info.descriptor_size) and found.dtype == torch.float32
        assert torch.isfinite(found).all() and not torch.equal(found[0], found[1])
        if model.info.metric == "cosine":
            assert_close(found.norm(dim=1), torch.ones(2))
    with torch.no_grad():
        query, reference = (model.embed(images(model, view), view) for view in views)
        alone = model.embed(images(model, "query")[:1], "query")
        pair = model.forward_pair(images(model, "query"), images(model, "reference"))
        # In evaluation an image's descriptor depends on no other image.
        assert_close(alone, query[:1], atol=1e-5, rtol=1e-4)
        assert pair[0].descriptor.shape == pair[1].descriptor.shape == query.shape
        assert model.score(query, reference).shape == (2, 2)


@pytest.mark.parametrize("name", SMALL)
def test_one_seed_is_one_network_and_every_weight_is_trained_once(name: str) -> None:
    model, again = build(name), build(name)
    assert all(torch.equal(value, again.state_dict()[key]) for key, value in model.state_dict().items())
    grouped = [id(p) for parameters in model.parameter_groups().values() for p in parameters]
    assert sorted(grouped) == sorted(id(p) for p in model.parameters() if p.requires_grad)


def test_a_methods_own_setting_can_be_overridden() -> None:
    assert create_model("vit-baseline", **FSRA).settings.regions == 0
    assert create_model("vit-baseline", **FSRA, regions=2).settings.regions == 2


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("nobody", {}, r"model: no such method \(found 'nobody', expected vit-baseline or fsra"),
        ("", {}, "model: no such method"),
        ("fsra", {"colour": 1}, r"colour: unknown field of fsra \(found 1, expected regions, classes"),
        ("fsra", {"regions": "many"}, r"regions: a value of another kind \(found 'many', expected a whole number"),
        ("fsra", {"regions": True}, "regions: a value of another kind"),
        ("fsra", {"image_size": (32, 32, 32)}, "image_size: a value of another kind"),
        ("fsra", {"dropout": None}, r"dropout: a value of another kind \(expected a number"),
        ("lpn", {"backbone": "alexnet"}, r"backbone: .*found 'alexnet', expected resnet18 or resnet50 or vgg16"),
        ("saig-s", {"stem": (1, 2)}, r"stem: .*expected a list of 6 numbers"),
        ("cvgl-nano", {"weights": "missing.pth"}, "missing.pth: no such file"),
    ],
)
def test_what_cannot_be_built_is_named(name: str, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        create_model(name, **{**SMALL.get(name, {}), **settings})


def test_lists_from_a_recipe_are_as_good_as_tuples() -> None:
    assert create_model("cvgl-nano", widths=[8, 8, 8], input_px=32).settings.widths == (8, 8, 8)


def test_weights_from_a_file_are_put_in(tmp_path: Path) -> None:
    model = build("cvgl-nano")
    torch.save(model.net.state_dict(), tmp_path / "nano.pth")
    torch.manual_seed(1)
    again = create_model("cvgl-nano", weights=tmp_path / "nano.pth", **SMALL["cvgl-nano"])
    assert all(torch.equal(value, again.state_dict()[key]) for key, value in model.state_dict().items())
