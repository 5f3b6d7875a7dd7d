"""Figures as files: readable, of a sensible size, and right at the edges of what they are given."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from cvgl.errors import CvglError, ModelError
from cvgl_train.data.base import CrossViewSet, DatasetError
from cvgl_train.evaluation.figures import (
    PanelRow,
    Retrieved,
    descriptor_pca,
    hsm_panel,
    panel_rows,
    pssr_histogram,
    retrieval_panel,
    training_curve,
)
from cvgl_train.models.base import CrossViewModel, Features, ModelInfo, View, ViewInput

GREEN, RED = (0, 158, 115), (213, 94, 0)


def read(path: Path) -> NDArray[np.uint8]:
    """(H, W, 3) RGB of a figure, of a size that can be looked at."""
    image = cv2.imread(str(path))
    assert image is not None
    assert 150 < image.shape[0] < 4000 and 300 < image.shape[1] < 4000
    assert image.std() > 5
    return np.ascontiguousarray(image[..., ::-1])


def share_of(image: NDArray[np.uint8], colour: tuple[int, int, int]) -> float:
    return float(np.mean(np.abs(image.astype(int) - colour).max(2) <= 2))


@dataclass(frozen=True)
class Plain:
    """An image of one colour."""

    name: str
    value: int
    shape: tuple[int, int] = (32, 32)

    def read(self) -> NDArray[np.uint8]:
        return np.full((*self.shape, 3), self.value, np.uint8)


def dataset(**changes: Any) -> CrossViewSet:
    values: dict[str, Any] = {
        "name": "small",
        "split": "test",
        "queries": [Plain(f"query/{i}.jpg", 40 * i, (16, 64)) for i in range(2)],
        "references": [Plain(f"reference/{i}.jpg", 20 * i) for i in range(6)],
        "matches": [np.array([4]), np.array([1, 2])],
        "query_labels": np.arange(2),
        "reference_labels": np.arange(6),
    }
    return CrossViewSet(**{**values, **changes})


SCORES = np.array([[0.9, 0.1, 0.8, 0.7, 0.3, 0.2], [0.1, 0.9, 0.2, 0.3, 0.4, 0.5]])


def test_rows_list_what_was_found_and_the_true_one_that_was_not() -> None:
    first, second = panel_rows(dataset(semi=[np.array([2]), np.array([], int)]), [0, 1], SCORES, first=3)
    assert [(r.place, r.kind) for r in first.found] == [(1, "false"), (2, "semi"), (3, "false")]
    assert [int(r.image[0, 0, 0]) for r in first.found] == [0, 40, 60]
    assert first.true is not None
    assert (first.true.place, first.true.kind, first.true.score) == (4, "true", pytest.approx(0.3))
    assert [r.kind for r in second.found] == ["true", "false", "false"]
    assert second.true is None
    assert (second.name, second.query.shape) == ("query/1.jpg", (16, 64, 3))
    assert all(r.distance_m is None for r in first.found)


def test_equal_scores_count_against_the_true_reference() -> None:
    row = panel_rows(dataset(), [0], np.zeros((1, 6)), first=1)[0]
    assert row.true is None or row.true.place == 6


def test_rows_take_all_references_where_fewer_are_there_than_wanted() -> None:
    row = panel_rows(dataset(), [0], SCORES[:1], first=9)[0]
    assert len(row.found) == 6 and row.true is None


@pytest.mark.parametrize(
    ("frame", "query", "reference"),
    [("metres", (100.0, 200.0), (400.0, 600.0)), ("wgs84", (47.0, 9.5), (47.0, 9.50657))],
)
def test_rows_tell_the_distance_where_positions_are_known(
    frame: str, query: tuple[float, float], reference: tuple[float, float]
) -> None:
    data = dataset(query_positions=np.array([query, query]), reference_positions=np.array([reference] * 6), frame=frame)
    row = panel_rows(data, [0], SCORES[:1], first=2)[0]
    assert row.true is not None
    assert [r.distance_m for r in (*row.found, row.true)] == [pytest.approx(500.0, abs=0.5)] * 3


@pytest.mark.parametrize(
    ("queries", "scores", "first", "field"),
    [([0, 1], SCORES[:1], 3, "scores"), ([0], SCORES[:1, :5], 3, "scores"), ([0], SCORES[:1], 0, "first")],
)
def test_scores_that_do_not_fit_are_refused(
    queries: list[int], scores: NDArray[np.float64], first: int, field: str
) -> None:
    with pytest.raises(DatasetError, match=field):
        panel_rows(dataset(), queries, scores, first=first)


def test_a_retrieval_panel_frames_true_and_false_ones(tmp_path: Path) -> None:
    path = tmp_path / "panel.png"
    retrieval_panel(panel_rows(dataset(), [0, 1], SCORES, first=3), path)
    image = read(path)
    assert share_of(image, GREEN) > 0.002 and share_of(image, RED) > 0.002
    retrieval_panel(panel_rows(dataset(), [0], SCORES[:1], first=3)[:1], path)
    image = read(path)
    # The true one was not among the three: it stands at the end.
    assert share_of(image, GREEN) > 0.002
    assert np.abs(image[:, : image.shape[1] * 3 // 4].astype(int) - GREEN).max(2).min() > 2


def test_a_retrieval_panel_of_one_query_with_nothing_but_false_ones(tmp_path: Path) -> None:
    found = [Retrieved(np.zeros((8, 8, 3), np.uint8), 1, "false", -12.5)]
    row = PanelRow("a/very/long/name/of/a/query/that/does/not/fit/under/its/image.jpeg", found[0].image, found)
    retrieval_panel([row], tmp_path / "one.png")
    assert share_of(read(tmp_path / "one.png"), RED) > 0.002
    with pytest.raises(DatasetError, match="rows"):
        retrieval_panel([], tmp_path / "none.png")
    assert not (tmp_path / "none.png").exists()


class Regions(CrossViewModel):
    """Heat and regions without a network; regions are stripes, the last of them of no region."""

    def __init__(self, count: int, width: int = 32) -> None:
        super().__init__()
        self.info = ModelInfo("regions", 3, ViewInput(32, width), ViewInput(32, 32), True)
        self.count = count

    def forward(self, images: Tensor, view: View) -> Features:
        return Features(images.mean((2, 3)))

    def regions(self, images: Tensor, view: View) -> tuple[Tensor, Tensor] | None:
        assert not self.training
        if self.count == 0:
            return None
        heat = images.mean(1)[:, ::4, ::4]
        stripes = torch.arange(heat.shape[1])[:, None] % (self.count + 1)
        return heat, torch.where(stripes == self.count, -1, stripes).expand(heat.shape)


def images(count: int, width: int = 32) -> dict[View, Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes: dict[View, tuple[int, ...]] = {"query": (count, 3, 32, width), "reference": (count, 3, 32, 32)}
    return {view: torch.randn(shape, generator=generator) for view, shape in shapes.items()}


@pytest.mark.parametrize(("count", "rows", "width"), [(1, 1, 32), (3, 2, 32), (5, 1, 128), (7, 1, 32)])
def test_an_hsm_panel_shows_any_number_of_regions(tmp_path: Path, count: int, rows: int, width: int) -> None:
    model = Regions(count, width).train()
    hsm_panel(model, images(rows, width), tmp_path / "hsm.png")
    read(tmp_path / "hsm.png")
    assert model.training


def test_a_model_without_regions_or_images_that_do_not_fit_have_no_hsm_panel(tmp_path: Path) -> None:
    path = tmp_path / "hsm.png"
    with pytest.raises(ModelError, match="regions"):
        hsm_panel(Regions(0), images(1), path)
    with pytest.raises(ModelError, match="query"):
        hsm_panel(Regions(3), images(1, 64), path)
    uneven = images(2)
    uneven["query"] = uneven["query"][:1]
    for wrong in (uneven, {}, images(0)):
        with pytest.raises(ModelError, match="images"):
            hsm_panel(Regions(3), wrong, path)
    assert not path.exists()


@pytest.mark.parametrize("values", [[1.0], [0.0], [0.0, 1.0], np.linspace(0, 1, 1000), np.full(10, 0.999)])
@pytest.mark.parametrize("r_at_1", [None, 0.25])
def test_a_pssr_histogram_of_whatever_values(tmp_path: Path, values: Any, r_at_1: float | None) -> None:
    pssr_histogram(values, tmp_path / "pssr.png", r_at_1=r_at_1)
    read(tmp_path / "pssr.png")


@pytest.mark.parametrize("values", [[], [1.2], [np.nan], [-0.1, 0.5]])
def test_what_is_no_pssr_is_refused(tmp_path: Path, values: list[float]) -> None:
    with pytest.raises(CvglError, match="per_query"):
        pssr_histogram(values, tmp_path / "pssr.png")


@pytest.mark.parametrize(("queries", "references", "size"), [(1, 1, 8), (5, 9, 600), (300, 400, 16)])
def test_a_pca_of_any_number_of_descriptors(tmp_path: Path, queries: int, references: int, size: int) -> None:
    rng = np.random.default_rng(0)
    there = rng.normal(size=(references, size))
    here = there[:queries] + 0.1 * rng.normal(size=(queries, size))
    descriptor_pca(here, there, [np.array([i]) for i in range(queries)], tmp_path / "pca.png")
    read(tmp_path / "pca.png")


def test_a_pca_of_descriptors_that_are_all_alike_or_have_no_true_reference(tmp_path: Path) -> None:
    ones = np.ones((4, 8))
    descriptor_pca(ones, ones, [np.array([0]), np.array([1, 2]), np.array([], int), np.array([3])], tmp_path / "a.png")
    read(tmp_path / "a.png")


@pytest.mark.parametrize(
    ("queries", "references", "matches", "field"),
    [((2, 4), (2, 5), 2, "descriptors"), ((2, 4), (2, 4), 1, "matches"), ((0, 4), (2, 4), 0, "descriptors")],
)
def test_descriptors_that_do_not_fit_have_no_pca(
    tmp_path: Path, queries: tuple[int, int], references: tuple[int, int], matches: int, field: str
) -> None:
    with pytest.raises(CvglError, match=field):
        descriptor_pca(np.ones(queries), np.ones(references), [np.array([0])] * matches, tmp_path / "pca.png")


def curve(points: int, every: int = 1) -> list[dict[str, float]]:
    return [
        {"step": 10.0 * i, "seconds": 3.0 * i, "loss": 4 - 0.1 * i, **({} if i % every else {"R@1": i / points})}
        for i in range(points)
    ]


@pytest.mark.parametrize(
    "records",
    [
        {"one": curve(30, 5)},
        {"a point": curve(1)},
        {"nothing yet": []},
        {f"run {i}": curve(8) for i in range(12)},
        {"no score": [{"step": 1.0, "seconds": 1.0, "loss": 3.0}]},
    ],
    ids=lambda records: next(iter(records)),
)
@pytest.mark.parametrize("over", ["seconds", "step"])
def test_training_curves_of_one_run_and_of_many(tmp_path: Path, records: dict[str, Any], over: Any) -> None:
    training_curve(records, tmp_path / "curve.png", over=over, chance=0.025)
    read(tmp_path / "curve.png")


def test_records_that_cannot_be_drawn_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CvglError, match="records"):
        training_curve({}, tmp_path / "curve.png")
    with pytest.raises(CvglError, match=r"seconds.*run"):
        training_curve({"run": [{"step": 1.0, "loss": 2.0}]}, tmp_path / "curve.png")


def test_figures_can_be_svg_and_are_the_same_file_again(tmp_path: Path) -> None:
    for name in ("first.svg", "second.svg"):
        pssr_histogram(np.linspace(0, 1, 50), tmp_path / name)
    first = (tmp_path / "first.svg").read_bytes()
    assert first.startswith(b"<?xml") and first == (tmp_path / "second.svg").read_bytes()


def test_a_figure_of_another_kind_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(CvglError, match=r"figure\.jpg.*\.png or \.svg"):
        pssr_histogram([0.5], tmp_path / "figure.jpg")
    assert not list(tmp_path.iterdir())


def test_drawing_is_imported_when_something_is_drawn() -> None:
    code = (
        "import sys, cvgl_train.evaluation.figures, cvgl_train.evaluation.cost;"
        "sys.exit(any(name in sys.modules for name in ('matplotlib', 'sklearn')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
