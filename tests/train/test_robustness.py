"""Shifted and coarser images, and what becomes of a model's answers."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from cvgl_train.data.base import CrossViewSet
from cvgl_train.evaluation.evaluate import FORWARD, evaluate
from cvgl_train.evaluation.robustness import coarsened, robustness, shifted
from cvgl_train.evaluation.tables import as_latex, robustness_sheet
from cvgl_train.models.base import View, ViewInput

VIEW = ViewInput(64, 64)


def ramp(height: int, width: int) -> NDArray[np.uint8]:
    """Every column has its number as its colour."""
    return np.repeat(np.broadcast_to(np.arange(width, dtype=np.uint8), (height, width))[..., None], 3, 2)


@pytest.mark.parametrize(("pad", "first"), [("black", [0, 0, 0, 0, 0, 0, 1]), ("flip", [4, 3, 2, 1, 0, 0, 1])])
def test_a_shift_moves_to_the_right_and_fills_from_the_left(pad: Any, first: list[int]) -> None:
    """20 px of an image 256 wide are 5 of one that is 64 wide."""
    moved = shifted(ramp(64, 64), VIEW, pixels=20, pad=pad)
    assert moved.shape == (64, 64, 3)
    assert moved[10, :7, 1].tolist() == first
    assert moved[10, 5:, 1].tolist() == list(range(59))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 400), st.sampled_from(["black", "flip"]), st.integers(4, 90), st.integers(4, 90))
def test_a_shift_has_the_views_size_whatever_comes_in(pixels: int, pad: Any, height: int, width: int) -> None:
    view = ViewInput(16, 40)
    image = np.random.default_rng(0).integers(1, 256, (height, width, 3)).astype(np.uint8)
    moved = shifted(image, view, pixels=pixels, pad=pad)
    assert moved.shape == (16, 40, 3)
    away = min(round(pixels * 40 / 256), 40)
    assert np.array_equal(moved[:, away:], shifted(image, view, pixels=0, pad=pad)[:, : 40 - away])


def test_no_shift_changes_nothing() -> None:
    image = ramp(64, 64)
    assert np.array_equal(shifted(image, VIEW, pixels=0, pad="flip"), image)


def test_detail_goes_and_brightness_stays() -> None:
    rng = np.random.default_rng(1)
    image = rng.integers(0, 256, (128, 256, 3)).astype(np.uint8)
    coarse = coarsened(image, ViewInput(64, 128), pixels=8)
    assert coarse.shape == (8, 16, 3)
    assert coarse.mean() == pytest.approx(image.mean(), abs=2)
    assert coarse.std() < image.std() / 5


@dataclass(frozen=True)
class Striped:
    """A bright bar somewhere on grey."""

    name: str
    column: int

    def read(self) -> NDArray[np.uint8]:
        image = np.full((64, 64, 3), 90, np.uint8)
        image[:, self.column : self.column + 2] = 250
        return image


class Profile:
    """Embeds an image as the brightness of its columns: what is shifted is elsewhere."""

    name = "profile"
    inputs: Mapping[View, ViewInput] = {"query": VIEW, "reference": VIEW}
    descriptor_size = 64
    metric: Literal["cosine", "euclidean"] = "euclidean"

    def __init__(self) -> None:
        self.embedded: dict[View, int] = {"query": 0, "reference": 0}

    def prepare(self, image: NDArray[np.uint8], view: View) -> Any:
        from cvgl_train.data.images import resize, to_tensor

        return resize(to_tensor(image), VIEW).numpy().mean((0, 1))

    def embed(self, prepared: Sequence[Any], view: View) -> NDArray[np.float32]:
        self.embedded[view] += len(prepared)
        return np.array(prepared, np.float32)


def test_what_becomes_of_a_model_that_looks_at_positions() -> None:
    places = list(range(4, 60, 5))
    data = CrossViewSet(
        "striped",
        "test",
        [Striped(f"q{c}", c) for c in places],
        [Striped(f"r{c}", c) for c in places],
        [np.array([i]) for i in range(len(places))],
        np.arange(len(places)),
        np.arange(len(places)),
    )
    model = Profile()
    found = evaluate(model, data)
    before = dict(model.embedded)
    told: set[str] = set()
    result = robustness(
        model,
        found.searches[FORWARD],
        shifts=(0, 20),
        sizes=(4, 32, 64, 128),
        progress=lambda what, done, size: told.add(what),
    )
    for pad in ("black", "flip"):
        assert result.shift[pad][0] == found.directions[FORWARD].values
        # Five pixels: exactly the next place's bar.
        assert result.shift[pad][20]["R@1"] < 0.2
    assert list(result.size) == [4, 32, 64]
    assert result.size[64]["R@1"] == result.size[32]["R@1"] == 1.0
    assert result.size[4]["R@1"] < 1.0
    # References are embedded once, and queries as they are not again.
    assert model.embedded == {"query": before["query"] + 4 * len(places), "reference": before["reference"]}
    assert told == {"black pad 20 px", "flip pad 20 px", "4 px of detail", "32 px of detail"}
    assert json.loads(json.dumps(result.as_dict()))["shift"]["flip"]["0"]["R@1"] == 1.0
    sheet = robustness_sheet(result)
    assert [row[:2] for row in sheet.rows][-2:] == [["detail", "32 px"], ["detail", "64 px"]]
    assert "flip pad & 20 px" in as_latex(sheet)
