"""Frozen DINOv2 with a head per view: what is trained, what is computed, whose weights it takes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from cvgl.errors import ModelError
from cvgl_train import registry
from cvgl_train.checkpoint import load_model, save_model
from cvgl_train.importer import import_state
from cvgl_train.models.dinov2_cvv import CvvHead, Dinov2Cvv, Dinov2CvvSettings, from_authors, resize_positions
from cvgl_train.weights import load_backbone

TINY: dict[str, Any] = {
    "width": 64,
    "depth": 2,
    "heads": 1,
    "image_size": 56,
    "head_heads": 2,
    "feedforward": 32,
    "hidden": 24,
    "descriptor_size": 20,
}


def tiny(**settings: Any) -> Dinov2Cvv:
    torch.manual_seed(0)
    model = registry.create_model("dinov2-cvv", **{**TINY, **settings})
    assert isinstance(model, Dinov2Cvv)
    return model


def images(count: int = 3, seed: int = 1) -> Tensor:
    return torch.randn(count, 3, 56, 56, generator=torch.Generator().manual_seed(seed))


def official(width: int = 64, depth: int = 2, grid: int = 9, device: str = "cpu") -> dict[str, Tensor]:
    """A state with the names and shapes of DINOv2's published checkpoints."""
    shapes: dict[str, tuple[int, ...]] = {
        "cls_token": (1, 1, width),
        "pos_embed": (1, 1 + grid * grid, width),
        "mask_token": (1, width),
        "patch_embed.proj.weight": (width, 3, 14, 14),
        "patch_embed.proj.bias": (width,),
        "norm.weight": (width,),
        "norm.bias": (width,),
    }
    for block in range(depth):
        for name, shape in {
            "norm1.weight": (width,),
            "norm1.bias": (width,),
            "attn.qkv.weight": (3 * width, width),
            "attn.qkv.bias": (3 * width,),
            "attn.proj.weight": (width, width),
            "attn.proj.bias": (width,),
            "ls1.gamma": (width,),
            "norm2.weight": (width,),
            "norm2.bias": (width,),
            "mlp.fc1.weight": (4 * width, width),
            "mlp.fc1.bias": (4 * width,),
            "mlp.fc2.weight": (width, 4 * width),
            "mlp.fc2.bias": (width,),
            "ls2.gamma": (width,),
        }.items():
            shapes[f"blocks.{block}.{name}"] = shape
    generator = torch.Generator().manual_seed(5)
    return {
        name: torch.empty(shape, device=device) if device == "meta" else 0.2 * torch.randn(shape, generator=generator)
        for name, shape in shapes.items()
    }


def test_trainable_parameters_are_the_papers_2_8_million_and_the_backbone_is_vit_small() -> None:
    with torch.device("meta"):
        model = registry.create_model("dinov2-cvv")
    assert isinstance(model, Dinov2Cvv)
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == 2_763_905
    assert sum(p.numel() for p in model.heads["query"].parameters()) == 1_381_376
    # The published network has 22 056 576: more positions (37 x 37 of 518 px, not 16 x 16 of 224 px) and a mask token.
    assert sum(p.numel() for p in model.backbone.parameters()) == 22_056_576 - (37**2 - 16**2 + 1) * 384
    assert (model.token_count, model.width, model.timm_name) == (257, 384, "vit_small_patch14_dinov2")
    assert (model.info.descriptor_size, model.info.metric, model.info.shared) == (384, "euclidean", False)


def test_shapes_of_tokens_and_descriptors_and_that_descriptors_keep_their_length() -> None:
    model = tiny().eval()
    assert model.tokens(images()).shape == (3, 17, 64)
    descriptors = model.embed(images(), "query")
    assert descriptors.shape == (3, 20)
    assert torch.equal(descriptors, model(images(), "query").descriptor)
    assert (descriptors.norm(dim=1) - 1).abs().min() > 1e-3


def test_cached_tokens_take_the_place_of_images() -> None:
    model = tiny().eval()
    tokens = model.tokens(images())
    assert torch.equal(model.embed(tokens, "reference"), model.embed(images(), "reference"))
    assert torch.equal(model.head_only(tokens, "reference"), model.embed(images(), "reference"))


def test_the_views_have_heads_of_their_own() -> None:
    model = tiny().eval()
    assert not torch.allclose(model.embed(images(), "query"), model.embed(images(), "reference"))
    query = {id(p) for p in model.heads["query"].parameters()}
    assert query.isdisjoint(id(p) for p in model.heads["reference"].parameters())


def test_the_backbone_is_frozen_and_stays_in_evaluation_mode() -> None:
    model = tiny()
    for mode in (True, False, True):
        assert model.train(mode) is model
        assert model.heads.training is mode
        assert not any(module.training for module in model.backbone.modules())
    assert not any(p.requires_grad for p in model.backbone.parameters())
    assert not model.tokens(images().requires_grad_()).requires_grad


def test_the_gradient_reaches_everything_that_is_trained_and_nothing_else() -> None:
    model = tiny().train()
    query, reference = model.forward_pair(images(), images(seed=2))
    distance = (query.descriptor - reference.descriptor).square().sum()
    (distance + F.softplus(model.pair_logits(query.descriptor, reference.descriptor)).sum()).backward()
    trained = [p for group in model.parameter_groups().values() for p in group]
    assert {id(p) for p in trained} == {id(p) for p in model.parameters() if p.requires_grad}
    assert all(p.grad is not None and p.grad.isfinite().all() and p.grad.any() for p in trained)
    assert all(p.grad is None for p in model.backbone.parameters())


@pytest.mark.parametrize("token", [0, 5])
def test_a_head_is_a_whole_post_norm_transformer_block_of_which_one_token_is_kept(token: int) -> None:
    torch.manual_seed(3)
    settings = Dinov2CvvSettings(head_heads=2, feedforward=32, token=token, hidden=24, descriptor_size=20)
    head = CvvHead(7, 16, settings)
    block = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, activation="gelu", batch_first=True, norm_first=False)
    own = dict(head.state_dict())
    for bias in ("weight", "bias"):
        for norm in ("norm1", "norm2"):
            own[f"{norm}.{bias}"].copy_(torch.randn(16))
        block.load_state_dict(
            {
                f"self_attn.in_proj_{bias}": torch.cat([own[f"query.{bias}"], own[f"key_value.{bias}"]]),
                f"self_attn.out_proj.{bias}": own[f"project.{bias}"],
                f"linear1.{bias}": own[f"feedforward.0.{bias}"],
                f"linear2.{bias}": own[f"feedforward.2.{bias}"],
                f"norm1.{bias}": own[f"norm1.{bias}"],
                f"norm2.{bias}": own[f"norm2.{bias}"],
            },
            strict=False,
        )
    tokens = torch.randn(4, 7, 16)
    expected = head.mlp(block(tokens + head.positions)[:, token])
    assert torch.allclose(head(tokens), expected, atol=1e-5)


def test_the_classifier_judges_all_pairs_as_it_judges_each() -> None:
    model = tiny(score="classifier").eval()
    torch.manual_seed(4)
    for p in model.classifier.parameters():
        nn.init.normal_(p)
    query, reference = 5 * torch.randn(6, 20) + 3, 5 * torch.randn(4, 20)
    # A pair that hardly differs and one that does not differ.
    reference[1], reference[2] = query[2] + 1e-3, query[3]
    scores = model.score(query, reference)
    assert scores.shape == (6, 4)
    for i, q in enumerate(query.double()):
        for j, r in enumerate(reference.double()):
            difference = q - r
            normalised = (difference - difference.mean()) / (difference.var(correction=0) + 1e-5).sqrt()
            normalised = normalised * model.classifier.norm.weight + model.classifier.norm.bias
            expected = normalised @ model.classifier.linear.weight[0].double() + model.classifier.linear.bias
            assert scores[i, j].item() == pytest.approx(expected.item(), abs=1e-3)
    assert torch.equal(scores, model.pair_logits(query, reference))


def test_by_default_pairs_are_compared_by_distance() -> None:
    query, reference = torch.randn(3, 20), torch.randn(2, 20)
    distance = (query[:, None] - reference[None]).norm(dim=2)
    assert torch.allclose(tiny().score(query, reference), -distance, atol=1e-5)


def bicubic(values: NDArray[np.float64], size: int, scale: float) -> NDArray[np.float64]:
    """Along the first axis, with the kernel of a = -0.75, places beyond the edge taken from the edge."""

    def kernel(x: float) -> float:
        x, a = abs(x), -0.75
        if x <= 1:
            return (a + 2) * x**3 - (a + 3) * x**2 + 1
        return a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a if x < 2 else 0.0

    out = []
    for i in range(size):
        at = (i + 0.5) / scale - 0.5
        base = int(np.floor(at))
        near = range(base - 1, base + 3)
        out.append(sum(kernel(at - n) * values[min(max(n, 0), len(values) - 1)] for n in near))
    return np.array(out)


@pytest.mark.parametrize(("old", "new"), [(37, (16, 16)), (5, (4, 7))])
def test_positions_are_interpolated_as_dinov2_does(old: int, new: tuple[int, int]) -> None:
    positions = torch.randn(1, 1 + old * old, 3)
    grid = positions[0, 1:].double().numpy().reshape(old, old, 3)
    rows = bicubic(grid, new[0], (new[0] + 0.1) / old)
    expected = bicubic(rows.transpose(1, 0, 2), new[1], (new[1] + 0.1) / old).transpose(1, 0, 2)
    found = resize_positions(positions, new)
    assert found.shape == (1, 1 + new[0] * new[1], 3)
    assert torch.equal(found[:, 0], positions[:, 0])
    assert np.abs(found[0, 1:].numpy() - expected.reshape(-1, 3)).max() < 1e-4


def test_positions_of_the_wanted_grid_stay_and_those_of_no_square_are_refused() -> None:
    positions = torch.randn(1, 17, 3)
    assert torch.equal(resize_positions(positions, (4, 4)), positions)
    with pytest.raises(ModelError, match=r"pos_embed.*square"):
        resize_positions(positions[:, :-1], (4, 4))


def official_forward(state: dict[str, Tensor], x: Tensor, heads: int, depth: int) -> Tensor:
    """DINOv2's network written down from its paper, over a state whose positions fit the image."""
    width = state["cls_token"].shape[-1]

    def norm(x: Tensor, name: str) -> Tensor:
        return F.layer_norm(x, (width,), state[f"{name}.weight"], state[f"{name}.bias"], 1e-6)

    def linear(x: Tensor, name: str) -> Tensor:
        return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]

    patches = F.conv2d(x, state["patch_embed.proj.weight"], state["patch_embed.proj.bias"], 14).flatten(2).mT
    x = torch.cat([state["cls_token"].expand(len(x), -1, -1), patches], 1) + state["pos_embed"]
    for i in range(depth):
        b = f"blocks.{i}"
        q, k, v = linear(norm(x, f"{b}.norm1"), f"{b}.attn.qkv").unflatten(2, (3, heads, -1)).permute(2, 0, 3, 1, 4)
        attended = ((q @ k.mT) / (width // heads) ** 0.5).softmax(-1) @ v
        x = x + state[f"{b}.ls1.gamma"] * linear(attended.transpose(1, 2).flatten(2), f"{b}.attn.proj")
        inner = F.gelu(linear(norm(x, f"{b}.norm2"), f"{b}.mlp.fc1"))
        x = x + state[f"{b}.ls2.gamma"] * linear(inner, f"{b}.mlp.fc2")
    return norm(x, "norm")


def test_an_official_checkpoint_gives_the_official_tokens() -> None:
    state = official(width=128, depth=3)
    model = import_state(state, "dinov2", image_size=56, feedforward=32)
    assert isinstance(model, Dinov2Cvv)
    assert (model.settings.width, model.settings.depth, model.settings.heads) == (128, 3, 2)
    fitted = {**state, "pos_embed": resize_positions(state["pos_embed"], (4, 4))}
    expected = official_forward(fitted, images(), heads=2, depth=3)
    assert (model.tokens(images()) - expected).abs().max() < 1e-4 * expected.abs().max()


@pytest.mark.parametrize(
    ("width", "depth", "name", "heads"),
    [(384, 12, "vit_small_patch14_dinov2", 6), (768, 12, "vit_base_patch14_dinov2", 12)],
)
def test_the_published_sizes_are_recognised(width: int, depth: int, name: str, heads: int) -> None:
    settings, renamed = from_authors(official(width, depth, 37, device="meta"), "dinov2-cvv")
    assert settings == {"backbone": name, "head_heads": heads}
    assert "mask_token" not in renamed


def without(state: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    return {key: value for key, value in state.items() if key != name}


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"weight": torch.zeros(1)}, "cls_token"),
        ({**official(), "register_tokens": torch.zeros(1, 4, 64)}, "register_tokens"),
        ({**official(), "blocks.0.mlp.w12.weight": torch.zeros(1)}, "w12"),
        (without(official(), "blocks.1.ls2.gamma"), "missing: blocks.1.ls2.gamma"),
        ({**official(), "norm.bias": torch.zeros(3)}, r"norm.bias \(3,\) for \(64,\)"),
    ],
)
def test_other_checkpoints_are_refused_by_name(state: dict[str, Tensor], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        import_state(state, "dinov2", image_size=56)


def test_a_file_of_backbone_weights_loads_with_timms_names_and_positions_of_another_size(tmp_path: Path) -> None:
    donor = tiny(image_size=98)
    torch.save({**donor.backbone.state_dict(), "head.weight": torch.zeros(2, 64)}, tmp_path / "vit.pth")
    model = tiny()
    heads = {name: value.clone() for name, value in model.heads.state_dict().items()}
    assert load_backbone(model, tmp_path / "vit.pth") == ["head.weight"]
    assert torch.equal(model.backbone.blocks[1].attn.qkv.weight, donor.backbone.blocks[1].attn.qkv.weight)
    assert torch.equal(model.backbone.pos_embed, resize_positions(donor.backbone.pos_embed, (4, 4)))
    assert all(torch.equal(value, heads[name]) for name, value in model.heads.state_dict().items())


def test_a_checkpoint_carries_the_frozen_backbone(tmp_path: Path) -> None:
    model = tiny(score="classifier").eval()
    save_model(model, tmp_path / "model.pt", {})
    again = load_model(tmp_path / "model.pt")
    assert again.settings == model.settings
    assert torch.equal(again.embed(images(), "query"), model.embed(images(), "query"))
    assert not any(p.requires_grad for p in again.backbone.parameters())


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"image_size": 60}, "image_size"),
        ({"image_size": 0}, "image_size"),
        ({"backbone": "no_such_network"}, "backbone"),
        ({"backbone": "resnet18", "width": None, "depth": None, "heads": None}, "backbone"),
        ({"head_heads": 5}, "head_heads"),
        ({"token": 17}, "token"),
        ({"score": "best"}, "score"),
        ({"hidden": 0}, "hidden"),
    ],
)
def test_settings_that_cannot_be_are_refused_by_name(settings: dict[str, Any], field: str) -> None:
    with pytest.raises(ModelError) as raised:
        tiny(**settings)
    assert raised.value.field == field


@pytest.mark.parametrize("shape", [(2, 3, 28, 56), (2, 16, 64), (2, 17, 32)])
def test_images_and_tokens_of_another_size_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ModelError, match="query"):
        tiny().embed(torch.zeros(shape), "query")


def test_data_parallel_training_takes_a_loss_that_asks_the_classifier_after_forward(tmp_path: Path) -> None:
    class Pair(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = tiny().train()

        def forward(self, query: Tensor, reference: Tensor) -> tuple[Tensor, Tensor]:
            first, second = self.model.forward_pair(query, reference)
            return first.descriptor, second.descriptor

    alone, wrapped = Pair(), Pair()
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        parallel = nn.parallel.DistributedDataParallel(wrapped, find_unused_parameters=True)
        for pair, call in ((alone, alone), (wrapped, parallel)):
            query, reference = call(images(), images(seed=2))
            F.softplus(pair.model.pair_logits(query, reference)).sum().backward()
    finally:
        torch.distributed.destroy_process_group()
    for one, other in zip(alone.parameters(), wrapped.parameters(), strict=True):
        assert (one.grad is None) == (other.grad is None)
        assert one.grad is None or (other.grad is not None and torch.allclose(one.grad, other.grad))
