"""The cost of networks small enough to be counted by hand."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cvgl.errors import ModelError
from cvgl_train.evaluation.cost import cost_of
from cvgl_train.models.base import CrossViewModel, Features, ModelInfo, View, ViewInput
from cvgl_train.registry import create_model


@dataclass(frozen=True)
class Settings:
    """None."""


class Tiny(CrossViewModel):
    """One convolution, pooling, one linear layer a view; a classifier that only training uses."""

    def __init__(self, *, shared: bool) -> None:
        super().__init__()
        self.settings = Settings()
        self.info = ModelInfo("tiny", 7, ViewInput(8, 12), ViewInput(8, 8), shared)
        self.first = nn.Conv2d(3, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.query = nn.Linear(4, 7)
        self.reference = self.query if shared else nn.Linear(4, 7)
        self.classifier = nn.Linear(7, 100)

    def forward(self, images: Tensor, view: View) -> Features:
        x = F.relu(self.norm(self.first(images))).mean((2, 3))
        x = (self.query if view == "query" else self.reference)(x)
        return Features(x, logits=self.classifier(x) if self.training else None)


CONV = 3 * 4 * 9 + 4
NORM = 8
LINEAR = 4 * 7 + 7
CLASSIFIER = 7 * 100 + 100


def flops(height: int, width: int) -> int:
    return 2 * (3 * 9 * 4 * height * width + 4 * 7)


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_a_convolution_and_a_linear_layer_cost_what_the_formulas_say(shared: bool, device: str) -> None:
    with torch.device(device):
        cost = cost_of(Tiny(shared=shared), measure=False)
    assert cost.query.flops == flops(8, 12)
    assert cost.reference.flops == flops(8, 8)
    assert cost.query.gmacs == pytest.approx(cost.query.gflops / 2)
    assert (cost.query.height, cost.query.width) == (8, 12)
    assert cost.query.parameters == cost.reference.parameters == CONV + NORM + LINEAR
    assert cost.shared_parameters == CONV + NORM + (LINEAR if shared else 0)
    assert cost.deployed_parameters == CONV + NORM + LINEAR * (1 if shared else 2)
    assert cost.parameters == cost.deployed_parameters + CLASSIFIER
    assert (cost.descriptor_size, cost.descriptor_bytes) == (7, 28)
    assert cost.query.seconds is None and cost.device is None


def test_frozen_weights_count_as_deployed_but_not_as_trainable() -> None:
    model = Tiny(shared=True)
    model.first.requires_grad_(False)
    cost = cost_of(model, measure=False)
    assert cost.trainable == cost.parameters - CONV
    assert cost.query.parameters == CONV + NORM + LINEAR


class Attending(CrossViewModel):
    """16 patches through attention of one kind or another."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.settings = Settings()
        view = ViewInput(16, 16)
        self.info = ModelInfo("attending", 24, view, view, shared=True)
        self.kind = kind
        self.patches = nn.Conv2d(3, 24, 4, stride=4)
        self.mix = nn.Linear(24, 72)
        self.layer = nn.TransformerEncoderLayer(24, 2, 96, batch_first=True)

    def forward(self, images: Tensor, view: View) -> Features:
        x = self.patches(images).flatten(2).transpose(1, 2)
        if self.kind == "layer":
            return Features(self.layer(x).mean(1))
        q, k, v = self.mix(x).view(-1, 16, 3, 2, 12).permute(2, 0, 3, 1, 4)
        x = F.scaled_dot_product_attention(q, k, v)
        return Features(x.transpose(1, 2).reshape(-1, 16, 24).mean(1))


PATCHES = 16 * 24 * 48
SDPA = 2 * 16 * 16 * 24


@pytest.mark.parametrize("device", ["cpu", "meta"])
@pytest.mark.parametrize(
    ("kind", "multiply_adds"),
    [
        ("plain", PATCHES + 16 * 24 * 72 + SDPA),
        # PyTorch runs a whole encoder layer as one fused operation in evaluation, which must not count as nothing.
        ("layer", PATCHES + 16 * (24 * 72 + 24 * 24 + 2 * 24 * 96) + SDPA),
    ],
)
def test_attention_is_counted(kind: str, multiply_adds: int, device: str) -> None:
    with torch.device(device):
        cost = cost_of(Attending(kind), measure=False)
    assert cost.query.flops == 2 * multiply_adds


@pytest.mark.parametrize("shared", [True, False])
def test_weights_under_two_names_stay_the_same_weights(shared: bool) -> None:
    model = Tiny(shared=shared)
    model.reference.bias = model.query.bias
    before = {name: id(p) for name, p in model.named_parameters(remove_duplicate=False)}
    cost = cost_of(model, measure=False)
    assert {name: id(p) for name, p in model.named_parameters(remove_duplicate=False)} == before
    assert cost.shared_parameters == CONV + NORM + (LINEAR if shared else 7)


def test_the_model_is_left_as_it_was() -> None:
    model = Attending("layer").train()
    model.layer.eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    cost_of(model)
    assert model.training and model.mix.training and not model.layer.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.backends.mha.get_fastpath_enabled()


def test_time_is_told_with_the_device() -> None:
    cost = cost_of(Tiny(shared=False), repeats=2)
    assert cost.query.seconds is not None and cost.query.seconds > 0
    assert cost.device is not None and cost.device.startswith("CPU")
    told = cost.as_dict()
    assert told["query"]["gmacs"] == cost.query.gmacs
    assert told["deployed_parameters"] == cost.deployed_parameters


def test_one_network_on_one_size_has_one_time() -> None:
    cost = cost_of(create_model("cvgl-nano", input_px=32), repeats=1)
    assert cost.query == cost.reference


def test_a_method_of_the_registry_is_counted_without_memory() -> None:
    with torch.device("meta"):
        counted = cost_of(create_model("cvgl-nano"), measure=False)
    assert counted == cost_of(create_model("cvgl-nano"), measure=False)
    assert counted.descriptor_size == 256
    assert counted.shared_parameters == counted.parameters == counted.query.parameters


def test_what_cannot_be_measured_is_refused() -> None:
    with torch.device("meta"):
        model = Tiny(shared=True)
    with pytest.raises(ModelError, match="measure"):
        cost_of(model)
    with pytest.raises(ModelError, match="repeats"):
        cost_of(Tiny(shared=True), repeats=0)
