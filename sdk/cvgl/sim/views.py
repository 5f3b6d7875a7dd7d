"""Simulated drone views cut from a map: what an embedding learns from when no drone photo exists.

A pair is (reference tile, drone view) of one place, both north-up patches at the same ground sampling
distance, as the gallery builder and the flight code make them. The geometric part of a view is the flight
code's own error model: the frame was taken with the *true* pose and rectified with the *assumed* one, so
heading, height and tilt errors appear as the homography between the two, while the footprint (the mask) is
the assumed one. The photometric part is a set of
cheap approximations of what differs between a satellite image and a photo: another sun, another season,
    another
sensor, things that move.

Images here are RGB uint8. Everything is a function of its arguments and of a ``numpy.random.Generator``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from cvgl.camera import Camera
from cvgl.errors import MapError
from cvgl.footprint import border_rays
from cvgl.geometry import camera_to_enu

__all__ = [
    "MapImage",
    "ViewSettings",
    "choose_tile_size",
    "drone_view",
    "footprint_on_ground",
    "reference_tile",
    "relight",
]

_SUPERSAMPLE = 2
"""Views are cut at this multiple of the tile's resolution and area-averaged, as the flight code
antialiases."""


@dataclass(frozen=True)
class ViewSettings:
    """What the simulated drone does. Angles in degrees, lengths in metres.

    Args:
        camera: the drone's camera; its footprint masks the view.
        height_m: planned height above ground.
        gsd_m: ground sampling distance of tiles and views, metres a pixel.
        tile_px: side of tiles and views, pixels.
        heading_sigma_deg, heading_max_deg: error of the measured heading, normal, clipped.
        height_sigma, height_max: relative error of the measured height (scale), normal, clipped.
        offset_m: the image centre lies up to this far east/west and north/south of the tile's centre,
            uniform.
        tilt_sigma_deg, tilt_max_deg: unmeasured tilt in a random direction, half-normal, clipped.
        light: strength of the photometric changes; 0 leaves colours as they are, 1 is the full range.
    """

    camera: Camera
    height_m: float
    gsd_m: float
    tile_px: int = 128
    heading_sigma_deg: float = 4.0
    heading_max_deg: float = 10.0
    height_sigma: float = 0.03
    height_max: float = 0.08
    offset_m: float = 11.0
    tilt_sigma_deg: float = 5.0
    tilt_max_deg: float = 11.0
    light: float = 1.0
    border: NDArray[np.float64] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        # The image border as rays: with lens distortion its sides are curves, so eight points a side.
        object.__setattr__(self, "border", border_rays(self.camera, _POINTS_A_SIDE))


@dataclass(frozen=True)
class MapImage:
    """A north-up map image in memory, at half the tiles' ground sampling distance.

    Args:
        rgba: (H, W, 4) uint8; the fourth channel is 255 where the map has data.
        gsd_m: metres a pixel.
        west, north: local coordinates of the outer corner of the first pixel, metres.
    """

    rgba: NDArray[np.uint8]
    gsd_m: float
    west: float = 0.0
    north: float = 0.0

    @classmethod
    def of(
        cls,
        rgb: NDArray[np.uint8],
        valid: NDArray[np.bool_],
        gsd_m: float,
        west: float = 0.0,
        north: float = 0.0,
    ) -> MapImage:
        """From (H, W, 3) colours and an (H, W) mask of pixels with data. Raises MapError on other shapes."""
        if rgb.ndim != 3 or rgb.shape[2] != 3 or rgb.shape[:2] != valid.shape:
            raise MapError("not a map image", field="rgb", found=rgb.shape, expected="(H, W, 3) and a mask of (H, W)")
        alpha = np.where(valid, 255, 0).astype(np.uint8)
        rgba = np.dstack([rgb, alpha])
        rgba[alpha == 0] = 0
        return cls(np.ascontiguousarray(rgba), gsd_m, west, north)

    def to_pixel(self, easting: float, northing: float) -> tuple[float, float]:
        """Local metres to (column, row), pixel centres at integers."""
        return (easting - self.west) / self.gsd_m - 0.5, (self.north - northing) / self.gsd_m - 0.5


def choose_tile_size(camera: Camera, height_m: float) -> float:
    """Side of the tiles (metres) that suit a camera at a height above ground.

    A compromise, measured on real photos (see train/results): a larger tile shows more of the footprint and
    its surroundings, but pixels that the camera does not see under some headings teach nothing, and detail
    is lost since a tile has a fixed number of pixels. The best size follows the geometric mean of the
    footprint's sides; it is rounded to 0.1 m.
    """
    corners = footprint_on_ground(camera, height_m)
    sides = np.linalg.norm(np.diff(np.vstack([corners, corners[:1]]), axis=0), axis=1)
    width, length = (sides[0] + sides[2]) / 2, (sides[1] + sides[3]) / 2
    return round(_TILE_PER_FOOTPRINT * math.sqrt(width * length), 1)


_TILE_PER_FOOTPRINT = 0.9


def footprint_on_ground(camera: Camera, height_m: float, heading_deg: float = 0.0) -> NDArray[np.float64]:
    """Ground corners (4, 2) of a level flight's footprint: east, north of the aircraft in metres.

    Order: image upper left, upper right, lower right, lower left.
    """
    rays = border_rays(camera, _POINTS_A_SIDE)[::_POINTS_A_SIDE]
    return _to_ground(rays @ camera_to_enu(camera.mount, heading_deg).T, height_m)


def reference_tile(
    image: MapImage, easting: float, northing: float, settings: ViewSettings
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """The gallery's tile around a place: (rgb (px, px, 3), mask (px, px) of pixels with data).

    The place is taken to the nearest whole pixel of the map image (half a tile pixel).
    """
    side = _SUPERSAMPLE * settings.tile_px
    column, row = image.to_pixel(easting, northing)
    left, top = round(column - (side - 1) / 2), round(row - (side - 1) / 2)
    return _reduce(_window(image.rgba, left, top, side), settings.tile_px)


def drone_view(
    image: MapImage, easting: float, northing: float, settings: ViewSettings, rng: np.random.Generator
) -> tuple[NDArray[np.uint8], NDArray[np.bool_], tuple[float, float]]:
    """A simulated frame of a place, rectified: (rgb (px, px, 3), mask (px, px), (easting, northing) of its
    centre).

    The centre is where the true image centre lies on the ground, within ``settings.offset_m`` of the place
    given.
    """
    px = settings.tile_px
    side = _SUPERSAMPLE * px
    heading = float(rng.uniform(0.0, 360.0))
    heading_error = float(np.clip(rng.normal(0, settings.heading_sigma_deg), *_pm(settings.heading_max_deg)))
    true_height = settings.height_m * (
        1 + float(np.clip(rng.normal(0, settings.height_sigma), *_pm(settings.height_max)))
    )
    tilt = min(abs(float(rng.normal(0, settings.tilt_sigma_deg))), settings.tilt_max_deg)
    direction = float(rng.uniform(0, 2 * math.pi))
    center = (
        easting + float(rng.uniform(-1, 1)) * settings.offset_m,
        northing + float(rng.uniform(-1, 1)) * settings.offset_m,
    )
    camera = settings.camera
    assumed = camera_to_enu(camera.mount, heading)
    true = camera_to_enu(camera.mount, heading + heading_error, tilt * math.cos(direction), tilt * math.sin(direction))
    middle = settings.border.mean(axis=0)
    middle_assumed = _to_ground(assumed @ middle, settings.height_m)
    # Patch pixel -> assumed ground -> ray in the camera -> true ground -> map pixel, as one homography.
    fine = settings.gsd_m / _SUPERSAMPLE
    half = (side - 1) / 2
    to_ground = np.array(
        [[fine, 0, middle_assumed[0] - fine * half], [0, -fine, middle_assumed[1] + fine * half], [0, 0, 1.0]]
    )
    ray = np.diag([1.0, 1.0, -settings.height_m])
    ground = np.array([[true_height, 0, 0], [0, true_height, 0], [0, 0, -1.0]])
    chain = ground @ true @ assumed.T @ ray @ to_ground
    landed = chain @ np.array([half, half, 1.0])
    landed = landed[:2] / landed[2]
    shift = np.array([[1, 0, center[0] - landed[0]], [0, 1, center[1] - landed[1]], [0, 0, 1.0]])
    to_map = np.array(
        [
            [1 / image.gsd_m, 0, -image.west / image.gsd_m - 0.5],
            [0, -1 / image.gsd_m, image.north / image.gsd_m - 0.5],
            [0, 0, 1.0],
        ]
    )
    homography = to_map @ shift @ chain
    window = _warp(image.rgba, homography, side)
    if settings.light > 0 and rng.random() < 0.6:
        window = _warp_locally(window, rng, float(rng.uniform(0.3, 1.6)) / image.gsd_m)
    rgb, mask = _reduce(window, px)
    corners = _to_ground(settings.border @ assumed.T, settings.height_m) - middle_assumed
    polygon = corners / (settings.gsd_m, -settings.gsd_m) + (px - 1) / 2
    seen = np.zeros((px, px), np.uint8)
    cv2.fillPoly(seen, [np.round(polygon * 16).astype(np.int32)], 255, shift=4)
    mask &= seen > 0
    if settings.light > 0:
        rgb = relight(rgb, rng, settings.light)
    rgb[~mask] = 0
    return rgb, mask, center


def relight(
    rgb: NDArray[np.uint8],
    rng: np.random.Generator,
    strength: float = 1.0,
    moment: np.random.Generator | None = None,
) -> NDArray[np.uint8]:
    """The same patch (H, W, 3) under other light, in another season and through another sensor.

    Args:
        rgb: no side longer than 512 pixels.
        rng: draws light, season and sensor; the same state twice gives the same day and sensor.
        strength: of all changes.
        moment: draws what is new in every frame of a day, things that move and the sensor's noise; by default ``rng``.
    """
    moment = rng if moment is None else moment
    patch: NDArray[Any] = rgb.astype(np.float32) * (1 / 255)
    chance = rng.random(12)
    if chance[0] < 0.5:
        patch = _season(patch, rng, strength)
    if chance[1] < 0.6:
        patch = _move_shadows(patch, rng, strength)
    if chance[2] < 0.6:
        patch = patch * _smooth_field(rng, patch.shape[:2], 3, 0.3 * strength, exponential=True)[..., None]
    patch = _colour(patch, rng, strength)
    if chance[3] < 0.5:
        _clutter(patch, moment)
    if chance[4] < 0.65:
        sigma = float(rng.uniform(0.3, 1.3))
        soft = cv2.GaussianBlur(patch, (0, 0), sigma)
        # Sharpening is the negative amount of the same blur: satellite exports are sharpened, photos are
        # soft.
        patch = soft if chance[5] < 0.65 else patch + (patch - soft) * float(rng.uniform(0.3, 1.2))
    level = float(rng.uniform(0, 0.045)) * strength
    noise = _noise_bank()
    top, left = (
        moment.integers(0, noise.shape[0] - patch.shape[0] + 1),
        moment.integers(0, noise.shape[1] - patch.shape[1] + 1),
    )
    patch = patch + level * noise[top : top + patch.shape[0], left : left + patch.shape[1]]
    out: NDArray[Any] = cv2.convertScaleAbs(np.clip(patch, 0, 1, out=patch), alpha=255.0)
    out = _tone(out, rng, strength)
    if chance[6] < 0.2:
        quality = int(rng.integers(25, 80))
        code = cv2.imencode(".jpg", out, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
        out = np.asarray(cv2.imdecode(code, cv2.IMREAD_COLOR))
    return out


_POINTS_A_SIDE = 8


def _to_ground(enu: NDArray[np.float64], height_m: float) -> NDArray[np.float64]:
    """Directions (..., 3) to ground points (..., 2) below a camera at a height; rays near the horizon are
    cut short."""
    down = np.maximum(-enu[..., 2:], 0.1)
    return enu[..., :2] * (height_m / down)


def _pm(limit: float) -> tuple[float, float]:
    return -limit, limit


def _window(rgba: NDArray[Any], left: int, top: int, side: int) -> NDArray[Any]:
    """A square window; zeros outside the image."""
    height, width = rgba.shape[:2]
    if left >= 0 and top >= 0 and left + side <= width and top + side <= height:
        return rgba[top : top + side, left : left + side]
    out = np.zeros((side, side, 4), np.uint8)
    x0, y0, x1, y1 = max(left, 0), max(top, 0), min(left + side, width), min(top + side, height)
    if x1 > x0 and y1 > y0:
        out[y0 - top : y1 - top, x0 - left : x1 - left] = rgba[y0:y1, x0:x1]
    return out


def _warp(rgba: NDArray[Any], homography: NDArray[np.float64], side: int) -> NDArray[Any]:
    """A square whose pixels are looked up through a homography; zeros outside the image.

    Only the part that is needed is given to OpenCV, which takes no image of more than 32767 pixels a side.
    """
    ends = np.array([[0, 0, 1], [side - 1, 0, 1], [side - 1, side - 1, 1], [0, side - 1, 1.0]]) @ homography.T
    ends = ends[:, :2] / ends[:, 2:]
    low = np.clip(np.floor(ends.min(axis=0)).astype(int) - 1, 0, None)
    high = np.minimum(np.ceil(ends.max(axis=0)).astype(int) + 2, rgba.shape[1::-1])
    if (high <= low).any():
        return np.zeros((side, side, 4), np.uint8)
    shift = np.array([[1, 0, -low[0]], [0, 1, -low[1]], [0, 0, 1.0]])
    return cv2.warpPerspective(
        rgba[low[1] : high[1], low[0] : high[0]],
        shift @ homography,
        (side, side),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_CONSTANT,
        borderValue=(0, 0, 0, 0),
    )


def _reduce(window: NDArray[Any], px: int) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    small = cv2.resize(window, (px, px), interpolation=cv2.INTER_AREA)
    mask = small[..., 3] >= 128
    rgb = np.ascontiguousarray(small[..., :3])
    rgb[~mask] = 0
    return rgb, mask


def _smooth_field(
    rng: np.random.Generator, shape: tuple[int, int], knots: int, sigma: float, exponential: bool = False
) -> NDArray[Any]:
    coarse = rng.normal(0, sigma, (knots, knots)).astype(np.float32)
    if exponential:
        coarse = np.exp(coarse)
    return cv2.resize(coarse, shape[::-1], interpolation=cv2.INTER_CUBIC)


def _warp_locally(window: NDArray[Any], rng: np.random.Generator, amplitude_px: float) -> NDArray[Any]:
    """Relief seen from another place, roughly: neighbouring things move by different small amounts."""
    shape = window.shape[:2]
    knots = int(rng.integers(4, 14))
    columns, rows = _pixel_grid(shape)
    return cv2.remap(
        window,
        columns + _smooth_field(rng, shape, knots, amplitude_px),
        rows + _smooth_field(rng, shape, knots, amplitude_px),
        cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    )


@lru_cache(maxsize=4)
def _pixel_grid(shape: tuple[int, int]) -> tuple[NDArray[Any], NDArray[Any]]:
    columns, rows = np.meshgrid(np.arange(shape[1], dtype=np.float32), np.arange(shape[0], dtype=np.float32))
    return columns, rows


@lru_cache(maxsize=1)
def _noise_bank() -> NDArray[Any]:
    # Drawing fresh noise for every view costs more than the rest of it together; a window of a fixed bank
    # will do.
    noise = np.random.default_rng(0).standard_normal((512, 512, 3)).astype(np.float32)
    return noise + cv2.GaussianBlur(noise, (0, 0), 1.2) * 1.5


def _luma(patch: NDArray[Any]) -> NDArray[Any]:
    return cv2.cvtColor(patch, cv2.COLOR_RGB2GRAY)


def _season(patch: NDArray[Any], rng: np.random.Generator, strength: float) -> NDArray[Any]:
    """Vegetation takes another colour and brightness; the rest stays."""
    red, green, blue = cv2.split(patch)
    excess = np.clip((2 * green - red - blue) * 6, 0, 1)[..., None]
    gain = np.exp(rng.normal(0, 0.35, 3) * strength).astype(np.float32) * np.float32(
        math.exp(rng.normal(0, 0.4) * strength)
    )
    return patch * (1 + excess * (gain - 1))


def _move_shadows(patch: NDArray[Any], rng: np.random.Generator, strength: float) -> NDArray[Any]:
    """Lift the shadows that are there, cast others to another side of bright (so often tall) things."""
    luma = _luma(patch)
    if rng.random() < 0.5:
        floor = float(rng.uniform(0.1, 0.3)) * strength
        lift = np.clip(floor / (luma + 0.02), 1, 2.2)
        patch = patch * lift[..., None]
    angle, reach = rng.uniform(0, 2 * math.pi), rng.uniform(2, 9)
    dx, dy = reach * math.cos(angle), reach * math.sin(angle)
    matrix = np.array([[1, 0, dx], [0, 1, dy]], dtype=np.float64)
    size = luma.shape[::-1]
    cast = cv2.warpAffine(luma, matrix, size, borderMode=cv2.BORDER_REPLICATE)
    half = cv2.warpAffine(luma, np.array([[1, 0, dx / 2], [0, 1, dy / 2]]), size, borderMode=cv2.BORDER_REPLICATE)
    threshold = float(rng.uniform(0.05, 0.25))
    depth = np.clip((np.maximum(cast, half) - luma - threshold) * 6, 0, 1)
    return patch * (1 - depth * float(rng.uniform(0.2, 0.7)) * strength)[..., None]


def _colour(patch: NDArray[Any], rng: np.random.Generator, strength: float) -> NDArray[Any]:
    """Saturation, a little mixing of channels, a colour cast, exposure and haze."""
    saturation = float(np.clip(math.exp(rng.normal(-0.1, 0.45) * strength), 0, 2.2))
    if rng.random() < 0.06 * strength:
        saturation = 0.0
    grey = np.full((3, 3), 1 / 3)
    mixing = saturation * np.eye(3) + (1 - saturation) * grey + rng.normal(0, 0.06 * strength, (3, 3))
    gain = np.exp(rng.normal(0, 0.12 * strength, 3)) * math.exp(rng.normal(-0.05, 0.22) * strength)
    haze = rng.uniform(0, 0.15) * strength
    tint = np.array([0.6, 0.65, 0.7]) + rng.normal(0, 0.08, 3)
    matrix = np.empty((3, 4))
    matrix[:, :3] = (1 - haze) * gain[:, None] * mixing
    matrix[:, 3] = haze * tint
    return cv2.transform(patch, matrix)


def _tone(rgb: NDArray[Any], rng: np.random.Generator, strength: float) -> NDArray[Any]:
    """A random tone curve for each channel: gamma, contrast, and bends that change how bright materials
    look."""
    x = np.linspace(0, 1, 256)
    gamma = math.exp(rng.normal(0, 0.25) * strength)
    knots = np.linspace(0, 1, 6)
    common = rng.normal(0, 0.07 * strength, 6)
    contrast = math.exp(rng.normal(0, 0.2) * strength)
    table = np.empty((1, 256, 3), np.uint8)
    for channel in range(3):
        bend = np.interp(x, knots, common + rng.normal(0, 0.02 * strength, 6))
        table[0, :, channel] = np.clip(((x**gamma - 0.45) * contrast + 0.45 + bend) * 255, 0, 255)
    return cv2.LUT(rgb, table)


def _clutter(patch: NDArray[Any], rng: np.random.Generator) -> None:
    """Things that come and go: a few car-sized boxes, sometimes a larger patch that covers something."""
    height, width = patch.shape[:2]
    for _ in range(int(rng.integers(1, 14))):
        center = (float(rng.uniform(0, width)), float(rng.uniform(0, height)))
        box = cv2.boxPoints((center, (float(rng.uniform(4, 9)), float(rng.uniform(2, 4))), float(rng.uniform(0, 180))))
        _fill(patch, box, rng)
    if rng.random() < 0.4:
        center = (float(rng.uniform(0, width)), float(rng.uniform(0, height)))
        size = (float(rng.uniform(0.1, 0.35)) * width, float(rng.uniform(0.1, 0.35)) * height)
        _fill(patch, cv2.boxPoints((center, size, float(rng.uniform(0, 180)))), rng)


def _fill(patch: NDArray[Any], corners: NDArray[Any], rng: np.random.Generator) -> None:
    colour = np.clip(rng.uniform(0.05, 0.95) + rng.normal(0, 0.08, 3), 0, 1)
    cv2.fillConvexPoly(patch, np.round(corners).astype(np.int32), tuple(map(float, colour)))
