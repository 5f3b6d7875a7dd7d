"""Results of benchmarks/navigation.py as Markdown and as figures, for people."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["as_markdown", "draw"]

_INTRO = {
    "fengyuan": (
        "## The real flight",
        "Fengyuan against its own map. Errors of the image's middle over the refined fixes with a reference (good to",
        "1 to 2 m); the aircraft against its GNSS.",
    ),
    "calibration": (
        "## Calibration from the EXIF's focal length",
        "`cvgl-camera calibrate`, begun 18 % off. Aircraft against GNSS: each half of the frames judged by the fit to",
        "the other half.",
    ),
    "consistency": (
        "## Consistency",
        "Flights in closed loop; sensors and map err by the mission's sigmas, and as long as `cvgl.lasting` says;",
        "so does the filter reckon. NEES over its expectation is 1 where covariances are true; intervals are 95 %, by",
        "batch means over flights. Nothing is fitted to the departures, in which errors last otherwise.",
    ),
    "kidnap": (
        "## Started anywhere",
        "Each flight begins lost, anywhere on the map, and is displaced to anywhere half way through; nobody tells it.",
    ),
    "losses": (
        "## What each thing costs",
        "The same routes and the same seeds, one thing changed at a time. `off-map` leaves the map again and again;",
        "beyond its edge lies its mirror image. Single frames off the map, photos of other places and the ROC:",
        "`benchmarks/integrity.py`.",
    ),
    "baselines": (
        "## Baselines on the same frames",
        "`track` is the tracker, `single` our answer to every frame by itself. Peers answer every frame; what has no",
        "covariance has no NEES. `ekf` takes every frame's best place as a measurement and rejects nothing.",
    ),
}
_SCORE_HEADER = (
    "",
    "frames",
    "position",
    "refined",
    "median m",
    "95 % m",
    "wrong place",
    "beyond 6 sigma",
    "NEES / 2 (95 %)",
    "protection exceeded",
    "diverged flights",
    "within 10 frames",
)


def as_markdown(result: Mapping[str, Any], figures: Mapping[str, str]) -> str:
    """The whole result as a page.

    Args:
        result: of the benchmark.
        figures: names of the figures' files, beside the page, by what they show.
    """
    about = result["machine"]
    lines = [
        "# Navigation",
        "",
        f"{about['processor']}, {about['cores']} cores. Made by `python benchmarks/navigation.py`; every digit is in",
        "the JSON file beside this page. Simulated flights are flown by the package's own simulator (`cvgl-sim`).",
        "",
        *_table(
            ("asked", "found", "wanted", "met"),
            ((t["what"], _number(t["found"]), t["asked"], "yes" if t["met"] else "**no**") for t in result["targets"]),
        ),
    ]
    for name, section in result["sections"].items():
        title, *words = _INTRO[name]
        lines += [title, "", *words, ""]
        when = f"{section['date'][:10]}, commit {section['commit']}, seed {section['seed']}"
        lines += [f"{when}, {section['seconds']:.0f} s.", "", *_BODY[name](section)]
        if name in figures:
            lines += [f"![{title.lstrip('# ')}]({figures[name]})", ""]
    return "\n".join(lines).rstrip() + "\n"


def draw(sections: Mapping[str, Any], files: Mapping[str, Path] | None) -> list[str]:
    """Draw the figures asked for; with None, tell which there are to draw.

    Args:
        sections: of the result.
        files: where each goes, SVG.
    """
    there = [name for name in _FIGURES if name in sections]
    if files is None:
        return there
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "cvgl"
    from matplotlib import pyplot

    for name, file in files.items():
        figure, axes = pyplot.subplots(figsize=(7.2, 4.0), layout="constrained")
        _FIGURES[name](axes, sections[name])
        figure.savefig(file, format="svg", metadata={"Date": None})
        pyplot.close(figure)
    return list(files)


def _draw_consistency(axes: Any, section: Mapping[str, Any]) -> None:
    edges, shares = (np.array(section["nees_histogram"][key]) for key in ("edges", "shares"))
    axes.bar(edges[:-1], shares, width=np.diff(edges), align="edge", color="#9ac6d8", label="found")
    expected = np.exp(-edges[:-1] / 2) - np.exp(-edges[1:] / 2)
    expected[-1] = np.exp(-edges[-2] / 2)
    axes.stairs(expected, edges, color="#0b6e8f", linewidth=2, label="chi-square with two degrees of freedom")
    axes.set(xlabel="normalised estimation error squared (the last bar: more)", ylabel="share of the answers")
    axes.legend()


def _draw_kidnap(axes: Any, section: Mapping[str, Any]) -> None:
    length = section["frames_a_run"]
    for (name, found), colour in zip(section["runs"].items(), ("#0b6e8f", "#c77700"), strict=False):
        for (kind, told), line in zip(found["frames_to_recover"].items(), ("-", "--"), strict=False):
            counts = np.array([np.inf if count is None else count for count in told], float)
            grid = np.arange(1, length + 1)
            share = [float(np.mean(counts <= frame)) for frame in grid]
            label = f"{kind}, {name}, {len(counts)} runs"
            axes.step(grid, share, where="post", color=colour, linestyle=line, label=label)
    axes.axhline(0.95, color="#8c8c8c", linestyle=":")
    axes.axvline(10, color="#8c8c8c", linestyle=":")
    axes.set(xlabel="frames since the start", ylabel="share of the runs localised", ylim=(0, 1.02))
    axes.legend(loc="lower right")


def _draw_losses(axes: Any, section: Mapping[str, Any]) -> None:
    names = list(section["scenarios"])
    shares = [section["scenarios"][name]["availability"]["refined"] for name in names]
    values = np.array([0.0 if share["value"] is None else share["value"] for share in shares])
    position = [section["scenarios"][name]["availability"]["position"]["value"] or 0.0 for name in names]
    at = np.arange(len(names))
    axes.barh(at, position, color="#cfe3ea", label="position")
    axes.barh(at, values, height=0.5, color="#0b6e8f", label="refined")
    axes.set_yticks(at, names)
    axes.invert_yaxis()
    axes.set(xlabel="share of the frames over the map", xlim=(0, 1))
    axes.legend(loc="lower left")


_FIGURES: dict[str, Callable[[Any, Mapping[str, Any]], None]] = {
    "consistency": _draw_consistency,
    "kidnap": _draw_kidnap,
    "losses": _draw_losses,
}


def _fengyuan(section: Mapping[str, Any]) -> list[str]:
    header = (
        *("", "frames", "refined", "coarse", "no fix", "within 10 m", "median m", "95 % m", "> 25 m"),
        *("aircraft to GNSS m (p50 / p95)", "NEES / 2 middle, aircraft", "available after three"),
    )
    rows = []
    for name in ("independent", "sequence"):
        one = section[name]
        ratios = (one["consistency"][kind]["mean_nees"] for kind in ("center", "aircraft"))
        rows.append(
            (
                name,
                *(one[key] for key in ("frames", "refined", "coarse", "no_fix")),
                _percent(one["refined_within_10m"]),
                _number(one["median_m"]),
                _number(one["p95_m"]),
                len(one["refined_beyond_25m"]),
                " / ".join(_number(one["aircraft_to_gps_m"][key]) for key in ("p50", "p95")),
                ", ".join("–" if ratio is None else f"{ratio / 2:.2f}" for ratio in ratios),
                _percent(one["available_after_three"]),
            )
        )
    alone = ", ".join(
        f"{row['file']} {row['status']}"
        + (f" ({row['aircraft_to_gps_m']:g} m from GNSS)" if "aircraft_to_gps_m" in row else "")
        for row in section["independent"]["without_reference"]
    )
    lines = [*_table(header, rows), f"Frames without a reference: {alone}.", ""]
    if (on_map := section["independent"].get("on_map")) is not None:
        ratios = ", ".join(f"{_number(on_map['ratio'][key])} if to {key} m" for key in ("1", "2"))
        lines += [
            "The reference of the image's middle was found on the same map, so what the map has wrong does not show in",
            f"it. Without the map's part our sigma is {_number(on_map['own_sigma_m'])} m on each axis (median) and the",
            f"RMS difference {_number(on_map['error_m'])} m. NEES over its expectation, by how good the reference",
            f"is (RMS distance): {ratios}; {_number(on_map['ratio']['0'])} if it had no error.",
            "",
        ]
    return lines


def _calibration(section: Mapping[str, Any]) -> list[str]:
    rows = []
    for name, part in section["parts"].items():
        estimates, errors = part["estimates"], part["aircraft_error_m"]
        rows.append(
            (
                name,
                f"{part['sights']} of {part['frames']}",
                _estimate(estimates.get("focal_length"), 0),
                f"{100 * part['focal_error']:+.1f} %",
                _estimate(estimates.get("mount_pitch"), 2),
                _estimate(estimates.get("mount_roll"), 2),
                f"{errors['before']['p50']:.1f} / {errors['before']['p95']:.1f}",
                f"{errors['after_held_out']['p50']:.1f} / {errors['after_held_out']['p95']:.1f}",
            )
        )
    header = (
        *("", "fixes used", "focal length px", "off", "mount pitch °", "mount roll °"),
        *("to GNSS before, m (p50 / p95)", "after"),
    )
    return _table(header, rows)


def _consistency(section: Mapping[str, Any]) -> list[str]:
    named = {**section["places"], "**all**": section["all"]}
    lines = _scores(named)
    header = ("NEES / 2", "answers", "refined", "coasting", "single frames")
    rows = (
        (name, *(_interval(one["consistency"][key]) for key in ("answers", "refined", "coasting", "measured")))
        for name, one in named.items()
    )
    lines += _table(header, rows)
    if departures := section.get("departures"):
        lines += ["Departures, over Fengyuan:", "", *_scores(departures)]
    radius = section["all"]["protection"]
    if radius is not None:
        over, batches = radius["exceeded"], radius["exceeded_by_batches"]
        lines += [
            f"Protection radius exceeded {over['count']} times in {over['of']} answers: {_share(over)}, by batch means"
            f" {_share(batches)}; stated {radius['stated_risk']:g}. {radius['unprotected']['count']} answers had none.",
            "",
        ]
    return lines


def _kidnap(section: Mapping[str, Any]) -> list[str]:
    rows = []
    for name, one in section["runs"].items():
        for kind, words in (("start", "started"), ("kidnap", "displaced")):
            found = one["recovery"][kind]
            spread = (found["frames"][key]["value"] for key in ("p50", "p90", "p95"))
            counts = ", ".join("never" if value is None else f"{value:g}" for value in spread)
            rows.append((f"{words}, {name}", found["runs"], _share(found["within_10_frames"]), counts, found["never"]))
    header = ("", "runs", "within 10 frames (95 %)", "frames p50, p90, p95", "never")
    return [f"{section['area_km2']:g} km2.", "", *_table(header, rows), *_scores(section["runs"])]


def _losses(section: Mapping[str, Any]) -> list[str]:
    return _scores(section["scenarios"])


def _baselines(section: Mapping[str, Any]) -> list[str]:
    lines = [f"Local features: {section['features']}.", ""]
    for name, methods in section["scenarios"].items():
        lines += [f"### {name}", "", *_scores(methods)]
    return lines


_BODY: dict[str, Callable[[Mapping[str, Any]], list[str]]] = {
    "fengyuan": _fengyuan,
    "calibration": _calibration,
    "consistency": _consistency,
    "kidnap": _kidnap,
    "losses": _losses,
    "baselines": _baselines,
}


def _scores(named: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """One row of figures for each score."""
    rows = []
    for name, one in named.items():
        false, radius, recovery = one["false_fixes"], one["protection"], one["recovery"]["all"]
        errors = one["error_m"]["all"]
        rows.append(
            (
                name,
                one["seen"],
                _percent(one["availability"]["position"]["value"]),
                _percent(one["availability"]["refined"]["value"]),
                _number(errors.get("p50")),
                _number(errors.get("p95")),
                false["wrong_place"]["count"],
                false["beyond_six_sigma"]["count"],
                _interval(one["consistency"]["answers"]),
                "–" if radius is None else _percent(radius["exceeded"]["value"], 3),
                f"{one['divergence']['flights']} of {one['flights']}",
                f"{_percent(recovery['within_10_frames']['value'])} of {recovery['runs']}" if recovery["runs"] else "–",
            )
        )
    return _table(_SCORE_HEADER, rows)


def _table(header: Sequence[Any], rows: Iterable[Sequence[Any]]) -> list[str]:
    lines = ["| " + " | ".join(map(str, header)) + " |", "| --- " + "| ---: " * (len(header) - 1) + "|"]
    return [*lines, *("| " + " | ".join(map(str, row)) + " |" for row in rows), ""]


def _number(value: Any) -> str:
    return "–" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def _percent(value: float | None, digits: int = 1) -> str:
    return "–" if value is None else f"{100 * value:.{digits}f} %"


def _interval(value: Mapping[str, Any]) -> str:
    if value["value"] is None:
        return "–"
    if value["low"] is None:
        return f"{value['value']:.2f}"
    return f"{value['value']:.2f} ({value['low']:.2f} to {value['high']:.2f})"


def _share(value: Mapping[str, Any]) -> str:
    if value["value"] is None:
        return "–"
    if value["low"] is None:
        return f"{100 * value['value']:.3g} %"
    return f"{100 * value['value']:.3g} % ({100 * max(value['low'], 0.0):.3g} to {100 * value['high']:.3g} %)"


def _estimate(value: Mapping[str, Any] | None, digits: int) -> str:
    if value is None:
        return "–"
    told = f"{value['value']:.{digits}f} ± {value['sigma']:.{digits}f}"
    return told if value["determined"] else f"{told} (not determined)"
