"""SAIG: the authors' numbers, what its heads do with tokens, and what is refused."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from cvgl.errors import ModelError
from cvgl_train.checkpoint import load_model, save_model
from cvgl_train.importer import import_checkpoint, import_state
from cvgl_train.models.saig import MixedHead
from cvgl_train.registry import create_model

SMALL: dict[str, Any] = {
    "depth": 2,
    "width": 24,
    "heads": 3,
    "stem": (4, 8, 8, 8, 8, 16),
    "query_size": (32, 64),
    "reference_size": (48, 48),
}
SQUARE: dict[str, Any] = {"query_size": (48, 48)}


def small(name: str = "saig-d", **changes: Any) -> Any:
    torch.manual_seed(0)
    return create_model(name, **{**SMALL, **changes}).eval()


def authors_names(model: Any) -> dict[str, Tensor]:
    """A model's tensors as the authors' `state_dict` names them."""
    pairs = (
        ("query.", "model_grd."),
        ("reference.", "model_sat."),
        ("backbone.position", "backbone.pos_embed"),
        ("backbone.stem.", "backbone.patch_embed.conv_stem."),
        ("attention.qkv", "attn.qkv"),
        ("attention.out", "attn.proj"),
        ("head.expand", "linear1"),
        ("head.contract", "linear2"),
        ("head.select", "linear3"),
    )
    state = {}
    for name, value in model.state_dict().items():
        for own, theirs in pairs:
            name = name.replace(own, theirs)
        state[name.replace(".norm.", ".norm1.") if ".blocks." in name else name] = value
    return state


class TestSettings:
    @pytest.mark.parametrize(
        ("name", "depth", "backbone"), [("saig-s", 11, 9_100_800), ("saig-d", 22, 15_614_208)], ids=["S", "D"]
    )
    def test_sizes(self, name: str, depth: int, backbone: int) -> None:
        """The paper says 9.0 M and 15.6 M a view; the 0.1 M are position embeddings, at 256 tokens."""
        with torch.device("meta"):
            model = create_model(name)
        assert model.settings.depth == depth
        assert model.info.descriptor_size == 3072 and not model.info.shared
        assert (model.info.query.height, model.info.query.width) == (128, 512)
        assert (model.info.reference.height, model.info.reference.width) == (256, 256)
        assert model.info.query.mean == model.info.reference.std == (0.5, 0.5, 0.5)
        for net in (model.query, model.reference):
            assert sum(p.numel() for p in net.backbone.parameters()) == backbone
            assert sum(p.numel() for p in net.head.parameters()) == 527_624

    @pytest.mark.parametrize("view", ["query", "reference"])
    @pytest.mark.parametrize(("changes", "size"), [({}, 8 * 24), ({"mixed": 3}, 3 * 24), ({"head": "gap"}, 24)])
    def test_descriptors_have_unit_length_and_the_promised_size(self, changes: dict, size: int, view: Any) -> None:
        model = small(**changes)
        wanted = model.info.view(view)
        with torch.no_grad():
            descriptors = model.embed(torch.randn(2, 3, wanted.height, wanted.width), view)
        assert descriptors.shape == (2, model.info.descriptor_size) == (2, size)
        torch.testing.assert_close(descriptors.norm(dim=1), torch.ones(2))

    def test_images_of_another_size_are_refused(self) -> None:
        with pytest.raises(ModelError, match=r"reference.*48, 48"):
            small().embed(torch.zeros(1, 3, 32, 64), "reference")


class TestParts:
    def test_the_mixed_head_is_three_layers_over_the_tokens(self) -> None:
        torch.manual_seed(0)
        head, tokens = MixedHead(tokens=6, mixed=2), torch.randn(3, 6, 4)
        expected = torch.empty(3, 2, 4)
        for channel in range(4):
            hidden = F.gelu(tokens[:, :, channel] @ head.expand.weight.T + head.expand.bias)
            back = hidden @ head.contract.weight.T + head.contract.bias
            expected[:, :, channel] = back @ head.select.weight.T + head.select.bias
        torch.testing.assert_close(head(tokens), expected.flatten(1))

    def test_the_mean_head_is_the_mean_of_the_tokens(self) -> None:
        model, images = small(head="gap"), torch.randn(2, 3, 48, 48)
        with torch.no_grad():
            tokens = model.reference.backbone(images)
            assert tokens.shape == (2, 9, 24)
            torch.testing.assert_close(model(images, "reference").descriptor, tokens.mean(1))

    def test_a_block_is_attention_beside_a_shortcut(self) -> None:
        """With no values there is nothing to add but the bias of the last layer."""
        block = small().query.backbone.blocks[0]
        torch.nn.init.zeros_(block.attention.qkv.weight)
        torch.nn.init.ones_(block.attention.out.bias)
        tokens = torch.randn(2, 8, 24)
        torch.testing.assert_close(block(tokens), tokens + 1)

    def test_every_token_has_a_place(self) -> None:
        """Attention alone does not know where a token lies: without position embeddings, order means nothing."""
        model, tokens = small().query.backbone, torch.randn(1, 8, 24)
        with torch.no_grad():
            torch.testing.assert_close(model.blocks(tokens.flip(1)), model.blocks(tokens).flip(1))
            placed = model.blocks(tokens.flip(1) + 50 * model.position)
            assert not torch.allclose(placed, model.blocks(tokens + 50 * model.position).flip(1), atol=1e-2)


class TestTraining:
    @pytest.mark.parametrize("head", ["smd", "gap"])
    def test_every_parameter_gets_a_gradient(self, head: str) -> None:
        model = small(head=head).train()
        total = model(torch.randn(2, 3, 32, 64), "query").descriptor.pow(3).sum()
        (total + model(torch.randn(2, 3, 48, 48), "reference").descriptor.pow(3).sum()).backward()
        without = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
        assert without == []

    def test_the_views_share_nothing(self) -> None:
        model, images = small(**SQUARE), torch.randn(2, 3, 48, 48)
        with torch.no_grad():
            before = model(images, "query").descriptor, model(images, "reference").descriptor
            assert not torch.allclose(*before, atol=1e-2)
            for parameter in model.reference.parameters():
                parameter.zero_()
            assert torch.equal(model(images, "query").descriptor, before[0])
            assert not torch.equal(model(images, "reference").descriptor, before[1])

    @pytest.mark.parametrize(("head", "count"), [("smd", 12), ("gap", 0)])
    def test_the_groups_hold_every_parameter_once(self, head: str, count: int) -> None:
        model = small(head=head)
        groups = model.parameter_groups()
        assert sorted(id(p) for g in groups.values() for p in g) == sorted(id(p) for p in model.parameters())
        assert len(groups["head"]) == count

    def test_a_checkpoint_gives_the_same_model(self, tmp_path: Path) -> None:
        model = small("saig-s", head="gap")
        save_model(model, tmp_path / "saig.pt", {})
        again = load_model(tmp_path / "saig.pt")
        assert again.settings == model.settings and again.info == model.info
        images = torch.randn(1, 3, 32, 64)
        with torch.no_grad():
            assert torch.equal(again.embed(images, "query"), model.embed(images, "query"))


class TestBackbone:
    @pytest.fixture
    def pretrained(self) -> dict[str, Tensor]:
        """As the authors publish their ImageNet weights: one backbone of 4 x 4 tokens and a classifier."""
        prefix = "model_sat.backbone."
        state = authors_names(small(reference_size=(64, 64)))
        state = {name[len(prefix) :]: value for name, value in state.items() if name.startswith(prefix)}
        return state | {"head.weight": torch.zeros(1000, 24), "head.bias": torch.zeros(1000)}

    def test_it_fills_both_views(self, pretrained: dict[str, Tensor]) -> None:
        model = small(reference_size=(64, 64))
        assert model.load_backbone(pretrained) == ["head.weight", "head.bias"]
        for net in (model.query.backbone, model.reference.backbone):
            assert torch.equal(net.blocks[1].attention.out.weight, pretrained["blocks.1.attn.proj.weight"])
            assert torch.equal(net.stem[1].running_var, pretrained["patch_embed.conv_stem.1.running_var"])
        torch.testing.assert_close(model.reference.backbone.position, pretrained["pos_embed"])

    def test_positions_follow_the_grid(self, pretrained: dict[str, Tensor]) -> None:
        """A ramp from left to right stays one on 2 x 4 tokens, and from top to bottom too."""
        rows, columns = torch.meshgrid(torch.arange(4.0), torch.arange(4.0), indexing="ij")
        ramps = torch.stack([rows, columns], -1).reshape(1, 16, 2)
        model = small()
        model.load_backbone({**pretrained, "pos_embed": ramps.repeat(1, 1, 12)})
        placed = model.query.backbone.position[0, :, :2].reshape(2, 4, 2)
        torch.testing.assert_close(placed[..., 1], torch.arange(4.0).expand(2, 4))
        assert bool((placed[1, :, 0] > placed[0, :, 0] + 1).all())

    def test_equal_numbers_of_tokens_are_not_equal_grids(self, pretrained: dict[str, Tensor]) -> None:
        model = small(query_size=(32, 128), reference_size=(64, 64))
        model.load_backbone(pretrained)
        assert model.query.backbone.position.shape == model.reference.backbone.position.shape
        assert not torch.allclose(model.query.backbone.position, model.reference.backbone.position, atol=1e-3)

    def test_what_does_not_fit_is_named(self, pretrained: dict[str, Tensor]) -> None:
        with pytest.raises(ModelError, match=r"missing: blocks\.2\.attention\.out\.bias"):
            small(depth=3).load_backbone(pretrained)
        for shape in ((1, 15, 24), (16, 24), (2, 16, 24)):
            with pytest.raises(ModelError, match=r"pos_embed: not of a square grid"):
                small().load_backbone({**pretrained, "pos_embed": torch.zeros(shape)})
        with pytest.raises(ModelError, match=r"position \(1, 8, 25\) for \(1, 8, 24\)"):
            small().load_backbone({**pretrained, "pos_embed": torch.zeros(1, 16, 25)})


class TestImporter:
    def test_depth_is_that_of_the_method(self) -> None:
        with pytest.raises(ModelError, match=r"blocks.*found '2'.*expected 11"):
            import_state(authors_names(small()), "saig-s", **SMALL)

    def test_the_other_methods_weights_are_named(self) -> None:
        with pytest.raises(ModelError, match=r"22 \(saig-d\).*expected 11"):
            import_state(authors_names(small(depth=22)), "saig-s", **SMALL)

    @pytest.mark.parametrize("head", ["smd", "gap"])
    def test_the_head_is_read_and_sizes_are_given(self, head: str, tmp_path: Path) -> None:
        """As the released training writes it: in a wrapper beside the optimiser's state."""
        model = small(depth=11, head=head)
        wrapped = {"model": authors_names(model), "optimizer": {}, "epoch": 3, "best_acc": 0.5}
        torch.save(wrapped, tmp_path / "model_checkpoint.pth")
        sizes = {name: value for name, value in SMALL.items() if name != "depth"}
        again = import_checkpoint(tmp_path / "model_checkpoint.pth", "saig-s", **sizes)
        assert again.settings == model.settings
        images = torch.randn(1, 3, 48, 48)
        with torch.no_grad():
            assert torch.equal(again(images, "reference").descriptor, model(images, "reference").descriptor)

    def test_what_does_not_fit_is_named(self) -> None:
        state = authors_names(small(depth=11))
        del state["model_grd.linear2.bias"]
        state["model_sat.backbone.blocks.3.mlp.fc1.weight"] = torch.zeros(2)
        state["model_sat.backbone.norm.weight"] = torch.zeros(25)
        sizes = {name: value for name, value in SMALL.items() if name != "depth"}
        with pytest.raises(ModelError) as caught:
            import_state(state, "saig-s", **sizes)
        for words in (
            "1 missing: query.head.contract.bias",
            "1 not of this network: reference.backbone.blocks.3.mlp.fc1.weight",
            "reference.backbone.norm.weight (25,) for (24,)",
        ):
            assert words in str(caught.value)


@pytest.fixture(scope="module")
def golden(cvgl_data: Path) -> Any:
    """The authors' numbers: their tensors' shapes, the module that fills them, and what came out."""
    folder = cvgl_data / "golden"
    spec = importlib.util.spec_from_file_location("stand_in", folder / "stand_in.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return json.loads((folder / "vectors.json").read_text()), module, np.load(folder / "vectors.npz")


@pytest.fixture(scope="module", params=["saig-s", "saig-d"])
def method(request: Any, golden: Any) -> tuple[str, dict[str, Tensor]]:
    """A method's name and a `state_dict` as the authors' code names it."""
    shapes, stand_in, _ = golden
    state = shapes[request.param.replace("-", "_")]["state"]
    return request.param, {name: torch.from_numpy(stand_in.fill(name, tuple(shape))) for name, shape in state.items()}


@pytest.mark.data
@pytest.mark.parametrize(
    ("view", "given", "array", "head"),
    [
        ("query", "ground", "ground", "smd"),
        ("reference", "satellite", "satellite", "smd"),
        ("reference", "satellite", "gap_satellite", "gap"),
    ],
)
def test_the_authors_numbers(golden: Any, method: Any, view: Any, given: str, array: str, head: str) -> None:
    shapes, stand_in, arrays = golden
    name, state = method
    if head == "gap":
        state = {key: value for key, value in state.items() if ".linear" not in key}
    model = import_state(state, name)
    assert model.settings.head == head
    key = name.replace("-", "_")
    expected, source = arrays[f"{key}_{array}"], shapes[key][given]
    images = torch.from_numpy(stand_in.image(source["seed"], source["h"], source["w"], source["b"]))
    with torch.no_grad():
        found = model(images, view).descriptor.numpy()
    # Measured: 1.3e-7 to 6.5e-7.
    assert np.abs(found - expected).max() < 1e-5 * np.abs(expected).max()
