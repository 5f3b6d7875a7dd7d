"""What a model is worth while it trains: R@K that a collapsed network cannot win, by the descriptors as they are."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor, nn

from cvgl.errors import ModelError
from cvgl_train.data.base import CrossViewSet, DatasetError
from cvgl_train.models.base import CrossViewModel, Features, ModelInfo, View, ViewInput
from cvgl_train.training.judge import describe, retrieval_scores

CPU = torch.device("cpu")
SIZE = ViewInput(4, 4, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))


class Colour:
    """An image of one colour, 0 to 255."""

    def __init__(self, *rgb: int) -> None:
        self.name, self._rgb = f"{rgb}", rgb

    def read(self) -> NDArray[np.uint8]:
        return np.full((4, 4, 3), self._rgb, np.uint8)


class Mean(CrossViewModel):
    """The descriptor is the mean colour times a weight; with weight 0 all are alike. Takes (T, 3) tokens as well."""

    def __init__(self, weight: float = 1.0, metric: Literal["cosine", "euclidean"] = "euclidean") -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(weight))
        self.info = ModelInfo("mean", 3, SIZE, SIZE, shared=True, metric=metric)
        self.settings: Any = None
        self.modes: list[bool] = []

    def check(self, images: Tensor, view: View) -> None:
        """Anything is taken."""

    def forward(self, images: Tensor, view: View) -> Features:
        self.modes.append(self.training)
        pixels = images.flatten(2).mean(2) if images.ndim == 4 else images.mean(1)
        return Features(torch.nn.functional.linear(pixels, torch.eye(3) * self.scale))


def places(queries: list[Any], references: list[Any], matches: list[list[int]]) -> CrossViewSet:
    return CrossViewSet(
        "made up",
        "test",
        queries,
        references,
        [np.array(found) for found in matches],
        np.zeros(len(queries), np.int64),
        np.zeros(len(references), np.int64),
    )


COLOURS = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0), (0, 255, 255), (255, 0, 255), (90, 90, 90), (9, 99, 9)]
PAIRS = places([Colour(*rgb) for rgb in COLOURS], [Colour(*rgb) for rgb in COLOURS], [[i] for i in range(8)])


def test_descriptors_are_the_models_and_in_the_order_of_the_images() -> None:
    model = Mean(2.0).train()
    queries, references = describe(model, PAIRS, CPU, half=False)
    np.testing.assert_allclose(queries, 2 * np.array(COLOURS) / 255, atol=1e-6)
    assert np.array_equal(queries, references) and queries.dtype == np.float32
    assert not model.training and not any(model.modes)
    assert model.scale.grad is None


def test_a_model_that_knows_every_place_has_all() -> None:
    assert retrieval_scores(PAIRS, CPU, half=False)(Mean()) == {"R@1": 1.0, "R@5": 1.0, "R@10": 1.0, "chance": 1 / 8}


@given(size=st.integers(2, 30), extra=st.integers(0, 10))
@settings(max_examples=20, deadline=None)
def test_a_collapsed_model_has_what_chance_gives(size: int, extra: int) -> None:
    images = [Colour(i, 2 * i, 3 * i) for i in range(size + extra)]
    scores = retrieval_scores(places(images[:size], images, [[i] for i in range(size)]), CPU, half=False)(Mean(0.0))
    assert scores["chance"] == pytest.approx(1 / (size + extra))
    for k in (1, 5, 10):
        assert scores[f"R@{k}"] == pytest.approx(min(k / (size + extra), 1.0))


def test_places_that_look_like_a_query_come_before_its_own() -> None:
    """The first query's own reference is the second closest, the second's the closest."""
    data = places(
        [Colour(100, 0, 0), Colour(0, 100, 0)],
        [Colour(80, 0, 0), Colour(0, 100, 0), Colour(101, 0, 0)],
        [[0], [1]],
    )
    scores = retrieval_scores(data, CPU, half=False)(Mean())
    assert scores["R@1"] == 0.5 and scores["R@5"] == 1.0


def test_the_models_metric_decides() -> None:
    """By direction the dark red is the bright red; by distance the brown is."""
    data = places([Colour(200, 0, 0)], [Colour(50, 0, 0), Colour(190, 60, 0)], [[0]])
    assert retrieval_scores(data, CPU, half=False)(Mean(metric="cosine"))["R@1"] == 1.0
    assert retrieval_scores(data, CPU, half=False)(Mean(metric="euclidean"))["R@1"] == 0.0


def test_neighbours_that_are_neither_true_nor_false_still_stand_before_the_true_one() -> None:
    """VIGOR's semi-positives count as false in R@K, as published."""
    data = places([Colour(100, 0, 0)], [Colour(80, 0, 0), Colour(100, 0, 0)], [[0]])
    data = replace(data, semi=[np.array([1])])
    assert retrieval_scores(data, CPU, half=False)(Mean())["R@1"] == 0.0


def test_half_precision_is_the_trainings_own_and_says_about_the_same() -> None:
    whole, half = (describe(Mean(1.7), PAIRS, CPU, half)[0] for half in (False, True))
    assert not np.array_equal(whole, half)
    np.testing.assert_allclose(whole, half, rtol=2e-2)


class Tokens:
    """A frozen backbone's (T, C) features in an image's place."""

    name = "tokens"

    def __init__(self, *values: float) -> None:
        self._values = values

    def read(self) -> NDArray[Any]:
        return np.full((5, 3), self._values, np.float16)


def test_cached_tokens_are_taken_as_they_are() -> None:
    data = places([Tokens(1.0, 0.5, 0.0)], [Tokens(0.25, 0.0, 1.0)], [[0]])
    queries, references = describe(Mean(), data, CPU, half=False)
    assert queries.tolist() == [[1.0, 0.5, 0.0]] and references.tolist() == [[0.25, 0.0, 1.0]]


def test_a_descriptor_that_is_no_number_names_its_image() -> None:
    with pytest.raises(ModelError, match=r"query: a descriptor that is not finite \(found '\(255, 0, 0\)'"):
        describe(Mean(float("nan")), PAIRS, CPU, half=False)


def test_an_image_that_cannot_be_read_is_named() -> None:
    class Broken(Colour):
        def read(self) -> NDArray[np.uint8]:
            raise DatasetError("not readable as an image", file="broken.jpg")

    data = places([Colour(1, 2, 3)], [Broken(1, 2, 3)], [[0]])
    with pytest.raises(DatasetError, match=r"broken\.jpg: not readable"):
        retrieval_scores(data, CPU, half=False)(Mean())
