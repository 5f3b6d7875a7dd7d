"""The map of a report: satellite picture, tracks, fixes with their ellipses, and crops around single
frames."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from cvgl.camera import Camera
from cvgl.fix import Fix, FixStatus
from cvgl.flight import FrameRecord
from cvgl.report.overview import Overview, footprint, jpeg_uri
from cvgl.report.svg import cross, drawing, element, path
from cvgl.results import fix_footprint

__all__ = ["FlightMap", "Places", "flight_map", "frame_crop", "places"]

_LONGEST = 1600
_CROP_LONGEST = 420
# The size on a screen that line widths and letters are made for.
_SCREEN = (1120.0, 760.0)
# More than this hide each other and the map.
_MOST_ELLIPSES = 150
# What is drawn later covers what is drawn before.
_DRAWN = (FixStatus.COARSE, FixStatus.REFINED, FixStatus.NO_FIX)
_NICE = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 20_000, 50_000)


@dataclass(frozen=True)
class Places:
    """Where the map's things are, metres in the local tangent plane; NaN where unknown.

    Args:
        found: (N, 2) estimated positions.
        reference: (N, 2) reference positions.
        covariances: of the estimates, (2, 2) m^2 or None.
        what: what is drawn, for the legend.
    """

    found: NDArray[np.float64]
    reference: NDArray[np.float64]
    covariances: tuple[NDArray[np.float64] | None, ...]
    what: str


@dataclass(frozen=True)
class FlightMap:
    """The map of a flight and what its legend must say.

    Args:
        svg: the drawing.
        enlarged: by how much the refined fixes' ellipses are enlarged to be seen.
        every: ellipses are drawn of every so many frames only.
    """

    svg: Markup
    enlarged: float
    every: int


def places(overview: Overview, records: Sequence[FrameRecord], fixes: Sequence[Fix]) -> Places:
    """Aircraft positions; image centres instead where only those have references."""
    centers = any(r.center_latitude is not None for r in records) and not any(
        r.gps_latitude is not None for r in records
    )
    if centers:
        found = [(fix.center_latitude, fix.center_longitude) for fix in fixes]
        reference = [(record.center_latitude, record.center_longitude) for record in records]
        covariances = tuple(fix.center_covariance for fix in fixes)
    else:
        found = [(fix.latitude, fix.longitude) for fix in fixes]
        reference = [(record.gps_latitude, record.gps_longitude) for record in records]
        covariances = tuple(fix.covariance for fix in fixes)
    references = _to_local(overview, reference)
    # A flight elsewhere has no track on this map.
    references[[not _inside(overview, point) for point in references]] = np.nan
    what = "image centre" if centers else "aircraft"
    return Places(_to_local(overview, found), references, covariances, what)


def flight_map(
    overview: Overview, where: Places, records: Sequence[FrameRecord], fixes: Sequence[Fix], camera: Camera
) -> FlightMap:
    """The whole flight on the map: tracks, then ellipses, then what must not be covered.

    A fix that is pointed at shows its footprint.
    """
    view = _view(overview, where)
    unit = max(view.size[0] / _SCREEN[0], view.size[1] / _SCREEN[1])
    found, reference = _to_svg(view, where.found), _to_svg(view, where.reference)
    enlarged = _enlargement(where, fixes, view.gsd * unit)
    refined = np.array([fix.status is FixStatus.REFINED for fix in fixes], dtype=bool)
    parts = [_picture(view, 82)]
    # Lines with a dark edge are seen on bright and on dark ground alike.
    for points, css in ((reference, "reference"), (found[refined], "estimate")):
        data = path(points)
        parts.append(element("path", css="track casing", stroke_width=3.4 * unit, d=data))
        parts.append(element("path", css=f"track {css}", stroke_width=1.6 * unit, d=data))
    every = max(1, math.ceil(len(fixes) / _MOST_ELLIPSES))
    for index in range(0, len(fixes), every):
        status, covariance = fixes[index].status, where.covariances[index]
        if covariance is not None and np.isfinite(covariance).all() and np.isfinite(found[index]).all():
            scale = (enlarged if status is FixStatus.REFINED else 1.0) / view.gsd
            parts.append(_ellipse(found[index], covariance * scale**2, status.value, unit))
    radius = (3.6 if every == 1 else 2.2) * unit
    layers: dict[FixStatus, list[Markup]] = {status: [] for status in _DRAWN}
    for index, (record, fix) in enumerate(zip(records, fixes, strict=True)):
        place = found[index] if fix else reference[index]
        if np.isfinite(place).all():
            mark = _mark(place, record.name, fix, radius, unit)
            outline = fix_footprint(camera, record, fix)
            if outline is not None:
                ring = path(_to_svg(view, _to_local(overview, outline.tolist()))) + "Z"
                mark.append(element("path", css="footprint", d=ring, stroke_width=1.6 * unit))
            layers[fix.status].append(element("a", *mark, href=f"#frame-{index}"))
    for status in _DRAWN:
        parts += layers[status]
    parts += [_scale_bar(view, unit), _north_arrow(view, unit)]
    return FlightMap(drawing("map", view.size, "Map of the flight", parts), enlarged, every)


def frame_crop(overview: Overview, camera: Camera, record: FrameRecord, fix: Fix) -> tuple[Markup | None, str]:
    """The map where a frame was put, turned as the frame is and with its footprint outlined, and a caption.

    The drawing is None where there is no place to show.
    For a refused frame: where it was by its reference, else where retrieval would have looked first.
    """
    outline = _outline(camera, record, fix)
    target = _to_local(overview, [(record.center_latitude, record.center_longitude)])[0]
    middle = _to_local(overview, [(fix.center_latitude, fix.center_longitude)])[0]
    caption = "where it was put"
    if not np.isfinite(middle).all():
        middle, caption = target, "where it was by its reference"
    if not np.isfinite(middle).all() and outline is not None:
        foot = _to_local(overview, [(record.gps_latitude, record.gps_longitude)])[0]
        middle = foot + outline[4]
    if not np.isfinite(middle).all() and fix.candidates:
        middle = np.array([fix.candidates[0].easting, fix.candidates[0].northing])
        caption = "the first candidate, refused"
    if not np.isfinite(middle).all():
        return None, "no place to show"
    if not _inside(overview, middle):
        return None, "outside the map"
    heading = _heading(record, fix)
    corners = None if outline is None else outline[:4] - outline[4] + middle
    across = 120.0 if corners is None else float(np.linalg.norm(corners[1] - corners[0]))
    half = 0.65 * across * np.array([1.0, camera.height / camera.width])
    # The picture turns with the frame: what is cut out must fill the drawing whatever the heading.
    reach = float(np.linalg.norm(half))
    (west, south), (east, north) = middle - reach, middle + reach
    view = overview.window(west, south, east, north, _CROP_LONGEST)
    half, (x, y) = half / view.gsd, _to_svg(view, middle)[0]
    unit = 2 * float(half[0]) / 260.0
    turned = [_picture(view, 80)]
    if corners is not None:
        ring = path(_to_svg(view, corners)) + "Z"
        for css, width in (("casing", 4.0), (fix.status.value, 2.0)):
            turned.append(element("path", css=css, d=ring, stroke_width=width * unit))
    if fix and np.isfinite(target).all():
        (u, v), arm = _to_svg(view, target)[0], 7 * unit
        plus = path([(u - arm, v), (u + arm, v), (math.nan, math.nan), (u, v - arm), (u, v + arm)])
        for css, width in (("casing", 4.0), ("target", 1.8)):
            turned.append(element("path", css=css, d=plus, stroke_width=width * unit, title="reference"))
    corner = (x - half[0], y - half[1])
    parts = [
        element("g", *turned, transform=f"rotate({-heading:.1f} {x:.1f} {y:.1f})"),
        _compass(corner[0] + 2 * half[0] - 19 * unit, corner[1] + 19 * unit, heading, unit),
    ]
    return drawing("map", (2 * half).tolist(), f"{record.name}: {caption}", parts, corner), caption


def _heading(record: FrameRecord, fix: Fix) -> float:
    return fix.heading_deg if math.isfinite(fix.heading_deg) else record.heading or 0.0


def _outline(camera: Camera, record: FrameRecord, fix: Fix) -> NDArray[np.float64] | None:
    """The frame's footprint by what the match measured, else by its telemetry."""
    height = fix.height_m if math.isfinite(fix.height_m) else record.height
    if not height > 0:
        return None
    heading = _heading(record, fix)
    if not record.attitude_moves_camera:
        return footprint(camera, height, heading)
    return footprint(camera, height, heading, record.pitch or 0.0, record.roll or 0.0)


def _to_local(overview: Overview, positions: Sequence[tuple[float | None, float | None]]) -> NDArray[np.float64]:
    """WGS84 pairs to (N, 2) metres; NaN where a pair is not known."""
    degrees = np.array(
        [(np.nan, np.nan) if a is None or b is None else (a, b) for a, b in positions], dtype=np.float64
    ).reshape(-1, 2)
    metres = np.full_like(degrees, np.nan)
    known = np.isfinite(degrees).all(axis=1)
    if known.any():
        metres[known] = np.column_stack(overview.local.to_local(degrees[known, 0], degrees[known, 1]))
    metres[~np.isfinite(metres).all(axis=1)] = np.nan
    return metres


def _bounds(overview: Overview) -> tuple[float, float, float, float]:
    width, height = overview.size
    return (
        overview.west,
        overview.north - height * overview.gsd,
        overview.west + width * overview.gsd,
        overview.north,
    )


def _inside(overview: Overview, point: NDArray[np.float64]) -> bool:
    west, south, east, north = _bounds(overview)
    return bool(west <= point[0] <= east and south <= point[1] <= north)


def _view(overview: Overview, where: Places) -> Overview:
    """The part of the map with the flight in it; the whole map where that is not much more."""
    west, south, east, north = _bounds(overview)
    points = np.concatenate([where.found, where.reference])
    points = points[np.isfinite(points).all(axis=1)]
    points = points[[_inside(overview, point) for point in points]] if len(points) else points
    if len(points):
        low, high = points.min(axis=0), points.max(axis=0)
        margin = max(100.0, 0.12 * float((high - low).max()))
        west, south = np.maximum([west, south], low - margin)
        east, north = np.minimum([east, north], high + margin)
        whole = _bounds(overview)
        if (east - west) * (north - south) > 0.6 * (whole[2] - whole[0]) * (whole[3] - whole[1]):
            west, south, east, north = whole
    return overview.window(west, south, east, north, _LONGEST)


def _enlargement(where: Places, fixes: Sequence[Fix], metres_per_screen_px: float) -> float:
    """A round factor that gives the refined fixes' ellipses about 9 px on a screen."""
    sigmas = [
        math.sqrt(float(np.linalg.eigvalsh(covariance)[-1]))
        for covariance, fix in zip(where.covariances, fixes, strict=True)
        if covariance is not None and fix.status is FixStatus.REFINED and np.isfinite(covariance).all()
    ]
    typical = float(np.median(sigmas)) / metres_per_screen_px if sigmas else 9.0
    return float(min((n for n in _NICE[:7] if typical * n >= 9.0), default=100)) if typical > 0 else 1.0


def _to_svg(view: Overview, points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Metres to the drawing's units: its pixels, of which the first reaches from 0 to 1."""
    points = points.reshape(-1, 2)
    return view.to_pixel(points[:, 0], points[:, 1]) + 0.5


def _picture(view: Overview, quality: int) -> Markup:
    width, height = view.size
    return element("image", href=jpeg_uri(view.image, quality), width=width, height=height)


def _ellipse(center: NDArray[np.float64], covariance: NDArray[np.float64], status: str, unit: float) -> Markup:
    variances, axes = np.linalg.eigh(covariance)
    minor, major = (float(value) for value in np.sqrt(np.maximum(variances, 0.0)))
    # The picture's rows run south, so an angle from east to north turns the other way.
    angle = -math.degrees(math.atan2(axes[1, 1], axes[0, 1]))
    place = f"translate({center[0]:.1f} {center[1]:.1f}) rotate({angle:.1f})"
    return element("ellipse", css=f"sigma1 {status}", rx=major, ry=minor, stroke_width=1.4 * unit, transform=place)


def _mark(place: NDArray[np.float64], name: str, fix: Fix, radius: float, unit: float) -> list[Markup]:
    x, y = (float(value) for value in place)
    css = fix.status.value
    if fix:
        title = f"{name}: {css}, 1σ {fix.sigma_m:.1f} m"
        return [element("circle", css=f"fix {css}", cx=x, cy=y, r=radius, stroke_width=unit, title=title)]
    data, title = cross(x, y, 1.25 * radius), f"{name}: no fix ({fix.reason}); drawn at its reference"
    return [
        element("path", css="casing", stroke_width=4.2 * unit, d=data),
        element("path", css=css, stroke_width=2.2 * unit, d=data, title=title),
    ]


def _scale_bar(view: Overview, unit: float) -> Markup:
    width, height = view.size
    metres = max((n for n in _NICE if n <= 0.2 * width * view.gsd), default=1)
    length, x, y = metres / view.gsd, 22 * unit, height - 24 * unit
    label = f"{metres} m" if metres < 1000 else f"{metres // 1000} km"
    tick = 7 * unit
    bar = path([(x, y - tick), (x, y), (x + length, y), (x + length, y - tick)])
    return element(
        "g",
        _plate(x - 12 * unit, y - 28 * unit, length + 24 * unit, 40 * unit, unit),
        element("path", d=bar, stroke_width=2 * unit),
        element("text", label, x=x + length / 2, y=y - 9 * unit, font_size=13 * unit),
        css="furniture",
    )


def _north_arrow(view: Overview, unit: float) -> Markup:
    x, y = view.size[0] - 30 * unit, 17 * unit
    wing, depth = 8 * unit, 25 * unit
    arrow = path([(x, y), (x + wing, y + depth), (x, y + depth - 6 * unit), (x - wing, y + depth)]) + "Z"
    return element(
        "g",
        _plate(x - 18 * unit, y - 7 * unit, 36 * unit, 56 * unit, unit),
        element("path", css="solid", d=arrow),
        element("text", "N", x=x, y=y + 42 * unit, font_size=14 * unit),
        css="furniture",
    )


def _compass(x: float, y: float, heading: float, unit: float) -> Markup:
    """A small arrow to the north in a picture whose upper side faces the heading."""
    arrow = path([(0, -9 * unit), (4.5 * unit, 8 * unit), (0, 4.5 * unit), (-4.5 * unit, 8 * unit)]) + "Z"
    place = f"translate({x:.1f} {y:.1f}) rotate({-heading:.1f})"
    return element(
        "g",
        element("circle", cx=x, cy=y, r=13 * unit),
        element("path", css="solid", d=arrow, transform=place, title="north"),
        css="furniture",
    )


def _plate(x: float, y: float, width: float, height: float, unit: float) -> Markup:
    return element("rect", x=x, y=y, width=width, height=height, rx=4 * unit)
