"""Everything that stands above the ground, turned into polygons to paint: buildings, trees, vehicles.

Each function returns a `Batch` for the part of the world in view. Keys sort them: larger distance first, then
order.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from . import materials as mat
from .appearance import Appearance
from .scene import World
from .view import View

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Batch:
    """P polygons in ENU metres: vertices (V, 3), start (P + 1,), bgrt (P, 4) colour and texture code 0-255,
    distance (P,) and order (P,) for painting."""

    vertices: NDArray[np.floating]
    start: NDArray[np.int64]
    bgrt: Floats
    distance: NDArray[np.float64]
    order: NDArray[np.float64]


@dataclass(frozen=True)
class Shade:
    """The shadows of buildings on the ground, as seen: mask (H, W) uint8 of a view, and how much they darken
    (0-1)."""

    view: View
    mask: NDArray[np.uint8]
    strength: float

    def at(self, xy: NDArray[np.floating]) -> NDArray[np.float32]:
        """The light (N, 1) left to things standing at xy (N, 2)."""
        pixels = np.round(self.view.project(np.column_stack([xy, np.zeros(len(xy))])))
        inside = np.all((pixels >= 0) & (pixels < self.view.size), axis=1)
        out = np.ones((len(xy), 1), np.float32)
        x, y = pixels[inside].astype(int).T
        out[inside, 0] -= self.strength * (self.mask[y, x] > 0)
        return out


def pick(start: NDArray[np.int64], index: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows of the chosen runs of a ragged array: (row indices, new starts)."""
    count = start[index + 1] - start[index]
    new = np.concatenate([[0], np.cumsum(count)])
    return np.repeat(start[index] - new[:-1], count) + np.arange(new[-1]), new


def quads(
    corners: NDArray[np.floating], bgrt: Floats, distance: NDArray[np.float64], order: NDArray[np.float64]
) -> Batch:
    """A batch of polygons with K corners each, (P, K, 3)."""
    n, k = corners.shape[:2]
    return Batch(corners.reshape(-1, 3), np.arange(n + 1) * k, bgrt, distance, order)


def sun_direction(a: Appearance) -> NDArray[np.float64]:
    """Unit vector (3,) towards the sun, ENU."""
    az, el = np.radians(a.sun_azimuth_deg), np.radians(max(a.sun_elevation_deg, 5.0))
    return np.array([np.sin(az) * np.cos(el), np.cos(az) * np.cos(el), np.sin(el)])


def drop(
    points: NDArray[np.floating], sun: NDArray[np.float64], base: NDArray[np.floating] | float = 0.0
) -> NDArray[np.float64]:
    """Where the shadow of points (N, 3) falls on the level `base` (m)."""
    height = points[:, 2] - base
    return np.column_stack([points[:, :2] - height[:, None] * (sun[:2] / sun[2]), np.broadcast_to(base, height.shape)])


def light(normal: Floats, sun: NDArray[np.float64], ambient: float) -> Floats:
    """Brightness (N,) of faces relative to lit level ground; walls see half the sky."""
    sky = 0.5 + 0.5 * np.clip(normal[:, 2], 0, 1)
    direct = np.maximum(normal @ sun, 0) / max(sun[2], 0.3)
    return np.minimum(ambient * sky + (1 - ambient) * direct, 1.7).astype(np.float32)


def with_texture(rgb: Floats, material: NDArray[np.uint8]) -> Floats:
    """RGB (N, 3) to BGRT (N, 4), limited to 0-255."""
    return np.column_stack([np.clip(rgb[:, ::-1], 0, 255), mat.TEXTURE[material]]).astype(np.float32)


def units_in_view(
    world: World,
    view: View,
    sun: NDArray[np.float64],
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Units to paint and units whose shadow may be in view."""
    west, south, east, north = view.bounds
    bounds, height = world.solids.unit_bounds, world.solids.unit_height
    throw = height[:, None] * (sun[:2] / sun[2])[None, :]
    margin = 25.0
    seen = (
        (bounds[:, 0] < east + margin)
        & (bounds[:, 2] > west - margin)
        & (bounds[:, 1] < north + margin)
        & (bounds[:, 3] > south - margin)
    )
    low = np.minimum(bounds[:, :2], bounds[:, :2] - throw)
    high = np.maximum(bounds[:, 2:], bounds[:, 2:] - throw)
    shading = (low[:, 0] < east) & (high[:, 0] > west) & (low[:, 1] < north) & (high[:, 1] > south)
    return np.flatnonzero(seen), np.flatnonzero(shading)


def buildings(world: World, view: View, appearance: Appearance, units: NDArray[np.int64]) -> list[Batch]:
    """Visible faces, windows, and the shadows of roof furniture."""
    s = world.solids
    if len(units) == 0:
        return []
    index, _ = pick(s.unit_start, units)
    index = index[s.faces.width[index] > 0.6 * view.gsd]
    first = s.faces.vertices[s.faces.start[index]]
    towards = view.eye[:3] - view.eye[3] * first
    index = index[np.einsum("ij,ij->i", towards, s.normal[index]) > 0]
    rows, start = pick(s.faces.start, index)
    vertices = s.faces.vertices[rows]
    ok = np.minimum.reduceat(view.depth(vertices), start[:-1]) > view.near if len(index) else np.zeros(0, bool)
    if not ok.all():
        index = index[ok]
        rows, start = pick(s.faces.start, index)
        vertices = s.faces.vertices[rows]
    if len(index) == 0:
        return []
    sun = sun_direction(appearance)
    rgb = mat.tint(s.faces.colour[index], s.faces.material[index], s.faces.phase[index], appearance)
    rgb *= light(s.normal[index], sun, appearance.ambient)[:, None]
    # The nearest corner of a body, not its middle, decides what hides it: long halls stand beside sheds.
    per_vertex = view.distance(vertices)
    near = np.minimum.reduceat(per_vertex, start[:-1])
    unit = s.unit[index]
    change = np.flatnonzero(np.concatenate([[True], unit[1:] != unit[:-1]]))
    distance = np.repeat(np.minimum.reduceat(near, change), np.diff(np.append(change, len(unit))))
    order = index.astype(np.float64)
    out = [Batch(vertices, start, with_texture(rgb, s.faces.material[index]), distance, order)]
    raised = np.flatnonzero((s.base[index] > 0) & s.cast[index])
    if len(raised) and view.gsd < 0.6 and appearance.shadow_strength > 0.15:
        rows2, start2 = pick(start, raised)
        on = np.repeat(s.base[index[raised]], np.diff(start2))
        dark = s.under[index[raised]] * (1 - 0.8 * appearance.shadow_strength)
        out.append(
            Batch(
                drop(vertices[rows2], sun, on),
                start2,
                with_texture(dark.astype(np.float32), np.full(len(raised), mat.ROOF, np.uint8)),
                distance[raised],
                s.first[index[raised]] - 0.5,
            )
        )
    out += _windows(world, view, index, rgb, distance)
    return out


def _windows(
    world: World,
    view: View,
    index: NDArray[np.int64],
    rgb: Floats,
    distance: NDArray[np.float64],
) -> list[Batch]:
    """Rows of windows on the walls that are large enough in the image."""
    s = world.solids
    which = np.flatnonzero(s.wall[index] & (np.diff(s.faces.start)[index] == 4))
    if len(which) == 0 or view.gsd > 0.3:
        return []
    corners = s.faces.vertices[s.faces.start[index[which]][:, None] + np.arange(4)]
    pixels = view.project(corners.reshape(-1, 3)).reshape(-1, 4, 2)
    storeys = np.maximum(np.round((corners[:, 2:, 2].min(1) - corners[:, 0, 2]) / 3.1), 1)
    tall = np.linalg.norm(pixels[:, 3] - pixels[:, 0], axis=1) / storeys
    low = pixels.min(axis=1)
    high = pixels.max(axis=1)
    inside = np.all(high > 0, axis=1) & np.all(low < np.array(view.size), axis=1)
    out = []
    for k in np.flatnonzero((tall > 2.0 * view.oversampling) & inside):
        a, b, c, d = corners[k].astype(np.float64)
        n, m = int(storeys[k]), max(1, int(np.linalg.norm(b - a) / 3.0))
        style = index[which[k]] * 2654435761 % 97
        v0 = (np.arange(n) + 0.3 + 0.1 * (style % 3)) / n
        v1 = (np.arange(n) + 0.78) / n
        gap = 0.12 + 0.05 * (style % 5)
        if style % 7 == 0:
            m, gap = 1, 0.02
        u0, u1 = (np.arange(m) + gap) / m, (np.arange(m) + 1 - gap) / m

        def wall(
            u: NDArray[np.float64],
            v: NDArray[np.float64],
            a: NDArray[np.float64] = a,
            b: NDArray[np.float64] = b,
            c: NDArray[np.float64] = c,
            d: NDArray[np.float64] = d,
        ) -> NDArray[np.float64]:
            u, v = u[:, None, None], v[None, :, None]
            return ((1 - v) * ((1 - u) * a + u * b) + v * ((1 - u) * d + u * c)).reshape(-1, 3)

        panes = np.stack([wall(u0, v0), wall(u1, v0), wall(u1, v1), wall(u0, v1)], axis=1)
        tone = 0.42 + 0.04 * (style % 4)
        colour = np.broadcast_to(rgb[which[k]] * tone + np.array([4, 8, 14]), (len(panes), 3)).astype(np.float32)
        out.append(
            quads(
                panes,
                with_texture(colour, np.full(len(panes), mat.GLASS, np.uint8)),
                np.full(len(panes), distance[which[k]]),
                np.full(len(panes), index[which[k]] + 0.25),
            )
        )
    return out


def building_shadows(
    world: World,
    units: NDArray[np.int64],
    sun: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Ground polygons (V, 3), starts (P + 1,) of the shadows of units."""
    s = world.solids
    if len(units) == 0:
        return np.zeros((0, 3)), np.zeros(1, np.int64)
    index, _ = pick(s.unit_start, units)
    # The lit faces of a body cast its whole shadow.
    index = index[s.cast[index] & (s.normal[index] @ sun > 0)]
    rows, start = pick(s.faces.start, index)
    return drop(s.faces.vertices[rows], sun), start


@lru_cache(maxsize=1)
def _crowns() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Unit outlines of crowns seen from above: leafy (24, 11, 2) and needle (12, 16, 2)."""
    rng = np.random.default_rng(4242)
    leafy = []
    for _ in range(24):
        angle = np.sort(np.linspace(0, 2 * np.pi, 11, endpoint=False) + rng.uniform(-0.2, 0.2, 11))
        r = rng.uniform(0.78, 1.12, 11)
        leafy.append(np.stack([r * np.cos(angle), r * np.sin(angle)], axis=1))
    needle = []
    for _ in range(12):
        angle = np.linspace(0, 2 * np.pi, 16, endpoint=False) + rng.uniform(-0.1, 0.1, 16)
        r = np.where(np.arange(16) % 2 == 0, rng.uniform(0.9, 1.15, 16), rng.uniform(0.6, 0.8, 16))
        needle.append(np.stack([r * np.cos(angle), r * np.sin(angle)], axis=1))
    return np.array(leafy), np.array(needle)


def _hash(seed: NDArray[np.uint32], k: int) -> NDArray[np.float64]:
    """Reproducible numbers 0-1 (N,) for the k-th property of each tree."""
    x = seed.astype(np.uint64) * np.uint64(6364136223846793005) + np.uint64((k * 2 + 1) * 1442695040888963407 % 2**64)
    x ^= x >> np.uint64(29)
    x *= np.uint64(0xBF58476D1CE4E5B9)
    return (x >> np.uint64(40)).astype(np.float64) / 2.0**24


def trees_in_view(world: World, view: View, sun: NDArray[np.float64] | None = None) -> NDArray[np.int64]:
    """Trees in view; with `sun`, also those whose shadow may be."""
    t = world.trees
    west, south, east, north = view.bounds
    margin = 12.0
    if sun is None:
        x, y = t.xy[:, 0], t.xy[:, 1]
        return np.flatnonzero((x > west - margin) & (x < east + margin) & (y > south - margin) & (y < north + margin))
    tip = t.xy - t.height[:, None] * (sun[:2] / sun[2]).astype(np.float32)
    low, high = np.minimum(t.xy, tip) - margin, np.maximum(t.xy, tip) + margin
    return np.flatnonzero((low[:, 0] < east) & (high[:, 0] > west) & (low[:, 1] < north) & (high[:, 1] > south))


def _outlines(world: World, index: NDArray[np.int64], k: int, needle: bool) -> NDArray[np.float64]:
    shapes = _crowns()[1 if needle else 0]
    choice = (_hash(world.trees.seed[index], k) * len(shapes)).astype(int)
    return shapes[choice]


def _at_image(world: World, view: View, index: NDArray[np.int64]) -> NDArray[np.int64]:
    """Those of the trees whose crown touches the image: a turned camera sees half of its bounding box."""
    t = world.trees
    centre = np.column_stack([t.xy[index], 0.7 * t.height[index]])
    pixels = view.project(centre)
    reach = 1.3 * t.radius[index] / view.gsd * view.oversampling + 2
    w, h = view.size
    x, y = pixels[:, 0], pixels[:, 1]
    return index[(x > -reach) & (x < w + reach) & (y > -reach) & (y < h + reach)]


def trees(world: World, view: View, appearance: Appearance, shade: Shade) -> list[Batch]:
    """Crowns as layers of lit leaf masses; the nearer, the more of them."""
    t = world.trees
    index = _at_image(world, view, trees_in_view(world, view))
    sun = sun_direction(appearance)
    out = []
    ratio = t.radius[index] / view.gsd
    for needle in (False, True):
        for level, (low, high) in enumerate(((0.0, 2.6), (2.6, 9.0), (9.0, 24.0), (24.0, np.inf))):
            part = index[(t.needle[index] == needle) & (ratio >= low) & (ratio < high)]
            if len(part):
                out += _crown_layers(world, view, appearance, part, needle, level, sun, shade)
    return out


def _crown_layers(
    world: World,
    view: View,
    appearance: Appearance,
    index: NDArray[np.int64],
    needle: bool,
    level: int,
    sun: NDArray[np.float64],
    shade: Shade,
) -> list[Batch]:
    t = world.trees
    xy, r, h, seed = t.xy[index].astype(np.float64), t.radius[index], t.height[index], t.seed[index]
    material = np.full(len(index), mat.NEEDLE if needle else mat.LEAF, np.uint8)
    rgb = mat.tint(t.colour[index], material, (seed >> np.uint32(24)).astype(np.uint8), appearance)
    rgb *= shade.at(xy)
    direct = 1 - appearance.ambient
    thin = 0.75 if appearance.season == "winter" and not needle else 1.0
    out: list[Batch] = []
    distance = view.distance(xy) - 3.0
    side = sun[:2] / max(np.hypot(*sun[:2]), 1e-9)

    def layer(k: int, centre: NDArray[np.float64], height: Floats, radius: Floats, bright: NDArray[np.float64]) -> None:
        outline = _outlines(world, index, 40 + k, needle)
        corners = np.empty((*outline.shape[:2], 3))
        corners[:, :, :2] = centre[:, None, :] + outline * radius[:, None, None]
        corners[:, :, 2] = height[:, None]
        out.append(
            quads(
                corners,
                with_texture(rgb * bright[:, None].astype(np.float32), material),
                distance,
                np.full(len(index), float(k)),
            )
        )

    one = np.ones(len(index))
    layer(0, xy, 0.5 * h, r * thin, one * (0.62 - 0.18 * direct))
    lean = (0.16 * r)[:, None] * side
    if level == 0:
        layer(1, xy + 1.6 * lean, 0.75 * h, 0.6 * r, one * (0.95 + 0.2 * direct))
        return out
    layer(1, xy + 0.7 * lean, 0.68 * h, 0.84 * r * thin, one * (0.82 + 0.05 * direct))
    lobes = ((0, 2, 8, 26), (0, 1, 3, 7))[needle][level]
    for k in range(lobes):
        angle = 2 * np.pi * (_hash(seed, 3 * k) + k * 0.618)
        reach = 0.72 * np.sqrt(_hash(seed, 3 * k + 1))
        offset = np.stack([np.cos(angle), np.sin(angle)], axis=1) * reach[:, None]
        facing = offset @ side
        size = (0.26 + 0.2 * _hash(seed, 3 * k + 2)) * (1.1 if level < 3 else 0.62)
        bright = 0.9 + 0.5 * direct * facing + (0.16 if level < 3 else 0.34) * (_hash(seed, 90 + k) - 0.45)
        z = h * (0.72 + 0.2 * (1 - reach))
        layer(2 + k, xy + offset * r[:, None], z.astype(np.float32), (size * r).astype(np.float32), bright)
    layer(60, xy + 1.5 * lean, 0.92 * h, (0.34 if not needle else 0.42) * r, one * (0.98 + 0.25 * direct))
    return out


def tree_shadows(world: World, view: View, sun: NDArray[np.float64], appearance: Appearance) -> NDArray[np.float64]:
    """Ground outlines (P, K, 3) of the shadows of trees: two stretched discs along the throw each."""
    t = world.trees
    index = trees_in_view(world, view, sun)
    if len(index) == 0:
        return np.zeros((0, 11, 3))
    xy, r, h = t.xy[index].astype(np.float64), t.radius[index], t.height[index]
    outline = _outlines(world, index, 7, False)
    side = sun[:2] / max(np.hypot(*sun[:2]), 1e-9)
    stretch = outline + ((1 / sun[2] - 1) * np.clip(outline @ side, -1.2, 1.2))[..., None] * side * 0.8
    bare = np.where(t.needle[index] | (appearance.season != "winter"), 1.0, 0.6)
    out = []
    for level, size in ((0.36, 0.8), (0.66, 0.9)):
        centre = xy - (level * h)[:, None] * (sun[:2] / sun[2])
        ground = centre[:, None, :] + stretch * (size * r * bare)[:, None, None]
        out.append(np.concatenate([ground, np.zeros((*ground.shape[:2], 1))], axis=2))
    return np.concatenate(out)


_CAR_COLOURS = np.array(
    [
        [228, 228, 228],
        [236, 236, 234],
        [150, 154, 158],
        [92, 94, 98],
        [38, 40, 44],
        [28, 30, 34],
        [140, 36, 34],
        [40, 66, 120],
        [196, 190, 176],
        [74, 84, 78],
        [206, 168, 60],
    ],
    np.float32,
)
_CAR_SHARE = np.array([0.2, 0.12, 0.17, 0.13, 0.12, 0.08, 0.06, 0.06, 0.03, 0.02, 0.01])


@dataclass(frozen=True)
class Vehicles:
    """Vehicles standing about on one day: xy (N, 2), angle (N,), size (N, 3) m, colour (N, 3), van (N,)
    bool."""

    xy: NDArray[np.float64]
    angle: NDArray[np.float64]
    size: NDArray[np.float64]
    colour: Floats
    van: NDArray[np.bool_]


def vehicles(world: World, appearance: Appearance, view: View) -> Vehicles:
    """Which slots are taken on this day, and by what."""
    slots = world.slots
    n = len(slots.xy)
    rng = np.random.default_rng([appearance.clutter_seed, 3])
    draw = rng.random((n, 6), dtype=np.float32)
    west, south, east, north = view.bounds
    x, y = slots.xy[:, 0], slots.xy[:, 1]
    k = np.flatnonzero(
        (draw[:, 0] < slots.chance * 1.6 * appearance.clutter_density)
        & (x > west - 8)
        & (x < east + 8)
        & (y > south - 8)
        & (y < north + 8)
    )
    d = draw[k].astype(np.float64)
    van = d[:, 1] > 0.86
    size = np.stack(
        [
            4.0 + 0.8 * d[:, 2] + np.where(van, 1.2 + 3.0 * (d[:, 1] > 0.965), 0),
            1.7 + 0.2 * d[:, 3] + 0.25 * van,
            1.45 + 0.7 * van,
        ],
        axis=1,
    )
    colour = _CAR_COLOURS[np.minimum(np.searchsorted(np.cumsum(_CAR_SHARE), d[:, 4]), len(_CAR_COLOURS) - 1)]
    angle = slots.angle[k] + 0.06 * (d[:, 5] - 0.5) + np.pi * (d[:, 5] > 0.5)
    return Vehicles(slots.xy[k] + 0.5 * (d[:, 2:4] - 0.5), angle, size, colour, van)


def _box(
    v: Vehicles,
    front: NDArray[np.float64] | float,
    back: NDArray[np.float64] | float,
    wide: float,
    low: float,
    high: NDArray[np.float64] | float,
) -> NDArray[np.float64]:
    """Corners (N, 8, 3) of a part of each vehicle, front/back as fractions of its length from the middle."""
    n = len(v.xy)
    length, width = v.size[:, 0], v.size[:, 1] * wide
    x = np.stack([front * length, front * length, back * length, back * length], axis=1)
    y = np.stack([-0.5 * width, 0.5 * width, 0.5 * width, -0.5 * width], axis=1)
    c, s = np.cos(v.angle)[:, None], np.sin(v.angle)[:, None]
    plan = np.stack([v.xy[:, :1] + c * x - s * y, v.xy[:, 1:] + s * x + c * y], axis=2)
    out = np.empty((n, 8, 3))
    out[:, :4, :2] = out[:, 4:, :2] = plan
    out[:, :4, 2] = low
    out[:, 4:, 2] = np.broadcast_to(high, (n,))[:, None]
    return out


_BOX_SIDES = np.array([[0, 1, 5, 4], [1, 2, 6, 5], [2, 3, 7, 6], [3, 0, 4, 7]])


def vehicle_batches(v: Vehicles, view: View, appearance: Appearance, shade: Shade) -> list[Batch]:
    """Bodies and cabins; far away only a bright or dark oblong with its windscreen."""
    n = len(v.xy)
    if n == 0:
        return []
    distance = view.distance(v.xy)
    sun = sun_direction(appearance)
    paint = np.full(n, mat.CAR, np.uint8)
    glass = np.full(n, mat.GLASS, np.uint8)
    dark = np.tile(np.array([[34, 40, 46]], np.float32), (n, 1))
    left = shade.at(v.xy)
    out: list[Batch] = []

    def add(corners: NDArray[np.float64], rgb: Floats, material: NDArray[np.uint8], order: float) -> None:
        out.append(quads(corners, with_texture(rgb * left, material), distance, np.full(n, order)))

    body_top = np.where(v.van, v.size[:, 2] * 1.25, 0.85)
    body = _box(v, 0.5, -0.5, 1.0, 0.25, body_top)
    cabin = _box(
        v,
        np.where(v.van, 0.44, 0.2),
        np.where(v.van, 0.3, -0.42),
        0.88,
        0.85,
        v.size[:, 2] * np.where(v.van, 1.26, 1),
    )
    if view.gsd < 0.25:
        for k, sides in enumerate(_BOX_SIDES):
            edge = body[:, sides[1], :2] - body[:, sides[0], :2]
            normal = np.stack([edge[:, 1], -edge[:, 0], np.zeros(n)], axis=1)
            normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-9)
            add(
                body[:, sides],
                v.colour * light(normal.astype(np.float32), sun, appearance.ambient)[:, None],
                paint,
                float(k),
            )
    add(body[:, 4:], v.colour, paint, 5.0)
    if view.gsd < 0.25:
        for k, sides in enumerate(_BOX_SIDES):
            add(cabin[:, sides], dark, glass, 6.0 + k)
    else:
        add(cabin[:, 4:], dark, glass, 6.0)
    if view.gsd < 0.5:
        roof = _box(
            v,
            np.where(v.van, 0.42, 0.08),
            np.where(v.van, -0.49, -0.3),
            0.84,
            0.9,
            v.size[:, 2] * np.where(v.van, 1.27, 1.01),
        )
        add(roof[:, 4:], v.colour * 1.02, paint, 12.0)
    return out


def vehicle_shadows(v: Vehicles, sun: NDArray[np.float64]) -> NDArray[np.float64]:
    """Ground quads (P, 4, 3): below each vehicle and thrown by its top."""
    if len(v.xy) == 0:
        return np.zeros((0, 4, 3))
    top = _box(v, 0.46, -0.46, 0.96, 0.0, np.where(v.van, v.size[:, 2] * 1.1, 1.1))[:, 4:]
    thrown = drop(top.reshape(-1, 3), sun).reshape(-1, 4, 3)
    below = top.copy()
    below[..., 2] = 0
    return np.concatenate([below, thrown, 0.5 * (below + thrown)])
