"""The figure of a measurement: how long each stage takes, how far it is from its limit, and a cold start."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from markupsafe import Markup

from cvgl.bench.start import PARTS
from cvgl.report.svg import element, path

__all__ = ["draw"]

_WIDTH = 1080.0
_LEFT, _RIGHT = 110.0, 720.0
_THICK, _THIN = 20.0, 14.0
# Middle of the medians, right ends of the shares and of the distances.
_MEDIAN, _SHARE, _TIMES = 805.0, 930.0, 1060.0
_SMALLEST_MS = 1e-3
_STYLE = """
svg { --page: #ffffff; --ink: #1b211f; --soft: #5c6763; --rule: #dfe4e0;
  --one: #0b6e8f; --two: #c77700; --edge: #b8506b; background: var(--page);
  font: 13px system-ui, "Segoe UI", Roboto, "Noto Sans", sans-serif; font-variant-numeric: tabular-nums; }
@media (prefers-color-scheme: dark) { svg { --page: #121615; --ink: #e6ebe8; --soft: #98a39f; --rule: #2d3533;
  --one: #4fb3d6; --two: #f0a832; --edge: #e2849c; } }
text { fill: var(--ink); } .soft { fill: var(--soft); } .head { font-size: 17px; font-weight: 600; }
.grid { stroke: var(--rule); } .one { --hue: var(--one); } .two { --hue: var(--two); }
.reach { stroke: var(--hue); stroke-width: 1.5; } .half { fill: var(--hue); fill-opacity: .3; stroke: var(--hue); }
.sure { fill: var(--hue); fill-opacity: .55; } .middle { stroke: var(--ink); stroke-width: 2.5; }
.rare { fill: var(--hue); }
.limit { fill: var(--edge); } .gap { stroke: var(--edge); stroke-dasharray: 2 4; } .edge { fill: var(--edge); }
.p0 { fill: #0b6e8f; } .p1 { fill: #c77700; } .p2 { fill: #4f8f4a; } .p3 { fill: #8a5fb0; } .p4 { fill: #b8506b; }
.p5 { fill: #8c8c8c; } .p6 { fill: #3d5a99; }
"""


def draw(result: Mapping[str, Any]) -> str:
    """An SVG file that stands by itself and follows the reader's light or dark theme.

    Args:
        result: what ``cvgl-bench --json`` writes.
    """
    rows = list(_rows(result))
    axis = _Axis([value for _, _, spent, limit in rows for value in (spent["p5"], spent["p99"], limit.get("limit_ms"))])
    y = 92.0
    parts = _heading(result)
    top = y
    for index, (name, css, spent, limit) in enumerate(rows):
        height = _THIN if css == "two" else _THICK
        parts += _row(axis, name, css, spent, limit, y, height)
        # A sequence's row without a name belongs to the one above.
        paired = index + 1 < len(rows) and not rows[index + 1][0]
        y += height + (5 if paired else 15)
    for value in axis.decades():
        x = axis.x(value)
        parts.insert(0, element("line", css="grid", x1=x, y1=top - 12, x2=x, y2=y))
        parts.append(_text(x, y + 16, f"{value:g}", "soft", "middle"))
    parts.append(_text((_LEFT + _RIGHT) / 2, y + 34, "milliseconds", "soft", "middle"))
    y += 62
    parts += _key("track" in result, y)
    y += 34
    for title, start in (("cold start", result["cold_start"]), ("files from disk", result.get("cold_start_from_disk"))):
        if start is not None:
            parts += _start(title, start, max(_total(result), 1.0), y)
            y += 40
    parts += _start_key(y)
    size = f"0 0 {_WIDTH:.0f} {y + 26:.0f}"
    label = "Time of every stage of a frame, its limit, and the parts of a cold start"
    body = element("style", Markup(_STYLE))
    # The style is the code's own; everything else is escaped where it is made.
    svg = element("svg", body, *parts, xmlns="http://www.w3.org/2000/svg", viewBox=size, role="img", aria_label=label)
    return str(svg) + "\n"


class _Axis:
    """A logarithmic axis of whole decades around some values; what is not positive lies at its start."""

    def __init__(self, values: list[float | None]) -> None:
        usable = [value for value in values if value is not None and value >= _SMALLEST_MS]
        self._low = math.floor(math.log10(min(usable, default=1.0)))
        self._high = max(math.ceil(math.log10(max(usable, default=10.0))), self._low + 1)

    def x(self, value: float) -> float:
        share = (math.log10(max(value, 10.0**self._low)) - self._low) / (self._high - self._low)
        return _LEFT + share * (_RIGHT - _LEFT)

    def decades(self) -> list[float]:
        return [10.0**power for power in range(self._low, self._high + 1)]


def _rows(result: Mapping[str, Any]) -> Iterator[tuple[str, str, dict[str, float], dict[str, Any]]]:
    """Name, class, figures and limit of every row."""
    limits, track = result["limit"]["stages"], result.get("track")
    for stage, spent in result["stages_ms"].items():
        yield stage, "one", spent, limits.get(stage, {})
        if track is not None and stage in track["stages_ms"]:
            yield "", "two", track["stages_ms"][stage], {}
    if track is not None:
        for stage in track["stages_ms"].keys() - result["stages_ms"].keys():
            yield stage, "two", track["stages_ms"][stage], {}
    yield "locate", "one", result["locate_ms"], {}
    if track is not None:
        yield "", "two", track["locate_ms"], {}
    yield "decode", "one", result["decode_ms"], {}


def _heading(result: Mapping[str, Any]) -> list[Markup]:
    about, ceiling = result["machine"], result["limit"]["ceiling"]
    load = "" if about["load_average"] is None else f", load average {about['load_average']} at the start"
    reached = f"at best {ceiling['gflops']:.0f} GFLOP/s and {ceiling['gb_s']:.0f} GB/s"
    return [
        _text(16, 28, f"{about['processor']}, {about['cores']} cores{load}", "head"),
        _text(16, 48, f"{result['engine']}; {result['frames']} frames, {result['answers']} answers; {reached}", "soft"),
        _text(_MEDIAN, 72, "median ms [95 %]", "soft", "middle"),
        _text(_SHARE, 72, "share", "soft", "end"),
        _text(_TIMES, 72, "times the limit", "soft", "end"),
    ]


def _row(
    axis: _Axis, name: str, css: str, spent: Mapping[str, float], limit: Mapping[str, Any], y: float, height: float
) -> list[Markup]:
    middle = y + height / 2
    at = {key: axis.x(spent[key]) for key in ("p5", "p25", "p50", "p75", "p95", "p99", "p50_low", "p50_high")}
    title = ", ".join(f"{key} {spent[key]:.3g} ms" for key in ("p5", "p25", "p50", "p75", "p95", "p99"))
    drawn = []
    if "limit_ms" in limit:
        x = axis.x(limit["limit_ms"])
        told = f"limit {limit['limit_ms']:.3g} ms: {limit['counted']}"
        drawn.append(element("line", css="gap", x1=x, y1=middle, x2=at["p5"], y2=middle))
        mark = path([(x, middle - 6), (x + 6, middle), (x, middle + 6), (x - 6, middle), (x, middle - 6)])
        drawn.append(element("path", css="limit", d=mark, title=told))
    sure = max(at["p50_high"] - at["p50_low"], 1.0)
    drawn += [
        element("line", css="reach", x1=at["p5"], y1=middle, x2=at["p95"], y2=middle),
        element("rect", css="half", x=at["p25"], y=y, width=max(at["p75"] - at["p25"], 1.0), height=height),
        element("rect", css="sure", x=at["p50_low"], y=y, width=sure, height=height),
        element("line", css="middle", x1=at["p50"], y1=y, x2=at["p50"], y2=y + height),
        element("circle", css="rare", cx=at["p99"], cy=middle, r=3.0),
    ]
    base = middle + 4.5
    texts = [
        _text(_LEFT - 12, base, name, anchor="end"),
        _text(_MEDIAN, base, f"{_ms(spent['p50'])}  [{_ms(spent['p50_low'])}, {_ms(spent['p50_high'])}]", "", "middle"),
    ]
    if "share" in spent:
        texts.append(_text(_SHARE, base, f"{spent['share']:.1%}", anchor="end"))
    if "times" in limit:
        texts.append(_text(_TIMES, base, f"{limit['times']:.3g} x ({limit['bound']})", "edge", "end"))
    return [element("g", *drawn, css=css, title=f"{name}: {title}"), *texts]


def _key(track: bool, y: float) -> list[Markup]:
    words = "line 5 to 95 %, box the middle half, dark band the median's 95 % interval, dot 99 %"
    parts = [_text(_LEFT, y, words, "soft"), _text(_LEFT + 590, y, "◆ the limit of this machine", "edge")]
    if track:
        words = "each pair: by itself, and below as one of a sequence with a prior"
        parts.append(_text(_LEFT, y + 18, words, "soft"))
    return parts


def _total(result: Mapping[str, Any]) -> float:
    starts = [start for start in (result["cold_start"], result.get("cold_start_from_disk")) if start is not None]
    return max(float(start["total_ms"]) for start in starts)


def _start(title: str, start: Mapping[str, Any], longest: float, y: float) -> list[Markup]:
    """A bar of a cold start's parts."""
    scale = (_TIMES - 80 - _LEFT) / longest
    parts, x = [_text(_LEFT - 12, y + 17, title, anchor="end")], _LEFT
    for index, name in enumerate(PARTS):
        width = start[name] * scale
        words = f"{_part(name)}: {start[name]:.0f} ms"
        parts.append(element("rect", css=f"p{index}", x=x, y=y, width=width, height=26.0, title=words))
        x += width
    return [*parts, _text(x + 8, y + 17, f"{start['total_ms']:.0f} ms")]


def _start_key(y: float) -> list[Markup]:
    parts, x = [], _LEFT
    for index, name in enumerate(PARTS):
        parts.append(element("rect", css=f"p{index}", x=x, y=y, width=11.0, height=11.0))
        parts.append(_text(x + 16, y + 10, _part(name), "soft"))
        x += 40 + 7.2 * len(_part(name))
    return parts


def _part(name: str) -> str:
    return name.removesuffix("_ms").replace("_", " ")


def _ms(value: float) -> str:
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _text(x: float, y: float, text: str, css: str = "", anchor: str = "start") -> Markup:
    return element("text", text, css=css, x=x, y=y, text_anchor=anchor)
