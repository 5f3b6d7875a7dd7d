"""The network, its loss and its weights file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from cvgl.errors import ModelError
from cvgl_train.losses.infonce import info_nce, same_place
from cvgl_train.models.nano import (
    MEAN,
    STD,
    Nano,
    NanoConfig,
    Robustify,
    average,
    load_weights,
    normalise,
    save_weights,
)

SMALL = NanoConfig(widths=(8, 12, 16), blocks=(1, 0, 1), reduced=4, descriptor_size=24, input_px=64)


def patches(count: int, size: int = 64, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    masks = np.ones((count, size, size), bool)
    masks[:, : size // 4] = False
    return rng.integers(0, 256, (count, size, size, 3)).astype(np.uint8), masks


def test_descriptors_have_unit_length_and_the_chosen_size() -> None:
    net = Nano(SMALL).eval()
    with torch.no_grad():
        out = net(normalise(*patches(3)))
    assert out.shape == (3, 24)
    assert torch.allclose(out.norm(dim=1), torch.ones(3), atol=1e-5)


def test_normalised_input_is_that_of_the_bundle_and_zero_outside_the_mask() -> None:
    rgb, masks = patches(2)
    x = normalise(rgb, masks).numpy()
    expected = ((rgb / 255 - MEAN) / STD * masks[..., None]).transpose(0, 3, 1, 2)
    assert np.abs(x - expected).max() < 1e-5
    assert not x[:, :, :16].any()


def test_what_lies_outside_the_mask_does_not_matter() -> None:
    rgb, masks = patches(1)
    other = rgb.copy()
    other[~masks] = 255
    assert torch.equal(normalise(rgb, masks), normalise(other, masks))


@pytest.mark.parametrize(("gain", "offset"), [(0.6, 0.0), (1.0, 30.0), (0.7, 20.0)])
def test_exposure_and_contrast_hardly_change_the_input_of_the_first_layer(gain: float, offset: float) -> None:
    rgb, masks = patches(1)
    rgb = (rgb // 2 + 40).astype(np.uint8)
    changed = np.clip(rgb * gain + offset, 0, 255).astype(np.uint8)
    robustify = Robustify()
    first, second = robustify(normalise(rgb, masks)), robustify(normalise(changed, masks))
    assert float((first - second).abs().mean()) < 0.1 * float(first.abs().mean())


def test_a_patch_of_which_nothing_is_seen_still_has_a_descriptor() -> None:
    rgb, masks = patches(1)
    with torch.no_grad():
        out = Nano(SMALL).eval()(normalise(rgb, np.zeros_like(masks)))
    assert torch.isfinite(out).all()


def test_weights_survive_the_file(tmp_path: Path) -> None:
    net = Nano(SMALL).eval()
    save_weights(net, tmp_path / "w.npz")
    again = load_weights(tmp_path / "w.npz").eval()
    assert again.config == SMALL
    x = normalise(*patches(2))
    with torch.no_grad():
        assert float((net(x) * again(x)).sum(1).min()) > 0.9999


@pytest.mark.parametrize("damage", ["absent", "text", "truncated", "other"])
def test_unusable_weights_are_named(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "w.npz"
    if damage == "text":
        path.write_text("not weights")
    elif damage == "truncated":
        save_weights(Nano(SMALL), path)
        path.write_bytes(path.read_bytes()[:2000])
    elif damage == "other":
        np.savez(path, something=np.zeros(3))
    with pytest.raises(ModelError, match=r"w\.npz"):
        load_weights(path)


def test_a_perfect_embedding_has_the_least_loss() -> None:
    queries = torch.eye(8)
    none = torch.zeros(8, 8, dtype=torch.bool)
    assert float(info_nce(queries, queries, none)) < 1e-6
    assert float(info_nce(queries, queries.roll(1, 0), none)) > 10
    collapsed = torch.ones(8, 8) / 8**0.5
    assert float(info_nce(collapsed, collapsed, none)) == pytest.approx(np.log(8), abs=1e-4)


def test_ignored_pairs_do_not_count() -> None:
    queries = torch.eye(4)
    references = queries.clone()
    references[1] = references[0]
    ignored = torch.zeros(4, 4, dtype=torch.bool)
    ignored[0, 1] = True
    ignored[1, 0] = True
    queries[1] = queries[0]
    assert float(info_nce(queries, references, ignored)) < 1e-6


def test_same_place_needs_the_same_map_and_leaves_the_pair_itself() -> None:
    points = torch.tensor([[0.0, 0.0], [0.1, 0.0], [0.1, 0.0], [5.0, 0.0]])
    near = same_place(points, points, torch.tensor([0, 0, 1, 0]), 0.25)
    assert near.nonzero().tolist() == [[0, 1], [1, 0]]


def test_an_average_lies_between_two_networks() -> None:
    first, second = Nano(SMALL), Nano(SMALL)
    mixed = average(first, second, 0.25)
    expected = 0.25 * first.head.weight + 0.75 * second.head.weight
    assert torch.allclose(mixed.head.weight, expected) and not mixed.training
