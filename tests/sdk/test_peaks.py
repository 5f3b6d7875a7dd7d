"""Peaks tell how well they know their place, and a pose listens to those that do."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from cvgl.peaks import peak_covariances, refit_pose

SIZE, GSD = 33, 0.5
GROUND = np.zeros(1)


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
        place = np.array([(x + off[0] - 16) * GSD, -(y + off[1] - 16) * GSD])
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
