"""Peaks tell how well they know their place, and a pose listens to those that do."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from cvgl.native import peak_covariances, refit_pose

Array = NDArray[np.float64]

SIZE, GSD = 33, 0.5
GROUND = np.zeros(1)


def covariances_by_definition(
    surfaces: NDArray[np.float32], measured: Array, lean: Array, rises: Array, gsd: float
) -> Array:
    """The formula of the type stub, block by block: eigenvalues of the curvature, numpy's gradient for the noise."""
    size, found = surfaces.shape[1], []
    for surface, place, leaning in zip(surfaces.astype(np.float64), measured, lean, strict=True):
        columns, rows = (
            np.clip(np.rint((place[axis] + leaning[axis] * rises) / step + size // 2), 1, size - 2).astype(int)
            for axis, step in ((0, gsd), (1, -gsd))
        )
        highest = surface[rows, columns].argmax()
        x, y = columns[highest], rows[highest]
        (a, b, c), (d, e, f), (g, h, i) = surface[y - 1 : y + 2, x - 1 : x + 2]
        bend = np.array([[2 * e - d - f, (g + c - i - a) / 4], [(g + c - i - a) / 4, 2 * e - b - h]])
        values, axes = np.linalg.eigh(bend)
        inverse = axes @ np.diag(1 / np.maximum(values, 0.02)) @ axes.T
        down, right = np.gradient(surface)
        far = np.ones(surface.shape, bool)
        far[max(0, y - 4) : y + 5, max(0, x - 4) : x + 5] = False
        slopes = np.stack([right[far], down[far]])
        told = inverse @ (slopes @ slopes.T / max(far.sum(), 1)) @ inverse + 0.3**2 * np.eye(2)
        found.append(told * [[1, -1], [-1, 1]] * gsd**2)
    return np.array(found).reshape(-1, 2, 2)


def refit_by_definition(
    pose: Array, measured: Array, covariances: Array, design: Array, prior_mean: Array, prior_weight: Array
) -> tuple[Array, Array]:
    """Six rounds of least squares on whitened rows, with Student's weights of four degrees of freedom."""
    white = [np.linalg.inv(np.linalg.cholesky(covariance)) for covariance in covariances]
    rows = np.concatenate([w @ d for w, d in zip(white, design, strict=True)])
    values = np.concatenate([w @ m for w, m in zip(white, measured, strict=True)])
    scatter, information = 1.0, np.diag(prior_weight)
    for _ in range(6):
        square = ((values - rows @ pose) ** 2).reshape(-1, 2).sum(axis=1)
        weight = 5 / (4 + square / 1.5**2)
        scatter = (weight @ square) / (2 * weight.sum())
        weights = np.repeat(weight, 2)
        information = np.diag(prior_weight) + (rows.T * weights) @ rows
        pose = np.linalg.solve(information, prior_weight * prior_mean + (rows.T * weights) @ values)
    return pose, np.asarray(np.linalg.inv(information) * max(1.0, scatter), np.float64)


def rough(blocks: int, size: int, seed: int) -> dict[str, Any]:
    """Surfaces of smooth noise, with peaks that may lie anywhere, even beyond them."""
    import cv2

    rng = np.random.default_rng(seed)
    surfaces = np.stack([cv2.GaussianBlur(rng.standard_normal((size, size)), (0, 0), 1.2) for _ in range(blocks)])
    return {
        "surfaces": (surfaces / surfaces.std()).astype(np.float32),
        "measured": rng.uniform(-0.7, 0.7, (blocks, 2)) * size * GSD,
        "lean": rng.normal(0, 0.3, (blocks, 2)),
        "rises": np.linspace(0.0, 12.0, 5),
        "gsd": GSD,
    }


@settings(max_examples=60, deadline=None)
@given(blocks=st.integers(1, 12), half=st.integers(1, 20), seed=st.integers(0, 2**31))
def test_covariances_are_as_defined(blocks: int, half: int, seed: int) -> None:
    given_ = rough(blocks, 2 * half + 1, seed)
    # Slopes are summed in single precision; where the curvature is next to nothing, so is what its inverse is told by.
    np.testing.assert_allclose(
        peak_covariances(**given_), covariances_by_definition(**given_), rtol=2e-4, atol=2e-4 * GSD**2
    )


@settings(max_examples=60, deadline=None)
@given(blocks=st.integers(8, 60), seed=st.integers(0, 2**31))
def test_a_refit_is_as_defined(blocks: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    roots = rng.normal(0, 0.4, (blocks, 2, 2)) + 0.5 * np.eye(2)
    given_ = {
        "pose": rng.normal(0, 0.1, 6),
        "measured": rng.normal(0, 1.0, (blocks, 2)),
        "covariances": roots @ roots.transpose(0, 2, 1) + 0.02 * np.eye(2),
        "design": np.concatenate([np.tile(np.eye(2), (blocks, 1, 1)), rng.normal(0, 20, (blocks, 2, 4))], axis=2),
        "prior_mean": np.array([0.0, 0.0, *rng.normal(0, 0.05, 4)]),
        "prior_weight": np.array([0.0, 0.0, 90.0, 1000.0, 130.0, 130.0]),
    }
    for found, expected in zip(refit_pose(**given_), refit_by_definition(**given_), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"surfaces": np.zeros((2, 1, 1), np.float32)}, "surfaces"),
        ({"surfaces": np.zeros((2, 4, 4), np.float32)}, "surfaces"),
        ({"surfaces": np.zeros((2, 5, 5))}, "surfaces"),
        ({"measured": np.zeros((3, 2))}, "measured"),
        ({"lean": np.zeros((2, 3))}, "lean"),
        ({"rises": np.zeros(0)}, "rises"),
        ({"gsd": 0.0}, "gsd"),
    ],
)
def test_unusable_peaks_are_refused_by_name(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        peak_covariances(**{**rough(2, 5, 0), **change})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"measured": np.zeros((0, 2))}, "measured"),
        ({"covariances": np.zeros((9, 2, 2))}, "covariances"),
        ({"design": np.zeros((8, 6))}, "design"),
        ({"pose": np.zeros(5)}, "pose"),
        ({"measured": np.full((8, 2), np.nan)}, "do not determine"),
        ({"prior_weight": np.full(6, np.nan)}, "do not determine"),
    ],
)
def test_unusable_refits_are_refused_by_name(change: dict[str, Any], message: str) -> None:
    usable = {
        "pose": np.zeros(6),
        "measured": np.zeros((8, 2)),
        "covariances": np.tile(np.eye(2), (8, 1, 1)),
        "design": np.tile(np.eye(2, 6), (8, 1, 1)),
        "prior_mean": np.zeros(6),
        "prior_weight": np.ones(6),
    }
    with pytest.raises(ValueError, match=message):
        refit_pose(**{**usable, **change})


def surface(
    width: tuple[float, float], noise: float, rng: np.random.Generator, at: tuple[float, float] = (0.0, 0.0)
) -> NDArray[np.float32]:
    """A Gaussian peak, wide by so many pixels east and south, in smooth noise."""
    import cv2

    down, right = np.indices((SIZE, SIZE)) - SIZE // 2
    peak = np.exp(-0.5 * (((right - at[0]) / width[0]) ** 2 + ((down - at[1]) / width[1]) ** 2))
    rough = cv2.GaussianBlur(rng.standard_normal((SIZE, SIZE)), (0, 0), 1.5)
    return (10 * peak + noise * rough / rough.std()).astype(np.float32)


def covariance(width: tuple[float, float], noise: float, seed: int = 0) -> NDArray[np.float64]:
    one = surface(width, noise, np.random.default_rng(seed))[None]
    return peak_covariances(one, np.zeros((1, 2)), np.zeros((1, 2)), GROUND, GSD)[0]


def test_a_wide_peak_knows_less_along_its_width() -> None:
    found = covariance((4.0, 1.5), 0.3)
    assert found[0, 0] > 3 * found[1, 1]


def test_noise_makes_a_peak_unsure() -> None:
    traces = [np.trace(covariance((2.0, 2.0), noise)) for noise in (0.1, 0.5, 1.5)]
    assert traces[0] < traces[1] < traces[2]


def test_a_slanting_peak_slants_north() -> None:
    # A ridge from the north-west to the south-east: where it is further east it is further south.
    down, right = np.indices((SIZE, SIZE)) - SIZE // 2
    ridge = np.exp(-0.5 * (((right - down) / 2.0) ** 2 + ((right + down) / 8.0) ** 2))
    rough = surface((1.0, 1.0), 0.3, np.random.default_rng(0)) - 10 * surface((1.0, 1.0), 0.0, np.random.default_rng(0))
    one = (10 * ridge + 0.02 * rough).astype(np.float32)[None]
    found = peak_covariances(one, np.zeros((1, 2)), np.zeros((1, 2)), GROUND, GSD)[0]
    assert found[0, 1] < 0


def test_the_covariance_is_what_noisy_peaks_show() -> None:
    rng = np.random.default_rng(1)
    found, told = [], []
    for _ in range(300):
        one = surface((3.0, 4.0), 1.0, rng)
        patch = one[12:21, 12:21].astype(np.float64)
        y, x = (int(place) + 12 for place in np.unravel_index(patch.argmax(), patch.shape))
        bend = [one[y, x - 1] - 2 * one[y, x] + one[y, x + 1], one[y - 1, x] - 2 * one[y, x] + one[y + 1, x]]
        off = [(one[y, x - 1] - one[y, x + 1]) / (2 * bend[0]), (one[y - 1, x] - one[y + 1, x]) / (2 * bend[1])]
        place = np.array([(x + off[0] - 16) * GSD, -(y + off[1] - 16) * GSD], np.float64)
        found.append(place)
        told.append(peak_covariances(one[None], place[None], np.zeros((1, 2)), GROUND, GSD)[0])
    # What is believed at least is no part of the law.
    least = (0.3 * GSD) ** 2
    ratio = np.var(found, axis=0) / (np.median(np.array(told), axis=0)[[0, 1], [0, 1]] - least)
    assert (ratio > 0.4).all()
    assert (ratio < 2.5).all()


def test_a_roof_s_peak_is_taken_where_it_is() -> None:
    rng = np.random.default_rng(2)
    one = surface((1.5, 1.5), 0.3, rng, at=(6.0, 0.0))[None]
    lean, rises = np.array([[0.25, 0.0]]), np.linspace(0.0, 12.0, 5)
    # Three metres east on the surface; as if on the ground, in the middle.
    sure = peak_covariances(one, np.zeros((1, 2)), lean, rises, GSD)[0]
    lost = peak_covariances(one, np.zeros((1, 2)), 0 * lean, rises, GSD)[0]
    assert np.trace(sure) < np.trace(lost) / 4


def test_the_pose_listens_to_sure_peaks_and_to_no_stray_ones() -> None:
    rng = np.random.default_rng(3)
    count = 24
    x, y = rng.uniform(-50, 50, (2, count))
    one, none = np.ones(count), np.zeros(count)
    design = np.stack(
        [np.stack([one, none, y, x, none, none], axis=1), np.stack([none, one, -x, y, none, none], axis=1)], axis=1
    )
    sigma = np.where(np.arange(count) % 2, 0.05, 1.0)
    truth = np.array([0.7, -0.4, 0.01, 0.005, 0.0, 0.0])
    measured = design @ truth + sigma[:, None] * rng.standard_normal((count, 2))
    measured[1] += 5.0
    prior = np.array([0.0, 0.0, 100.0, 1000.0, 100.0, 100.0])
    covariances = sigma[:, None, None] ** 2 * np.eye(2)
    pose, told = refit_pose(np.zeros(6), measured, covariances, design, np.zeros(6), prior)
    even, _ = refit_pose(np.zeros(6), measured, np.tile(0.5 * np.eye(2), (count, 1, 1)), design, np.zeros(6), prior)
    assert np.hypot(*(pose - truth)[:2]) < 0.06
    assert np.hypot(*(pose - truth)[:2]) < np.hypot(*(even - truth)[:2])
    assert np.linalg.eigvalsh(told).min() > 0


@pytest.mark.parametrize("scatter", [1.0, 5.0])
def test_peaks_that_scatter_more_than_they_say_widen_the_covariance(scatter: float) -> None:
    rng = np.random.default_rng(4)
    design = np.tile(np.eye(2, 6), (30, 1, 1))
    covariances = np.tile(0.01 * np.eye(2), (30, 1, 1))
    measured = 0.1 * scatter * rng.standard_normal((30, 2))
    _, told = refit_pose(np.zeros(6), measured, covariances, design, np.zeros(6), np.ones(6))
    assert np.sqrt(told[0, 0] * 30) == pytest.approx(0.1 * scatter, rel=0.5)
