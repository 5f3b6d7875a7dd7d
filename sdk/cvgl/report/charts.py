"""Charts of a report. Colours and type come from the page's style sheet by class, so that they follow its
theme."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from cvgl.report.svg import cross, drawing, element, path

__all__ = ["error_curve", "error_per_frame", "stage_bar"]

_WIDTH, _HEIGHT = 560.0, 300.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 52.0, 14.0, 14.0, 44.0
_MIDDLE = (_LEFT + _WIDTH - _RIGHT) / 2
_LOWEST_M = 0.1


def error_curve(curves: Sequence[tuple[str, str, NDArray[np.float64]]]) -> Markup:
    """Share of the frames placed within a distance, over that distance on a logarithmic axis.

    Args:
        curves: label, CSS class, and an error in metres for every frame with a reference, NaN for frames
            without a fix: those hold the curve below 100 %.
    """
    highest = _highest(np.concatenate([errors for _, _, errors in curves]))
    parts = []
    for value in _decades(highest):
        x = _LEFT + _log_share(value, highest) * (_WIDTH - _LEFT - _RIGHT)
        parts += [_line(x, _TOP, x, _y(0.0)), _label(x, _y(0.0) + 16, f"{value:g}", "middle")]
    for percent in (0, 25, 50, 75, 100):
        parts += _row(percent / 100, f"{percent} %")
    parts.append(_label(_MIDDLE, _HEIGHT - 10, "error (m)", "middle"))
    for label, css, errors in curves:
        points = [(_LEFT, _y(0.0))]
        for rank, error in enumerate(np.sort(errors[np.isfinite(errors)]), start=1):
            x = _LEFT + _log_share(float(error), highest) * (_WIDTH - _LEFT - _RIGHT)
            points += [(x, points[-1][1]), (x, _y(rank / len(errors)))]
        points.append((_WIDTH - _RIGHT, points[-1][1]))
        parts.append(element("path", css=f"curve {css}", d=path(points), title=label))
    return drawing("chart", (_WIDTH, _HEIGHT), "Share of frames placed within a distance of their reference", parts)


def error_per_frame(
    names: Sequence[str],
    statuses: Sequence[str],
    errors: NDArray[np.float64],
    sigmas: NDArray[np.float64],
) -> Markup:
    """Error of every frame in order, on a logarithmic axis, over the standard deviation that its fix claimed.

    Args:
        names, statuses: of the frames.
        errors: metres; NaN is not drawn, but frames without a fix are marked along the top.
        sigmas: metres, standard deviation along the worst direction; NaN is not drawn.
    """
    highest = _highest(np.concatenate([errors, sigmas]))
    parts = []
    for value in _decades(highest):
        parts += _row(_log_share(value, highest), f"{value:g} m")
    count = max(1, len(names))
    parts.append(_label(_MIDDLE, _HEIGHT - 10, f"frames 1 to {count}, in order", "middle"))
    step = (_WIDTH - _LEFT - _RIGHT) / count
    radius = float(np.clip(step * 0.4, 1.3, 4.0))
    bar = max(step * 0.9, 1.3)
    marks = []
    for index, (name, status, error, sigma) in enumerate(zip(names, statuses, errors, sigmas, strict=True)):
        x = _LEFT + step * (index + 0.5)
        if math.isfinite(sigma):
            y = _y(_log_share(float(sigma), highest))
            parts.append(element("rect", css="sigma", x=x - bar / 2, y=y, width=bar, height=_y(0.0) - y))
        if status == "no_fix":
            marks.append(element("path", css="refused", d=cross(x, _TOP + 6, radius), title=f"{name}: no fix"))
        elif math.isfinite(error):
            y = _y(_log_share(float(error), highest))
            title = f"{name}: {error:.1f} m, 1σ {sigma:.1f} m, {status}"
            marks.append(element("circle", css=f"dot {status}", cx=x, cy=y, r=radius, title=title))
    return drawing(
        "chart",
        (_WIDTH, _HEIGHT),
        "Error of every frame, and the standard deviation claimed",
        [*parts, *marks],
    )


def stage_bar(stages: Sequence[tuple[str, float]]) -> Markup:
    """A stacked bar of milliseconds by stage; its legend is the page's."""
    total = sum(value for _, value in stages) or 1.0
    x, parts = 0.0, []
    for index, (name, value) in enumerate(stages):
        width = 1000.0 * value / total
        css, title = f"stage s{index % 8}", f"{name}: {value:.1f} ms"
        parts.append(element("rect", css=css, x=x, y=0, width=width, height=44, title=title))
        x += width
    body = Markup("").join(parts)
    return element("svg", body, css="bar", viewBox="0 0 1000 44", preserveAspectRatio="none", role="img")


def _highest(values: NDArray[np.float64]) -> float:
    """The power of ten that ends the axis, at least 10 m."""
    usable = values[np.isfinite(values) & (values > 0)]
    return 10.0 if not len(usable) else max(10.0, 10.0 ** math.ceil(math.log10(float(usable.max()))))


def _decades(highest: float) -> list[float]:
    return [10.0**n for n in range(round(math.log10(_LOWEST_M)), round(math.log10(highest)) + 1)]


def _log_share(value: float, highest: float) -> float:
    """Where a value lies on the axis, 0 to 1; what is less than its start lies on it."""
    return math.log10(max(value, _LOWEST_M) / _LOWEST_M) / math.log10(highest / _LOWEST_M)


def _y(share: float) -> float:
    return _HEIGHT - _BOTTOM - share * (_HEIGHT - _TOP - _BOTTOM)


def _row(share: float, label: str) -> list[Markup]:
    y = _y(share)
    return [_line(_LEFT, y, _WIDTH - _RIGHT, y), _label(_LEFT - 8, y + 4, label, "end")]


def _line(x1: float, y1: float, x2: float, y2: float) -> Markup:
    return element("line", css="grid", x1=x1, y1=y1, x2=x2, y2=y2)


def _label(x: float, y: float, text: str, anchor: str) -> Markup:
    return element("text", text, x=x, y=y, text_anchor=anchor)
