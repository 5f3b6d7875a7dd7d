"""Drawings in the report of an export."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict

import numpy as np
from markupsafe import Markup

from cvgl.report.svg import drawing, element

from .parity import Parity

__all__ = ["cosine_histogram", "precision_bar"]

_WIDTH, _HEIGHT = 560.0, 220.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 44.0, 24.0, 36.0, 46.0
# Below this, single precision cannot tell 1 - cosine from 0.
_LEAST = 1e-8
_BINS_A_DECADE = 4


def cosine_histogram(parity: Parity) -> Markup:
    """How many tiles lie at which distance 1 - cosine from the original, on a logarithmic axis, with the limits."""
    distances = np.clip(1 - parity.cosines, _LEAST, None)
    limits = [
        (f"median {value:g}" if name == "cosine_median" else f"least {value:g}", 1 - value)
        for name, value in asdict(parity.thresholds).items()
        if name in ("cosine_median", "cosine_minimum") and value is not None and value < 1
    ]
    largest = max([1e-2, *(limit for _, limit in limits), *distances.tolist()])
    low, high = round(math.log10(_LEAST)), math.ceil(math.log10(largest) - 1e-9)

    def x_of(distance: float) -> float:
        return _LEFT + (math.log10(max(distance, _LEAST)) - low) / (high - low) * (_WIDTH - _LEFT - _RIGHT)

    floor = _HEIGHT - _BOTTOM
    edges = np.logspace(low, high, (high - low) * _BINS_A_DECADE + 1)
    counts = np.histogram(np.clip(distances, edges[0], edges[-1]), edges)[0]
    top = max(int(counts.max(initial=0)), 1)
    parts: list[Markup] = []
    for power in range(low, high + 1):
        x = x_of(10.0**power)
        parts.append(element("line", css="grid", x1=x, y1=_TOP, x2=x, y2=floor))
        label = f"≤ 1e{power}" if power == low else f"1e{power}" if power else "1"
        parts.append(element("text", label, x=x, y=floor + 17, text_anchor="middle"))
    for count, left, right in zip(counts.tolist(), edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        if count:
            height = (floor - _TOP) * count / top
            x, width = x_of(left), x_of(right) - x_of(left) - 1
            title = f"{count} tiles from {left:.1e} to {right:.1e}"
            parts.append(element("rect", css="count", x=x, y=floor - height, width=width, height=height, title=title))
    for number, (label, limit) in enumerate(sorted(limits, key=lambda item: item[1])):
        x = x_of(limit)
        parts.append(element("line", css="limit", x1=x, y1=4.0, x2=x, y2=floor, title=f"limit: {label}"))
        # One above the other, and towards the middle: the two may lie close together, or at the edge.
        anchor, aside = ("end", -5) if x > 0.6 * _WIDTH else ("start", 5)
        parts.append(element("text", label, css="limit", x=x + aside, y=12.0 + 16.0 * number, text_anchor=anchor))
    parts.append(element("text", str(top), x=_LEFT - 8, y=_TOP + 4, text_anchor="end"))
    parts.append(element("text", "0", x=_LEFT - 8, y=floor + 4, text_anchor="end"))
    middle = (_LEFT + _WIDTH - _RIGHT) / 2
    parts.append(element("text", "1 − cosine with the original", x=middle, y=_HEIGHT - 8, text_anchor="middle"))
    return drawing("chart", (_WIDTH, _HEIGHT), f"Distances of {len(distances)} tiles from the original", parts)


def precision_bar(counts: Mapping[str, int]) -> Markup:
    """A stacked bar of layers by precision; its legend is the page's."""
    total, x, parts = sum(counts.values()) or 1, 0.0, []
    for number, (name, count) in enumerate(counts.items()):
        width = 1000.0 * count / total
        css = f"stage s{number % 8}"
        parts.append(element("rect", css=css, x=x, y=0, width=width, height=44, title=f"{name}: {count} layers"))
        x += width
    label = ", ".join(f"{count} in {name}" for name, count in counts.items())
    body = Markup("").join(parts)
    return element(
        "svg", body, css="bar", viewBox="0 0 1000 44", preserveAspectRatio="none", role="img", aria_label=label
    )
