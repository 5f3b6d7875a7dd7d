"""The warp from a raw frame to the network's input, against a plain resampler in float64 and against OpenCV."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from cvgl.camera import Camera
from cvgl.errors import FrameError
from cvgl.geometry import Mount, camera_to_enu
from cvgl.native import rectify as native_rectify
from cvgl.native import warp_into
from cvgl.rectify import rectify, warp_to_input

Array = NDArray[Any]
Lens = tuple[float, ...]

HEIGHT, WIDTH = 120, 164
FX, FY, CX, CY = 141.0, 139.0, 82.3, 58.9


class Fisheye(tuple[float, ...]):
    """k1 to k4 of a fisheye; any other tuple is a pinhole's."""


FISHEYE = Fisheye((-0.02, 0.01, -0.004, 0.0006))
BARREL = (-0.2, 0.05, 0.001, -0.002, 0.01)
RATIONAL = (0.1, -0.05, 0.001, 0.0005, 0.01, 0.08, -0.02, 0.005)
FORMATS = ("bgr", "rgb", "grey", "nv12", "yuyv")
AREA_FROM, AREA_EXTENT, SLACK, MOST = 2.0, 110.0, 0.125, 16


def noise(seed: int, shape: tuple[int, ...] = (HEIGHT, WIDTH, 3), sigma: float = 0.0) -> Array:
    """White or blurred noise over the full range of grey values."""
    values = np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
    if sigma:
        values = cv2.GaussianBlur(values, (0, 0), sigma).reshape(shape)
    low, high = values.min(), values.max()
    return np.round((values - low) / (high - low) * 255).astype(np.uint8)


def ground_map(scale: float, turn_deg: float, tilt_deg: float, tilt_axis_deg: float, size: tuple[int, int]) -> Array:
    """Output pixel -> ideal camera coordinates: ``scale`` source pixels per pixel, turned and tilted."""
    turn, tilt, axis = np.radians([turn_deg, tilt_deg, tilt_axis_deg])
    rotation = cv2.Rodrigues(np.array([np.cos(axis), np.sin(axis), 0.0]) * tilt)[0]
    c, s = scale / FX * np.cos(turn), scale / FX * np.sin(turn)
    u0, v0 = (size[1] - 1) / 2, (size[0] - 1) / 2
    return np.ascontiguousarray(rotation @ [[c, -s, -c * u0 + s * v0], [s, c, -s * u0 - c * v0], [0.0, 0.0, 1.0]])


def source_of(h: Array, u: Array, v: Array, lens: Lens) -> tuple[Array, Array, Array]:
    """Source x and y, with the lens written out as OpenCV documents it, and the third homogeneous component."""
    p = np.einsum("ij,j...->i...", h, np.stack([u, v, np.ones_like(u)]))
    with np.errstate(divide="ignore", invalid="ignore"):
        x, y = p[0] / p[2], p[1] / p[2]
    if isinstance(lens, Fisheye):
        radius = np.hypot(x, y)
        angle = np.arctan(radius)
        drawn = angle * (1 + sum(k * angle ** (2 * n) for n, k in enumerate(lens, start=1)))
        with np.errstate(invalid="ignore"):
            factor = np.where(radius > 0, drawn / radius, 1.0)
        return FX * factor * x + CX, FY * factor * y + CY, p[2]
    k1, k2, p1, p2, k3, k4, k5, k6 = (*lens, *(0.0,) * (8 - len(lens)))
    r2 = x * x + y * y
    radial = (1 + k1 * r2 + k2 * r2**2 + k3 * r2**3) / (1 + k4 * r2 + k5 * r2**2 + k6 * r2**3)
    xd = x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x * x)
    yd = y * radial + p1 * (r2 + 2 * y * y) + 2 * p2 * x * y
    return FX * xd + CX, FY * yd + CY, p[2]


def bilinear(plane: Array, x: Array, y: Array) -> Array:
    """Interpolated values, the border's pixels repeated outwards; (N, C) float64."""
    rows, columns = plane.shape[:2]
    x0, y0 = np.floor(x).astype(int), np.floor(y).astype(int)
    ax, ay = (x - x0)[:, None], (y - y0)[:, None]
    i, j = ([np.clip(at + k, 0, most - 1) for k in (0, 1)] for at, most in ((y0, rows), (x0, columns)))
    a, b, c, d = (plane[r, k].astype(np.float64) for r in i for k in j)
    return (a * (1 - ax) + b * ax) * (1 - ay) + (c * (1 - ax) + d * ax) * ay


def area_means(plane: Array, x: Array, y: Array, u: Array, v: Array) -> Array:
    """Means over parallelograms (centres x, y and sides u, v, each (2, N)) of pixels by the share that is covered."""
    size = np.abs(u[0] * v[1] - u[1] * v[0])
    reach = (np.abs(u[1]) + np.abs(v[1])) / 2
    top, bottom = y - reach, y + reach
    total, weights = np.zeros((len(x), plane.shape[2])), np.zeros(len(x))
    with np.errstate(divide="ignore", invalid="ignore"):
        slopes = [np.where(np.abs(side[1]) < 1e-9, 0.0, side[0] / side[1]) for side in (u, v)]
        halves = [np.where(np.abs(side[1]) < 1e-9, np.inf, size / 2 / np.abs(side[1])) for side in (u, v)]
    for k in range(int(np.max(bottom - top)) + 2):
        row = np.floor(top + 0.5) + k
        upper, lower = np.maximum(row - 0.5, top), np.minimum(row + 0.5, bottom)
        t = (upper + lower) / 2 - y
        left = x + np.maximum(slopes[0] * t - halves[0], slopes[1] * t - halves[1])
        right = x + np.minimum(slopes[0] * t + halves[0], slopes[1] * t + halves[1])
        share = np.maximum(lower - upper, 0.0)
        for i in range(int(np.max(np.where(share > 0, right - left, 0.0))) + 3):
            column = np.floor(left + 0.5) + i
            weight = np.minimum(right - column + 0.5, column + 0.5 - left)
            weight = share * np.clip(np.minimum(weight, right - left), 0.0, 1.0)
            r, c = (np.clip(at, 0, most - 1).astype(int) for at, most in zip((row, column), plane.shape, strict=False))
            total += weight[:, None] * plane[r, c]
            weights += weight
    return total / weights[:, None]


def sample_means(plane: Array, x: Array, y: Array, u: Array, v: Array) -> Array:
    """Means over grids of bilinear samples about a pixel apart, those outside the plane left out."""
    counts = [
        np.clip(np.ceil(np.hypot(*side) - SLACK), 1, MOST).astype(int) if len(x) else np.ones(0, int) for side in (u, v)
    ]
    total, number = np.zeros((len(x), plane.shape[2])), np.zeros(len(x))
    for j in range(max(counts[1], default=0)):
        for i in range(max(counts[0], default=0)):
            a, b = (i - (counts[0] - 1) / 2) / counts[0], (j - (counts[1] - 1) / 2) / counts[1]
            px, py = x + a * u[0] + b * v[0], y + a * u[1] + b * v[1]
            ok = (i < counts[0]) & (j < counts[1]) & inside(plane, px, py)
            total[ok] += bilinear(plane, px[ok], py[ok])
            number += ok
    total[number == 0] = bilinear(plane, x[number == 0], y[number == 0])
    return total / np.maximum(number, 1)[:, None]


def inside(plane: Array, x: Array, y: Array) -> Array:
    rows, columns = plane.shape[:2]
    return np.asarray((x >= -0.5) & (y >= -0.5) & (x <= columns - 0.5) & (y <= rows - 0.5))


def plane_means(plane: Array, x: Array, y: Array, u: Array, v: Array) -> Array:
    """(N, C) float64 of a plane (H, W, C), each footprint by area or by samples."""
    rows, columns = plane.shape[:2]
    span_x, span_y = (np.abs(u[k]) + np.abs(v[k]) for k in (0, 1))
    thickness = np.abs(u[0] * v[1] - u[1] * v[0]) / np.maximum(np.hypot(*u), np.hypot(*v))
    by_area = (thickness >= AREA_FROM) & (span_x <= AREA_EXTENT) & (span_y <= AREA_EXTENT)
    by_area &= (x - span_x / 2 >= 0) & (x + span_x / 2 <= columns - 1)
    by_area &= (y - span_y / 2 >= 0) & (y + span_y / 2 <= rows - 1)
    means = np.empty((len(x), plane.shape[2]))
    for chosen, way in ((by_area, area_means), (~by_area, sample_means)):
        if chosen.any():
            means[chosen] = way(plane, x[chosen], y[chosen], u[:, chosen], v[:, chosen])
    return means


def halved(image: Array, pixels: str) -> tuple[Array, Array, tuple[float, float]]:
    """Luma (H, W, 1) and chroma (h, w, 2) of a YUV image, and how many pixels share a chroma one across and down."""
    if pixels == "nv12":
        rows = image.shape[0] * 2 // 3
        return image[:rows, :, None], image[rows:].reshape(rows // 2, -1, 2), (2.0, 2.0)
    chroma = image.reshape(len(image), -1, 4)[..., 1::2]
    return image[..., :1], chroma, (2.0, 1.0)


def reference(image: Array, pixels: str, h: Array, lens: Lens, size: tuple[int, int]) -> tuple[Array, Array]:
    """Red, green and blue (h, w, 3), float64, 0 where unseen; and what is seen (h, w)."""
    v, u = np.mgrid[: size[0], : size[1]].astype(float)
    x, y, w = source_of(h, u, v, lens)
    step = 1e-4
    along = [
        np.stack([a - b for a, b in zip(source_of(h, *east, lens)[:2], source_of(h, *west, lens)[:2], strict=True)])
        for east, west in (((u + step, v), (u - step, v)), ((u, v + step), (u, v - step)))
    ]
    main, chroma, shared = halved(image, pixels) if pixels in ("nv12", "yuyv") else (np.atleast_3d(image), None, None)
    seen = (w > 0) & inside(main, x, y)
    sides = [side[:, seen] / (2 * step) for side in along]
    means = plane_means(main, x[seen], y[seen], *sides)
    if chroma is not None and shared is not None:
        across, down = shared
        at = ((x[seen] + 0.5) / across - 0.5, (y[seen] + 0.5) / down - 0.5)
        cb, cr = (plane_means(chroma, *at, *(side / [[across], [down]] for side in sides)) - 128).T
        luma = (means[:, 0] - 16) * 255 / 219
        means = np.stack([luma + 1.596027 * cr, luma - 0.391762 * cb - 0.812968 * cr, luma + 2.017232 * cb], axis=1)
        means = np.clip(means, 0, 255)
    elif pixels == "bgr":
        means = means[:, ::-1]
    answer = np.zeros((*size, 3))
    answer[seen] = means
    return answer, seen


def model_of(lens: Lens) -> str:
    return "fisheye" if isinstance(lens, Fisheye) else "pinhole"


def run(
    image: Array,
    pixels: str,
    maps: Array,
    lens: Lens = (),
    size: tuple[int, int] = (20, 24),
    dtype: Any = np.float32,
    scale: tuple[float, ...] = (1.0, 1.0, 1.0),
    offset: tuple[float, ...] = (0.0, 0.0, 0.0),
    channels: str = "rgb",
    threads: int = 1,
    slant: float = np.inf,
) -> tuple[Array, Array]:
    out = np.full((len(maps), 3, *size), 7, dtype)
    mask = np.full((len(maps), *size), 7, np.uint8)
    looks = (scale, offset, channels, threads, model_of(lens), slant)
    warp_into(out, mask, image, pixels, maps, FX, FY, CX, CY, lens, *looks)
    return out, mask


def shape_of(pixels: str) -> tuple[int, ...]:
    shapes = {"grey": (HEIGHT, WIDTH), "nv12": (HEIGHT * 3 // 2, WIDTH), "yuyv": (HEIGHT, WIDTH, 2)}
    return shapes.get(pixels, (HEIGHT, WIDTH, 3))


def strided(image: Array, way: str) -> Array:
    """The same pixels with rows further apart, or backwards in memory."""
    if way == "packed":
        return image
    if way == "apart":
        wide = np.zeros((image.shape[0], image.shape[1] + 10, *image.shape[2:]), np.uint8)
        wide[:, 6:-4] = image
        return wide[:, 6:-4]
    return np.ascontiguousarray(image[::-1])[::-1]


lenses = st.sampled_from([(), BARREL[:4], BARREL, RATIONAL, FISHEYE, Fisheye()])
formats = st.sampled_from(FORMATS)
sizes = st.tuples(st.integers(1, 30), st.integers(1, 80))
views = st.fixed_dictionaries(
    {
        "scale": st.floats(0.4, 20.0),
        "turn_deg": st.floats(0.0, 360.0) | st.sampled_from([0.0, 90.0, 180.0, 270.0]),
        "tilt_deg": st.floats(0.0, 55.0),
        "tilt_axis_deg": st.floats(0.0, 360.0),
    }
)


@settings(max_examples=120, deadline=None)
@given(
    pixels=formats,
    view=views,
    size=sizes,
    lens=lenses,
    sigma=st.sampled_from([0.0, 0.8, 3.0]),
    seed=st.integers(0, 9),
    way=st.sampled_from(["packed", "apart", "backwards"]),
)
def test_agrees_with_the_same_definition_in_float64(
    pixels: str, view: dict[str, float], size: tuple[int, int], lens: Lens, sigma: float, seed: int, way: str
) -> None:
    image = noise(seed, shape_of(pixels), sigma)
    h = ground_map(**view, size=size)
    expected, seen = reference(image, pixels, h, lens, size)
    (found,), (mask,) = run(strided(image, way), pixels, h[None], lens, size)
    assert ((mask == 255) == seen).mean() > 0.999  # the last bit of a float decides on a pixel on the border itself
    both = (mask == 255) & seen
    assume(both.any())
    close = np.abs(found.transpose(1, 2, 0) - expected)[both].max(axis=1) <= 1.0
    assert close.mean() >= 0.999
    assert (found[:, mask == 0] == 0).all()


@pytest.mark.parametrize("pixels", FORMATS)
@pytest.mark.parametrize(("scale", "turn"), [(31.0, 0.0), (40.0, 90.0), (60.0, 40.0), (75.0, 45.0), (85.0, 10.0)])
def test_large_footprints_count_pixels_by_area(pixels: str, scale: float, turn: float) -> None:
    rows, columns = 330, 412
    shapes = {"grey": (rows, columns), "nv12": (rows * 3 // 2, columns), "yuyv": (rows, columns, 2)}
    image = noise(3, shapes.get(pixels, (rows, columns, 3)))
    h = ground_map(scale, turn, 3.0, 30.0, (4, 5))
    h += np.outer([(columns / 2 - CX) / FX, (rows / 2 - CY) / FY, 0], h[2])
    expected, seen = reference(image, pixels, h, (), (4, 5))
    (found,), (mask,) = run(image, pixels, h[None], (), (4, 5))
    np.testing.assert_array_equal(mask == 255, seen)
    assert np.abs(found.transpose(1, 2, 0) - expected)[seen].max() <= 1.0


@settings(max_examples=60, deadline=None)
@given(view=views, lens=lenses, slant=st.floats(1.05, 3.0))
def test_what_lies_further_off_is_not_seen(view: dict[str, float], lens: Lens, slant: float) -> None:
    image, size = noise(0), (20, 24)
    h = ground_map(**view, size=size)
    (whole,), (seen,) = run(image, "bgr", h[None], lens, size)
    (found,), (mask,) = run(image, "bgr", h[None], lens, size, slant=slant)
    v, u = np.mgrid[: size[0], : size[1]]
    points = np.einsum("ij,jvu->vui", h, np.stack([u, v, np.ones_like(u)]))
    normal = np.cross(h[:, 0], h[:, 1])
    plane = abs(normal @ h[:, 2]) / np.linalg.norm(normal)
    far = np.linalg.norm(points, axis=2) / plane
    assume((np.abs(far - slant) > 1e-9).all())
    np.testing.assert_array_equal(mask > 0, (seen > 0) & (far <= slant))
    np.testing.assert_array_equal(found, whole * (mask > 0))


def test_a_fisheye_that_folds_shows_nothing_twice() -> None:
    # Its drawn radius turns back at 1 radian: what lies beyond would be drawn over what lies before.
    lens = Fisheye((-1 / 3, 0.0, 0.0, 0.0))
    wide = np.diag([2 * np.tan(1.0) / 100, 1 / 100, 1.0]) @ [[1, 0, -100.0], [0, 1, 0.0], [0, 0, 1]]
    image = np.full((480, 640, 3), 200, np.uint8)
    _, mask = native_rectify(image, wide, 200.0, 200.0, 319.5, 239.5, lens, 1, 201, 1, "fisheye")
    columns = np.flatnonzero(mask[0])
    assert (columns[0], columns[-1]) in ((50, 150), (51, 149))
    assert len(columns) == columns[-1] - columns[0] + 1


@settings(max_examples=40, deadline=None)
@given(view=views, lens=lenses, seed=st.integers(0, 3), colour=st.booleans())
def test_a_patch_and_the_network_s_input_are_one_resampling(
    view: dict[str, float], lens: Lens, seed: int, colour: bool
) -> None:
    image = noise(seed) if colour else noise(seed, (HEIGHT, WIDTH))
    h = ground_map(**view, size=(20, 24))
    patch, seen = native_rectify(image, h, FX, FY, CX, CY, lens, 20, 24, 1, model_of(lens))
    (found,), (mask,) = run(image, "bgr" if colour else "grey", h[None], lens, channels="bgr")
    np.testing.assert_array_equal(mask, seen)
    for channel in range(3):
        expected = patch[..., channel] if colour else patch
        np.testing.assert_array_equal(np.floor(found[channel] + np.float32(0.5)), expected)


@settings(max_examples=30, deadline=None)
@given(
    scale=st.floats(2.3, 6.0),
    turn=st.floats(0.0, 360.0),
    tilt=st.floats(0.0, 20.0),
    lens=lenses,
    pixels=formats,
    columns=st.integers(45, 60),
)
def test_vectors_and_single_pixels_give_the_same_numbers(
    scale: float, turn: float, tilt: float, lens: Lens, pixels: str, columns: int
) -> None:
    # Near the right end of a row there is no room for vectors: what lies there in the narrow image lies freely in the
    # wide one. Not compared where a footprint comes near the border itself, where the definition is another.
    narrow = 2 * columns
    wide = noise(0, shape_of(pixels))
    size = (60, 60)
    h = ground_map(scale, turn, tilt, turn, size)
    h += np.outer([(narrow / 2 - CX) / FX, 0, 0], h[2])
    (one,), (seen,) = run(np.ascontiguousarray(wide[:, :narrow]), pixels, h[None], lens, size)
    (other,), _ = run(wide, pixels, h[None], lens, size)
    inner = cv2.erode(np.pad(seen, 1), np.ones((9, 9), np.uint8))[1:-1, 1:-1] == 255
    assert inner.any()
    np.testing.assert_array_equal(one[:, inner], other[:, inner])


def yuv_image(seed: int, pixels: str, sigma: float) -> Array:
    """A YUV image whose colours no conversion clips."""
    image = noise(seed, shape_of(pixels), 0.0)
    luma, chroma, _ = halved(image, pixels)
    luma[..., 0] = 80 + noise(seed + 1, luma.shape[:2], sigma) // 3
    for channel in (0, 1):
        chroma[..., channel] = 108 + noise(seed + 2 + channel, chroma.shape[:2], sigma) // 6
    return image


@settings(max_examples=30, deadline=None)
@given(view=views, lens=lenses, pixels=st.sampled_from(["nv12", "yuyv"]), seed=st.integers(0, 5))
def test_yuv_is_what_opencv_converts(view: dict[str, float], lens: Lens, pixels: str, seed: int) -> None:
    code = cv2.COLOR_YUV2BGR_NV12 if pixels == "nv12" else cv2.COLOR_YUV2BGR_YUY2
    image = yuv_image(seed, pixels, 6.0)
    h = ground_map(**view, size=(20, 24))
    found, mask = run(image, pixels, h[None], lens)
    expected, same = run(cv2.cvtColor(image, code), "bgr", h[None], lens)
    np.testing.assert_array_equal(mask, same)
    # OpenCV rounds every pixel and gives a block of them one colour, here colours blend from block to block.
    difference = np.abs(found - expected)
    assert difference.mean() < 1.0
    assert difference.max(initial=0) < 6.0


@pytest.mark.parametrize("pixels", ["nv12", "yuyv"])
@pytest.mark.parametrize("colour", [(16, 128, 128), (235, 128, 128), (81, 90, 240), (145, 54, 34), (41, 240, 110)])
def test_one_colour_of_yuv_is_opencv_s_to_a_level(pixels: str, colour: tuple[int, int, int]) -> None:
    image = np.zeros(shape_of(pixels), np.uint8)
    luma, chroma, _ = halved(image, pixels)
    luma[...] = colour[0]
    chroma[...] = colour[1:]
    code = cv2.COLOR_YUV2RGB_NV12 if pixels == "nv12" else cv2.COLOR_YUV2RGB_YUY2
    found, mask = run(image, pixels, ground_map(3.0, 20.0, 5.0, 0.0, (20, 24))[None])
    assert (mask == 255).all()
    expected = cv2.cvtColor(image, code)[0, 0].astype(float)
    assert np.abs(found[0].transpose(1, 2, 0) - expected).max() <= 1.0


@pytest.mark.parametrize("pixels", FORMATS)
def test_halves_are_the_floats_rounded_to_even(pixels: str) -> None:
    image = noise(3, shape_of(pixels))
    h = ground_map(2.6, 33.0, 20.0, 40.0, (20, 24))[None]
    for scale, offset in ((0.0171, -2.1), (3e-6, 0.0), (3e-7, -3e-5), (1000.0, -1e5), (1e-12, 0.0)):
        how = {"scale": (scale,) * 3, "offset": (offset,) * 3}
        single, mask = run(image, pixels, h, **how)
        half, same = run(image, pixels, h, **how, dtype=np.float16)
        with np.errstate(over="ignore"):
            np.testing.assert_array_equal(half, single.astype(np.float16))
        np.testing.assert_array_equal(mask, same)


def test_every_half_is_its_own_rounding() -> None:
    # One output pixel over one grey: any float can be made of it.
    every = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    every = every[np.isfinite(every)].astype(np.float64)
    between = (every[:-1] + every[1:]) / 2
    for value in (*every[::211], *between[::97], *np.nextafter(between[::89].astype(np.float32), 0), 65519.9, 65520.0):
        single, _ = run(np.zeros((4, 4), np.uint8), "grey", np.eye(3)[None], size=(1, 1), offset=(float(value),) * 3)
        half, _ = run(
            np.zeros((4, 4), np.uint8),
            "grey",
            np.eye(3)[None],
            size=(1, 1),
            offset=(float(value),) * 3,
            dtype=np.float16,
        )
        with np.errstate(over="ignore"):
            np.testing.assert_array_equal(half, single.astype(np.float16))


@pytest.mark.parametrize("pixels", FORMATS)
def test_a_batch_is_its_parts_and_threads_do_not_matter(pixels: str) -> None:
    image = noise(4, shape_of(pixels))
    maps = np.stack([ground_map(2.2 + turn / 60, turn, 15.0, turn, (37, 70)) for turn in (0.0, 77.0, 200.0, 311.0)])
    whole, masks = run(image, pixels, maps, BARREL, size=(37, 70))
    for threads in (0, 2, 3, 64):
        for found, expected in zip(
            run(image, pixels, maps, BARREL, (37, 70), threads=threads), (whole, masks), strict=True
        ):
            np.testing.assert_array_equal(found, expected)
    for index in range(4):
        part, mask = run(image, pixels, maps[index : index + 1], BARREL, size=(37, 70))
        np.testing.assert_array_equal(part[0], whole[index])
        np.testing.assert_array_equal(mask[0], masks[index])


def test_an_empty_batch_is_nothing_to_do() -> None:
    out, mask = run(noise(0), "bgr", np.empty((0, 3, 3)))
    assert out.shape == (0, 3, 20, 24) and mask.shape == (0, 20, 24)


def test_channels_and_normalisation_are_by_output_channel() -> None:
    image = noise(5)
    h = ground_map(2.0, 10.0, 0.0, 0.0, (20, 24))[None]
    plain, _ = run(image, "bgr", h)
    scale, offset = (0.5, 2.0, 3.0), (1.0, -2.0, 7.0)
    found, _ = run(image, "bgr", h, scale=scale, offset=offset)
    np.testing.assert_allclose(
        found[0], plain[0] * np.reshape(scale, (3, 1, 1)) + np.reshape(offset, (3, 1, 1)), rtol=1e-5
    )
    turned, _ = run(image, "bgr", h, channels="bgr")
    np.testing.assert_array_equal(turned, plain[:, ::-1])
    np.testing.assert_array_equal(run(image[..., ::-1].copy(), "rgb", h)[0], plain)


def zone_plate(height: int, width: int) -> Array:
    """Rings whose frequency rises to the pixel grid's limit at the corners."""
    y, x = np.mgrid[:height, :width] - np.array([height / 2, width / 2])[:, None, None]
    r2 = x * x + y * y
    return np.round(127.5 + 127.5 * np.cos(np.pi * r2 / (2 * np.sqrt(r2.max())))).astype(np.uint8)


@pytest.mark.parametrize("scale", [2.4, 4.0, 7.5])
@pytest.mark.parametrize("turn", [0.0, 28.0])
@pytest.mark.parametrize("texture", ["zone plate", "noise"])
def test_aliasing_is_a_fraction_of_what_bilinear_samples_leave(scale: float, turn: float, texture: str) -> None:
    frame = zone_plate(500, 700) if texture == "zone plate" else noise(1, (500, 700), 0.7)
    size = int(420 / scale)
    half = (size - 1) / 2
    c, s = scale * np.cos(np.radians(turn)), scale * np.sin(np.radians(turn))
    to_frame = np.array([[c, -s, 350.3 - c * half + s * half], [s, c, 249.8 - s * half - c * half], [2e-5, 1e-5, 1.0]])
    v, u = np.mgrid[:size, :size].astype(float)
    truth = np.zeros((size, size))
    offsets = (np.arange(16) + 0.5) / 16 - 0.5
    for dv in offsets:
        for du in offsets:
            p = np.einsum("ij,j...->i...", to_frame, np.stack([u + du, v + dv, np.ones_like(u)]))
            where = (p[:2] / p[2]).astype(np.float32)
            truth += cv2.remap(frame.astype(np.float32), *where, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    truth /= 256
    patch, mask = native_rectify(frame, to_frame, 1.0, 1.0, 0.0, 0.0, (), size, size, 1)
    plain = cv2.warpPerspective(frame, to_frame, (size, size), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
    inner = cv2.erode(np.pad(mask, 1), np.ones((5, 5), np.uint8))[1:-1, 1:-1] == 255
    ours, theirs = (np.sqrt(np.mean((image[inner] - truth[inner]) ** 2)) for image in (patch, plain))
    assert ours < theirs / 5


CAMERA = Camera(WIDTH, HEIGHT, FX, FY, CX, CY, BARREL)


def rotations(*headings: float) -> list[Array]:
    return [camera_to_enu(Mount(), heading, 4.0, -3.0) for heading in headings]


def test_the_network_s_input_is_the_patch_normalised() -> None:
    image, (scale, offset) = noise(6, sigma=2.0), ((0.02, 0.03, 0.015), (-2.0, -1.5, -1.0))
    turns = rotations(10.0, 130.0, 250.0)
    found = warp_to_input(image, CAMERA, turns, 100.0, 2.2, 40, scale, offset, threads=1)
    assert found.tensor.shape == (3, 3, 40, 40) and found.tensor.dtype == np.float32
    for index, rotation in enumerate(turns):
        patch = rectify(image, CAMERA, rotation, 100.0, 2.2, 40, 1)
        np.testing.assert_array_equal(found.masks[index], patch.mask)
        np.testing.assert_array_equal(found.offsets[index], patch.offset)
        np.testing.assert_array_equal(found.to_camera[index], patch.to_camera)
        seen = patch.mask == 255
        assert seen.any() and not seen.all()
        for channel in range(3):
            grey = (found.tensor[index, channel] - offset[channel]) / scale[channel]
            assert np.abs(grey - patch.image[..., 2 - channel])[seen].max() <= 0.501
            assert (found.tensor[index, channel][~seen] == 0).all()


def test_memory_of_the_caller_is_written_and_returned() -> None:
    out = np.full((2, 3, 16, 16), 9, np.float16), np.full((2, 16, 16), 9, np.uint8)
    found = warp_to_input(
        noise(0), CAMERA, rotations(0.0, 90.0), 100.0, 2.0, 16, (1, 1, 1), (0, 0, 0), out=out, threads=1
    )
    assert found.tensor is out[0] and found.masks is out[1]
    again = warp_to_input(
        noise(0), CAMERA, rotations(0.0, 90.0), 100.0, 2.0, 16, (1, 1, 1), (0, 0, 0), dtype=np.float16, threads=1
    )
    np.testing.assert_array_equal(again.tensor, out[0])
    np.testing.assert_array_equal(again.masks, out[1])


def test_a_camera_at_the_horizon_is_refused() -> None:
    with pytest.raises(FrameError, match="does not look at the ground"):
        warp_to_input(
            noise(0), CAMERA, [camera_to_enu(Mount(), 0.0, 80.0)], 100.0, 1.0, 16, (1, 1, 1), (0, 0, 0), threads=1
        )


def read_only(array: Array) -> Array:
    array.flags.writeable = False
    return array


GOOD: dict[str, Any] = {
    "out": np.zeros((2, 3, 4, 5), np.float32),
    "mask": np.zeros((2, 4, 5), np.uint8),
    "image": np.zeros((6, 8, 3), np.uint8),
    "pixels": "bgr",
    "maps": np.stack([np.eye(3), np.eye(3)]),
    "fx": 5.0,
    "fy": 5.0,
    "cx": 3.5,
    "cy": 2.5,
    "distortion": (),
    "scale": (1.0, 1.0, 1.0),
    "offset": (0.0, 0.0, 0.0),
    "channels": "rgb",
    "threads": 1,
}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"out": np.zeros((2, 3, 4, 5))}, "out: expected dtype float32 or float16"),
        ({"out": np.zeros((2, 3, 4, 5), np.uint16)}, "out: expected dtype float32 or float16"),
        ({"out": np.zeros((1, 3, 4, 5), np.float32)}, r"out: expected shape \(2, 3, H, W\)"),
        ({"out": np.zeros((2, 1, 4, 5), np.float32)}, r"out: expected shape \(2, 3, H, W\)"),
        ({"out": np.zeros((2, 3, 4, 10), np.float32)[..., ::2]}, "out: expected C-contiguous"),
        ({"out": np.zeros((2, 3, 0, 5), np.float32), "mask": np.zeros((2, 0, 5), np.uint8)}, "out height: found 0"),
        ({"mask": np.zeros((2, 4, 5), np.float32)}, "mask: expected dtype uint8"),
        ({"mask": np.zeros((2, 4, 4), np.uint8)}, "mask: expected the shape of out"),
        ({"mask": np.zeros((2, 4, 10), np.uint8)[..., ::2]}, "mask: expected C-contiguous"),
        ({"image": np.zeros((6, 8, 3), np.float32)}, "image: expected dtype uint8"),
        ({"image": np.zeros((6, 8), np.uint8)}, r"image: found shape \(6, 8\), expected \(H, W, 3\)"),
        ({"image": np.zeros((6, 8, 3), np.uint8)[..., ::-1]}, "pixels of a row must lie together"),
        ({"pixels": "grey"}, r"image: found shape \(6, 8, 3\), expected \(H, W\) of grey"),
        ({"pixels": "nv12"}, "expected .* of nv12, H and W even"),
        ({"pixels": "nv12", "image": np.zeros((8, 8), np.uint8)}, "of nv12"),
        ({"pixels": "nv12", "image": np.zeros((9, 7), np.uint8)}, "of nv12"),
        ({"pixels": "yuyv", "image": np.zeros((6, 7, 2), np.uint8)}, "of yuyv, W even"),
        ({"pixels": "yuyv", "image": np.zeros((6, 8, 3), np.uint8)}, "of yuyv, W even"),
        ({"pixels": "yuv420"}, "pixels: found 'yuv420', expected one of bgr, rgb, grey, nv12, yuyv"),
        ({"maps": np.eye(3)}, r"maps: found shape \(3, 3\), expected \(B, 3, 3\)"),
        ({"maps": np.ones((2, 3, 3), np.float32)}, "maps: expected dtype float64"),
        ({"maps": np.full((2, 3, 3), np.inf)}, "maps: expected finite"),
        ({"maps": np.ones((2, 3, 3))}, "maps: singular"),
        ({"fx": -1.0}, "fx: found"),
        ({"cy": float("nan")}, "cx, cy"),
        ({"distortion": (0.1,)}, "distortion: found 1"),
        ({"scale": (1.0, 1.0)}, "scale: found 2, expected 3"),
        ({"scale": (1.0, 1.0, float("inf"))}, "scale: expected finite"),
        ({"offset": (1.0,) * 4}, "offset: found 4, expected 3"),
        ({"channels": "grb"}, "channels: found 'grb', expected rgb or bgr"),
        ({"threads": 65}, "threads: found 65"),
    ],
)
def test_unusable_input_is_refused_by_name(change: dict[str, Any], message: str) -> None:
    warp_into(**GOOD)
    with pytest.raises(ValueError, match=message):
        warp_into(**{**GOOD, **change})


@pytest.mark.parametrize(
    "change", [{"image": "frame.jpg"}, {"out": None}, {"mask": read_only(np.zeros((2, 4, 5), np.uint8))}]
)
def test_what_is_no_array_to_read_or_write_is_a_type_error(change: dict[str, Any]) -> None:
    with pytest.raises(TypeError):
        warp_into(**{**GOOD, **change})
