"""The integrity benchmark for people: a page and a figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cvgl.sim.closed.statistics import clopper_pearson

__all__ = ["as_markdown", "draw"]

_WAYS = {
    "own": "over its own map",
    "hidden": "its place hidden",
    "elsewhere": "over the map of another place of its style",
    "foreign": "over all maps, of a place on none",
}
_STAGES = {
    "not proposed": "no window that retrieval proposes shows its place",
    "not registered": "one does, but its peak is not among those that are studied",
    "not the likeliest": "it is registered, and another place is likelier",
    "not believed": "it is the likeliest, and not believed",
}


def as_markdown(result: Mapping[str, Any]) -> str:
    """The page of a result."""
    found, about = result["simulated"], result["machine"]
    lines = [
        "# Integrity: what a fix says of itself, held against the truth",
        "",
        f"{result['date'][:10]}, commit {result['commit']}, {about['processor']}, {about['cores']} cores.",
        f"{result['options']['frames']} frames rendered of places ({', '.join(result['options']['styles'])}),"
        f" seed {result['options']['seed']}, each localised on its own map, with its place hidden, and one like it on"
        " another place's map. Intervals are 95 %, exact (Clopper, Pearson)."
        + (f" {found['frames']['foreign']} further looks at places that are on no map." if _foreign(found) else ""),
        "",
        *_answers(found),
        *_lost(result["lost"]),
        *_roc(found),
        *_reliability(found),
        *_consistency(result),
        *_protection(found),
    ]
    if result["real"]:
        lines += _real(result["real"])
    return "\n".join(lines).rstrip() + "\n"


def draw(rows: Sequence[Mapping[str, Any]], real: Sequence[Mapping[str, Any]], result: Any, file: Path) -> None:
    """ROC over the odds of the likeliest place, with the decision's point in it, and reliability, as SVG.

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
        own = np.array([_odds(r) if r["right"] else -np.inf for r in sample if r["kind"] == "own"])
        off = np.array([_odds(r) for r in sample if r["kind"] != "own"])
        if not (own.size and off.size):
            continue
        levels = np.unique(np.concatenate([own, off, [np.inf]]))
        levels = levels[np.isfinite(levels)]
        # Shares below one frame cannot be drawn: half a frame stands for none.
        false = np.array([max(np.mean(off >= level), 0.5 / off.size) for level in levels])
        true = np.array([np.mean(own >= level) for level in levels])
        label = f"{words}: {own.size} on, {off.size} off the map"
        left.step(false, true, where="post", color=colour, label=label)
        fixes = sum(r["status"] != "no_fix" for r in sample if r["kind"] != "own")
        taken = sum(r["right"] and r["status"] != "no_fix" for r in sample if r["kind"] == "own")
        x, y = clopper_pearson(fixes, off.size), clopper_pearson(taken, own.size)
        at = max(x.value, 0.5 / off.size)
        across = [[max(at - max(x.low, 1e-5), 0.0)], [max(x.high - at, 0.0)]]
        left.errorbar(at, y.value, xerr=across, yerr=[[y.value - y.low], [y.high - y.value]], fmt="o", color=colour)
    left.axvline(1e-3, color="#b8506b", linestyle=":", linewidth=1)
    left.axhline(0.95, color="#b8506b", linestyle=":", linewidth=1)
    left.set(
        xscale="log", xlabel="false fixes, share of frames off the map", ylabel="true fixes, share of frames on it"
    )
    left.set_title("the dot is the decision with its 95 % intervals; dotted: what is asked", fontsize=9)
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


def _odds(row: Mapping[str, Any]) -> float:
    """Of a frame's likeliest place; minus infinity where nothing was registered."""
    odds = row["log10_odds"]
    return -np.inf if odds is None else float(odds)


def _answers(found: Mapping[str, Any]) -> list[str]:
    rows = [
        (_WAYS[kind], found["frames"][kind], *(counts[s] for s in ("refined", "coarse", "no_fix")))
        for kind, counts in found["status"].items()
        if found["frames"][kind]
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


def _foreign(found: Mapping[str, Any]) -> bool:
    return found["frames"]["foreign"] > 0


def _lost(found: Mapping[str, Any]) -> list[str]:
    stages = [(_STAGES[name], count) for name, count in found["stages"].items()]
    return [
        "## Where true fixes are lost",
        "",
        *_table((f"of {found['of']} frames on the map", "lost"), stages),
        *_table(("reason", "lost"), list(found["reasons"].items())),
        *_table(("frames", "true fixes"), [(name, _share(told)) for name, told in found["by"].items()]),
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
