"""LPN: square rings counted by hand, the authors' pooling and checkpoint names, and settings that cannot be."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from cvgl.errors import ModelError
from cvgl_train.checkpoint import load_model, save_model
from cvgl_train.data.images import build_augmentation
from cvgl_train.importer import import_state
from cvgl_train.models.heads import part_descriptor
from cvgl_train.models.lpn import Lpn, LpnSettings, ring_numbers
from cvgl_train.registry import create_model

SMALL: dict[str, Any] = {"backbone": "resnet18", "classes": 5, "image_size": 64, "bottleneck": 16, "blocks": 2}


def small(**changes: Any) -> Lpn:
    torch.manual_seed(0)
    model = create_model("lpn", **{**SMALL, **changes})
    assert isinstance(model, Lpn)
    return model.eval()


def images(count: int = 2, size: int = 64) -> Tensor:
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(1))


# Rings


@pytest.mark.parametrize(
    ("side", "blocks", "expected"),
    [
        (2, 1, ["00", "00"]),
        (4, 2, ["1111", "1001", "1001", "1111"]),
        # What does not divide goes to the outermost ring.
        (6, 2, ["111111", "111111", "110011", "110011", "111111", "111111"]),
        (5, 2, ["11111", "10011", "10011", "11111", "11111"]),
        (
            8,
            4,
            [
                "33333333",
                "32222223",
                "32111123",
                "32100123",
                "32100123",
                "32111123",
                "32222223",
                "33333333",
            ],
        ),
    ],
)
def test_rings_by_hand(side: int, blocks: int, expected: list[str]) -> None:
    assert ring_numbers(side, blocks).tolist() == [[int(cell) for cell in row] for row in expected]


@given(blocks=st.integers(1, 6), spare=st.integers(0, 17))
@settings(max_examples=60, deadline=None)
def test_rings_are_nested_squares_and_every_cell_is_in_one(blocks: int, spare: int) -> None:
    side = 2 * blocks + spare
    numbers = ring_numbers(side, blocks)
    assert sorted(numbers.unique().tolist()) == list(range(blocks))
    wide = side // (2 * blocks)
    for ring in range(blocks):
        inside = (numbers <= ring).nonzero()
        low, high = inside.min(0).values, inside.max(0).values
        length = side if ring == blocks - 1 else 2 * (ring + 1) * wide
        # A full square: as many cells as its corners enclose.
        assert (high - low + 1).tolist() == [length, length] and len(inside) == length**2
    assert torch.equal(numbers, numbers.T)
    if side % 2 == 0:
        assert torch.equal(numbers, numbers.flip(0)) and torch.equal(numbers, numbers.flip(1))


def test_images_are_resized_as_the_authors_resize_them() -> None:
    assert {view.interpolation for view in (small().info.query, small().info.reference)} == {"bicubic"}


def test_satellite_images_are_padded_then_turned_then_cut() -> None:
    view = small().info.reference
    augment = build_augmentation([{"name": "pad_crop", "pad": 10, "degrees": 90}], view)
    white = np.full((64, 64, 3), 255, np.uint8)
    torch.manual_seed(0)
    made = [augment(white) for _ in range(40)]
    assert {tuple(image.shape) for image in made} == {(3, 64, 64)}
    # Nearest pixels: white and the black outside, nothing in between.
    values = torch.cat([image[0].unique() for image in made]).unique()
    assert len(values) == 2
    corners = torch.stack([(image[0, [0, 0, -1, -1], [0, -1, 0, -1]] == values[0]).any() for image in made])
    middles = torch.stack([image[0, 32, 32] == values[1] for image in made])
    assert 0.5 < corners.float().mean() < 1 and middles.all()


def test_fewer_cells_than_rings_are_refused() -> None:
    with pytest.raises(ModelError, match="side"):
        ring_numbers(7, 4)


def pool_as_published(cells: Tensor, blocks: int) -> Tensor:
    """The authors' pooling in steps: each square with the one inside it set to 0, averaged over the whole square."""
    side = cells.shape[-1]
    if side < 2 * blocks:
        side += 2 * (blocks - side // 2)
        cells = F.interpolate(cells, (side, side), mode="bilinear", align_corners=True)
    centre, wide = side // 2, side // (2 * blocks)
    pooled = []
    for ring in range(1, blocks + 1):
        square = cells.clone()
        inner = slice(centre - (ring - 1) * wide, centre + (ring - 1) * wide)
        square[:, :, inner, inner] = 0
        outer = slice(0, side) if ring == blocks else slice(centre - ring * wide, centre + ring * wide)
        pooled.append(square[:, :, outer, outer].mean((2, 3)))
    return torch.stack(pooled, 1)


@pytest.mark.parametrize(("size", "blocks"), [(64, 1), (64, 2), (64, 4), (128, 4), (160, 2), (160, 3), (96, 4)])
def test_rings_are_pooled_as_published(size: int, blocks: int) -> None:
    model = small(image_size=size, blocks=blocks)
    with torch.no_grad():
        cells = model.backbone(images(1, size))
        assert cells.shape[2:] == (size // 16, size // 16), "the last stage keeps its resolution"
        pooled = model._pool(images(1, size))
    assert torch.allclose(pooled, pool_as_published(cells, blocks), atol=1e-5)


def test_pictures_show_the_rings() -> None:
    heat, numbers = small().regions(images(3), "query") or (None, None)
    assert heat is not None and numbers is not None
    assert heat.shape == numbers.shape == (3, 4, 4)
    assert torch.equal(numbers[2], ring_numbers(4, 2))


# The network


@pytest.mark.parametrize("backbone", ["resnet18", "resnet50", "vgg16"])
def test_descriptors_have_unit_length_and_rings_of_equal_weight(backbone: str) -> None:
    model = small(backbone=backbone)
    with torch.no_grad():
        out = model.embed(images(), "query")
    assert out.shape == (2, model.info.descriptor_size) == (2, 32)
    assert torch.allclose(out.norm(dim=1), torch.ones(2), atol=1e-5)
    assert torch.allclose(out.unflatten(1, (16, 2)).norm(dim=1), torch.full((2, 2), 0.5**0.5), atol=1e-5)
    assert model.info.shared


def test_the_paper_s_network_has_its_size() -> None:
    with torch.device("meta"):
        model = Lpn(LpnSettings())
    assert (model.info.descriptor_size, model.info.query.height) == (2048, 256)
    assert model.side == 16
    # A ResNet-50 without its classifier, and per ring 2048 -> 512 -> 701.
    heads = 4 * (2048 * 512 + 512 + 2 * 512 + 512 * 701 + 701)
    assert sum(p.numel() for p in model.parameters()) == 23_508_032 + heads


def test_gradients_reach_every_parameter() -> None:
    model = small().train()
    for module in model.backbone.modules():
        # The scale of a block's last BatchNorm begins at 0, which would keep the rest of the block from its gradient.
        if isinstance(module, nn.BatchNorm2d):
            nn.init.ones_(module.weight)
    features = model(images(4), "query")
    assert features.parts is not None and features.parts.shape == (4, 2, 16)
    assert features.logits is not None and features.logits.shape == (4, 2, 5)
    (features.parts.square().sum() + features.logits.logsumexp(2).sum()).backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []


def test_every_parameter_is_in_one_group() -> None:
    model = small()
    groups = model.parameter_groups()
    assert sorted(map(id, groups["backbone"] + groups["head"])) == sorted(map(id, model.parameters()))
    assert {id(p) for p in groups["head"]} == {id(p) for p in model.classifier.parameters()}


def test_with_the_mirror_an_image_and_its_mirror_image_are_one() -> None:
    plain, mirrored = small(), small(mirror=True)
    batch = images()
    with torch.no_grad():
        assert torch.equal(mirrored.embed(batch, "query"), mirrored.embed(batch.flip(3), "query"))
        both = plain(batch, "query").parts + plain(batch.flip(3), "query").parts
        assert torch.allclose(mirrored.embed(batch, "query"), part_descriptor(both), atol=1e-6)


def test_a_checkpoint_gives_the_same_network(tmp_path: Path) -> None:
    model = small()
    save_model(model, tmp_path / "model.pt", {})
    again = load_model(tmp_path / "model.pt")
    assert again.settings == model.settings
    with torch.no_grad():
        assert torch.equal(again.embed(images(), "query"), model.embed(images(), "query"))


# The authors' checkpoints


class Published(nn.Module):
    """What the authors' code builds for University-1652, from torchvision as they do: names, strides, pooling."""

    def __init__(self, net: nn.Module, channels: int, blocks: int = 4, classes: int = 7, features: int = 24) -> None:
        super().__init__()
        self.net, self.blocks = net, blocks
        for module in net.get_submodule("layer4").modules():
            if isinstance(module, nn.Conv2d):
                module.stride = (1, 1)
        self.heads = nn.ModuleList()
        for _ in range(blocks):
            head = nn.Module()
            head.add_block = nn.Sequential(nn.Linear(channels, features), nn.BatchNorm1d(features), nn.Dropout(0.75))
            head.classifier = nn.Sequential(nn.Linear(features, classes))
            nn.init.normal_(head.add_block[1].running_mean)
            self.heads.append(head)

    def state(self, *views: str) -> dict[str, Tensor]:
        state = {f"{view}.model.{name}": value for view in views for name, value in self.net.state_dict().items()}
        for number, head in enumerate(self.heads):
            state.update({f"classifier{number}.{name}": value for name, value in head.state_dict().items()})
        return state

    def forward(self, batch: Tensor) -> Tensor:
        """(B, features, blocks), as the authors' evaluation gives them."""
        net: Any = self.net
        cells = net.maxpool(net.relu(net.bn1(net.conv1(batch))))
        for stage in (net.layer1, net.layer2, net.layer3, net.layer4):
            cells = stage(cells)
        pooled = pool_as_published(cells, self.blocks)
        heads: Any = self.heads
        return torch.stack([head.add_block(pooled[:, ring]) for ring, head in enumerate(heads)], 2)


@pytest.fixture(scope="module")
def published() -> Published:
    torch.manual_seed(3)
    return Published(torchvision.models.resnet18(), 512).eval()


def test_a_resnet_50_named_as_published_gives_the_published_descriptor() -> None:
    torch.manual_seed(4)
    network = Published(torchvision.models.resnet50(), 2048).eval()
    street = {name: value + 1 for name, value in network.state("model_2").items() if name.startswith("model_2.")}
    model = import_state({**network.state("model_1", "model_3"), **street}, "lpn", image_size=64)
    assert asdict(model.settings) == asdict(LpnSettings(classes=7, bottleneck=24, image_size=64))
    with torch.no_grad():
        raw = network(images())
        features = model(images(), "query")
    assert torch.allclose(features.parts.transpose(1, 2), raw, rtol=1e-4, atol=1e-5)
    wanted = (raw / (raw.norm(dim=1, keepdim=True) * 2)).flatten(1)
    assert torch.allclose(features.descriptor, wanted, atol=1e-6)


@pytest.mark.parametrize(
    ("gone", "added", "named"),
    [
        ("model_1.model.layer4.1.bn2.bias", {}, "1 missing: backbone.layer4.1.bn2.bias"),
        ("classifier2.add_block.0.weight", {}, "1 missing: classifier.blocks.2.reduce.weight"),
        ("", {"model_1.model.fc2.weight": (2,)}, "not of this network: backbone.fc2.weight"),
        ("", {"classifier.add_block.0.bias": (24,)}, "not of this network: classifier.add_block.0.bias"),
        ("", {"classifier0.add_block.0.weight": (24, 1024)}, "classifier.blocks.0.reduce.weight (24, 1024)"),
    ],
)
def test_tensors_that_do_not_fit_are_named(
    published: Published, gone: str, added: dict[str, tuple[int, ...]], named: str
) -> None:
    state = published.state("model_1", "model_3")
    state.pop(gone, None)
    if gone:
        state.pop(gone.replace("model_1", "model_3"), None)
    state.update({name: torch.zeros(shape) for name, shape in added.items()})
    with pytest.raises(ModelError) as caught:
        import_state(state, "lpn", backbone="resnet18", image_size=64)
    assert named in str(caught.value)


def test_drone_and_satellite_must_share_their_weights(published: Published) -> None:
    state = published.state("model_1", "model_3")
    state["model_3.model.bn1.bias"] = state["model_3.model.bn1.bias"] + 1
    with pytest.raises(ModelError, match=r"model_3\.model\.bn1\.bias"):
        import_state(state, "lpn", backbone="resnet18", image_size=64)
    state = published.state("model_1", "model_2")
    state["model_2.model.bn1.bias"] = state["model_2.model.bn1.bias"] + 1
    with pytest.raises(ModelError, match=r"model_2\.model\.bn1\.bias"):
        import_state(state, "lpn", backbone="resnet18", image_size=64)


def test_a_checkpoint_of_another_network_is_refused() -> None:
    with pytest.raises(ModelError, match=r"cls_token"):
        import_state({"model_1.transformer.cls_token": torch.zeros(1)}, "lpn")


# Pretrained backbones


def test_public_weights_fill_the_backbone(published: Published) -> None:
    model = small()
    state = published.net.state_dict()
    for name in [name for name in state if name.endswith("num_batches_tracked")]:
        del state[name]
    assert model.load_backbone(state) == ["fc.bias", "fc.weight"]
    assert torch.equal(model.backbone.get_parameter("layer4.1.conv2.weight"), state["layer4.1.conv2.weight"])
    del state["layer4.1.conv2.weight"]
    with pytest.raises(ModelError, match=r"layer4\.1\.conv2\.weight"):
        model.load_backbone(state)


def test_public_vgg_weights_fill_the_backbone() -> None:
    model = small(backbone="vgg16")
    state = {f"features.{name}": value + 1 for name, value in model.backbone.state_dict().items()}
    state["head.fc.weight"] = torch.zeros(1)
    assert model.load_backbone(state) == ["head.fc.weight"]
    assert torch.equal(model.backbone.get_parameter("0.weight"), state["features.0.weight"])
