"""Writing SVG: elements whose attributes and titles are escaped."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from markupsafe import Markup, escape

__all__ = ["cross", "drawing", "element", "path"]


def element(name: str, *children: Markup | str, css: str = "", title: str = "", **attributes: str | float) -> Markup:
    """One element. ``stroke_width`` becomes ``stroke-width``, numbers get two decimals, ``title`` is its
    tooltip."""
    fields = {"class": css, **attributes} if css else attributes
    text = Markup("").join(
        Markup(' {}="{}"').format(key.replace("_", "-"), f"{value:.2f}" if isinstance(value, float) else value)
        for key, value in fields.items()
    )
    inside = [Markup("<title>{}</title>").format(title)] if title else []
    body = Markup("").join([*inside, *(escape(child) for child in children)])
    # The name is the code's own, never data.
    return Markup(f"<{name}{text}>{body}</{name}>")


def drawing(
    css: str,
    size: Sequence[float],
    label: str,
    parts: Iterable[Markup],
    origin: Sequence[float] = (0, 0),
) -> Markup:
    """The whole: an ``svg`` that shows a rectangle of its units, with a label for those who cannot see it."""
    box = " ".join(f"{value:.8g}" for value in (*origin, *size))
    return element("svg", *parts, css=css, viewBox=box, role="img", aria_label=label)


def path(points: Iterable[Sequence[float]]) -> str:
    """Path data of a line through the points; where a coordinate is NaN the line is broken."""
    steps, pen_down = [], False
    for x, y in points:
        known = x == x and y == y
        if known:
            steps.append(f"{'L' if pen_down else 'M'}{x:.1f} {y:.1f}")
        pen_down = known
    return "".join(steps)


def cross(x: float, y: float, arm: float) -> str:
    """Path data of an oblique cross."""
    nan = float("nan")
    return path([(x - arm, y - arm), (x + arm, y + arm), (nan, nan), (x + arm, y - arm), (x - arm, y + arm)])
