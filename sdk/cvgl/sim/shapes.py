"""Plane geometry the procedural world is built from: convex cutting, insets, ribbons along curves, blobs.

All polygons are float64 arrays (N, 2) of east, north metres, counter-clockwise unless said otherwise.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def signed_area(polygon: Array) -> float:
    """Area in m², positive for counter-clockwise order."""
    x, y = polygon[:, 0], polygon[:, 1]
    return float(0.5 * np.sum(x * np.roll(y, -1) - np.roll(x, -1) * y))


def counter_clockwise(polygon: Array) -> Array:
    """The same polygon in counter-clockwise order."""
    return polygon if signed_area(polygon) >= 0 else polygon[::-1]


def clip_half_plane(polygon: Array, normal: Array, offset: float) -> Array:
    """Keep the part of a polygon where `normal . p <= offset` (Sutherland-Hodgman, one plane).

    Works for any dimension D: `polygon` (N, D), `normal` (D,). Returns (M, D), possibly empty.
    """
    side = polygon @ normal - offset
    if np.all(side <= 0):
        return polygon
    out: list[Array] = []
    for i in range(len(polygon)):
        j = (i + 1) % len(polygon)
        if side[i] <= 0:
            out.append(polygon[i])
        if (side[i] <= 0) != (side[j] <= 0):
            t = side[i] / (side[i] - side[j])
            out.append(polygon[i] + t * (polygon[j] - polygon[i]))
    return np.array(out) if len(out) >= 3 else np.empty((0, polygon.shape[1]))


def outward_normals(polygon: Array) -> tuple[Array, Array]:
    """Unit outward normals (N, 2) and offsets (N,) of the edges i -> i+1 of a counter-clockwise polygon."""
    edge = np.roll(polygon, -1, axis=0) - polygon
    length = np.maximum(np.hypot(edge[:, 0], edge[:, 1]), 1e-9)
    normal = np.stack([edge[:, 1], -edge[:, 0]], axis=1) / length[:, None]
    return normal, np.sum(normal * polygon, axis=1)


def inset(polygon: Array, distances: Array | float) -> Array:
    """Move every edge of a convex polygon inwards by its distance (m). Returns (M, 2), empty when nothing is
    left."""
    normal, offset = outward_normals(polygon)
    distances = np.broadcast_to(np.asarray(distances, dtype=np.float64), offset.shape)
    result = polygon
    for n, o, d in zip(normal, offset, distances, strict=True):
        result = clip_half_plane(result, n, o - d)
        if len(result) == 0:
            break
    return result


def inside_convex(polygon: Array, points: Array, margin: float = 0.0) -> NDArray[np.bool_]:
    """Which of the points (N, 2) lie inside a convex polygon, at least `margin` metres from its edges."""
    normal, offset = outward_normals(polygon)
    return np.all(points @ normal.T <= offset - margin, axis=1)


def rectangle(center: Array, angle: float, length: float, width: float) -> Array:
    """A rectangle (4, 2); `angle` (rad, counter-clockwise from east) is the direction of its length."""
    along = np.array([np.cos(angle), np.sin(angle)])
    across = np.array([-along[1], along[0]])
    half_l, half_w = 0.5 * length * along, 0.5 * width * across
    return np.array(
        [
            center - half_l - half_w,
            center + half_l - half_w,
            center + half_l + half_w,
            center - half_l + half_w,
        ]
    )


def densify(line: Array, step: float) -> Array:
    """Points along a polyline, no farther apart than `step` metres, the given vertices kept."""
    parts = []
    for a, b in pairwise(line):
        n = max(1, int(np.ceil(np.hypot(*(b - a)) / step)))
        parts.append(a + (b - a) * np.linspace(0, 1, n, endpoint=False)[:, None])
    return np.concatenate([*parts, line[-1:]])


def tangents(line: Array) -> Array:
    """Unit tangents (N, 2) at the vertices of a polyline (N, 2)."""
    step = np.diff(line, axis=0)
    t = np.concatenate([step[:1], 0.5 * (step[1:] + step[:-1]), step[-1:]])
    return t / np.maximum(np.hypot(t[:, 0], t[:, 1]), 1e-9)[:, None]


def offset_line(line: Array, distance: Array | float) -> Array:
    """A polyline shifted to its left by `distance` metres (a number or one per vertex)."""
    t = tangents(line)
    left = np.stack([-t[:, 1], t[:, 0]], axis=1)
    return line + left * np.broadcast_to(np.asarray(distance, dtype=np.float64), (len(line),))[:, None]


def ribbon(line: Array, left: Array | float, right: Array | float) -> Array:
    """The closed polygon between two offsets (m, positive to the left) of a polyline."""
    return np.concatenate([offset_line(line, right), offset_line(line, left)[::-1]])


def arc_length(line: Array) -> Array:
    """Cumulative length (N,) in metres along a polyline."""
    return np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(line, axis=0).T))])


def along(line: Array, distance: Array) -> tuple[Array, Array]:
    """Points (N, 2) and unit tangents (N, 2) at the given distances (N,) in metres along a polyline."""
    s = arc_length(line)
    t = tangents(line)
    point = np.stack([np.interp(distance, s, line[:, k]) for k in (0, 1)], axis=1)
    tangent = np.stack([np.interp(distance, s, t[:, k]) for k in (0, 1)], axis=1)
    return point, tangent / np.maximum(np.hypot(tangent[:, 0], tangent[:, 1]), 1e-9)[:, None]


def smooth_line(points: Array, step: float) -> Array:
    """A Catmull-Rom curve through the points (N >= 2, 2), sampled about every `step` metres."""
    p = np.concatenate([2 * points[:1] - points[1:2], points, 2 * points[-1:] - points[-2:-1]])
    parts = []
    for i in range(1, len(p) - 2):
        n = max(2, int(np.ceil(np.hypot(*(p[i + 1] - p[i])) / step)))
        t = np.linspace(0, 1, n, endpoint=False)[:, None]
        parts.append(
            0.5
            * (
                2 * p[i]
                + (p[i + 1] - p[i - 1]) * t
                + (2 * p[i - 1] - 5 * p[i] + 4 * p[i + 1] - p[i + 2]) * t**2
                + (3 * p[i] - p[i - 1] - 3 * p[i + 1] + p[i + 2]) * t**3
            )
        )
    return np.concatenate([*parts, points[-1:]])


def blob(rng: np.random.Generator, center: Array, radius: float, corners: int = 14, rough: float = 0.25) -> Array:
    """An irregular closed outline (corners, 2) around a centre."""
    angle = np.linspace(0, 2 * np.pi, corners, endpoint=False)
    phase = rng.uniform(0, 2 * np.pi, 10)
    harmonics = range(2, max(5, min(corners // 3, 11)))
    r = radius * (1 + rough * sum(np.sin(k * angle + phase[k - 2]) / k for k in harmonics))
    squash = rng.uniform(0.6, 1.0)
    turn = rng.uniform(0, np.pi)
    x, y = r * np.cos(angle), squash * r * np.sin(angle)
    return center + np.stack([x * np.cos(turn) - y * np.sin(turn), x * np.sin(turn) + y * np.cos(turn)], axis=1)


def clip_segments(polygon: Array, starts: Array, direction: Array) -> tuple[Array, Array]:
    """Cut infinite lines with a convex polygon.

    `starts` (N, 2) points on the lines, `direction` (2,) their common direction. Returns the end points (M,
    2) and (M, 2) of the lines that cross the polygon.
    """
    normal, offset = outward_normals(polygon)
    speed = normal @ direction
    gap = offset - starts @ normal.T
    with np.errstate(divide="ignore", invalid="ignore"):
        t = gap / speed
    low = np.where(speed < -1e-9, t, -np.inf).max(axis=1)
    high = np.where(speed > 1e-9, t, np.inf).min(axis=1)
    outside = np.any((np.abs(speed) <= 1e-9) & (gap < 0), axis=1)
    keep = (high - low > 0.5) & ~outside
    return starts[keep] + low[keep, None] * direction, starts[keep] + high[keep, None] * direction
