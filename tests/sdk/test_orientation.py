"""The orientation field forgets brightness and contrast, and keeps edges with their direction."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from cvgl.orientation import orientation_field

Array = NDArray[Any]


def ramp(direction_deg: float, slope: float = 2.5, side: int = 40) -> Array:
    """Grey levels that rise along a direction (clockwise from image-right, y down)."""
    v, u = np.mgrid[:side, :side] - (side - 1) / 2
    angle = np.radians(direction_deg)
    return np.round(128 + slope * (np.cos(angle) * u + np.sin(angle) * v)).clip(0, 255).astype(np.uint8)


def textured(seed: int = 0) -> Array:
    noise = cv2.GaussianBlur(np.random.default_rng(seed).standard_normal((90, 110)), (0, 0), 3.0)
    return (100 + 30 * noise / noise.std()).clip(20, 180).astype(np.uint8)


@pytest.mark.parametrize("direction", [0, 30, 45, 90, 135, 180, 250])
def test_an_edge_is_a_unit_vector_at_twice_its_angle(direction: float) -> None:
    field = orientation_field(ramp(direction))[10:-10, 10:-10].mean()
    expected = np.exp(2j * np.radians(direction))
    assert abs(np.angle(field / expected)) < np.radians(3)


def test_contrast_may_be_inverted() -> None:
    grey = textured()
    np.testing.assert_allclose(orientation_field(255 - grey), orientation_field(grey), atol=1e-4)


def test_brightness_does_not_matter() -> None:
    grey = textured()
    np.testing.assert_allclose(orientation_field(grey + 60), orientation_field(grey), atol=1e-4)


def test_contrast_hardly_matters_where_there_is_some() -> None:
    steep, steeper = (orientation_field(ramp(20, slope)) for slope in (4.0, 6.0))
    inner = (slice(16, 24), slice(16, 24))
    assert 1.0 < np.abs(steeper[inner]).mean() / np.abs(steep[inner]).mean() < 1.25


@pytest.mark.parametrize("slope", [0.5, 1.0, 4.0, 8.0])
def test_weak_edges_count_little(slope: float) -> None:
    magnitude = np.abs(orientation_field(ramp(0, slope, 24)))[12, 10:14].mean()
    assert magnitude == pytest.approx(slope / (slope + 4.0), abs=0.03)


def test_featureless_is_zero() -> None:
    assert not orientation_field(np.full((30, 40), 77, np.uint8)).any()


def test_shape_type_and_bound() -> None:
    field = orientation_field(textured())
    assert field.shape == (90, 110)
    assert field.dtype == np.complex64
    assert np.abs(field).max() < 1.0
    border = np.ones(field.shape, bool)
    border[1:-1, 1:-1] = False
    assert not field[border].any()


@pytest.mark.parametrize("level", [1, 255])
def test_the_mask_s_edge_is_no_edge_of_the_ground(level: int) -> None:
    grey, mask = textured(), np.zeros((90, 110), np.uint8)
    mask[20:70, 30:90] = level
    grey[mask == 0] = 0
    field = orientation_field(grey, mask)
    assert not field[mask == 0].any()
    inner = np.zeros(mask.shape, bool)
    inner[23:67, 33:87] = True
    assert not field[~inner].any()
    np.testing.assert_allclose(field[30:60, 40:80], orientation_field(textured())[30:60, 40:80], atol=1e-3)


def test_a_full_mask_is_no_mask_but_for_the_border() -> None:
    grey = textured()
    masked = orientation_field(grey, np.full(grey.shape, 255, np.uint8))
    np.testing.assert_array_equal(masked[3:-3, 3:-3], orientation_field(grey)[3:-3, 3:-3])
    masked[3:-3, 3:-3] = 0
    assert not masked.any()


def test_a_wider_filter_sees_coarser_edges() -> None:
    fine = (np.indices((60, 60)).sum(axis=0) % 2 * 120 + 60).astype(np.uint8)
    inner = (slice(5, -5), slice(5, -5))
    assert np.abs(orientation_field(fine, sigma=2.0)[inner]).max() < 0.05
