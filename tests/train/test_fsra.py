"""FSRA and its strong baseline: the authors' numbers, the segmentation by heat, and checkpoints that do not fit."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from cvgl.errors import ModelError
from cvgl_train.checkpoint import load_model, save_model
from cvgl_train.data.images import resize, to_tensor
from cvgl_train.importer import import_state
from cvgl_train.models.fsra import Fsra, FsraSettings, from_authors, heat_regions, pool_regions
from cvgl_train.models.heads import part_descriptor
from cvgl_train.models.vit import resize_positions
from cvgl_train.registry import create_model

SMALL: dict[str, Any] = {"classes": 5, "image_size": 64, "width": 96, "depth": 2, "bottleneck": 16}


def small(name: str = "fsra", **changes: Any) -> Fsra:
    """A network of random weights. Its last LayerNorm is stirred: as it starts, every token's mean is 0."""
    torch.manual_seed(0)
    model = create_model(name, **{**SMALL, **changes})
    assert isinstance(model, Fsra)
    torch.nn.init.normal_(model.backbone.norm.weight, 1.0, 0.1)
    return model.eval()


def images(count: int = 2, height: int = 64, width: int = 64, seed: int = 1) -> Tensor:
    return torch.randn(count, 3, height, width, generator=torch.Generator().manual_seed(seed))


def authors_names(model: Fsra) -> dict[str, Tensor]:
    """The model's weights as the authors' code names them, with what theirs has besides."""
    regions = model.settings.regions
    state = {}
    for name, value in model.state_dict().items():
        part = name.split(".")
        if part[0] == "backbone":
            state["model_1.transformer." + ".".join(part[1:])] = value
        else:
            head = "classifier1" if int(part[2]) == regions else f"classifier_heat{int(part[2]) + 1}"
            layer = {"reduce": "add_block.0", "norm": "add_block.1", "classifier": "classifier.0"}[part[3]]
            state[f"model_1.{head}.{layer}.{part[4]}"] = value
    state["model_1.transformer.fc.weight"] = torch.zeros(1000, model.settings.width)
    state["model_1.transformer.fc.bias"] = torch.zeros(1000)
    return state


# The authors' numbers


@pytest.mark.data
def test_the_authors_descriptors_come_out_of_the_authors_weights(cvgl_data: Path) -> None:
    folder = cvgl_data / "golden"
    loader = importlib.util.spec_from_file_location("stand_in", folder / "stand_in.py")
    assert loader is not None and loader.loader is not None
    stand_in = importlib.util.module_from_spec(loader)
    loader.loader.exec_module(stand_in)
    golden = json.loads((folder / "vectors.json").read_text())["fsra"]
    state = {name: torch.from_numpy(stand_in.fill(name, shape)) for name, shape in golden["state"].items()}
    model = import_state(state, "fsra")
    assert model.settings == FsraSettings()
    batch = torch.from_numpy(stand_in.image(**golden["input"]))
    with torch.no_grad():
        features = model(batch, "query")
    assert features.logits is None
    with np.load(folder / "vectors.npz") as arrays:
        for found, name in (
            (features.parts.transpose(1, 2), "fsra_raw"),
            (features.descriptor, "fsra_descriptor"),
            (torch.nn.functional.normalize(features.descriptor), "fsra_descriptor"),
        ):
            wanted = arrays[name]
            assert found.shape == wanted.shape
            assert np.abs(found.numpy() - wanted).max() < 1e-4 * np.abs(wanted).max()


def test_parameters_are_those_of_the_paper() -> None:
    with torch.device("meta"):
        model = Fsra(FsraSettings())
    count = sum(p.numel() for p in model.parameters())
    # The paper's 51.8 M count a classifier of 1000 ImageNet classes, which the authors' network holds but never calls.
    unused = 1000 * 768 + 1000
    assert count == 51_048_948
    assert round((count + unused) / 1e6, 1) == 51.8


def test_images_are_resized_as_the_authors_resize_them() -> None:
    image = np.random.default_rng(0).integers(0, 256, (100, 140, 3)).astype(np.uint8)
    view = create_model("fsra", **SMALL).info.query
    with_pillow = Image.fromarray(image).resize((view.width, view.height), Image.Resampling.BICUBIC)
    wanted = torch.from_numpy(np.array(with_pillow)).permute(2, 0, 1).float()
    found = resize(to_tensor(image), view).float()
    # They round at different places.
    assert (found - wanted).abs().max() <= 2
    assert (found - wanted).abs().mean() < 0.1


# Segmentation by heat


@pytest.mark.parametrize(
    ("heat", "regions", "expected"),
    [
        ([4.0, 3.0, 2.0, 1.0], 2, [0, 0, 1, 1]),
        ([1.0, 2.0, 3.0, 4.0], 2, [1, 1, 0, 0]),
        ([-1.0, 5.0, 0.0, 2.0, -7.0, 1.0], 3, [2, 0, 1, 0, 2, 1]),
        ([3.0, 1.0, 2.0], 1, [0, 0, 0]),
        ([3.0, 1.0, 2.0], 3, [0, 2, 1]),
        # What does not divide goes to the coldest region.
        ([7.0, 6.0, 5.0, 4.0, 3.0, 2.0, 1.0, 0.0], 3, [0, 0, 1, 1, 2, 2, 2, 2]),
        ([1.0, 2.0, 3.0, 4.0, 5.0], 2, [1, 1, 1, 0, 0]),
    ],
)
def test_tokens_of_like_heat_are_one_region(heat: list[float], regions: int, expected: list[int]) -> None:
    # Two channels whose mean is the heat.
    tokens = torch.tensor([[[value - 1.0, value + 1.0] for value in heat]])
    found, numbers = heat_regions(tokens, regions)
    assert torch.allclose(found, torch.tensor([heat]))
    assert numbers.tolist() == [expected]
    pooled = pool_regions(tokens, regions)
    for region in range(regions):
        members = [value for value, number in zip(heat, expected, strict=True) if number == region]
        mean = sum(members) / len(members)
        assert torch.allclose(pooled[0, region], torch.tensor([mean - 1.0, mean + 1.0]))


@given(
    heats=st.lists(st.integers(-50, 50), min_size=1, max_size=24, unique=True),
    regions=st.integers(1, 6),
    seed=st.integers(0, 99),
)
@settings(max_examples=40, deadline=None)
def test_regions_are_equal_ordered_and_blind_to_the_order_of_tokens(heats: list[int], regions: int, seed: int) -> None:
    regions = min(regions, len(heats))
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randn(1, len(heats), 4, generator=generator)
    tokens = tokens - tokens.mean(2, keepdim=True) + torch.tensor(heats, dtype=torch.float32)[None, :, None]
    heat, numbers = heat_regions(tokens, regions)
    sizes = torch.bincount(numbers[0], minlength=regions)
    assert (sizes[:-1] == len(heats) // regions).all() and sizes.sum() == len(heats)
    for region in range(regions - 1):
        assert heat[numbers == region].min() > heat[numbers == region + 1].max()
    pooled = pool_regions(tokens, regions)
    assert torch.allclose((pooled[0] * sizes[:, None]).sum(0), tokens[0].sum(0), atol=1e-3)
    shuffled = tokens[:, torch.randperm(len(heats), generator=generator)]
    assert torch.allclose(pool_regions(shuffled, regions), pooled, atol=1e-4)


def test_pictures_show_the_regions_that_are_pooled() -> None:
    model = small()
    batch = images()
    shown = model.regions(batch, "query")
    assert shown is not None
    heat, numbers = shown
    assert heat.shape == numbers.shape == (2, 4, 4)
    with torch.no_grad():
        tokens = model.backbone(batch)[:, 1:]
    assert torch.allclose(heat.flatten(1), tokens.mean(2))
    hottest = torch.stack([tokens[i][numbers[i].flatten() == 0].mean(0) for i in range(2)])
    assert torch.allclose(pool_regions(tokens, 3)[:, 0], hottest, atol=1e-6)
    assert small("vit-baseline").regions(batch, "query") is None


# The network


@pytest.mark.parametrize(
    ("name", "changes", "parts"),
    [
        ("vit-baseline", {}, 1),
        ("fsra", {}, 4),
        ("fsra", {"regions": 1}, 2),
        ("fsra", {"regions": 5, "mirror": True}, 6),
        ("fsra", {"image_size": (64, 96)}, 4),
    ],
)
def test_descriptors_have_unit_length_and_parts_of_equal_weight(name: str, changes: dict[str, Any], parts: int) -> None:
    model = small(name, **changes)
    view = model.info.view("query")
    with torch.no_grad():
        batch = images(3, view.height, view.width)
        out = model.embed(batch, "query")
    assert model.info.name == name and model.info.shared
    assert out.shape == (3, model.info.descriptor_size) == (3, parts * 16)
    assert torch.allclose(out.norm(dim=1), torch.ones(3), atol=1e-6)
    # Features first, parts within: the layout of the authors' test.
    assert torch.allclose(out.unflatten(1, (16, parts)).norm(dim=1), torch.full((3, parts), parts**-0.5), atol=1e-6)
    assert torch.equal(model.embed(batch, "reference"), out)


def test_the_layout_is_the_authors() -> None:
    parts = torch.tensor([[[3.0, 4.0], [0.0, -2.0], [5.0, 0.0], [1.0, 1.0]]])
    root = 2**-0.5
    assert torch.allclose(part_descriptor(parts) * 2, torch.tensor([[0.6, 0, 1, root, 0.8, -1, 0, root]]))


def test_training_gives_parts_and_scores_for_the_losses() -> None:
    model = small().train()
    features = model(images(4), "query")
    assert features.parts is not None and features.parts.shape == (4, 4, 16)
    assert features.logits is not None and features.logits.shape == (4, 4, 5)
    dropped = (features.parts == 0).float().mean()
    assert 0.2 < dropped < 0.8, "the triplet takes the features behind Dropout, as the authors have it"


def test_gradients_reach_every_parameter() -> None:
    model = small(drop_path=0.0).train()
    features = model(images(4), "query")
    assert features.parts is not None and features.logits is not None
    (features.parts.square().sum() + features.logits.logsumexp(2).sum()).backward()
    without = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert without == []


def test_every_parameter_is_in_one_group() -> None:
    model = small()
    groups = model.parameter_groups()
    assert set(groups) == {"backbone", "head"}
    assert sorted(map(id, groups["backbone"] + groups["head"])) == sorted(map(id, model.parameters()))
    assert {id(p) for p in groups["head"]} == {id(p) for p in model.classifier.parameters()}


def test_with_the_mirror_an_image_and_its_mirror_image_are_one() -> None:
    plain, mirrored = small(), small(mirror=True)
    batch = images()
    with torch.no_grad():
        assert torch.equal(mirrored.embed(batch, "query"), mirrored.embed(batch.flip(3), "query"))
        assert not torch.allclose(plain.embed(batch, "query"), plain.embed(batch.flip(3), "query"), atol=1e-2)
        both = plain(batch, "query").parts + plain(batch.flip(3), "query").parts
        assert torch.allclose(mirrored.embed(batch, "query"), part_descriptor(both), atol=1e-6)


def test_a_checkpoint_gives_the_same_network(tmp_path: Path) -> None:
    model = small(image_size=(64, 96))
    save_model(model, tmp_path / "model.pt", {})
    again = load_model(tmp_path / "model.pt")
    assert again.settings == model.settings and again.info == model.info
    batch = images(2, 64, 96)
    with torch.no_grad():
        assert torch.equal(again.embed(batch, "query"), model.embed(batch, "query"))


def test_images_of_another_size_are_refused() -> None:
    with pytest.raises(ModelError, match="64, 64"):
        small().embed(images(1, 64, 80), "query")


# The authors' checkpoints


@pytest.mark.parametrize(("name", "regions"), [("fsra", 2), ("fsra", 3), ("vit-baseline", 0)])
def test_shapes_say_what_the_checkpoint_is(name: str, regions: int) -> None:
    model = small(name, regions=regions, image_size=96, classes=7)
    again = import_state(authors_names(model), name)
    assert asdict(again.settings) == asdict(model.settings)
    batch = images(2, 96, 96)
    with torch.no_grad():
        assert torch.equal(again.embed(batch, "query"), model.embed(batch, "query"))


def test_the_authors_baseline_has_a_classifier_it_never_calls() -> None:
    model = small("vit-baseline")
    state = authors_names(model)
    spare = {
        key.replace("classifier1", "classifier_heat1"): torch.zeros_like(value)
        for key, value in state.items()
        if "classifier1" in key
    }
    again = import_state({**state, **spare}, "vit-baseline")
    assert asdict(again.settings) == asdict(model.settings)
    with pytest.raises(ModelError, match="--as vit-baseline"):
        import_state({**state, **spare}, "fsra")


def test_another_method_than_asked_for_is_refused() -> None:
    with pytest.raises(ModelError, match="--as fsra"):
        import_state(authors_names(small()), "vit-baseline")
    with pytest.raises(ModelError, match="--as vit-baseline"):
        import_state(authors_names(small("vit-baseline")), "fsra")


@pytest.mark.parametrize(
    ("gone", "added", "named"),
    [
        ("model_1.transformer.norm.weight", {}, "1 missing: backbone.norm.weight [model_1.transformer.norm.weight]"),
        ("model_1.transformer.pos_embed", {}, "missing: backbone.pos_embed"),
        ("model_1.transformer.cls_token", {}, "missing: backbone.cls_token"),
        ("model_1.transformer.blocks.0.mlp.fc1.weight", {}, "missing: backbone.blocks.0.mlp.fc1.weight"),
        ("model_1.classifier1.classifier.0.weight", {}, "missing: classifier.blocks.3.classifier.weight"),
        (
            "model_1.classifier_heat2.add_block.1.running_mean",
            {},
            "[model_1.classifier_heat2.add_block.1.running_mean]",
        ),
        ("", {"model_1.transformer.fc2.weight": (3, 3)}, "backbone.fc2.weight [model_1.transformer.fc2.weight]"),
        (
            "",
            {f"model_1.transformer.spare{i}": (1,) for i in range(6)},
            "6 not of this network: "
            + ", ".join(f"backbone.spare{i} [model_1.transformer.spare{i}]" for i in range(6)),
        ),
        ("", {"model_1.classifier_heat2.extra": (3,)}, "not of this network: classifier.blocks.1.extra"),
        ("", {"classifier9.weight": (3,)}, "not of this network: classifier9.weight"),
        ("", {"model_1.classifier_heat3.add_block.1.bias": (17,)}, "classifier.blocks.2.norm.bias (17,) for (16,)"),
        ("", {"model_1.transformer.pos_embed": (1, 12, 96)}, "backbone.pos_embed (1, 12, 96)"),
        ("", {"model_1.transformer.blocks.2.norm1.weight": (96,)}, "missing: backbone.blocks.2."),
    ],
)
def test_tensors_that_do_not_fit_are_named(gone: str, added: dict[str, tuple[int, ...]], named: str) -> None:
    state = authors_names(small())
    state.pop(gone, None)
    state.update({name: torch.zeros(shape) for name, shape in added.items()})
    plain = {"image_size": 64, "width": 96, "bottleneck": 16, "mlp_ratio": 3.0, "classes": 5}
    # What a missing tensor would have decided is given, so that it alone does not fit.
    known = from_authors(state, "fsra")[0]
    with pytest.raises(ModelError) as caught:
        import_state(state, "fsra", **{key: value for key, value in plain.items() if key not in known})
    assert named in str(caught.value)


def test_a_second_view_must_be_the_first_again() -> None:
    model = small()
    state = authors_names(model)
    twice = {**state, **{key.replace("model_1.", "model_2."): value.clone() for key, value in state.items()}}
    assert asdict(import_state(twice, "fsra").settings) == asdict(model.settings)
    twice["model_2.transformer.norm.bias"] = twice["model_2.transformer.norm.bias"] + 1
    with pytest.raises(ModelError, match=r"model_2\.transformer\.norm\.bias.*do not share"):
        import_state(twice, "fsra")
    # Of three views the second is the street's.
    three = {**twice, **{key.replace("model_1.", "model_3."): value.clone() for key, value in state.items()}}
    assert asdict(import_state(three, "fsra").settings) == asdict(model.settings)
    with pytest.raises(ModelError, match=r"model_3\.transformer\.spare"):
        import_state({**state, "model_3.transformer.spare": torch.zeros(1)}, "fsra")


def test_a_checkpoint_of_another_network_is_refused() -> None:
    with pytest.raises(ModelError, match=r"conv1\.weight"):
        import_state({"conv1.weight": torch.zeros(1)}, "fsra")


# Pretrained backbones


def test_backbone_weights_fit_another_input_size() -> None:
    source, model = small(image_size=96), small(image_size=64)
    state: dict[str, Tensor] = dict(source.backbone.state_dict())
    state["head.weight"], state["head.bias"] = torch.zeros(1000, 96), torch.zeros(1000)
    # As the first weights were published.
    state["patch_embed.proj.weight"] = state["patch_embed.proj.weight"].flatten(1)
    assert model.load_backbone(state) == ["head.bias", "head.weight"]
    assert model.backbone.pos_embed.shape == (1, 17, 96)
    assert torch.equal(model.backbone.pos_embed[:, 0], source.backbone.pos_embed[:, 0])
    assert torch.equal(model.backbone.patch_embed.proj.weight, source.backbone.patch_embed.proj.weight)
    assert torch.equal(model.backbone.blocks[1].norm1.weight, source.backbone.blocks[1].norm1.weight)


@pytest.mark.parametrize("grid", [(4, 4), (3, 3), (2, 5), (8, 8)])
def test_positions_keep_a_constant_and_the_class_token(grid: tuple[int, int]) -> None:
    positions = torch.full((1, 17, 3), 2.0)
    positions[:, 0] = 9.0
    resized = resize_positions(positions, grid)
    assert resized.shape == (1, 1 + grid[0] * grid[1], 3)
    assert torch.equal(resized[:, 0], positions[:, 0])
    assert torch.allclose(resized[:, 1:], torch.tensor(2.0))


def test_positions_go_by_rows() -> None:
    # As many patches as before, in another grid.
    rows = torch.arange(4.0).repeat_interleave(4)[None, :, None]
    resized = resize_positions(torch.cat([torch.zeros(1, 1, 1), rows], 1), (8, 2))[0, 1:, 0].unflatten(0, (8, 2))
    assert torch.allclose(resized[:, 0], resized[:, 1], atol=1e-6)
    # In between in a straight line, as the authors resize.
    assert torch.allclose(resized[:, 0], torch.tensor([0.0, 0.25, 0.75, 1.25, 1.75, 2.25, 2.75, 3.0]))


def test_positions_of_the_same_oblong_grid_stay() -> None:
    positions = torch.randn(1, 7, 4)
    assert torch.equal(resize_positions(positions, (2, 3)), positions)
    with pytest.raises(ModelError, match="square"):
        resize_positions(positions, (2, 4))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda state: state.pop("blocks.1.attn.qkv.weight"), "blocks.1.attn.qkv.weight"),
        (lambda state: state.update(cls_token=torch.zeros(1, 1, 64)), "cls_token (1, 1, 64)"),
        (lambda state: state.update(pos_embed=torch.zeros(1, 8, 96)), "pos_embed"),
        (lambda state: state.clear(), "missing"),
    ],
)
def test_backbone_weights_that_do_not_fit_are_named(change: Any, named: str) -> None:
    model = small()
    state = dict(model.backbone.state_dict())
    change(state)
    with pytest.raises(ModelError) as caught:
        model.load_backbone(state)
    assert named in str(caught.value)
