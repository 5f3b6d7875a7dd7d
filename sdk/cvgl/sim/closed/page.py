"""A run of simulated flights as a page: the worst flight on the map, its errors, and whether covariances are true."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from cvgl.files import atomic_path
from cvgl.report import charts
from cvgl.report.overview import Overview, jpeg_uri
from cvgl.report.svg import cross, drawing, element, path
from cvgl.sim.closed.rows import NO_FIX, STATUSES, Rows, covariance, error, nees

__all__ = ["nees_histogram", "track_map", "worst_flight", "write_page"]

_WIDTH, _HEIGHT = 560.0, 300.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 52.0, 14.0, 14.0, 44.0
_LONGEST, _QUALITY = 1200, 80
_MARGIN_M = 60.0
_MOST_NEES, _BINS = 12.0, 24
# More dots than this hide each other.
_MOST_FRAMES = 500


def write_page(
    path_to: str | Path,
    title: str,
    methods: dict[str, Rows],
    summary: dict[str, Any],
    overview: Overview,
) -> None:
    """Write the page, self-contained.

    Args:
        path_to: by atomic rename.
        title: what was flown.
        methods: rows by method, ``track`` among them.
        summary: of :func:`cvgl.sim.closed.score.score`, by method.
        overview: picture of the mission's map.
    """
    rows = methods["track"]
    number = worst_flight(rows)
    flight = rows[rows["flight"] == number][:_MOST_FRAMES]
    sigma = np.sqrt(np.linalg.eigvalsh(np.nan_to_num(covariance(flight), nan=0.0))[:, -1])
    sigma[flight["status"] == NO_FIX] = np.nan
    per_frame = charts.error_per_frame(
        [f"frame {index}" for index in flight["frame"].tolist()],
        [STATUSES[status] for status in flight["status"].tolist()],
        np.hypot(*error(flight).T),
        sigma,
    )
    here = Path(__file__).parent
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([here, here.parents[1] / "report"]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    html = environment.get_template("page.html.j2").render(
        title=title,
        summary=summary["track"],
        methods=summary,
        worst=number,
        map=track_map(flight, overview),
        charts=[
            (f"Flight {number}: error of every frame over the sigma that was claimed", per_frame),
            ("NEES of all answers over the law that true covariances follow", nees_histogram(nees(rows))),
        ],
    )
    with atomic_path(path_to) as temporary:
        temporary.write_text(html, encoding="utf-8")


def worst_flight(rows: Rows) -> int:
    """The flight with the largest error of an answer; the first one where none was answered."""
    metres = np.where(rows["status"] != NO_FIX, np.hypot(*error(rows).T), np.nan)
    return int(rows["flight"][int(np.nanargmax(metres)) if np.isfinite(metres).any() else 0])


def track_map(rows: Rows, overview: Overview) -> Markup:
    """Truth and answers of one flight on the map.

    Args:
        rows: of the flight.
        overview: picture of the map, in the rows' plane.
    """
    truth = np.column_stack([rows["true_east"], rows["true_north"]])
    found = np.column_stack([rows["east"], rows["north"]])
    low, high = truth.min(axis=0) - _MARGIN_M, truth.max(axis=0) + _MARGIN_M
    part = overview.window(low[0], low[1], high[0], high[1], _LONGEST)
    width, height = part.size
    line = max(width, height) / 400
    # A displacement is no way that was flown.
    jumps = np.flatnonzero(np.diff(rows["segment"])) + 1
    way, estimate = part.to_pixel(*truth.T), part.to_pixel(*found.T)
    picture = element("image", href=jpeg_uri(part.image, _QUALITY), x=-0.5, y=-0.5, width=width, height=height)
    lost = "".join(cross(x, y, 2 * line) for x, y in way[rows["status"] == NO_FIX])
    parts = [
        picture,
        element("path", css="casing", d=path(_broken(way, jumps)), stroke_width=2.2 * line),
        element("path", css="reference", d=path(_broken(way, jumps)), stroke_width=line),
        element("path", css="estimate", d=path(_broken(estimate, jumps)), stroke_width=line),
        element("path", css="no_fix", d=lost, stroke_width=line),
    ]
    return drawing("map", (width, height), "Truth and answers on the map", parts, (-0.5, -0.5))


def nees_histogram(values: NDArray[np.float64]) -> Markup:
    """Shares of the values over a grid of bins, and the chi-square law with two degrees of freedom over them."""
    finite = values[np.isfinite(values)]
    edges = np.linspace(0, _MOST_NEES, _BINS + 1)
    # What lies beyond is counted in the last bin.
    counts, _ = np.histogram(np.minimum(finite, _MOST_NEES - 1e-9), edges)
    shares = counts / max(len(finite), 1)
    expected = np.exp(-edges[:-1] / 2) - np.exp(-edges[1:] / 2)
    expected[-1] = math.exp(-edges[-2] / 2)
    top = max(float(shares.max(initial=0.0)), float(expected.max())) * 1.05

    def x(value: float) -> float:
        return _LEFT + value / _MOST_NEES * (_WIDTH - _LEFT - _RIGHT)

    def y(share: float) -> float:
        return _HEIGHT - _BOTTOM - share / top * (_HEIGHT - _TOP - _BOTTOM)

    parts = []
    for level in np.arange(0, top, 0.05):
        at = y(float(level))
        parts.append(element("line", css="grid", x1=_LEFT, y1=at, x2=_WIDTH - _RIGHT, y2=at))
        parts.append(element("text", f"{100 * level:.0f} %", x=_LEFT - 8, y=at + 4, text_anchor="end"))
    for left, right, share in zip(edges[:-1], edges[1:], shares, strict=True):
        at = y(float(share))
        title = f"{left:g} to {right:g}: {100 * share:.1f} %"
        size = {"width": x(float(right)) - x(float(left)) - 1.5, "height": y(0.0) - at}
        parts.append(element("rect", css="sigma", x=x(float(left)), y=at, title=title, **size))
    law = [
        (x(float(edge)), y(float(share)))
        for left, right, share in zip(edges, edges[1:], expected, strict=False)
        for edge in (left, right)
    ]
    parts.append(element("path", css="curve center", d=path(law)))
    for value in range(0, int(_MOST_NEES) + 1, 2):
        text = f"{value}" if value < _MOST_NEES else "more"
        parts.append(element("text", text, x=x(value), y=y(0.0) + 16, text_anchor="middle"))
    parts.append(
        element("text", "squared error over covariance", x=x(_MOST_NEES / 2), y=_HEIGHT - 10, text_anchor="middle")
    )
    return drawing("chart", (_WIDTH, _HEIGHT), "Histogram of the normalised estimation error squared", parts)


def _broken(points: NDArray[np.float64], at: NDArray[np.int64]) -> NDArray[np.float64]:
    """Points with a gap before each of some of them."""
    return np.insert(points, at, np.nan, axis=0)
