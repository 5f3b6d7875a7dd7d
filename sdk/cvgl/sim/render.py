"""The renderer: the ground, its shadows, everything standing on it from far to near, texture, and the
sensor."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from cvgl.geometry import camera_to_enu

from . import bodies, photo
from . import materials as mat
from .appearance import Appearance
from .scene import World
from .shapes import clip_half_plane
from .textures import coarse_noise, fine_noise, sample
from .view import View, camera_view, map_view

if TYPE_CHECKING:
    from cvgl.camera import Camera

Image = NDArray[np.uint8]

_SHIFT = 4
# The tangent of the angle off the axis up to which a distorted lens is drawn, and where a pixel beyond looks.
_WIDEST, _UNSEEN = 4.0, 1e5
_TILE_PX = 1024
_SHADOW_TINT = np.array([0.86, 0.96, 1.0])
"""How much of the shadow reaches blue, green, red: the sky lights shadows blue."""


def render_map(
    world: World,
    gsd: float,
    appearance: Appearance | None = None,
    bounds: tuple[float, float, float, float] | None = None,
) -> Image:
    """A satellite map of the world, rgb uint8 (H, W, 3), north up.

    `gsd` in m/px; `bounds` = (west, south, east, north) in ENU metres, the whole world by default; the outer
    edges of the first pixel are at (west, north). Buildings lean as the appearance's off-nadir view says, the
    ground does not.
    """
    look = appearance or Appearance()
    half = 0.5 * world.size_m
    west, south, east, north = bounds or (-half, -half, half, half)
    width, height = round((east - west) / gsd), round((north - south) / gsd)
    if not gsd > 0 or width < 1 or height < 1:
        raise ValueError(
            f"gsd, bounds: found {gsd} m/px over {(west, south, east, north)}, expected an image of 1 px or more"
        )
    return np.ascontiguousarray(render_grid(world, look, west, north, width, height, gsd)[..., ::-1])


def render_grid(
    world: World,
    look: Appearance,
    west: float,
    north: float,
    width: int,
    height: int,
    gsd: float,
    grid: NDArray[np.float64] | None = None,
) -> Image:
    """A map in any plane coordinates, BGR uint8 (height, width, 3); `grid` as in `cvgl.sim.view.map_view`."""
    out = np.empty((height, width, 3), np.uint8)
    for top in range(0, height, _TILE_PX):
        for left in range(0, width, _TILE_PX):
            h, w = min(_TILE_PX, height - top), min(_TILE_PX, width - left)
            view = map_view(
                west + left * gsd,
                north - top * gsd,
                w,
                h,
                gsd,
                2,
                look.view_tilt_deg,
                look.view_azimuth_deg,
                grid,
            )
            out[top : top + h, left : left + w] = _picture(world, view, look)
    return photo.expose(photo.develop(out, look), look, np.random.default_rng([look.effect_seed, 11]))


def render_frame(
    world: World,
    camera: Camera,
    position: tuple[float, float, float] | NDArray[np.float64],
    attitude: tuple[float, float, float],
    appearance: Appearance | None = None,
    rng: np.random.Generator | None = None,
) -> Image:
    """What a camera sees, BGR uint8 (camera.height, camera.width, 3).

    `position` = (easting, northing, height above ground) in metres; `attitude` = (heading, pitch, roll) of
    the camera's carrier in degrees, see `cvgl.geometry.camera_to_enu`. `rng` draws the sensor noise; without
    one it follows from the appearance. Raises ValueError for a camera on or under the ground.
    """
    look = appearance or Appearance()
    place = np.asarray(position, np.float64)
    if not (place.shape == (3,) and np.isfinite(place).all() and place[2] > 0):
        raise ValueError(f"position: found {position}, expected (easting, northing, height > 0) in metres")
    rotation = camera_to_enu(camera.mount, *attitude)
    lens, intrinsics, size = _ideal_camera(camera)
    # Small images are painted at twice their size and averaged; large ones are smoothed by the lens blur.
    scale = 2 if size[0] * size[1] < 500_000 else 1
    image = _picture(world, camera_view(intrinsics, rotation, place, size, scale), look)
    if lens is not None:
        image = np.asarray(
            cv2.remap(image, lens[0], lens[1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT), np.uint8
        )
    if rng is None:
        rng = np.random.default_rng([look.effect_seed, 12])
    return photo.expose(photo.develop(image, look), look, rng)


@lru_cache(maxsize=8)
def _ideal_camera(
    camera: Camera,
) -> tuple[tuple[NDArray[np.float32], NDArray[np.float32]] | None, NDArray[np.float64], tuple[int, int]]:
    """The distortion-free image to paint: (lookup maps to the real pixels or None, intrinsics, size)."""
    matrix = np.array([[camera.fx, 0, camera.cx], [0, camera.fy, camera.cy], [0, 0, 1.0]])
    if camera.model == "pinhole" and not any(camera.distortion):
        return None, matrix, (camera.width, camera.height)
    u, v = np.meshgrid(np.arange(camera.width, dtype=np.float64), np.arange(camera.height, dtype=np.float64))
    rays = camera.rays(np.stack([u.ravel(), v.ravel()], axis=1))[:, :2]
    # A fisheye's edge would need a picture without end: what lies beyond stays black.
    rays[~(np.hypot(rays[:, 0], rays[:, 1]) <= _WIDEST)] = np.nan
    ideal = rays * [camera.fx, camera.fy]
    low, high = np.floor(np.nanmin(ideal, axis=0)) - 1, np.ceil(np.nanmax(ideal, axis=0)) + 1
    ideal = np.where(np.isnan(ideal), low - _UNSEEN, ideal)
    matrix[:2, 2] = -low
    shape = (camera.height, camera.width)
    maps = (
        (ideal[:, 0] - low[0]).reshape(shape).astype(np.float32),
        (ideal[:, 1] - low[1]).reshape(shape).astype(np.float32),
    )
    return maps, matrix, (int(high[0] - low[0]) + 1, int(high[1] - low[1]) + 1)


def _picture(world: World, view: View, look: Appearance) -> Image:
    """The textured, lit scene at its finished size, BGR uint8, before the sensor."""
    scale = view.oversampling
    canvas = _paint_ground(world, view, look)
    sun = bodies.sun_direction(look)
    seen, shading = bodies.units_in_view(world, view, sun)
    cars = bodies.vehicles(world, look, view)
    shade = _paint_shadows(canvas, world, view, look, sun, shading, cars)
    batches = bodies.buildings(world, view, look, seen)
    batches += bodies.trees(world, view, look, shade)
    batches += bodies.vehicle_batches(cars, view, look, shade)
    _paint_batches(canvas, view, batches)
    small = (view.size[0] // scale, view.size[1] // scale)
    if scale > 1:
        code = canvas[scale // 2 :: scale, scale // 2 :: scale, 3]
        colour = cv2.resize(canvas, small, interpolation=cv2.INTER_AREA)[..., :3]
    else:
        code, colour = canvas[..., 3], canvas[..., :3]
    to_ground = view.pixel_to_ground @ np.array([[scale, 0, (scale - 1) / 2], [0, scale, (scale - 1) / 2], [0, 0, 1.0]])
    return _texture(world, np.asarray(colour, np.uint8), np.ascontiguousarray(code), to_ground, view.gsd)


def _fixed(pixels: NDArray[np.float64]) -> NDArray[np.int32]:
    """Pixels to OpenCV's fixed point, kept clear of overflow."""
    return np.round(np.clip(pixels, -30_000, 60_000) * (1 << _SHIFT)).astype(np.int32)


def _paint_ground(world: World, view: View, look: Appearance) -> Image:
    g = world.ground
    grass = np.array([world.background], np.float32)
    base = bodies.with_texture(
        mat.tint(grass, np.array([mat.GRASS], np.uint8), np.array([128], np.uint8), look),
        np.array([mat.GRASS], np.uint8),
    )[0]
    canvas = np.empty((view.size[1], view.size[0], 4), np.uint8)
    canvas[:] = base.astype(np.uint8)
    west, south, east, north = view.bounds
    bounds = g.bounds
    index = np.flatnonzero(
        (bounds[:, 0] < east)
        & (bounds[:, 2] > west)
        & (bounds[:, 1] < north)
        & (bounds[:, 3] > south)
        & (g.width > 0.3 * view.gsd)
    )
    if len(index) == 0:
        return canvas
    colour = bodies.with_texture(
        mat.tint(g.colour[index], g.material[index], g.phase[index], look), g.material[index]
    ).tolist()
    rows, start = bodies.pick(g.start, index)
    vertices = g.vertices[rows].astype(np.float64)
    pixels = _fixed(view.project(vertices))
    behind = np.minimum.reduceat(view.depth(vertices), start[:-1]) < view.near
    ends = start.tolist()
    for i, tone in enumerate(colour):
        polygon = pixels[ends[i] : ends[i + 1]]
        if behind[i]:
            kept = clip_half_plane(vertices[ends[i] : ends[i + 1]], -view.matrix[2, :3], view.matrix[2, 3] - view.near)
            if len(kept) < 3:
                continue
            polygon = _fixed(view.project(kept))
        cv2.fillPoly(canvas, [polygon], tone, cv2.LINE_8, _SHIFT)
    return canvas


def _paint_shadows(
    canvas: Image,
    world: World,
    view: View,
    look: Appearance,
    sun: NDArray[np.float64],
    units: NDArray[np.int64],
    cars: bodies.Vehicles,
) -> bodies.Shade:
    """Darken the ground. Returns the shadows of buildings alone, in which trees and vehicles may stand."""
    mask = np.zeros(canvas.shape[:2], np.uint8)
    _fill_mask(mask, view, *bodies.building_shadows(world, units, sun))
    shade = bodies.Shade(view, mask.copy(), 0.75 * look.shadow_strength)
    for corners in (bodies.tree_shadows(world, view, sun, look), bodies.vehicle_shadows(cars, sun)):
        _fill_mask(mask, view, corners.reshape(-1, 3), np.arange(len(corners) + 1) * corners.shape[1])
    soft = max(0.12 * view.oversampling / view.gsd, 0.5)
    mask = np.asarray(cv2.GaussianBlur(mask, (0, 0), min(soft, 3.0)), np.uint8)
    depth = look.shadow_strength * np.arange(256)[:, None] / 255 * _SHADOW_TINT
    table = np.column_stack([255 * (1 - depth), np.full(256, 255)]).astype(np.uint8)
    gain = cv2.LUT(cv2.merge([mask] * 4), table.reshape(256, 1, 4))
    cv2.multiply(canvas, gain, dst=canvas, scale=1 / 255)
    return shade


def _fill_mask(mask: Image, view: View, vertices: NDArray[np.floating], start: NDArray[np.int64]) -> None:
    if len(start) < 2:
        return
    fixed, visible = _seen(view, vertices, start)
    ends = start.tolist()
    for i in np.flatnonzero(visible).tolist():
        cv2.fillPoly(mask, [fixed[ends[i] : ends[i + 1]]], 255, cv2.LINE_8, _SHIFT)


def _seen(
    view: View,
    vertices: NDArray[np.floating],
    start: NDArray[np.int64],
) -> tuple[NDArray[np.int32], NDArray[np.bool_]]:
    """Fixed-point pixels (V, 2) and which polygons (P,) are wholly before the observer and partly in the
    image."""
    pixels = view.project(vertices)
    begin = start[:-1]
    low, high = np.minimum.reduceat(pixels, begin), np.maximum.reduceat(pixels, begin)
    w, h = view.size
    visible = (high[:, 0] >= -1) & (low[:, 0] <= w) & (high[:, 1] >= -1) & (low[:, 1] <= h)
    if view.eye[3] != 0:
        visible &= np.minimum.reduceat(view.depth(vertices), begin) > view.near
    return _fixed(pixels), visible


def _paint_batches(canvas: Image, view: View, batches: list[bodies.Batch]) -> None:
    if not batches:
        return
    shift = np.concatenate([[0], np.cumsum([len(b.vertices) for b in batches])])
    start = np.concatenate([*(b.start[:-1] + s for b, s in zip(batches, shift, strict=False)), shift[-1:]])
    fixed, visible = _seen(view, np.concatenate([b.vertices for b in batches]), start)
    bgrt = np.concatenate([b.bgrt for b in batches])
    sequence = np.lexsort((np.concatenate([b.order for b in batches]), -np.concatenate([b.distance for b in batches])))
    sequence = sequence[visible[sequence]]
    for a, z, tone in zip(start[sequence].tolist(), start[sequence + 1].tolist(), bgrt[sequence].tolist(), strict=True):
        cv2.fillPoly(canvas, [fixed[a:z]], tone, cv2.LINE_8, _SHIFT)


def _strengths() -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """Tables from texture code to the strength of fine grain, coarse patches and hue shift."""
    code = np.arange(256)
    amount = (code & 127) / 128.0
    green = code >= 128
    return (
        (0.75 * amount).astype(np.float32),
        np.where(green, 0.55 * amount, 0.6 * amount).astype(np.float32),
        np.where(green, 0.45 * amount, 0.12 * amount).astype(np.float32),
    )


_FINE, _COARSE, _HUE = _strengths()


def _texture(world: World, colour: Image, code: Image, pixel_to_ground: NDArray[np.float64], gsd: float) -> Image:
    """Modulate a picture (H, W, 3) by noise fixed to the ground, as strongly as each pixel's code (H, W)
    says."""
    size = (colour.shape[1], colour.shape[0])
    angle = 0.37 + world.seed % 7
    fine = sample(fine_noise(world.seed), 0.1, pixel_to_ground, size, gsd, angle)
    coarse = sample(coarse_noise(world.seed), 1.0, pixel_to_ground, size, gsd, angle)
    centre = (np.arange(256, dtype=np.float32) - 128) / 64
    f, c = cv2.LUT(fine, centre), cv2.LUT(coarse, centre)
    gain = np.asarray(cv2.multiply(f, cv2.LUT(code, _FINE * 0.5)), np.float32)
    cv2.accumulateProduct(c, cv2.LUT(code, _COARSE * 0.5), gain)
    hue = cv2.multiply(c, cv2.LUT(code, _HUE * 0.5))
    gain += 1.0
    planes = [cv2.subtract(gain, hue), gain, cv2.add(gain, hue)]
    return np.asarray(cv2.multiply(colour, cv2.merge(planes), dtype=cv2.CV_8U), np.uint8)
