"""FRGeo: the authors' numbers, the regions of maps and panoramas, and what is refused."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from cvgl.errors import ModelError
from cvgl_train.checkpoint import load_model, save_model
from cvgl_train.importer import import_checkpoint, import_state
from cvgl_train.models.recombination import (
    check_layout,
    part_count,
    recombine,
    recombine_tokens,
    region_index,
    region_means,
    token_map,
)
from cvgl_train.registry import create_model

SMALL: dict[str, Any] = {"backbone": "convnext_atto", "query_size": (64, 128), "reference_size": (64, 64)}
DRONE: dict[str, Any] = {"query_layout": "map", "query_size": (64, 64), "reference_size": (64, 64)}


def small(**changes: Any) -> Any:
    """An FRGeo small enough for a test, its layer scale as of a trained one so that every block counts."""
    torch.manual_seed(0)
    model = create_model("frgeo", **{**SMALL, **changes})
    for name, parameter in model.named_parameters():
        if name.endswith("gamma"):
            nn.init.normal_(parameter, 0.5, 0.1)
    return model.eval()


def quadrants(north_west: float, north_east: float, south_west: float, south_east: float) -> Tensor:
    """(1, 1, 4, 4): each quadrant of one value, give or take one."""
    rows = [[north_west, north_east], [south_west, south_east]]
    cells = torch.tensor(rows).repeat_interleave(2, 0).repeat_interleave(2, 1)
    return (cells + torch.tensor([[-1.0, 1.0], [1.0, -1.0]]).repeat(2, 2))[None, None]


class TestRegions:
    def test_a_map_goes_clockwise_from_the_south_west(self) -> None:
        means = region_means(quadrants(north_west=10, north_east=20, south_west=30, south_east=40), "map")
        assert means[0, :, 0].tolist() == [30, 10, 20, 40]

    def test_a_panorama_goes_from_left_to_right(self) -> None:
        features = torch.tensor([[1.0, 3, 10, 30, 100, 300, 1000, 3000]]).repeat(3, 1)[None, None]
        assert region_means(features, "panorama")[0, :, 0].tolist() == [2, 20, 200, 2000]

    def test_none_is_the_mean_of_everything(self) -> None:
        features = torch.randn(2, 3, 5, 7)
        torch.testing.assert_close(region_means(features, "none")[:, 0], features.mean((2, 3)))

    def test_a_map_and_a_panorama_of_the_same_place_agree(self) -> None:
        """A panorama whose centre looks north sees the south-west at its left edge and the south-east at its right."""
        seen = quadrants(north_west=2, north_east=3, south_west=1, south_east=4)
        panorama = torch.tensor([1.0, 2, 3, 4]).repeat_interleave(2)[None, None, None]
        assert torch.equal(region_means(seen, "map"), region_means(panorama, "panorama"))

    @pytest.mark.parametrize(
        ("layout", "grid", "index"),
        [
            ("map", (3, 3), [[1, 2, 2], [0, 3, 3], [0, 3, 3]]),
            ("panorama", (1, 6), [[0, 1, 2, 3, 3, 3]]),
            ("none", (2, 2), [[0, 0], [0, 0]]),
        ],
    )
    def test_what_does_not_divide_goes_south_and_east(self, layout: Any, grid: tuple[int, int], index: list) -> None:
        assert region_index(grid, layout).tolist() == index

    @given(st.integers(2, 9), st.integers(4, 9), st.sampled_from(["map", "panorama", "none"]))
    @settings(deadline=None, max_examples=40)
    def test_each_mean_is_over_the_cells_of_its_region(self, height: int, width: int, layout: Any) -> None:
        features = torch.arange(2.0 * height * width, dtype=torch.float64).reshape(1, 2, height, width)
        index, means = region_index((height, width), layout), region_means(features, layout)
        assert means.shape == (1, part_count(layout), 2)
        for region in range(part_count(layout)):
            torch.testing.assert_close(means[0, region], features[0][:, index == region].mean(1))

    def test_tokens_are_cut_as_the_map_they_cover(self) -> None:
        features, norm = torch.randn(2, 6, 4, 8), nn.LayerNorm(6)
        tokens = features.flatten(2).transpose(1, 2)
        for layout in ("map", "panorama", "none"):
            expected = recombine(features, layout, norm)
            assert torch.equal(recombine_tokens(tokens, (4, 8), layout, norm), expected)
        assert torch.equal(token_map(tokens, (4, 8)), features)

    def test_every_region_is_normalised_by_itself(self) -> None:
        features, norm = torch.randn(2, 6, 4, 4), nn.LayerNorm(6)
        parts = recombine(features, "map", norm).reshape(2, 4, 6)
        for region in range(4):
            torch.testing.assert_close(parts[:, region], norm(region_means(features, "map")[:, region]))

    @pytest.mark.parametrize(
        ("layout", "grid", "words"),
        [
            ("square", (8, 8), ("query_layout", "'square'", "map or panorama or none")),
            ("panorama", (8, 3), ("query_layout", "8 x 3", "1 x 4")),
            ("map", (1, 8), ("query_layout", "1 x 8", "2 x 2")),
        ],
    )
    def test_a_layout_that_cannot_be_is_named(self, layout: str, grid: tuple[int, int], words: tuple) -> None:
        with pytest.raises(ModelError) as caught:
            check_layout(layout, grid, "query_layout")
        assert all(word in str(caught.value) for word in words)

    def test_tokens_with_a_class_token_are_refused(self) -> None:
        with pytest.raises(ModelError, match=r"tokens.*17.*4 x 4"):
            token_map(torch.zeros(1, 17, 3), (4, 4))


class TestSettings:
    def test_the_defaults_are_the_papers_for_cvusa(self) -> None:
        with torch.device("meta"):
            model = create_model("frgeo")
        assert model.info.descriptor_size == 3072
        assert (model.info.query.height, model.info.query.width) == (128, 512)
        assert (model.info.reference.height, model.info.reference.width) == (256, 256)
        assert not model.info.shared
        assert model.timm_name == "convnext_tiny.fb_in1k"
        assert sum(p.numel() for p in model.parameters()) == 2 * 27_820_128

    @pytest.mark.parametrize("view", ["query", "reference"])
    @pytest.mark.parametrize(
        ("changes", "size"),
        [
            ({}, 4 * 320),
            (DRONE, 4 * 320),
            ({"query_layout": "none", "reference_layout": "none"}, 320),
            ({"backbone": "vit_tiny_patch16_224"}, 4 * 192),
            ({"backbone": "vit_pwee_patch16_reg1_gap_256", "query_size": (64, 192)}, 4 * 256),
        ],
    )
    def test_descriptors_have_unit_length_and_the_promised_size(self, changes: dict, size: int, view: Any) -> None:
        model = small(**changes)
        wanted = model.info.view(view)
        with torch.no_grad():
            descriptors = model.embed(torch.randn(2, 3, wanted.height, wanted.width), view)
        assert descriptors.shape == (2, model.info.descriptor_size) == (2, size)
        torch.testing.assert_close(descriptors.norm(dim=1), torch.ones(2))

    def test_a_square_drone_view_is_cut_as_it_is_told(self) -> None:
        """The released code would take quadrants for both."""
        images = torch.randn(1, 3, 128, 128)
        changes = {"query_size": (128, 128), "reference_size": (128, 128)}
        as_map, as_panorama = small(**changes, query_layout="map"), small(**changes, query_layout="panorama")
        with torch.no_grad():
            first, second = as_map(images, "query").descriptor, as_panorama(images, "query").descriptor
            features = as_panorama.query.features(images)
        assert not torch.allclose(first, second, atol=1e-2)
        torch.testing.assert_close(second, recombine(features, "panorama", as_panorama.query.norm))

    def test_a_transformer_is_cut_by_the_tokens_it_gives(self) -> None:
        model = small(backbone="vit_tiny_patch16_224")
        images = torch.randn(2, 3, 64, 128)
        with torch.no_grad():
            tokens = model.query.trunk.forward_features(images)
            found = model(images, "query").descriptor
        assert tokens.shape == (2, 1 + 4 * 8, 192)
        torch.testing.assert_close(found, recombine_tokens(tokens[:, 1:], (4, 8), "panorama", model.query.norm))

    def test_a_transformer_is_normalised_as_it_was_pretrained(self) -> None:
        assert small(backbone="vit_tiny_patch16_224").info.query.mean == (0.5, 0.5, 0.5)
        assert small().info.query.mean == (0.485, 0.456, 0.406)

    def test_images_of_another_size_are_refused(self) -> None:
        with pytest.raises(ModelError, match=r"query.*64, 128"):
            small().embed(torch.zeros(1, 3, 64, 64), "query")


class TestTraining:
    def test_every_parameter_gets_a_gradient(self) -> None:
        model = small().train()
        total = model(torch.randn(2, 3, 64, 128), "query").descriptor.square().sum()
        (total + model(torch.randn(2, 3, 64, 64), "reference").descriptor.pow(3).sum()).backward()
        without = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
        assert without == []

    def test_the_views_share_nothing(self) -> None:
        model = small(**DRONE)
        images = torch.randn(2, 3, 64, 64)
        with torch.no_grad():
            before = model(images, "query").descriptor, model(images, "reference").descriptor
            assert not torch.allclose(*before, atol=1e-2)
            for parameter in model.reference.parameters():
                parameter.zero_()
            assert torch.equal(model(images, "query").descriptor, before[0])
            assert not torch.equal(model(images, "reference").descriptor, before[1])

    def test_the_groups_hold_every_parameter_once(self) -> None:
        model = small()
        groups = model.parameter_groups()
        assert sorted(id(p) for g in groups.values() for p in g) == sorted(id(p) for p in model.parameters())

    def test_a_checkpoint_gives_the_same_model(self, tmp_path: Path) -> None:
        model = small(**DRONE)
        save_model(model, tmp_path / "frgeo.pt", {})
        again = load_model(tmp_path / "frgeo.pt")
        assert again.settings == model.settings and again.info == model.info
        images = torch.randn(1, 3, 64, 64)
        with torch.no_grad():
            assert torch.equal(again.embed(images, "query"), model.embed(images, "query"))

    def test_regions_for_pictures(self) -> None:
        heat, regions = small().regions(torch.randn(2, 3, 64, 128), "query")
        assert heat.shape == regions.shape == (2, 2, 4)
        assert bool((heat > 0).all()) and regions[0].tolist() == [[0, 1, 2, 3]] * 2
        without = small(query_layout="none", reference_layout="none")
        assert without.regions(torch.randn(1, 3, 64, 128), "query") is None


class TestBackbone:
    def test_timms_weights_fill_both_views(self) -> None:
        state = timm.create_model("convnext_atto").state_dict()
        model = small(**DRONE)
        assert model.load_backbone(state) == ["head.fc.weight", "head.fc.bias"]
        for net in (model.query, model.reference):
            assert torch.equal(net.trunk.stem[0].weight, state["stem.0.weight"])
            assert torch.equal(net.norm.weight, state["head.norm.weight"])
        images = torch.randn(1, 3, 64, 64)
        with torch.no_grad():
            assert torch.equal(model(images, "query").descriptor, model(images, "reference").descriptor)

    def test_without_recombination_it_is_timms_own_pooling(self) -> None:
        """A ConvNeXt pools and then normalises: one region is that very thing."""
        torch.manual_seed(3)
        plain = timm.create_model("convnext_atto", num_classes=0).eval()
        model = small(query_layout="none", reference_layout="none")
        model.load_backbone(plain.state_dict())
        images = torch.randn(2, 3, 64, 128)
        with torch.no_grad():
            torch.testing.assert_close(model(images, "query").descriptor, plain(images), rtol=1e-4, atol=1e-5)

    def test_position_embeddings_follow_the_grid(self) -> None:
        model = small(backbone="vit_tiny_patch16_224")
        state = timm.create_model("vit_tiny_patch16_224").state_dict()
        assert model.load_backbone(state) == ["head.weight", "head.bias"]
        assert model.query.trunk.pos_embed.shape == (1, 1 + 4 * 8, 192)
        assert model.reference.trunk.pos_embed.shape == (1, 1 + 4 * 4, 192)
        assert torch.equal(model.query.trunk.pos_embed[:, 0], state["pos_embed"][:, 0])
        assert torch.equal(model.query.norm.weight, state["norm.weight"])

    def test_what_does_not_fit_is_named(self) -> None:
        model = small()
        state = timm.create_model("convnext_atto").state_dict()
        del state["stages.1.blocks.0.gamma"]
        with pytest.raises(ModelError, match=r"1 missing: trunk\.stages\.1\.blocks\.0\.gamma"):
            model.load_backbone(state)
        with pytest.raises(ModelError, match="of another shape"):
            model.load_backbone(timm.create_model("convnext_femto").state_dict())
        state = timm.create_model("vit_tiny_patch16_224").state_dict()
        for shape, message in (
            ((1, 20, 192), "pos_embed: not of a square grid"),
            ((197, 192), "pos_embed: not of a square grid"),
            ((1, 197, 64), r"of another shape: trunk\.pos_embed"),
        ):
            with pytest.raises(ModelError, match=message):
                small(backbone="vit_tiny_patch16_224").load_backbone(state | {"pos_embed": torch.zeros(shape)})


@pytest.fixture(scope="module")
def golden(cvgl_data: Path) -> Any:
    """The authors' numbers: their tensors' shapes, the module that fills them, and what came out."""
    folder = cvgl_data / "golden"
    spec = importlib.util.spec_from_file_location("stand_in", folder / "stand_in.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return json.loads((folder / "vectors.json").read_text())["frgeo"], module, np.load(folder / "vectors.npz")


@pytest.fixture(scope="module")
def authors(golden: Any) -> dict[str, Tensor]:
    """A `state_dict` as the authors' code names it."""
    shapes, stand_in, _ = golden
    return {name: torch.from_numpy(stand_in.fill(name, tuple(shape))) for name, shape in shapes["state"].items()}


@pytest.fixture(scope="module")
def imported(authors: dict[str, Tensor], tmp_path_factory: pytest.TempPathFactory) -> Any:
    """From a file as the released training writes it: the names of a data-parallel model, in a wrapper."""
    file = tmp_path_factory.mktemp("frgeo") / "model_best.pth.tar"
    torch.save({"epoch": 50, "state_dict": {f"module.{name}": value for name, value in authors.items()}}, file)
    model = import_checkpoint(file, "frgeo")
    file.unlink()
    return model


def official_backbone(authors: dict[str, Tensor]) -> dict[str, Tensor]:
    """ImageNet weights as the official ConvNeXt publishes them, classifier included."""
    prefix = "query_net."
    state = {name[len(prefix) :]: value for name, value in authors.items() if name.startswith(prefix)}
    return state | {"head.weight": torch.zeros(1000, 768), "head.bias": torch.zeros(1000)}


@pytest.mark.data
class TestAuthors:
    @pytest.mark.parametrize("view", ["query", "reference"])
    def test_their_numbers(self, golden: Any, imported: Any, view: Any) -> None:
        shapes, stand_in, arrays = golden
        given, expected = shapes[view], arrays[f"frgeo_{view}"]
        images = torch.from_numpy(stand_in.image(given["seed"], given["h"], given["w"], given["b"]))
        with torch.no_grad():
            found = imported(images, view).descriptor.numpy()
        # Measured: 6.5e-7 and 6.4e-7.
        assert np.abs(found - expected).max() < 1e-5 * np.abs(expected).max()

    def test_what_does_not_fit_is_named(self, authors: dict[str, Tensor]) -> None:
        changed = dict(authors)
        del changed["query_net.stages.2.4.pwconv1.weight"]
        changed["reference_net.head.weight"] = torch.zeros(1000, 768)
        changed["reference_net.norm.weight"] = torch.zeros(384)
        with pytest.raises(ModelError) as caught:
            import_state(changed, "frgeo")
        for words in (
            "1 missing: query.trunk.stages.2.blocks.4.mlp.fc1.weight",
            "1 not of this network: reference.head.weight",
            "reference.norm.weight (384,) for (768,)",
        ):
            assert words in str(caught.value)

    def test_the_official_backbone_fills_both_views(self, authors: dict[str, Tensor], imported: Any) -> None:
        model = create_model("frgeo", **DRONE)
        assert model.load_backbone(official_backbone(authors)) == ["head.weight", "head.bias"]
        expected = imported.query.state_dict()
        for net in (model.query, model.reference):
            assert all(torch.equal(value, expected[name]) for name, value in net.state_dict().items())
