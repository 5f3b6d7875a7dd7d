"""From an image to a network's input: antialiased, normalised, and changed in training only as the recipe says."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor
from torch.testing import assert_close

from cvgl_train.data.images import AUGMENTATIONS, AugmentationError, build_augmentation, resize, to_input, to_tensor
from cvgl_train.models.base import ViewInput

# A view whose input is the pixel's value between 0 and 1.
PLAIN = ViewInput(24, 24, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))


def noise(height: int = 24, width: int = 24, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)


def as_input(image: NDArray[np.uint8]) -> Tensor:
    """What a plain view makes of an image of its own size."""
    return torch.from_numpy(image.astype(np.float32) / 255).permute(2, 0, 1)


@given(
    height=st.integers(1, 40), width=st.integers(1, 40), colour=st.tuples(*[st.integers(0, 255)] * 3),
    mode=st.sampled_from(["bilinear", "bicubic"]),
)  # fmt: skip
@settings(max_examples=40, deadline=None)
def test_one_colour_stays_that_colour_at_any_size(height: int, width: int, colour: Any, mode: Any) -> None:
    view = ViewInput(12, 20, interpolation=mode)
    image = np.full((height, width, 3), colour, np.uint8)
    found = to_input(image, view)
    assert found.shape == (3, 12, 20) and found.dtype == torch.float32
    wanted = [(value / 255 - mean) / std for value, mean, std in zip(colour, view.mean, view.std, strict=True)]
    assert_close(found, torch.tensor(wanted)[:, None, None].expand(3, 12, 20), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
def test_smaller_images_are_antialiased(mode: Any) -> None:
    # Every eighth column white: one pixel in eight would catch all of them or none.
    image = np.zeros((64, 64, 3), np.uint8)
    image[:, ::8] = 255
    found = to_input(image, ViewInput(8, 8, PLAIN.mean, PLAIN.std, mode))
    assert_close(found, torch.full((3, 8, 8), 1 / 8), atol=0.06, rtol=0)


def test_an_image_of_the_right_size_is_not_touched() -> None:
    image = noise()
    assert_close(to_input(image, PLAIN), as_input(image), atol=1e-6, rtol=0)
    assert resize(to_tensor(image), PLAIN).dtype == torch.uint8


def test_any_memory_layout_gives_the_same_input() -> None:
    image = noise(30, 20)
    backwards = np.ascontiguousarray(image[..., ::-1])[..., ::-1]
    assert torch.equal(to_input(backwards, PLAIN), to_input(image, PLAIN))
    assert torch.equal(to_input(np.asfortranarray(image), PLAIN), to_input(image, PLAIN))


@pytest.mark.parametrize("size", [(24, 24), (50, 33), (9, 12)])
@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_an_augmentation_is_one_input_a_seed(name: str, size: tuple[int, int]) -> None:
    """Whatever else is random: batches must depend on torch's seed and nothing else."""
    augment = build_augmentation([{"name": name}], PLAIN)
    image = noise(*size)
    before = image.copy()
    made = []
    for other in (1, 2):
        random.seed(other)
        np.random.seed(other)
        torch.manual_seed(7)
        made.append(augment(image))
    assert torch.equal(*made) and made[0].shape == (3, 24, 24) and made[0].dtype == torch.float32
    assert np.array_equal(image, before)


@pytest.mark.parametrize("specs", [[], [{"name": "flip", "share": 0.0}], [{"name": "pad_crop", "pad": 0}]])
def test_training_that_changes_nothing_sees_what_evaluation_sees(specs: list[dict[str, Any]]) -> None:
    view = ViewInput(24, 24, interpolation="bicubic")
    assert torch.equal(build_augmentation(specs, view)(noise(60, 40)), to_input(noise(60, 40), view))


def test_flips_mirror_left_and_right() -> None:
    flipped = build_augmentation([{"name": "flip", "share": 1.0}], PLAIN)(noise())
    assert_close(flipped, as_input(noise()).flip(2), atol=1e-6, rtol=0)


@given(seed=st.integers(0, 999))
@settings(max_examples=15, deadline=None)
def test_quarter_turns_are_quarter_turns(seed: int) -> None:
    torch.manual_seed(seed)
    found = build_augmentation([{"name": "quarter_turns"}], PLAIN)(noise())
    turned = [torch.rot90(as_input(noise()), times, (1, 2)) for times in range(4)]
    assert any(torch.allclose(found, one, atol=1e-6) for one in turned)


@given(seed=st.integers(0, 999), pad=st.integers(1, 6))
@settings(max_examples=15, deadline=None)
def test_shifts_are_at_most_the_padding(seed: int, pad: int) -> None:
    torch.manual_seed(seed)
    found = build_augmentation([{"name": "pad_crop", "pad": pad, "mode": "constant"}], PLAIN)(noise())
    padded = torch.nn.functional.pad(as_input(noise()), (pad,) * 4)
    places = range(2 * pad + 1)
    assert any(
        torch.allclose(found, padded[:, top : top + 24, left : left + 24], atol=1e-6)
        for top in places
        for left in places
    )


def test_erased_rectangles_are_black_and_of_the_size_asked_for() -> None:
    white = np.full((24, 24, 3), 255, np.uint8)
    for seed in range(10):
        torch.manual_seed(seed)
        found = build_augmentation([{"name": "erase", "share": 1.0, "scale": [0.1, 0.3]}], PLAIN)(white)
        black = (found == 0).all(0)
        assert torch.equal(black, (found == 0).any(0))
        assert 0.05 < black.float().mean() < 0.4
        rows, columns = black.any(1), black.any(0)
        assert black.sum() == rows.sum() * columns.sum()


def test_crops_are_parts_of_the_image() -> None:
    # Brightness grows to the right: a crop starts later or ends earlier, and keeps the order.
    image = np.broadcast_to(np.arange(240, dtype=np.uint8)[None, :, None], (240, 240, 3)).copy()
    spans = []
    for seed in range(10):
        torch.manual_seed(seed)
        row = build_augmentation([{"name": "crop", "scale": [0.2, 0.5]}], PLAIN)(image)[0, 12]
        assert (row.diff() >= -1e-6).all()
        spans.append(float(row[-1] - row[0]) * 255 / 240)
    assert min(spans) > 0.4 and max(spans) < 0.75


@pytest.mark.parametrize(
    ("specs", "message"),
    [
        ("flip", r"augment: not a list \(found 'flip'"),
        (["flip"], r"augment: not an augmentation \(found 'flip', expected \{name: NAME"),
        ([{"share": 0.5}], r"augmentation: no such augmentation \(expected crop or pad_crop"),
        ([{"name": "spin"}], r"augmentation: no such augmentation \(found 'spin', expected crop or pad_crop"),
        ([{"name": "flip", "chance": 1}], r"augmentation flip: no such setting \(found 'chance', expected share"),
        ([{"name": "quarter_turns", "n": 1}], "expected no setting"),
        ([{"name": "flip", "share": "half"}], r"augmentation flip: share: a setting that cannot be \(found 'half'"),
        ([{"name": "flip", "share": 5}], "augmentation flip: cannot be"),
        ([{"name": "blur", "kernel": 4}], "augmentation blur: cannot be"),
        ([{"name": "pad_crop", "mode": "mirror"}], "augmentation pad_crop: cannot be"),
        ([{"name": "pad_crop", "pad": -3}], "augmentation pad_crop: pad: out of range"),
        ([{"name": "crop", "scale": [0.5]}], r"augmentation crop: scale: out of range \(found \[0\.5\]"),
        ([{"name": "crop", "scale": [0.5, 0.2]}], "augmentation crop: scale: out of range"),
        ([{"name": "crop", "ratio": [0.0, 1.0]}], "augmentation crop: ratio: out of range"),
        ([{"name": "erase", "scale": [0.1, 1.2]}], "augmentation erase: cannot be"),
        ([{"name": "flip"}, {"name": "crop"}], "augment: has to be the first .found 'crop'"),
    ],
)
def test_augmentations_that_cannot_be_are_named(specs: Any, message: str) -> None:
    with pytest.raises(AugmentationError, match=message):
        build_augmentation(specs, PLAIN)
