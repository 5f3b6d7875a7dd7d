"""The native loops against slow, plain references."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from cvgl.native import correlate_blocks, fit_pose, rectify

Array = NDArray[Any]
Lens = tuple[float, ...]

HEIGHT, WIDTH = 120, 160
FOCAL, CX, CY = 140.0, 81.3, 57.9
OUT_H, OUT_W = 20, 24
BARREL = (-0.2, 0.05, 0.001, -0.002, 0.01)
RATIONAL = (0.1, -0.05, 0.001, 0.0005, 0.01, 0.08, -0.02, 0.005)


def smooth_image(seed: int, channels: int = 3, sigma: float = 4.0) -> Array:
    """Blurred noise stretched over the full range of grey values."""
    noise = np.random.default_rng(seed).standard_normal((HEIGHT, WIDTH, channels))
    noise = cv2.GaussianBlur(noise, (0, 0), sigma).reshape(HEIGHT, WIDTH, channels)
    low, high = noise.min(), noise.max()
    return np.round((noise - low) / (high - low) * 255).astype(np.uint8)


def ground_map(scale: float, turn_deg: float, tilt_deg: float, tilt_axis_deg: float) -> Array:
    """Output pixel -> ideal camera coordinates: ``scale`` source pixels per pixel, turned and tilted."""
    turn, tilt, axis = np.radians([turn_deg, tilt_deg, tilt_axis_deg])
    k = np.array([np.cos(axis), np.sin(axis), 0.0]) * tilt
    rotation = cv2.Rodrigues(k)[0]
    step = scale / FOCAL
    c, s = step * np.cos(turn), step * np.sin(turn)
    u0, v0 = (OUT_W - 1) / 2, (OUT_H - 1) / 2
    plane = np.array([[c, -s, -c * u0 + s * v0], [s, c, -s * u0 - c * v0], [0.0, 0.0, 1.0]])
    return np.ascontiguousarray(rotation @ plane)


def source_positions(h: Array, u: Array, v: Array, distortion: Lens) -> tuple[Array, Array, Array]:
    """Source x, y and the third homogeneous component, with the lens written out as OpenCV documents it."""
    p = np.einsum("ij,j...->i...", h, np.stack([u, v, np.ones_like(u)]))
    with np.errstate(divide="ignore", invalid="ignore"):
        x, y = p[0] / p[2], p[1] / p[2]
    k1, k2, p1, p2, k3, k4, k5, k6 = (*distortion, *(0.0,) * (8 - len(distortion)))
    r2 = x * x + y * y
    radial = (1 + k1 * r2 + k2 * r2**2 + k3 * r2**3) / (1 + k4 * r2 + k5 * r2**2 + k6 * r2**3)
    xd = x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x * x)
    yd = y * radial + p1 * (r2 + 2 * y * y) + 2 * p2 * x * y
    return FOCAL * xd + CX, FOCAL * yd + CY, p[2]


def bilinear(image: Array, x: Array, y: Array) -> Array:
    """Interpolated values, the border's pixels repeated outwards; (..., C) float64."""
    x0, y0 = np.floor(x).astype(int), np.floor(y).astype(int)
    ax, ay = (x - x0)[..., None], (y - y0)[..., None]
    columns = [np.clip(x0 + i, 0, WIDTH - 1) for i in (0, 1)]
    rows = [np.clip(y0 + i, 0, HEIGHT - 1) for i in (0, 1)]
    a, b, c, d = (image[row, column].astype(np.float64) for row in rows for column in columns)
    return (a * (1 - ax) + b * ax) * (1 - ay) + (c * (1 - ax) + d * ax) * ay


def reference(image: Array, h: Array, distortion: Lens, grid: int = 16) -> tuple[Array, Array]:
    """Every output pixel's square averaged densely through the true mapping, and which lie in the image."""
    offsets = (np.arange(grid) + 0.5) / grid - 0.5
    axes = (np.arange(OUT_H), np.arange(OUT_W), offsets, offsets)
    v, u, dv, du = np.meshgrid(*axes, indexing="ij", sparse=True)
    u, v = np.broadcast_arrays((u + du).astype(float), (v + dv).astype(float))
    x, y, w = source_positions(h, u, v, distortion)
    whole = ((w > 1e-3) & (x >= 0) & (y >= 0) & (x <= WIDTH - 1) & (y <= HEIGHT - 1)).all(axis=(2, 3))
    x, y = np.where(whole[..., None, None], x, 0.0), np.where(whole[..., None, None], y, 0.0)
    return bilinear(image, x, y).mean(axis=(2, 3)), whole


def run(image: Array, h: Array, distortion: Lens = (), **options: Any) -> tuple[Array, Array]:
    size = {"out_h": OUT_H, "out_w": OUT_W, "threads": 1, **options}
    return rectify(image, h, FOCAL, FOCAL, CX, CY, distortion, **size)


views = st.builds(
    ground_map,
    scale=st.floats(0.4, 8.0),
    turn_deg=st.floats(0.0, 360.0),
    tilt_deg=st.floats(0.0, 45.0),
    tilt_axis_deg=st.floats(0.0, 360.0),
)
lenses = st.sampled_from([(), BARREL[:4], BARREL, RATIONAL])


@settings(max_examples=25, deadline=None)
@given(h=views, distortion=lenses, seed=st.integers(0, 3))
def test_agrees_with_a_dense_average_of_the_true_mapping(h: Array, distortion: Lens, seed: int) -> None:
    image = smooth_image(seed)
    expected, whole = reference(image, h, distortion)
    assume(whole.sum() >= 20)
    patch, mask = run(image, h, distortion)
    assert (mask[whole] == 255).all()
    difference = np.abs(patch.astype(float) - expected)[whole]
    # Samples may sit up to half a source pixel off along each axis (nearest pixel, from a footprint of 4 on).
    half_a_pixel = sum(np.abs(np.diff(image.astype(float), axis=axis)).max() / 2 for axis in (0, 1))
    assert difference.mean() < 2.0
    assert difference.max() < 1.5 + half_a_pixel


@settings(max_examples=60, deadline=None)
@given(h=views, tilt=st.floats(0.0, 80.0), shift=st.floats(-60, 60))
def test_mask_is_exactly_what_lies_in_front_and_inside(h: Array, tilt: float, shift: float) -> None:
    nod = cv2.Rodrigues(np.array([np.radians(tilt), 0.0, 0.0]))[0]
    h = nod @ h @ np.array([[1, 0, shift], [0, 1, 0], [0, 0, 1.0]])
    v, u = np.mgrid[:OUT_H, :OUT_W].astype(float)
    x, y, w = source_positions(h, u, v, ())
    seen = (w > 0) & (x >= -0.5) & (y >= -0.5) & (x <= WIDTH - 0.5) & (y <= HEIGHT - 0.5)
    # The last bit of a float decides on a pixel that lies on the border itself.
    borders = [x + 0.5, y + 0.5, x - WIDTH + 0.5, y - HEIGHT + 0.5, w]
    clear = np.abs(borders).min(axis=0) > 1e-7
    patch, mask = run(smooth_image(0), np.ascontiguousarray(h))
    assert set(np.unique(mask)) <= {0, 255}
    np.testing.assert_array_equal((mask == 255)[clear], seen[clear])
    assert (patch[mask == 0] == 0).all()


@settings(max_examples=40, deadline=None)
@given(h=views, distortion=lenses, low=st.integers(0, 200), seed=st.integers(0, 99))
def test_no_value_appears_that_the_image_does_not_span(h: Array, distortion: Lens, low: int, seed: int) -> None:
    image = np.random.default_rng(seed).integers(low, low + 40, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    patch, mask = run(image, h, distortion)
    seen = patch[mask == 255]
    assert ((seen >= low) & (seen < low + 40)).all()


def pixel_map(a: float, x0: float, y0: float) -> Array:
    """Output (u, v) -> source (a u + x0, a v + y0), as a map to ideal coordinates."""
    return np.array([[a, 0, x0 - CX], [0, a, y0 - CY], [0, 0, FOCAL]]) / FOCAL


def test_one_to_one_copies_the_pixels() -> None:
    image = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    patch, mask = run(image, pixel_map(1.0, 0.0, 0.0), out_h=HEIGHT, out_w=WIDTH)
    np.testing.assert_array_equal(patch, image)
    assert (mask == 255).all()


@pytest.mark.parametrize("factor", [2, 3, 4, 8])
def test_whole_reduction_is_the_mean_of_each_block(factor: int) -> None:
    image = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    rows, columns = HEIGHT // factor, WIDTH // factor
    blocks = image[: rows * factor, : columns * factor].reshape(rows, factor, columns, factor, 3)
    centre = (factor - 1) / 2
    patch, _ = run(image, pixel_map(factor, centre, centre), out_h=rows, out_w=columns)
    assert np.abs(patch - blocks.mean(axis=(1, 3))).max() <= 0.51


def test_detail_finer_than_the_patch_does_not_alias() -> None:
    checkerboard = (np.indices((HEIGHT, WIDTH)).sum(axis=0) % 2 * 255).astype(np.uint8)
    patch, mask = run(checkerboard, ground_map(4.0, 0.0, 0.0, 0.0))
    assert np.abs(patch[mask == 255].astype(int) - 127).max() <= 16
    single_sample = checkerboard[::4, ::4]
    assert single_sample.max() == single_sample.min()  # what sampling without a footprint would have seen


@pytest.mark.parametrize("distortion", [BARREL[:4], BARREL, RATIONAL])
def test_lens_is_opencv_s(distortion: Lens) -> None:
    image = smooth_image(1)
    h = ground_map(1.0, 30.0, 10.0, 70.0)
    v, u = np.mgrid[:OUT_H, :OUT_W].astype(float)
    rays = np.einsum("ij,jvu->vui", h, np.stack([u, v, np.ones_like(u)])).reshape(-1, 3)
    camera = np.array([[FOCAL, 0, CX], [0, FOCAL, CY], [0, 0, 1.0]])
    points, _ = cv2.projectPoints(rays, np.zeros(3), np.zeros(3), camera, np.array(distortion))
    where = points.reshape(OUT_H, OUT_W, 2).astype(np.float32)
    remapped = cv2.remap(image, where[..., 0], where[..., 1], cv2.INTER_LINEAR)
    patch, mask = run(image, h, distortion)
    assert (mask == 255).all()
    assert np.abs(patch.astype(int) - remapped.astype(int)).max() <= 3


def test_distortion_is_not_trusted_where_it_folds_back() -> None:
    # With k1 = -0.3 the distorted radius grows up to r = sqrt(1 / 0.9) only; at r = 1.8 it is back inside.
    fold = (-0.3, 0.0, 0.0, 0.0)
    h = np.array([[1.8 / 12, 0, 0], [0, 1.8 / 12, 0], [0, 0, 1.0]])
    assert abs(source_positions(h, np.array(12.0), np.array(0.0), fold)[0] - CX) < WIDTH / 2
    wide = np.zeros((HEIGHT, 400), np.uint8)
    _, mask = rectify(wide, h, FOCAL, FOCAL, 200.0, CY, fold, 1, 13, 1)
    radius = np.arange(13) * 1.8 / 12
    np.testing.assert_array_equal(mask[0] == 255, radius < np.sqrt(1 / 0.9))


def test_rows_may_lie_at_any_stride() -> None:
    canvas = np.random.default_rng(0).integers(0, 256, (2 * HEIGHT + 7, WIDTH + 20, 3), dtype=np.uint8)
    h = ground_map(2.7, 20.0, 15.0, 40.0)
    for view in (
        canvas[3 : HEIGHT + 3, 5 : WIDTH + 5],
        canvas[: 2 * HEIGHT : 2, :WIDTH],
        canvas[HEIGHT - 1 :: -1, 11 : WIDTH + 11],
    ):
        assert view.shape == (HEIGHT, WIDTH, 3)
        for found, expected in zip(run(view, h), run(np.ascontiguousarray(view), h), strict=True):
            np.testing.assert_array_equal(found, expected)


def test_grey_frame_is_one_channel_of_a_colour_frame() -> None:
    image = smooth_image(2)
    h = ground_map(3.3, 70.0, 20.0, 10.0)
    colour, mask = run(image, h, BARREL)
    for channel in range(3):
        grey, grey_mask = run(np.ascontiguousarray(image[..., channel]), h, BARREL)
        assert grey.shape == (OUT_H, OUT_W)
        np.testing.assert_array_equal(grey, colour[..., channel])
        np.testing.assert_array_equal(grey_mask, mask)


@pytest.mark.parametrize("threads", [0, 2, 3, 64])
def test_answer_does_not_depend_on_threads(threads: int) -> None:
    image = smooth_image(3)
    h = ground_map(1.7, 5.0, 20.0, 10.0)
    size = {"out_h": 133, "out_w": 90}
    for found, expected in zip(run(image, h, **size, threads=threads), run(image, h, **size), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_map_may_be_transposed_in_memory_and_frame_read_only() -> None:
    image = smooth_image(0)
    image.flags.writeable = False
    h = ground_map(2.0, 33.0, 12.0, 5.0)
    np.testing.assert_array_equal(run(image, np.asfortranarray(h))[0], run(image, h)[0])


def test_footprint_that_reaches_the_horizon_is_answered() -> None:
    h = ground_map(8.0, 0.0, 85.0, 0.0)
    patch, mask = run(smooth_image(0), h)
    assert patch.shape == (OUT_H, OUT_W, 3)
    assert (mask == 0).any()


GOOD: dict[str, Any] = {
    "image": np.zeros((6, 8, 3), np.uint8),
    "map3x3": np.eye(3),
    "fx": 5.0,
    "fy": 5.0,
    "cx": 3.5,
    "cy": 2.5,
    "distortion": (),
    "out_h": 4,
    "out_w": 4,
    "threads": 1,
}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image": np.zeros((6, 8, 3), np.float32)}, "image: expected dtype uint8"),
        ({"image": np.zeros((6, 8, 4), np.uint8)}, r"image: found shape \(6, 8, 4\)"),
        ({"image": np.zeros(8, np.uint8)}, r"image: found shape \(8\)"),
        ({"image": np.zeros((0, 8), np.uint8)}, "expected sides of 1 to 32767"),
        ({"image": np.zeros((1, 32768), np.uint8)}, "expected sides of 1 to 32767"),
        ({"image": np.zeros((6, 16), np.uint8)[:, ::2]}, "pixels of a row must lie together"),
        ({"image": np.zeros((8, 6), np.uint8).T}, "pixels of a row must lie together"),
        ({"image": np.zeros((6, 8, 3), np.uint8)[..., ::-1]}, "pixels of a row must lie together"),
        ({"map3x3": np.eye(3, dtype=np.float32)}, "map3x3: expected dtype float64"),
        ({"map3x3": np.eye(4)}, r"map3x3: found shape \(4, 4\)"),
        ({"map3x3": np.full((3, 3), np.nan)}, "map3x3: expected finite"),
        ({"map3x3": np.diag([1.0, 1.0, 0.0])}, "map3x3: singular"),
        ({"fx": 0.0}, "fx: found"),
        ({"fy": float("nan")}, "fy: found"),
        ({"cx": float("inf")}, "cx, cy"),
        ({"distortion": (0.1, 0.2)}, "distortion: found 2 coefficients, expected 0, 4, 5 or 8"),
        ({"distortion": (0.1, 0.2, 0.0, float("nan"))}, "distortion: expected finite"),
        ({"out_h": 0}, "out_h: found 0"),
        ({"out_w": 16385}, "out_w: found 16385"),
        ({"threads": -1}, "threads: found -1"),
        ({"threads": 65}, "threads: found 65"),
    ],
)
def test_unusable_input_is_refused_by_name(change: dict[str, Any], message: str) -> None:
    rectify(**GOOD)
    with pytest.raises(ValueError, match=message):
        rectify(**{**GOOD, **change})


def test_something_that_is_no_array_is_a_type_error() -> None:
    with pytest.raises(TypeError):
        rectify(**{**GOOD, "image": "frame.jpg"})


def complex_noise(shape: tuple[int, int], seed: int) -> Array:
    rng = np.random.default_rng(seed)
    return (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)).astype(np.complex64)


def direct_sums(field: Array, ground: Array, corners: Array, side: int, search: int) -> Array:
    """What correlate_blocks is to answer, as its definition says it."""
    shifts = range(2 * search + 1)
    surfaces = []
    for row, column in corners:
        block = np.conj(field[row : row + side, column : column + side].astype(np.complex128))
        under = [
            [(block * ground[row + dy : row + dy + side, column + dx : column + dx + side]).real.sum() for dx in shifts]
            for dy in shifts
        ]
        surfaces.append(under)
    return np.array(surfaces).reshape(-1, len(shifts), len(shifts))


# Sides around the width of a vector register, and searches around the four shifts that are done at once.
@settings(max_examples=40, deadline=None)
@given(
    side=st.integers(1, 13),
    search=st.integers(0, 5),
    grown=st.tuples(st.integers(0, 9), st.integers(0, 9)),
    count=st.integers(0, 5),
    seed=st.integers(0, 99),
)
def test_blocks_are_correlated_as_defined(
    side: int, search: int, grown: tuple[int, int], count: int, seed: int
) -> None:
    height, width = side + grown[0], side + grown[1]
    field = complex_noise((height, width), seed)
    ground = complex_noise((height + 2 * search, width + 2 * search), seed + 1)
    corners = np.random.default_rng(seed).integers(0, np.array(grown) + 1, (count, 2))
    found = correlate_blocks(field, ground, corners, side, search, 1)
    assert found.dtype == np.float32
    assert found.shape == (count, 2 * search + 1, 2 * search + 1)
    np.testing.assert_allclose(found, direct_sums(field, ground, corners, side, search), atol=1e-4)


@pytest.mark.parametrize(("dy", "dx"), [(0, 0), (3, -2), (-4, 4)])
def test_a_displaced_block_peaks_at_its_displacement(dy: int, dx: int) -> None:
    search, side = 4, 24
    field = complex_noise((40, 50), 0)
    ground = np.zeros((48, 58), np.complex64)
    ground[search + dy : search + dy + 40, search + dx : search + dx + 50] = field
    surface = correlate_blocks(field, ground, np.array([[8, 13]]), side, search)[0]
    assert np.unravel_index(surface.argmax(), surface.shape) == (search + dy, search + dx)
    block = field[8 : 8 + side, 13 : 13 + side]
    assert surface.max() == pytest.approx((np.abs(block) ** 2).sum(), rel=1e-5)


def test_blocks_do_not_depend_on_threads_or_on_each_other() -> None:
    field, ground = complex_noise((60, 70), 0), complex_noise((72, 82), 1)
    corners = np.random.default_rng(2).integers(0, 40, (30, 2))
    alone = np.concatenate([correlate_blocks(field, ground, corner[None], 20, 6, 1) for corner in corners])
    for threads in (0, 1, 2, 5, 64):
        np.testing.assert_array_equal(correlate_blocks(field, ground, corners, 20, 6, threads), alone)


def test_corners_may_lie_at_any_stride() -> None:
    field, ground = complex_noise((30, 30), 0), complex_noise((34, 34), 1)
    corners = np.random.default_rng(0).integers(0, 20, (12, 2))
    expected = correlate_blocks(field, ground, corners, 10, 2)
    np.testing.assert_array_equal(correlate_blocks(field, ground, np.asfortranarray(corners), 10, 2), expected)
    np.testing.assert_array_equal(correlate_blocks(field, ground, corners[::-3], 10, 2), expected[::-3])


GOOD_BLOCKS: dict[str, Any] = {
    "field": np.zeros((20, 24), np.complex64),
    "ground": np.zeros((26, 30), np.complex64),
    "corners": np.array([[0, 0], [10, 14]]),
    "side": 10,
    "search": 3,
    "threads": 1,
}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"field": np.zeros((20, 24), np.complex128)}, "field: expected dtype complex64"),
        ({"field": np.zeros((20, 24), np.float32)}, "field: expected dtype complex64"),
        ({"field": np.zeros((20, 24, 1), np.complex64)}, r"field: found shape \(20, 24, 1\)"),
        ({"field": np.zeros((24, 20), np.complex64).T}, "field: expected a C-contiguous array"),
        ({"field": np.zeros((20, 48), np.complex64)[:, ::2]}, "field: expected a C-contiguous array"),
        ({"ground": np.zeros((26, 30), np.complex128)}, "ground: expected dtype complex64"),
        ({"ground": np.zeros((26, 60), np.complex64)[:, :30]}, "ground: expected a C-contiguous array"),
        ({"ground": np.zeros((20, 24), np.complex64)}, r"ground: found shape \(20, 24\)"),
        ({"ground": np.zeros((26, 31), np.complex64)}, r"ground: found shape \(26, 31\)"),
        ({"search": 2}, r"ground: found shape \(26, 30\)"),
        ({"corners": np.zeros((1, 2), np.int32)}, "corners: found shape"),
        ({"corners": np.zeros((1, 2))}, r"expected \(B, 2\) of int64"),
        ({"corners": np.zeros((1, 3), np.int64)}, r"corners: found shape \(1, 3\)"),
        ({"corners": np.zeros(2, np.int64)}, r"corners: found shape \(2\)"),
        ({"corners": np.array([[0, -1]])}, "a block reaches outside the field"),
        ({"corners": np.array([[11, 0]])}, "a block reaches outside the field"),
        ({"corners": np.array([[0, 15]])}, "a block reaches outside the field"),
        ({"side": 0}, "side: found 0"),
        ({"side": 257}, "side: found 257"),
        ({"search": -1}, "search: found -1"),
        ({"search": 257}, "search: found 257"),
    ],
)
def test_unusable_blocks_are_refused_by_name(change: dict[str, Any], message: str) -> None:
    correlate_blocks(**GOOD_BLOCKS)
    with pytest.raises(ValueError, match=message):
        correlate_blocks(**{**GOOD_BLOCKS, **change})


def pose_problem(pose: np.ndarray, rise: float = 0.0) -> dict[str, Any]:
    """Blocks whose surfaces peak exactly where a pose (and a height above the ground) puts them."""
    rng = np.random.default_rng(7)
    offsets, height, gsd, extent = rng.uniform(-60, 60, (24, 2)), 120.0, 0.5, 33
    x, y = offsets.T
    one, zero = np.ones_like(x), np.zeros_like(x)
    east = np.column_stack([one, zero, y, x, x * x / height, x * y / height])
    north = np.column_stack([zero, one, -x, y, x * y / height, y * y / height])
    design = np.ascontiguousarray(np.stack([east, north], axis=1))
    lean = offsets / height
    places = (design @ pose + lean * rise) / (gsd, -gsd) + extent // 2
    grid = np.arange(extent)
    squares = (grid - places[:, :1]) ** 2, (grid - places[:, 1:]) ** 2
    surfaces = 5.0 * np.exp(-(squares[1][:, :, None] + squares[0][:, None, :]) / 8.0)
    return {
        "surfaces": surfaces.astype(np.float32),
        "design": design,
        "lean": lean,
        "rises": np.linspace(0.0, 12.0, 5),
        "start": np.zeros(6),
        "prior_mean": np.zeros(6),
        "prior_weight": np.full(6, 1e-6),
        "gsd": gsd,
        "rise_cost": 0.2,
        "sigma": 1.0,
        "radii": [10, 6, 4],
        "rounds": 3,
    }


@pytest.mark.parametrize(
    "pose",
    [
        np.zeros(6),
        np.array([1.2, -0.8, 0.0, 0.0, 0.0, 0.0]),
        np.array([0.5, 0.4, 0.02, -0.01, 0.0, 0.0]),
        np.array([-0.6, 0.3, -0.01, 0.02, 0.02, -0.015]),
    ],
)
def test_fit_pose_finds_the_pose_that_the_blocks_saw(pose: np.ndarray) -> None:
    found, information, measured = fit_pose(**pose_problem(pose))
    np.testing.assert_allclose(found, pose, atol=0.03)
    np.testing.assert_allclose(information, information.T)
    assert np.linalg.eigvalsh(information).min() > 0
    np.testing.assert_allclose(measured, pose_problem(pose)["design"] @ pose, atol=0.2)


def test_fit_pose_lets_blocks_be_roofs() -> None:
    """A third of the blocks stand 12 m high: allowed to, they pull the fit less than as displaced ground."""
    town, roofs = pose_problem(np.zeros(6)), pose_problem(np.zeros(6), rise=12.0)
    town["surfaces"][::3] = roofs["surfaces"][::3]
    town["prior_weight"] = np.array([0.0, 0.0, 100.0, 1000.0, 100.0, 100.0])
    with_roofs, _, _ = fit_pose(**town)
    flat, _, _ = fit_pose(**{**town, "rises": np.zeros(1)})
    assert np.abs(with_roofs[:2]).max() < 0.3
    assert abs(with_roofs[3]) < abs(flat[3])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"surfaces": np.zeros((24, 32, 32), np.float32)}, "surfaces"),
        ({"surfaces": np.zeros((24, 33, 33))}, "surfaces"),
        ({"design": np.zeros((23, 2, 6))}, "design"),
        ({"lean": np.zeros((24, 3))}, "lean"),
        ({"rises": np.zeros(0)}, "rises"),
        ({"start": np.zeros(5)}, "start"),
        ({"gsd": 0.0}, "gsd"),
        ({"radii": []}, "radii"),
        ({"rounds": 0}, "rounds"),
        ({"prior_weight": np.full(6, np.nan)}, "determine"),
    ],
)
def test_fit_pose_refuses(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fit_pose(**{**pose_problem(np.zeros(6)), **change})
