"""The native loops of refinement against slow, plain references in double precision."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from cvgl.native import (
    Template,
    alike_places,
    best_match,
    block_corners,
    correlate_blocks,
    ground_field,
    judge_blocks,
    match_windows,
    orientation,
    pose_design,
    reduce,
    register_looks,
    resample,
    standardise,
)

Array = NDArray[Any]

NOISE = 4.0
REACH = 3  # of a mask's edge, pixels


def complex_noise(shape: tuple[int, int], seed: int) -> Array:
    rng = np.random.default_rng(seed)
    return (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)).astype(np.complex64)


def grey_noise(shape: tuple[int, int], seed: int) -> Array:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def spotted(shape: tuple[int, int], seed: int) -> Array:
    """A mask with some values that mean the same, and few holes, so that something is left of it."""
    rng = np.random.default_rng(seed)
    return rng.choice(np.array([0, 1, 255], np.uint8), shape, p=[0.01, 0.2, 0.79])


def orientation_by_definition(grey: Array, mask: Array | None, sigma: float, noise: float) -> Array:
    """The formula of the type stub, with OpenCV's Gaussian and Sobel filters (an eighth of the latter)."""
    smooth = cv2.GaussianBlur(grey.astype(np.float64), (2 * (round(8 * sigma + 1) // 2) + 1,) * 2, sigma)
    gx, gy = (cv2.Sobel(smooth, cv2.CV_64F, *order, scale=1 / 8) for order in ((1, 0), (0, 1)))
    magnitude = np.hypot(gx, gy)
    divisor = magnitude * (magnitude + noise)
    field = np.where(divisor > 0, (gx + 1j * gy) ** 2 / np.where(divisor > 0, divisor, 1.0), 0.0)
    outside = np.ones(field.shape, bool)
    outside[1:-1, 1:-1] = False
    if mask is not None:
        kernel = np.ones((2 * REACH + 1,) * 2, np.uint8)
        outside |= cv2.erode(mask, kernel, borderType=cv2.BORDER_CONSTANT, borderValue=0) == 0
    return np.where(outside, 0.0, field)


@settings(max_examples=60, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 40), st.integers(1, 50)),
    sigma=st.sampled_from([0.5, 1.0, 1.0, 1.3, 3.0]),
    noise=st.floats(0.5, 20.0),
    masked=st.booleans(),
    seed=st.integers(0, 99),
)
def test_orientation_is_as_defined(shape: tuple[int, int], sigma: float, noise: float, masked: bool, seed: int) -> None:
    grey, mask = grey_noise(shape, seed), spotted(shape, seed + 1) if masked else None
    found = orientation(grey, mask, sigma, noise)
    assert found.dtype == np.complex64
    np.testing.assert_allclose(found, orientation_by_definition(grey, mask, sigma, noise), atol=1e-4)


def test_orientation_of_level_ground_is_zero() -> None:
    assert not orientation(np.full((19, 21), 93, np.uint8), None, 1.0, NOISE).any()


def test_orientation_reads_rows_at_any_stride() -> None:
    grey, mask = grey_noise((40, 60), 0), spotted((40, 60), 1)
    window = (slice(3, 33, 2), slice(5, 50))
    expected = orientation(np.ascontiguousarray(grey[window]), np.ascontiguousarray(mask[window]), 1.0, NOISE)
    np.testing.assert_array_equal(orientation(grey[window], mask[window], 1.0, NOISE), expected)


@pytest.mark.parametrize(
    ("grey", "mask", "sigma", "message"),
    [
        (np.zeros((6, 8)), None, 1.0, "grey: expected dtype uint8"),
        (np.zeros((6, 8), np.uint8), np.ones((6, 8), bool), 1.0, "mask: expected dtype uint8"),
        (np.zeros((6, 8, 1), np.uint8), None, 1.0, r"grey: found shape \(6, 8, 1\)"),
        (np.zeros((6, 8), np.uint8), np.ones((8, 6), np.uint8), 1.0, r"mask: found shape \(8, 6\)"),
        (np.zeros((6, 8), np.uint8), np.ones(48, np.uint8), 1.0, r"mask: found shape \(48\)"),
        (np.zeros((8, 6), np.uint8).T, None, 1.0, "rows of pixels that lie together"),
        (np.zeros((6, 8), np.uint8), np.ones((6, 16), np.uint8)[:, ::2], 1.0, "rows of pixels that lie together"),
        (np.zeros((6, 8), np.uint8), None, 0.0, "sigma"),
        (np.zeros((6, 8), np.uint8), None, float("nan"), "sigma"),
        (np.zeros((6, 8), np.uint8), None, 65.0, "sigma"),
    ],
)
def test_unusable_orientation_input_is_refused_by_name(
    grey: Array, mask: Array | None, sigma: float, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        orientation(grey, mask, sigma, NOISE)


@settings(max_examples=40, deadline=None)
@given(
    reduction=st.integers(1, 3),
    shape=st.tuples(st.integers(1, 20), st.integers(1, 20)),
    seed=st.integers(0, 99),
)
def test_a_reduced_pixel_is_the_mean_of_its_square(reduction: int, shape: tuple[int, int], seed: int) -> None:
    full = (reduction * shape[0], reduction * shape[1])
    image, mask = grey_noise(full, seed), spotted(full, seed)
    small, seen = reduce(image, mask, reduction)
    squares = (shape[0], reduction, shape[1], reduction)
    exact = image.reshape(squares).mean(axis=(1, 3))
    np.testing.assert_array_equal(small, np.floor(exact + 0.5))
    np.testing.assert_array_equal(seen, np.where(mask.reshape(squares).min(axis=(1, 3)) > 0, 255, 0))


@pytest.mark.parametrize("reduction", [2, 3])
def test_reduction_is_opencv_s_area_mean(reduction: int) -> None:
    image = grey_noise((30 * reduction, 41 * reduction), 5)
    expected = cv2.resize(image, (41, 30), interpolation=cv2.INTER_AREA)
    np.testing.assert_array_equal(reduce(image, image, reduction)[0], expected)


@pytest.mark.parametrize(
    ("image", "mask", "reduction", "message"),
    [
        (np.zeros((6, 8), np.uint8), np.zeros((6, 8), np.uint8), 0, "reduction: found 0"),
        (np.zeros((8, 8), np.uint8), np.zeros((8, 8), np.uint8), 4, "reduction: found 4"),
        (np.zeros((6, 8), np.uint8), np.zeros((6, 8), np.uint8), 3, "expected multiples of 3"),
        (np.zeros((6, 8), np.uint8), np.zeros((8, 6), np.uint8), 2, r"mask: found shape \(8, 6\)"),
        (np.zeros((6, 8)), np.zeros((6, 8), np.uint8), 2, "image: expected dtype uint8"),
    ],
)
def test_unusable_reductions_are_refused_by_name(image: Array, mask: Array, reduction: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        reduce(image, mask, reduction)


def window_of(pixels: Array, left: int, top: int, width: int, height: int) -> Array:
    far = 100
    padded = np.pad(pixels, far)
    return padded[top + far : top + far + height, left + far : left + far + width]


@settings(max_examples=60, deadline=None)
@given(
    left=st.integers(-60, 60),
    top=st.integers(-60, 60),
    width=st.integers(1, 20),
    height=st.integers(1, 20),
    reduction=st.integers(1, 3),
    holes=st.booleans(),
)
def test_a_window_of_the_map_is_read_reduced_and_oriented(
    left: int, top: int, width: int, height: int, reduction: int, holes: bool
) -> None:
    pixels = np.maximum(grey_noise((50, 60), 3), 1)
    if holes:
        pixels[20:23, 30:34] = 0
    field, known = ground_field(pixels, left, top, width, height, reduction, 1.0, NOISE)
    window = window_of(pixels, left, top, width * reduction, height * reduction)
    small, seen = reduce(np.ascontiguousarray(window), np.ascontiguousarray(window), reduction)
    if known is None:
        assert seen.all()
    else:
        assert not seen.all()
        np.testing.assert_array_equal(known, seen)
    np.testing.assert_array_equal(field, orientation(small, known, 1.0, NOISE))


@settings(max_examples=60, deadline=None)
@given(
    left=st.integers(-60, 60),
    top=st.integers(-60, 60),
    width=st.integers(1, 20),
    height=st.integers(1, 20),
    reduction=st.integers(1, 3),
    missing=st.sets(st.integers(0, 11)),
)
def test_a_map_in_tiles_is_read_as_the_whole_of_it(
    left: int, top: int, width: int, height: int, reduction: int, missing: set[int]
) -> None:
    side = 16
    pixels = np.maximum(grey_noise((3 * side, 4 * side), 4), 1)
    tiles: list[list[Array | None]] = [[None] * 4 for _ in range(3)]
    for number in range(12):
        row, column = divmod(number, 4)
        tile = pixels[row * side : (row + 1) * side, column * side : (column + 1) * side]
        if number in missing:
            tile[:] = 0
        else:
            tiles[row][column] = tile
    whole = ground_field(pixels, left, top, width, height, reduction, 1.0, NOISE)
    tiled = ground_field(tiles, left, top, width, height, reduction, 1.0, NOISE)
    np.testing.assert_array_equal(tiled[0], whole[0])
    assert (tiled[1] is None) == (whole[1] is None)
    if tiled[1] is not None:
        np.testing.assert_array_equal(tiled[1], whole[1])


@pytest.mark.parametrize("pixels", [np.ones((9, 9), np.uint8), [[np.ones((9, 9), np.uint8)]], [[]], []])
def test_a_window_may_lie_as_far_outside_as_it_likes(pixels: Any) -> None:
    for place in (10**9, -(10**15)):
        field, known = ground_field(pixels, place, -place, 5, 4, 2, 1.0, NOISE)
        assert field.shape == (4, 5)
        assert not field.any()
        assert known is not None
        assert not known.any()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pixels": np.zeros((9, 9))}, "pixels: expected dtype uint8"),
        ({"pixels": np.zeros(9, np.uint8)}, r"pixels: found shape \(9\)"),
        ({"pixels": [[np.zeros((4, 4), np.uint8)], []]}, "tiles: expected rows of one length"),
        ({"pixels": [[np.zeros((4, 4), np.uint8), np.zeros((5, 5), np.uint8)]]}, "tiles: expected squares"),
        ({"pixels": [[np.zeros((4, 5), np.uint8)]]}, "tiles: expected squares"),
        ({"pixels": [[np.zeros((4, 4))]]}, "tiles: expected dtype uint8"),
        ({"width": 0}, "width: found 0"),
        ({"height": 40000}, "height: found 40000"),
        ({"reduction": 4}, "reduction: found 4"),
        ({"left": 1 << 62}, "left: found"),
        ({"sigma": -1.0}, "sigma"),
    ],
)
def test_unusable_windows_are_refused_by_name(change: dict[str, Any], message: str) -> None:
    good: dict[str, Any] = {
        "pixels": np.zeros((9, 9), np.uint8),
        "left": 0,
        "top": 0,
        "width": 3,
        "height": 3,
        "reduction": 1,
        "sigma": 1.0,
        "noise": NOISE,
    }
    ground_field(**good)
    with pytest.raises(ValueError, match=message):
        ground_field(**{**good, **change})


@settings(max_examples=60, deadline=None)
@given(
    size=st.integers(1, 40),
    side=st.integers(1, 12),
    search=st.integers(0, 5),
    share=st.sampled_from([0.0, 0.5, 0.8, 1.0]),
    bare=st.booleans(),
    seed=st.integers(0, 99),
)
def test_blocks_lie_in_a_grid_where_enough_is_seen(
    size: int, side: int, search: int, share: float, bare: bool, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    mask = (rng.random((size, size)) < 0.85).astype(np.uint8)
    known = None if bare else (rng.random((size + 2 * search,) * 2) < 0.85).astype(np.uint8)
    start = size % side // 2
    expected = []
    for row in range(start, size - side + 1, side):
        for column in range(start, size - side + 1, side):
            block = (slice(row, row + side), slice(column, column + side))
            under = 1 if known is None else known[search : search + size, search : search + size][block]
            if min(np.sum(mask[block]), np.sum(np.broadcast_to(under, (side, side)))) >= share * side * side:
                expected.append((row, column))
    found = block_corners(mask, known, side, search, share)
    assert found.dtype == np.int64
    np.testing.assert_array_equal(found, np.array(expected).reshape(-1, 2))


@pytest.mark.parametrize(
    ("mask", "known", "side", "message"),
    [
        (np.zeros((8, 9), np.uint8), None, 4, "expected a square"),
        (np.zeros((8, 8), np.uint8), np.zeros((8, 8), np.uint8), 4, r"known: found shape \(8, 8\)"),
        (np.zeros((8, 8), np.uint8), None, 0, "side: found 0"),
        (np.zeros((8, 8)), None, 4, "mask: expected dtype uint8"),
    ],
)
def test_unusable_grids_are_refused_by_name(mask: Array, known: Array | None, side: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        block_corners(mask, known, side, 2, 0.8)


# Sizes that bring every factor of the transforms, and those beside multiples of a vector's width.
@pytest.mark.parametrize("side", [1, 2, 7, 8, 9, 16, 19, 23, 39, 48])
@pytest.mark.parametrize("search", [0, 1, 3, 4, 8, 16])
def test_blocks_of_all_sizes_are_correlated_to_rounding(side: int, search: int) -> None:
    field = complex_noise((side, side), side)
    ground = complex_noise((side + 2 * search,) * 2, search)
    exact = np.array(
        [
            [
                (np.conj(field.astype(complex)) * ground[y : y + side, x : x + side]).real.sum()
                for x in range(2 * search + 1)
            ]
            for y in range(2 * search + 1)
        ]
    )
    found = correlate_blocks(field, ground, np.array([[0, 0]]), side, search, 1)[0]
    # The worst that the rounding of 24 bits may do to sums of this size, with a margin of three.
    scale = np.linalg.norm(field) * np.linalg.norm(ground)
    assert np.abs(found - exact).max() < 3e-7 * scale + 1e-6


def match_by_definition(fields: list[Array], window: Array) -> tuple[Array, float]:
    """(T, n, n) correlations over the fields' norms, and their mean square."""
    side = fields[0].shape[0]
    extent = window.shape[0] - side + 1
    surfaces = np.array(
        [
            [
                [(np.conj(field) * window[y : y + side, x : x + side]).real.sum() for x in range(extent)]
                for y in range(extent)
            ]
            for field in (f.astype(complex) / np.linalg.norm(f.astype(complex)) for f in fields)
        ]
    )
    return surfaces, float((surfaces**2).mean())


@settings(max_examples=40, deadline=None)
@given(side=st.integers(1, 24), reach=st.integers(0, 9), count=st.integers(1, 5), seed=st.integers(0, 99))
def test_the_best_match_is_the_highest_correlation(side: int, reach: int, count: int, seed: int) -> None:
    fields = [complex_noise((side, side), 100 * seed + number) for number in range(count)]
    window = complex_noise((side + 2 * reach,) * 2, seed + 7)
    templates = [Template(field, reach) for field in fields]
    for template, field in zip(templates, fields, strict=True):
        assert template.norm == pytest.approx(np.linalg.norm(field.astype(complex)), rel=1e-6)
    index, x, y, height, mean_square = best_match(templates, window)
    surfaces, expected_mean_square = match_by_definition(fields, window)
    assert height == pytest.approx(surfaces.max(), abs=1e-4)
    assert surfaces[index, y, x] == pytest.approx(surfaces.max(), abs=1e-4)
    assert mean_square == pytest.approx(expected_mean_square, rel=1e-3, abs=1e-6)


def test_templates_of_several_sizes_take_turns() -> None:
    """Threads keep their room from one call to the next, whatever its size."""
    expected = {}
    for side in (5, 40, 11, 64, 2):
        field, window = complex_noise((side, side), side), complex_noise((side + 8, side + 8), side + 1)
        expected[side] = best_match([Template(field, 4)], window)
    for side in (64, 2, 40, 5, 11):
        field, window = complex_noise((side, side), side), complex_noise((side + 8, side + 8), side + 1)
        assert best_match([Template(field, 4)], window) == expected[side]


def test_an_empty_template_has_no_norm_and_no_match() -> None:
    empty = Template(np.zeros((6, 6), np.complex64), 2)
    assert empty.norm == 0.0
    with pytest.raises(ValueError, match="empty"):
        best_match([empty], np.zeros((10, 10), np.complex64))


@pytest.mark.parametrize(
    ("templates", "window", "message"),
    [
        ([], (10, 10), "expected at least one"),
        ([(6, 2), (6, 3)], (10, 10), "of different sizes"),
        ([(6, 2), (5, 2)], (10, 10), "of different sizes"),
        ([(6, 2)], (10, 11), r"window: found shape \(10, 11\), expected 10 a side"),
    ],
)
def test_unusable_matches_are_refused(templates: list[tuple[int, int]], window: tuple[int, int], message: str) -> None:
    made = [Template(complex_noise((side, side), 0), reach) for side, reach in templates]
    with pytest.raises(ValueError, match=message):
        best_match(made, complex_noise(window, 1))


@pytest.mark.parametrize(
    ("field", "reach", "message"),
    [
        (np.zeros((6, 7), np.complex64), 2, "expected a square"),
        (np.zeros((0, 0), np.complex64), 2, "field: found 0"),
        (np.zeros((6, 6), np.complex128), 2, "field: expected dtype complex64"),
        (np.zeros((6, 6), np.complex64), -1, "reach: found -1"),
    ],
)
def test_unusable_templates_are_refused(field: Array, reach: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Template(field, reach)


@settings(max_examples=40, deadline=None)
@given(blocks=st.integers(1, 9), extent=st.integers(1, 20), level=st.floats(-50, 50), seed=st.integers(0, 99))
def test_surfaces_come_to_one_scale(blocks: int, extent: int, level: float, seed: int) -> None:
    raw = np.random.default_rng(seed).normal(level, 30.0, (blocks, extent, extent)).astype(np.float32)
    raw[0] = 3.0
    found = raw.copy()
    place = standardise(found)
    exact = raw.astype(float) - raw.mean(axis=(1, 2), keepdims=True, dtype=float)
    exact /= np.maximum(exact.std(axis=(1, 2), keepdims=True), 1e-6)
    np.testing.assert_allclose(found, exact, atol=1e-4)
    assert exact.sum(axis=0).ravel()[place] == pytest.approx(exact.sum(axis=0).max(), abs=1e-3)


def test_surfaces_that_cannot_be_changed_in_place_are_refused() -> None:
    with pytest.raises(TypeError):
        standardise(np.zeros((2, 3, 3)))
    with pytest.raises(TypeError):
        standardise(np.zeros((2, 3, 6), np.float32)[..., ::2])
    with pytest.raises(ValueError, match="at least one place"):
        standardise(np.zeros((2, 0, 0), np.float32))


def block_places(seed: int, count: int, size: int = 120, side: int = 13) -> Array:
    return np.random.default_rng(seed).integers(0, size - side + 1, (count, 2))


@settings(max_examples=30, deadline=None)
@given(count=st.integers(0, 9), gsd=st.floats(0.1, 2.0), height=st.floats(20, 300), seed=st.integers(0, 99))
def test_blocks_move_with_the_camera(count: int, gsd: float, height: float, seed: int) -> None:
    """Against the derivative of the exact projection, by differences."""
    size, side, below = 120, 13, (4.0, -7.0)
    corners = block_places(seed, count)
    design, lean = pose_design(corners, side, size, gsd, height, *below, *below)
    x = gsd * (corners[:, 1] + (side - size) / 2)
    y = -gsd * (corners[:, 0] + (side - size) / 2)

    def seen(pose: Array) -> Array:
        """Where the ground drawn at (x, y) from the middle is, from the middle's place, for a camera not above it."""
        east, north, turn, scale, a, b = pose

        def ground(p: Any, q: Any) -> tuple[Any, Any]:
            # A ray (p, q, -height) of a camera that leans by (a, b) more meets the ground further that way.
            stretch = (1 + scale) / (1 - (a * p + b * q) / height)
            return (p + a * height) * stretch, (q + b * height) * stretch

        (p, q), (p0, q0) = ground(x + below[0], y + below[1]), ground(*below)
        u, v = p - p0, q - q0
        return np.stack(
            [east + u * np.cos(turn) + v * np.sin(turn), north - u * np.sin(turn) + v * np.cos(turn)], axis=1
        )

    step = 1e-6
    for number in range(6):
        by = np.zeros(6)
        by[number] = step
        exact = (seen(by) - seen(-by)) / (2 * step)
        np.testing.assert_allclose(design[:, :, number], exact, atol=1e-4 * (1 + size * gsd))
    np.testing.assert_allclose(lean, np.column_stack([x + below[0], y + below[1]]) / height)


@pytest.mark.parametrize(
    ("corners", "gsd", "height", "message"),
    [
        (np.zeros((3, 2), np.int32), 0.5, 100.0, "corners"),
        (np.zeros((3, 3), np.int64), 0.5, 100.0, r"corners: found shape \(3, 3\)"),
        (np.zeros((3, 2), np.int64), 0.0, 100.0, "gsd, height"),
        (np.zeros((3, 2), np.int64), 0.5, float("nan"), "gsd, height"),
    ],
)
def test_unusable_designs_are_refused_by_name(corners: Array, gsd: float, height: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        pose_design(corners, 13, 120, gsd, height, 0.0, 0.0)


def verdict_by_definition(
    surfaces: Array, places: Array, off: Array, gsd: float, vote: float
) -> tuple[float, float, float]:
    """For places (B, R, 2) of the blocks, pixels right and down, and measurements that are off by so many metres."""
    surprise, votes = [], []
    extent = surfaces.shape[1]
    for surface, own in zip(surfaces, places, strict=True):
        whole = np.clip(np.round(own).astype(int) + extent // 2, 0, extent - 1)
        better = (surface >= surface[whole[:, 1], whole[:, 0]].max()).mean()
        chances = 1 + np.linalg.norm(own[-1] - own[0]) / 3
        surprise.append(-np.log(-np.expm1(chances * np.log1p(-min(better, 1 - 1e-9)))))
        y, x = np.unravel_index(surface.argmax(), surface.shape)
        votes.append(np.hypot(*(own - (x - extent // 2, y - extent // 2)).T).min() < vote)
    evidence = (np.sum(surprise) - len(surfaces)) / np.sqrt(len(surfaces))
    close = off[off < vote * gsd]
    spread = float(np.sqrt((close**2).mean() / 2)) if len(close) else vote * gsd
    return evidence, float(np.mean(votes)), spread


def judged(blocks: int, search: int, rises: int, seed: int) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    design, lean = pose_design(block_places(seed, blocks), 13, 120, 0.5, 100.0, 3.0, -4.0)
    pose = rng.normal(0.0, (1.0, 1.0, 0.02, 0.02, 0.03, 0.03))
    return {
        "surfaces": rng.standard_normal((blocks, 2 * search + 1, 2 * search + 1)).astype(np.float32),
        "design": design,
        "lean": lean,
        "rises": np.linspace(0.0, 12.0, rises),
        "pose": pose,
        "measured": design @ pose + rng.normal(0.0, 1.0, (blocks, 2)),
        "gsd": 0.5,
        "vote": 3.0,
    }


@settings(max_examples=60, deadline=None)
@given(blocks=st.integers(1, 12), search=st.integers(0, 9), rises=st.integers(1, 5), seed=st.integers(0, 999))
def test_evidence_is_as_defined(blocks: int, search: int, rises: int, seed: int) -> None:
    given_blocks = judged(blocks, search, rises, seed)
    predicted = given_blocks["design"] @ given_blocks["pose"]
    places = predicted[:, None] + given_blocks["lean"][:, None] * given_blocks["rises"][None, :, None]
    off = np.linalg.norm(given_blocks["measured"] - predicted, axis=1)
    expected = verdict_by_definition(given_blocks["surfaces"], places / (0.5, -0.5), off, 0.5, 3.0)
    assert judge_blocks(**given_blocks) == pytest.approx(expected, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"surfaces": np.zeros((3, 4, 4), np.float32)}, "with an odd n"),
        ({"surfaces": np.zeros((3, 5, 5))}, "surfaces: another dtype"),
        ({"surfaces": np.zeros((2, 5, 5), np.float32)}, "design: found shape"),
        ({"lean": np.zeros((3, 3))}, "lean: found shape"),
        ({"rises": np.zeros(0)}, "rises"),
        ({"rises": np.array([3.0, 0.0])}, "rises: expected ascending"),
        ({"pose": np.zeros(5)}, "pose: found shape"),
        ({"measured": np.zeros((2, 2))}, "measured: found shape"),
        ({"gsd": 0.0}, "gsd"),
    ],
)
def test_unusable_verdicts_are_refused_by_name(change: dict[str, Any], message: str) -> None:
    good = judged(3, 2, 4, 0)
    judge_blocks(**good)
    with pytest.raises(ValueError, match=message):
        judge_blocks(**{**good, **change})


homographies = st.builds(
    lambda turn, scale, shift, tilt: np.array(
        [
            [scale * np.cos(turn), -scale * np.sin(turn), shift[0]],
            [scale * np.sin(turn), scale * np.cos(turn), shift[1]],
            [tilt[0], tilt[1], 1.0],
        ]
    ),
    turn=st.floats(-np.pi, np.pi),
    scale=st.floats(0.3, 3.0),
    shift=st.tuples(st.floats(-60, 60), st.floats(-60, 60)),
    # Up to rows that run through infinity.
    tilt=st.tuples(st.floats(-0.03, 0.03), st.floats(-0.03, 0.03)),
)


def rounds_clearly(shape: tuple[int, int], between: Array, steps: float) -> Array:
    """Where a position in steps a pixel is not halfway between two of them: there its last bit decides."""
    v, u = np.mgrid[: shape[0], : shape[1]].astype(float)
    x, y, w = np.einsum("ij,jvu->ivu", between, np.stack([u, v, np.ones_like(u)]))
    with np.errstate(divide="ignore", invalid="ignore"):
        positions = steps * np.stack([x, y]) / w
        halfway = np.abs(positions - np.floor(positions) - 0.5) <= 1e-9 * (1.0 + np.abs(positions))
    return (np.abs(w) > 1e-9) & ~halfway.any(axis=0)


@settings(max_examples=100, deadline=None)
@given(shape=st.tuples(st.integers(1, 50), st.integers(1, 60)), between=homographies, seed=st.integers(0, 99))
def test_a_patch_is_resampled_as_opencv_does(shape: tuple[int, int], between: Array, seed: int) -> None:
    image, mask = grey_noise(shape, seed), spotted(shape, seed)
    size, back = (shape[1], shape[0]), cv2.WARP_INVERSE_MAP
    found, seen = resample(image, mask, between)
    expected = cv2.warpPerspective(image, between, size, flags=back | cv2.INTER_LINEAR)
    clear = rounds_clearly(shape, between, 32.0)
    np.testing.assert_array_equal(found[clear], expected[clear])
    expected = cv2.warpPerspective(mask, between, size, flags=back | cv2.INTER_NEAREST)
    clear = rounds_clearly(shape, between, 1.0)
    np.testing.assert_array_equal(seen[clear], expected[clear])


@settings(max_examples=60, deadline=None)
@given(
    size=st.integers(33, 120),
    between=homographies,
    seen=st.tuples(st.floats(-1.0, 1.0), st.floats(-1.0, 1.0), st.floats(0.05, 0.6), st.floats(0.0, np.pi)),
)
def test_a_patch_that_is_mostly_empty_is_resampled_as_opencv_does(
    size: int, between: Array, seen: tuple[float, float, float, float]
) -> None:
    x, y, length, turn = seen
    middle, side = (size / 2 * (1 + x / 2), size / 2 * (1 + y / 2)), (size * length, size * length / 2)
    mask = np.zeros((size, size), np.uint8)
    cv2.fillConvexPoly(mask, np.round(cv2.boxPoints((middle, side, np.degrees(turn)))).astype(np.int32), 255)
    image = np.where(mask > 0, grey_noise((size, size), 1), 0).astype(np.uint8)
    found, inside = resample(image, mask, between)
    back = cv2.WARP_INVERSE_MAP
    expected = cv2.warpPerspective(image, between, (size, size), flags=back | cv2.INTER_LINEAR)
    clear = rounds_clearly((size, size), between, 32.0)
    np.testing.assert_array_equal(found[clear], expected[clear])
    expected = cv2.warpPerspective(mask, between, (size, size), flags=back | cv2.INTER_NEAREST)
    clear = rounds_clearly((size, size), between, 1.0)
    np.testing.assert_array_equal(inside[clear], expected[clear])


def test_a_patch_resampled_as_it_is_stays_so() -> None:
    image, mask = grey_noise((31, 40), 0), spotted((31, 40), 1)
    wide = np.zeros((31, 80), np.uint8)
    wide[:, 20:60] = image
    found, seen = resample(wide[:, 20:60], mask, np.eye(3))
    np.testing.assert_array_equal(found, image)
    np.testing.assert_array_equal(seen, mask)


@pytest.mark.parametrize(
    ("image", "mask", "between", "message"),
    [
        (np.zeros((6, 8)), np.zeros((6, 8), np.uint8), np.eye(3), "image: expected dtype uint8"),
        (np.zeros((6, 8), np.uint8), np.zeros((8, 6), np.uint8), np.eye(3), r"mask: found shape \(8, 6\)"),
        (np.zeros((6, 8), np.uint8), np.zeros((6, 8), np.uint8), np.eye(4), r"between: found shape \(4, 4\)"),
        (np.zeros((6, 8), np.uint8), np.zeros((6, 8), np.uint8), np.full((3, 3), np.inf), "between: expected finite"),
        (np.zeros((1, 40000), np.uint8), np.zeros((1, 40000), np.uint8), np.eye(3), "at most 32767"),
    ],
)
def test_unusable_patches_are_refused_by_name(image: Array, mask: Array, between: Array, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        resample(image, mask, between)


def correlation(field: Array, ground: Array) -> Array:
    """Of a field with all windows of its size in a larger one: the real part, by the definition."""
    windows = np.lib.stride_tricks.sliding_window_view(ground.astype(np.complex128), field.shape)
    return np.asarray(np.einsum("ij,yxij->yx", field.conj().astype(np.complex128), windows).real)


def alike_by_definition(
    seen: Array, ground: Array, search: int, apart: float, alike: float, reached: float, near: int, most: int
) -> list[list[float]]:
    """Of the map with what of itself the frame sees, and of the frame where that is high."""
    under = ground[search : ground.shape[0] - search, search : ground.shape[1] - search]
    itself = correlation(np.where(seen != 0, under, 0), ground)
    frame = np.pad(correlation(seen, ground), near, constant_values=-np.inf)
    peaks = np.lib.stride_tricks.sliding_window_view(frame, (2 * near + 1,) * 2).max(axis=(2, 3))
    shares = itself / itself[search, search]
    down, right = np.indices(shares.shape) - search
    shares[np.hypot(down, right) <= apart] = 0
    found: list[list[float]] = []
    while len(found) < most and shares.max() >= alike:
        y, x = np.unravel_index(shares.argmax(), shares.shape)
        ratio = peaks[y, x] / peaks[search, search] if peaks[search, search] > 0 else 1.0
        if ratio >= reached:
            found.append([right[y, x], down[y, x], shares[y, x], ratio])
        shares[np.hypot(down - down[y, x], right - right[y, x]) <= apart] = 0
    return found


@pytest.mark.parametrize("reached", [0.0, 0.4, 1.5])
@pytest.mark.parametrize("period", [7, 11, 100])
@pytest.mark.parametrize("seed", [0, 1])
def test_places_that_look_alike_are_those_of_the_definition(period: int, reached: float, seed: int) -> None:
    side, search = 24, 13
    block = complex_noise((period, period), seed)
    times = -(-(side + 2 * search) // period)
    ground = np.tile(block, (times, times))[: side + 2 * search, : side + 2 * search]
    ground = (ground + 0.4 * complex_noise(ground.shape, seed + 10)).astype(np.complex64)
    seen = ground[search : search + side, search : search + side] + 0.8 * complex_noise((side, side), seed + 20)
    seen[:6, :9] = 0
    law: dict[str, Any] = {"search": search, "apart": 5.0, "alike": 0.5, "reached": reached, "near": 2, "most": 3}
    found = alike_places(np.ascontiguousarray(seen.astype(np.complex64)), ground, **law)
    expected = alike_by_definition(seen.astype(np.complex64), ground, **law)
    assert len(found) == len(expected)
    assert bool(found) == (period < 100 and reached < 1.0)
    # Spectra are in single precision.
    np.testing.assert_allclose(np.array(found), np.array(expected), rtol=1e-4, atol=1e-5)


def test_a_map_without_features_looks_like_nothing() -> None:
    empty = np.zeros((20, 20), np.complex64)
    assert alike_places(complex_noise((10, 10), 0), empty, 5, 2.0, 0.5, 0.5, 2, 2) == []


@pytest.mark.parametrize(
    ("seen", "ground", "search", "alike", "message"),
    [
        (np.zeros((10, 10), np.complex128), np.zeros((20, 20), np.complex64), 5, 0.5, "seen"),
        (np.zeros((10, 9), np.complex64), np.zeros((20, 20), np.complex64), 5, 0.5, "square"),
        (np.zeros((10, 10), np.complex64), np.zeros((20, 21), np.complex64), 5, 0.5, "ground"),
        (np.zeros((10, 10), np.complex64), np.zeros((20, 20), np.complex64), -1, 0.5, "search"),
        (np.zeros((10, 10), np.complex64), np.zeros((20, 20), np.complex64), 5, 0.0, "alike"),
    ],
)
def test_unusable_windows_that_may_look_alike_are_refused(
    seen: Array, ground: Array, search: int, alike: float, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        alike_places(seen, ground, search, 2.0, alike, 0.5, 2, 2)


LOOK = (grey_noise((24, 24), 1), np.full((24, 24), 255, np.uint8), None)
MAP = grey_noise((90, 90), 2)


@pytest.mark.parametrize("threads", [1, 3])
def test_windows_are_matched_as_one_by_one(threads: int) -> None:
    turned = np.array([[0.98, -0.17, 2.0], [0.17, 0.98, -2.0], [0.0, 0.0, 1.0]])
    flat = (np.full((24, 24), 90, np.uint8), LOOK[1], None)
    looks = [LOOK, (*LOOK[:2], turned), flat]
    windows = [(0, MAP, 3, 5), (1, MAP, 3, 5), (0, MAP, -20, 40)]
    found = match_windows(looks, [[0, 1], [1, 2]], windows, 5, 2, 1.0, NOISE, threads)
    fields = [orientation(*LOOK[:2], 1.0, NOISE), orientation(*resample(*LOOK[:2], turned), 1.0, NOISE)]
    templates = [Template(field, 5) for field in fields]
    for one, (search, pixels, left, top) in zip(found, windows, strict=True):
        if search == 1:  # one of its looks shows nothing
            assert one is None
        else:
            assert one == best_match(templates, ground_field(pixels, left, top, 34, 34, 2, 1.0, NOISE)[0])


@pytest.mark.parametrize(
    ("looks", "searches", "windows", "message"),
    [
        ([(LOOK[0][:, :20], LOOK[1][:, :20], None)], [[0]], [], "expected a square"),
        ([(LOOK[0], LOOK[1][:20], None)], [[0]], [], "mask"),
        ([(*LOOK[:2], np.full((3, 3), np.nan))], [[0]], [], "finite"),
        ([LOOK[:2]], [[0]], [], "image, mask, between"),
        ([LOOK], [[1]], [], "searches"),
        ([LOOK], [[]], [], "at least one"),
        ([LOOK, (LOOK[0][:20, :20], LOOK[1][:20, :20], None)], [[0, 1]], [], "different sizes"),
        ([LOOK], [[0]], [(1, MAP, 0, 0)], "search"),
        ([LOOK], [[0]], [(0, MAP, 0)], "windows"),
        ([LOOK], [[0]], [(0, MAP.astype(np.float32), 0, 0)], "pixels"),
    ],
)
def test_unusable_looks_are_refused_by_name(looks: Any, searches: Any, windows: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        match_windows(looks, searches, windows, 5, 1, 1.0, NOISE, 1)


JOB = (0, 0, 4, 80.0, 0.0, 0.0, 0.0, 0.0, [0.0] * 6)
COMMON: dict[str, Any] = {
    "looks": [LOOK],
    "sites": [(MAP, 20, 20)],
    "jobs": [JOB],
    "reduction": 1,
    "search": 4,
    "gsd": 0.5,
    "seen": 0.8,
    "fewest": 8,
    "rises": [0.0, 6.0],
    "rise_cost": 0.2,
    "block_sigma": 1.0,
    "radii": [3, 2],
    "rounds": 2,
    "vote": 3.0,
    "exact": True,
    "prior_weight": [0.0, 0.0, 90.0, 900.0, 150.0, 150.0],
    "sigma": 1.0,
    "noise": NOISE,
    "threads": 1,
}


def test_a_look_with_too_few_blocks_is_not_registered() -> None:
    found = register_looks(**{**COMMON, "jobs": [JOB, (0, 0, 20, *JOB[3:])]})
    assert found[0] is not None and found[0][2] == 36
    assert found[1] is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"jobs": [(1, *JOB[1:])]}, "look"),
        ({"jobs": [(0, 1, *JOB[2:])]}, "site"),
        ({"jobs": [(0, 0, 0, *JOB[3:])]}, "side"),
        ({"jobs": [(0, 0, 4, 0.0, *JOB[4:])]}, "height"),
        ({"jobs": [JOB[:8]]}, "jobs"),
        ({"looks": [LOOK, (LOOK[0][:20, :20], LOOK[1][:20, :20], None)], "jobs": [JOB, (1, *JOB[1:])]}, "sizes"),
        ({"sites": [(MAP, 20)]}, "sites"),
        ({"reduction": 4}, "reduction"),
        ({"search": 0}, "search"),
        ({"gsd": 0.0}, "gsd"),
        ({"block_sigma": float("nan")}, "block_sigma"),
        ({"rises": [6.0, 0.0]}, "rises"),
        ({"rise_cost": -1.0}, "rise_cost"),
        ({"radii": []}, "radii"),
        ({"rounds": 0}, "rounds"),
        ({"threads": 65}, "threads"),
    ],
)
def test_unusable_registrations_are_refused_by_name(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        register_looks(**{**COMMON, **change})
