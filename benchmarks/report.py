"""Results of benchmarks/fengyuan.py as Markdown, for people."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any


def as_markdown(result: dict[str, Any]) -> str:
    """The whole result as a page."""
    about = result["machine"]
    memory = "" if about["memory_gb"] is None else f", {about['memory_gb']:g} GB"
    load = "" if about["load_average"] is None else f" Load average at the start: {about['load_average']:g}."
    machine = f"{about['processor']}, {about['cores']} cores{memory}"
    took = ", ".join(f"{name} {seconds:.0f} s" for name, seconds in result["prepare_s"].items() if seconds)
    prepared = f" cvgl-prepare took: {took}." if took else ""
    lines = [
        "# Fengyuan: from a satellite map to position fixes on a real flight",
        "",
        f"{result['date'][:10]}, commit {result['commit']}, {machine}.{load}",
        f"{_adaptation(result['missions']['adapted'])} Seed {result['missions']['adapted']['seed']}.{prepared}",
        "Made by `python benchmarks/fengyuan.py`; versions and everything else are in the JSON file beside this one.",
        "",
        *_table(
            ("asked of the adapted mission", "asked", "found", "met"),
            ((t["what"], t["asked"], _number(t["found"]), "yes" if t["met"] else "**no**") for t in result["targets"]),
        ),
        "## The flight over its own map",
        "",
        "Every frame by itself (`cvgl-locate --independent`). Errors are those of the image's middle on the ground,",
        "over the refined fixes of frames with a reference (good to 1 to 2 m). The last column is how far the",
        "aircraft is placed from its GNSS (p50 / p95): the camera's lean is not recorded, and one degree makes 2 m.",
        "",
        *_flights(result["flights"]),
        "## Retrieval alone",
        "",
        "Share of the frames with a reference that have a tile within 25 m of it among the first K.",
        "",
        *_table(
            ("", "tiles", "R@1", "R@5", "R@20"),
            (
                (name, found["tiles"], *(_percent(found[f"r_at_{k}"]) for k in (1, 5, 20)))
                for name, found in ((name, flight["retrieval"]) for name, flight in result["flights"].items())
            ),
        ),
        "## Other places against this map",
        "",
        *_foreign(result["foreign"]),
        "## Time of one frame",
        "",
        "Milliseconds of `locate()`, the picture decoded already (`cvgl-bench`).",
        "",
        *_timing(result["flights"]),
        *_frames(result["flights"]),
    ]
    return "\n".join(lines).rstrip() + "\n"


def _adaptation(mission: dict[str, Any]) -> str:
    how = mission["adaptation"]
    if how is None:
        return "**The mission that stands for the adapted one was made without adaptation.**"
    return f"Adapted for {how['seconds'] / 60:.1f} minutes ({how['steps']} steps)."


def _flights(flights: dict[str, Any]) -> list[str]:
    return _table(
        (
            "",
            "frames",
            "refined",
            "coarse",
            "no fix",
            "within 10 m",
            "median m",
            "p95 m",
            "worst m",
            "> 25 m off",
            "aircraft m",
        ),
        (
            (
                name,
                f["frames"],
                f["refined"],
                f["coarse"],
                f["no_fix"],
                f"{_percent(f['refined_within_10m'])} of {f['with_reference']}",
                _number(f["median_m"]),
                _number(f["p95_m"]),
                _number(f["worst_m"]),
                len(f["refined_beyond_25m"]) + len(f["refined_beyond_gps_slack"]),
                " / ".join(_number(f["aircraft_to_gps_m"][name]) for name in ("p50", "p95")),
            )
            for name, f in flights.items()
        ),
    )


def _foreign(foreign: dict[str, Any]) -> list[str]:
    lines = _table(
        ("", "frames", "no fix", "coarse", "refined", "share of no fix", "not looked at"),
        (
            (
                name,
                f["frames"],
                f["no_fix"],
                f["coarse"],
                f["refined"],
                _percent(f["no_fix_share"]),
                f["of_another_shape"],
            )
            for name, f in foreign.items()
        ),
    )
    lines += ["Not looked at: pictures of another shape than their camera's. Cameras, from the photos' EXIF:", ""]
    lines += [f"- {name}: {found['camera']}" for name, found in foreign.items() if "unknown" not in name]
    return [*lines, ""]


def _timing(flights: dict[str, Any]) -> list[str]:
    timings = {name: flight["timing"] for name, flight in flights.items()}
    stages = list(dict.fromkeys(stage for timing in timings.values() for stage in timing["stages_ms"]))
    rows: list[Sequence[Any]] = [
        (stage, *(_spent(timing["stages_ms"].get(stage)) for timing in timings.values())) for stage in stages
    ]
    rows.append(("**locate()**", *(f"**{_spent(timing['locate_ms'])}**" for timing in timings.values())))
    rows.append(("decoding, beside it", *(_spent(timing["decode_ms"]) for timing in timings.values())))
    rows.append(("cold start to first answer", *(f"{t['cold_start']['total_ms']:.0f}" for t in timings.values())))
    memory = [timing["cold_start"]["peak_memory_mb"] for timing in timings.values()]
    rows.append(("peak memory by then, MB", *("" if m is None else f"{m:.0f}" for m in memory)))
    return _table(("p50 / p95 ms", *timings), rows)


def _frames(flights: dict[str, Any]) -> list[str]:
    lines = ["## Frames worth a look", ""]
    for name, flight in flights.items():
        lines += [f"### {name}", ""]
        for frame in flight["without_reference"]:
            told = frame["status"]
            if "center_to_gps_m" in frame:
                told += (
                    f", image centre {frame['center_to_gps_m']:g} m and aircraft {frame['aircraft_to_gps_m']:g} m"
                    " from the GNSS position"
                )
            lines.append(f"- {frame['file']}, without a reference: {told}")
        lines += [f"- {frame['file']}: {frame['error_m']:g} m off" for frame in flight["worst"]]
        lines += [f"- {file}: {why}" for file, why in flight["not_refined"].items()]
        lines.append("")
    return lines


def _table(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> list[str]:
    lines = [f"| {' | '.join(header)} |", f"|{'|'.join(['---'] + ['---:'] * (len(header) - 1))}|"]
    lines += [f"| {' | '.join(str(cell) for cell in row)} |" for row in rows]
    return [*lines, ""]


def _spent(spent: dict[str, float] | None) -> str:
    return "" if spent is None else f"{spent['p50']:.1f} / {spent['p95']:.1f}"


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.1f} %"


def _number(value: Any) -> str:
    return "" if value is None else f"{value:.3g}"
