"""Evaluations of models whose answers are known: colours that give a place away, and none at all."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from cvgl.errors import MissingDependencyError, ModelError
from cvgl_train.checkpoint import save_model
from cvgl_train.data.base import CrossViewSet, DatasetError, ImageFile
from cvgl_train.evaluation.embed import (
    BundleEmbedder,
    ModelEmbedder,
    embed_all,
    open_embedder,
    own_score,
)
from cvgl_train.evaluation.evaluate import BACKWARD, FORWARD, evaluate, height_groups
from cvgl_train.evaluation.tables import (
    as_csv,
    as_latex,
    as_table,
    cost_sheet,
    evaluation_sheet,
    group_sheet,
)
from cvgl_train.models.base import View, ViewInput
from cvgl_train.registry import create_model


@dataclass(frozen=True)
class Painted:
    """An image of one colour."""

    name: str
    colour: tuple[int, int, int]

    def read(self) -> NDArray[np.uint8]:
        return np.full((12, 10, 3), self.colour, np.uint8)


class Colours:
    """Embeds an image as its mean colour, or everything as the same vector."""

    name = "colours"
    inputs: Mapping[View, ViewInput] = {"query": ViewInput(8, 8), "reference": ViewInput(8, 8)}
    descriptor_size = 3
    metric: Literal["cosine", "euclidean"] = "euclidean"

    def __init__(self, alike: bool = False) -> None:
        self.alike = alike
        self.batches: list[tuple[View, int]] = []

    def prepare(self, image: NDArray[np.uint8], view: View) -> Any:
        return image.mean((0, 1))

    def embed(self, prepared: Sequence[Any], view: View) -> NDArray[np.float32]:
        self.batches.append((view, len(prepared)))
        colours = np.array(prepared, np.float32)
        return np.full_like(colours, 0.577) if self.alike else colours


def made(places: int = 6, views: int = 2, distractors: int = 3, **fields: Any) -> CrossViewSet:
    """Places as colours; each is seen by some queries and one reference."""
    colours = [(int(x), int(y), 7) for x, y in np.random.default_rng(0).choice(250, (places + distractors, 2), False)]
    return CrossViewSet(
        "painted",
        "test",
        [Painted(f"q{p}-{v}", colours[p]) for p in range(places) for v in range(views)],
        [Painted(f"r{p}", colour) for p, colour in enumerate(colours)],
        [np.array([p]) for p in range(places) for _ in range(views)],
        np.repeat(np.arange(places), views),
        np.array([*range(places), *[-1] * distractors]),
        **fields,
    )


def test_a_model_that_knows_is_perfect_both_ways() -> None:
    model = Colours()
    found = evaluate(model, made(), batch=5)
    assert list(found.directions) == [FORWARD, BACKWARD]
    forward, backward = found.directions[FORWARD], found.directions[BACKWARD]
    assert (forward.queries, forward.gallery, backward.queries, backward.gallery) == (12, 9, 6, 12)
    for direction in (forward, backward):
        assert direction.values["R@1"] == direction.values["AP_standard"] == direction.values["AP_trapezoidal"] == 1.0
        assert (direction.tied, direction.most_tied) == (0, 0)
        assert not any(name.endswith("_ties_against") for name in direction.values)
    assert forward.values["PSSR"] == pytest.approx(8 / 9)
    assert forward.values["R@1_chance"] == pytest.approx(1 / 9)
    # Two of the twelve are true.
    assert backward.values["R@1_chance"] == pytest.approx(2 / 12)
    assert sum(size for view, size in model.batches if view == "query") == 12
    assert max(size for _, size in model.batches) == 5


def test_a_model_that_knows_nothing_gets_what_chance_gives_and_says_so() -> None:
    found = evaluate(Colours(alike=True), made())
    for direction, chance in ((found.directions[FORWARD], 1 / 9), (found.directions[BACKWARD], 2 / 12)):
        assert direction.values["R@1"] == pytest.approx(chance)
        assert direction.values["R@1"] == pytest.approx(direction.values["R@1_chance"])
        assert direction.values["R@1_ties_against"] == 0.0
        assert direction.tied == direction.queries
    assert found.directions[FORWARD].most_tied == 8


def test_the_gallery_of_the_way_back_may_be_another_one() -> None:
    """As in University-1652: drone images of places that no query has."""
    whole = made(places=6, views=2, distractors=0)
    turned = replace(
        whole,
        references=whole.references[:4],
        matches=[m if m[0] < 4 else np.zeros(0, np.int64) for m in whole.matches],
        reference_labels=whole.reference_labels[:4],
        unmatched=True,
    )
    found = evaluate(Colours(), made(), turned=turned)
    assert (found.directions[BACKWARD].queries, found.directions[BACKWARD].gallery) == (4, 12)
    assert found.directions[BACKWARD].values["R@1"] == 1.0
    alone = evaluate(Colours(), turned)
    assert list(alone.directions) == [BACKWARD]
    assert alone.directions[BACKWARD].values == found.directions[BACKWARD].values


def test_a_set_without_queries_is_refused() -> None:
    with pytest.raises(DatasetError, match="no query has a true reference"):
        evaluate(Colours(), made().select(np.zeros(0, np.int64)))
    nothing = replace(made(places=2), matches=[np.zeros(0, np.int64)] * 4, unmatched=True)
    with pytest.raises(DatasetError, match="no query has a true reference"):
        evaluate(Colours(), nothing)


def test_positions_give_distances_and_the_sdm_that_fits() -> None:
    positions = np.array([[47.0 + 0.001 * (i // 2), 9.0] for i in range(12)])
    references = np.array([[47.0 + 0.001 * i, 9.0] for i in range(9)])
    degrees = evaluate(Colours(), made(query_positions=positions, reference_positions=references))
    values = degrees.directions[FORWARD].values
    assert values["distance_m_p50"] == pytest.approx(0, abs=1e-6)
    assert values["SDM_degrees@1"] == values["SDM_metres@1"] == pytest.approx(1.0)
    assert values["SDM_degrees@3"] < 0.7 < 0.8 < values["SDM_metres@3"]
    assert "SDM_metres@1" in degrees.directions[BACKWARD].values
    metres = evaluate(
        Colours(), made(query_positions=positions * 1e5, reference_positions=references * 1e5, frame="metres")
    )
    assert "SDM_metres@1" in metres.directions[FORWARD].values
    assert not any(name.startswith("SDM_degrees") for name in metres.directions[FORWARD].values)


def test_semi_positives_are_counted_as_published_and_left_out_under_names_of_their_own() -> None:
    """A neighbour that is semi-positive comes first, the true one second, the false ones after them."""
    colours = [(0, 0, 0), (10, 0, 0), (200, 0, 0), (250, 0, 0)]
    data = CrossViewSet(
        "painted",
        "test",
        [Painted("q", (1, 0, 0))],
        [Painted(f"r{c}", c) for c in colours],
        [np.array([1])],
        np.array([0]),
        np.array([-1, 0, -1, -1]),
        semi=[np.array([0])],
    )
    values = evaluate(Colours(), data).directions[FORWARD].values
    assert values["R@1"] == 0.0
    assert values["hit_rate"] == values["hit_rate_first"] == values["R@5_semi_out"] == 1.0
    assert values["rank_median"] == 2.0
    assert values["PSSR"] == pytest.approx(2 / 4)


def test_by_height_each_where_there_are_few_and_in_fifths_where_there_are_many() -> None:
    few = made(query_heights=np.array([150.0, 200.0] * 6))
    assert {k: v.tolist() for k, v in height_groups(few).items()} == {
        "150 m": [0, 2, 4, 6, 8, 10],
        "200 m": [1, 3, 5, 7, 9, 11],
    }
    many = height_groups(made(query_heights=np.linspace(100, 320, 12)))
    assert list(many) == ["100-144 m", "144-188 m", "188-232 m", "232-276 m", "276-320 m"]
    assert sorted(np.concatenate(list(many.values())).tolist()) == list(range(12))
    # Most fly at one height: fewer groups, and every query in one of them.
    close = height_groups(made(query_heights=np.array([100.0] * 3 + [100 + i / 10 for i in range(9)])))
    assert sorted(np.concatenate(list(close.values())).tolist()) == list(range(12))
    assert height_groups(made()) == {}
    groups = evaluate(Colours(), few).directions[FORWARD].groups
    assert groups["150 m"]["queries"] == 6
    assert groups["150 m"]["R@1"] == 1.0


def test_named_groups_are_measured_instead() -> None:
    groups = evaluate(Colours(), made(), groups={"near": np.array([0, 1]), "none": np.zeros(0, np.int64)})
    assert list(groups.directions[FORWARD].groups) == ["near"]


def test_everything_is_json_and_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    found = evaluate(Colours(alike=True), made(query_heights=np.array([150.0, 200.0] * 6)))
    data = json.loads(json.dumps(found.as_dict()))
    forward = data["directions"][FORWARD]
    assert sum(forward["pssr_distribution"]["counts"]) == 12
    assert forward["first_percent"] == {"university-1652": 1, "cvusa": 1, "cvm-net": 1}
    assert data["seconds_per_image"].keys() == {"query", "reference"}

    sheet = evaluation_sheet([found, found])
    assert all(len(row) == len(sheet.columns) for row in sheet.rows)
    assert sheet.rows[0][:5] == ["colours", "painted test", FORWARD, "12", "9"]
    assert sheet.rows[0][sheet.columns.index("R@1")] == "11.11"
    lines = as_csv(evaluation_sheet([found], every=True)).splitlines()
    assert len(lines) == 3
    assert "PSSR_without_itself" in lines[0]
    tex = as_latex(sheet)
    assert tex.count(r"\\") == 5
    assert r"query$\rightarrow$reference" in tex
    assert r"R@1 \% (univ)" in tex
    from rich.console import Console

    Console(width=300).print(as_table(sheet), as_table(group_sheet(found)))
    shown = capsys.readouterr().out
    assert "R@1, ties against" in shown
    assert "150 m" in shown


def test_a_descriptor_that_is_not_finite_names_its_image() -> None:
    class Broken(Colours):
        def embed(self, prepared: Sequence[Any], view: View) -> NDArray[np.float32]:
            found = super().embed(prepared, view)
            found[-1, 1] = np.nan
            return found

    with pytest.raises(ModelError, match=r"query: a descriptor that is not finite \(found 'q1-0'\)"):
        evaluate(Broken(), made(), batch=3)


def test_an_image_that_cannot_be_read_names_its_file(tmp_path: Path) -> None:
    data = made()
    broken = replace(data, references=[*data.references[:-1], ImageFile(tmp_path / "gone.png")])
    with pytest.raises(DatasetError, match=r"gone.png: no such image"):
        evaluate(Colours(), broken)


def test_images_come_in_their_order_with_any_number_of_threads() -> None:
    data = made(places=40, views=1, distractors=0)
    told: list[int] = []
    one = embed_all(Colours(), data.queries, "query", batch=7, workers=1, progress=told.append)
    many = embed_all(Colours(), data.queries, "query", batch=3, workers=8)
    assert np.array_equal(one.descriptors, many.descriptors)
    assert told == [7, 14, 21, 28, 35, 40]
    assert np.array_equal(one.descriptors, [np.array(q.colour) for q in data.queries])  # type: ignore[attr-defined]
    assert embed_all(Colours(), [], "query").descriptors.shape == (0, 3)


@pytest.fixture
def photos(tmp_path: Path) -> list[ImageFile]:
    rng = np.random.default_rng(3)
    for i in range(3):
        image = cv2.resize(
            rng.integers(0, 255, (12, 12, 3)).astype(np.uint8), (200, 150), interpolation=cv2.INTER_CUBIC
        )
        cv2.imwrite(str(tmp_path / f"{i}.png"), image)
    return [ImageFile(tmp_path / f"{i}.png") for i in range(3)]


def test_a_checkpoint_is_opened_and_embeds(tmp_path: Path, photos: list[ImageFile]) -> None:
    torch.manual_seed(0)
    save_model(create_model("cvgl-nano", input_px=32, widths=(4, 4, 4), descriptor_size=8), tmp_path / "m.pt", {})
    embedder = open_embedder(tmp_path / "m.pt")
    assert isinstance(embedder, ModelEmbedder)
    found = embed_all(embedder, photos, "query").descriptors
    assert found.shape == (3, 8)
    assert np.linalg.norm(found, axis=1) == pytest.approx(np.ones(3), abs=1e-5)
    with pytest.raises(MissingDependencyError, match="device"):
        open_embedder(tmp_path / "m.pt", "cuda:99")


@pytest.mark.slow
def test_a_bundle_embeds_what_its_model_embeds(tmp_path: Path, photos: list[ImageFile]) -> None:
    """Through ONNX Runtime and through PyTorch: the same images, resized the same way, and the right way round."""
    from cvgl_export.bundle import ExportOptions, export_bundle
    from cvgl_export.source import of_model
    from cvgl_export.tile_sources import open_tiles

    torch.manual_seed(0)
    model = create_model("cvgl-nano", input_px=32, widths=(8, 8, 8), blocks=(1, 0, 1), reduced=8, descriptor_size=16)
    tiles = open_tiles(None, model.info.query, model.info.reference, count=4)
    export_bundle(of_model(model, "small"), tmp_path / "small.cvgl", tiles, ExportOptions("fp32"), gsd_m=0.8)
    embedder = open_embedder(tmp_path / "small.cvgl")
    assert isinstance(embedder, BundleEmbedder)
    ours = embed_all(ModelEmbedder(model), photos, "reference").descriptors
    theirs = embed_all(embedder, photos, "reference").descriptors
    reddish = embed_all(ModelEmbedder(model), photos, "reference", change=lambda image, _: image[..., ::-1]).descriptors
    assert np.abs(ours - theirs).max() < 0.003
    assert np.abs(reddish - theirs).max() > 0.01
    assert embedder.descriptor_size == 16


def test_a_models_own_score_is_in_double_and_leaves_the_model_alone() -> None:
    model = create_model("cvgl-nano", input_px=32, widths=(4, 4, 4), descriptor_size=8)
    score = own_score(model)
    assert next(model.parameters()).dtype is torch.float32
    x = torch.randn(4, 8, dtype=torch.float64)
    assert torch.equal(score(x, x), x @ x.T)
    found = evaluate(ModelEmbedder(model), made(), score=score)
    assert found.score == "the model's own"
    assert found.searches[BACKWARD].similarity([0, 2]).shape == (2, 12)


def test_costs_stand_in_a_table() -> None:
    from cvgl_train.evaluation.cost import cost_of

    model = create_model("cvgl-nano", input_px=32, widths=(4, 4, 4), descriptor_size=8)
    sheet = cost_sheet({"nano": cost_of(model, measure=False)})
    assert [row[:3] for row in sheet.rows] == [["nano", "query", "32 x 32"], ["nano", "reference", "32 x 32"]]
