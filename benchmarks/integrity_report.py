"""The integrity benchmark for people: a page and a figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["as_markdown", "draw"]

_WAYS = {"own": "over its own map", "hidden": "its place hidden", "elsewhere": "over another map"}


def as_markdown(result: Mapping[str, Any]) -> str:
    """The page of a result."""
    found, about = result["simulated"], result["machine"]
    lines = [
        "# Integrity: what a fix says of itself, held against the truth",
        "",
        f"{result['date'][:10]}, commit {result['commit']}, {about['processor']}, {about['cores']} cores.",
        f"{result['options']['frames']} frames rendered of places ({', '.join(result['options']['styles'])}),"
        f" seed {result['options']['seed']}, each localised on its own map, with its place hidden, and one like it on"
        " another place's map. Intervals are 95 %, exact (Clopper, Pearson).",
        "",
        *_answers(found),
        *_roc(found),
        *_reliability(found),
        *_consistency(result),
        *_protection(found),
    ]
    if result["real"]:
        lines += _real(result["real"])
    return "\n".join(lines).rstrip() + "\n"


def draw(rows: Sequence[Mapping[str, Any]], real: Sequence[Mapping[str, Any]], result: Any, file: Path) -> None:
    """ROC over the probability and reliability, as SVG; real photos are marked in it.

    Args:
        rows, real: answers for rendered frames and for photos.
        result: what was made of them.
        file: to write.
    """
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "cvgl"
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(10.5, 4.4), layout="constrained")
    for sample, words, colour in ((rows, "rendered frames", "#0b6e8f"), (real, "real photos", "#c77700")):
        own = np.array([r["probability"] if r["right"] else -1.0 for r in sample if r["kind"] == "own"])
        off = np.array([r["probability"] for r in sample if r["kind"] != "own"])
        if not (own.size and off.size):
            continue
        levels = np.unique(np.concatenate([own, off, [1.0]]))
        # Shares below one frame cannot be drawn: half a frame stands for none.
        false = np.array([max(np.mean(off >= level), 0.5 / off.size) for level in levels])
        true = np.array([np.mean(own >= level) for level in levels])
        label = f"{words}: {own.size} on, {off.size} off the map"
        left.step(false, true, where="post", color=colour, label=label)
        fixes = [r["status"] != "no_fix" for r in sample if r["kind"] != "own"]
        taken = [r["right"] and r["status"] != "no_fix" for r in sample if r["kind"] == "own"]
        left.plot(max(np.mean(fixes), 0.5 / off.size), np.mean(taken), "o", color=colour)
    left.axvline(1e-3, color="#b8506b", linestyle=":", linewidth=1)
    left.axhline(0.95, color="#b8506b", linestyle=":", linewidth=1)
    left.set(
        xscale="log", xlabel="false fixes, share of frames off the map", ylabel="true fixes, share of frames on it"
    )
    left.set_title("the dot is the decision; dotted: what is asked", fontsize=10)
    left.legend(frameon=False, fontsize=8, loc="lower right")
    bins = [entry for entry in result["simulated"]["reliability"] if entry["said"] is not None]
    right.plot([0, 1], [0, 1], color="#8c8c8c", linewidth=1)
    right.plot([e["said"] for e in bins], [e["right"] for e in bins], "o-", color="#0b6e8f")
    for entry in bins:
        right.annotate(f"{entry['own']}+{entry['off']}", (entry["said"], entry["right"]), fontsize=7)
    right.set(xlabel="probability said", ylabel="share of places that are right")
    right.set_title("reliability; frames on + off the map, weighted alike", fontsize=10)
    for axes in (left, right):
        axes.grid(alpha=0.25)
    figure.savefig(file, format="svg", metadata={"Date": None})
    pyplot.close(figure)


def _answers(found: Mapping[str, Any]) -> list[str]:
    rows = [
        (_WAYS[kind], found["frames"][kind], *(counts[s] for s in ("refined", "coarse", "no_fix")))
        for kind, counts in found["status"].items()
    ]
    return [
        "## Answers",
        "",
        *_table(("a frame", "frames", "refined", "coarse", "no fix"), rows),
        f"True fixes (the image's middle within 25 m): {_share(found['true_fixes'])}; fixes at wrong places of the map:"
        f" {_share(found['wrong_places'])}.",
        f"False fixes off the map: {_share(found['false_fixes']['all'])}.",
        "",
    ]


def _roc(found: Mapping[str, Any]) -> list[str]:
    rows = [(f"{entry['probability']:g}", _share(entry["true"]), _share(entry["false"])) for entry in found["roc"]]
    header = ("probability at least", "true, of frames on the map", "false, of frames off it")
    return ["## By probability", "", *_table(header, rows)]


def _reliability(found: Mapping[str, Any]) -> list[str]:
    rows = [
        (f"{e['from']:g} to {e['to']:g}", e["own"], e["off"], _number(e["said"], 4), _number(e["right"], 4))
        for e in found["reliability"]
    ]
    header = ("probability", "on the map", "off it", "said, mean", "right")
    return ["## Reliability", "", "Frames on and off the map weigh alike.", "", *_table(header, rows)]


def _consistency(result: Mapping[str, Any]) -> list[str]:
    rows = [
        (style, what, *_nees(found["nees"][what]))
        for style, found in (("all", result["simulated"]), *result["by_style"].items())
        for what in ("center", "aircraft")
    ]
    rows += [("all, coarse", what, *_nees(result["simulated"]["nees_coarse"][what])) for what in ("center", "aircraft")]
    header = ("", "of", "fixes", "NEES / 2", "95 %", "median's", "inside 95 %")
    return [
        "## Covariance",
        "",
        "Of fixes at right places; the map's own sigma is left out, since these maps have no error.",
        "",
        *_table(header, rows),
    ]


def _protection(found: Mapping[str, Any]) -> list[str]:
    told, radius = found["protection"], found["protection"]["radius_m"]
    size = "" if radius is None else f" Radius: median {radius['p50']:.1f} m, 99 % within {radius['p99']:.1f} m."
    return [
        "## Protection radius",
        "",
        f"Fixes that have one: {_share(told['with_radius'])}; aircraft outside it: {_share(told['exceeded'])}.{size}",
        "",
    ]


def _real(found: Mapping[str, Any]) -> list[str]:
    rows = [(name, e["frames"], e["fixes"], f"{e['likeliest']:.4f}") for name, e in found["flights"].items()]
    return [
        "## Real photos",
        "",
        *_table(("flight", "frames", "fixes", "largest probability"), rows),
        f"Fixes that have a protection radius: {_share(found['protection']['with_radius'])}; GNSS outside it:"
        f" {_share(found['protection']['exceeded'])}.",
        "",
        *_table(
            ("NEES / 2 of", "fixes", "ratio", "95 %", "median's", "inside 95 %"),
            [
                ("the image's middle, against its reference", *_nees(found["center_referenced"])),
                ("the aircraft, against its GNSS", *_nees(found["nees"]["aircraft"])),
            ],
        ),
        "The reference is itself good to 1 to 2 m, and GNSS to about 2.5 m; neither is taken off.",
        "",
    ]


def _nees(found: Mapping[str, Any]) -> tuple[Any, ...]:
    if not found["count"]:
        return 0, "", "", "", ""
    within = f"{100 * found['within_95_percent']:.1f} %"
    interval = f"{found['low']:.2f} to {found['high']:.2f}"
    return found["count"], f"{found['ratio']:.2f}", interval, f"{found['median_ratio']:.2f}", within


def _share(found: Mapping[str, Any]) -> str:
    if found["value"] is None:
        return "–"
    low, high = found["low"] or 0.0, found["high"]
    return f"{found['count']} of {found['of']} ({100 * found['value']:.2f} %; {100 * low:.2f} to {100 * high:.2f} %)"


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def _table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[str]:
    lines = [f"| {' | '.join(header)} |", f"|{'|'.join(['---'] + ['---:'] * (len(header) - 1))}|"]
    return [*lines, *(f"| {' | '.join(str(cell) for cell in row)} |" for row in rows), ""]
