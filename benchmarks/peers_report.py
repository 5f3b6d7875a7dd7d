"""Results of benchmarks/peers.py as Markdown and as a figure, for people."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

__all__ = ["as_markdown", "draw_area"]

_HEADER = (
    "",
    "times ours",
    "of processor time",
    "p50 ms",
    "p95 ms",
    "answered",
    "within 10 m",
    "median m",
    "> 25 m off",
)
_AREA_LINES = {
    "lost": ("locate(), lost", "#0b6e4f", "o-"),
    "prior": ("locate() with a prior", "#5aa469", "s-"),
    "whole map, a third": ("whole-map correlation, a third of the detail", "#b5523b", "^--"),
    "whole map, all": ("whole-map correlation, all detail", "#7a1f1f", "v--"),
}


def as_markdown(result: dict[str, Any], figure: str) -> str:
    """The whole result as a page.

    Args:
        result: of the benchmark.
        figure: name of the figure's file, beside the page.
    """
    about, contests = result["machine"], result["contests"]
    libraries = ", ".join(f"{name} {number}" for name, number in result["versions"].items())
    load = f"{about['load_average']} at the start and {about['load_average_at_end']} at the end"
    seconds = result["seconds"]
    lines = [
        "# Ours and its peers on the same work" + (" (a quick impression)" if result["quick"] else ""),
        "",
        f"{result['date'][:10]}, commit {result['commit']}, {about['processor']}, {about['cores']} cores,"
        f" {result['threads']} threads each. Load average: {load}.",
        f"{libraries}.",
        f"Made by `python benchmarks/peers.py`: {seconds['missions']:.0f} s for the larger missions (little where they",
        f"stood), {seconds['measuring']:.0f} s of measurement. Every digit is in the JSON file beside this one.",
        "",
        "**Times ours** is how many times longer a peer's median call takes than ours; below 1 the peer is faster. In",
        "brackets the 95 % interval of a bootstrap over frames: in a contest all contestants do each frame in turn.",
        "Of processor time: the same ratio of the time that all cores together spent, which other programs hardly",
        "lengthen and threads do not shorten. All frames are decoded already.",
        "",
        "## Frame to place",
        "",
        "From the decoded frame to where its middle lies, heading known. Accuracy over the frames with a reference,",
        "which is good to 1 to 2 m. Ours refuses what it is not sure of, and a coarse fix counts as no answer here;",
        "correlation always answers. Peers search what they made of the map beforehand.",
        "",
        *_table(
            (*_HEADER, "map in memory MB"),
            (
                (name, *_placing(row), _plain(row.get("map_memory_mb")))
                for name, row in contests["frame"]["contestants"].items()
            ),
        ),
        "## The map's area",
        "",
        "Frames of the same flight, its real map in the middle of ever more procedural towns: 25 of a square",
        "kilometre, repeated; tiles, descriptors, index, basemap and laws of chance are those of the whole. Repeated",
        "tiles share the places among retrieval's 20 candidates, which makes the largest map harder. Times ours: to",
        "locate(), lost, on the smallest map. The prior is the aircraft's GNSS with a sigma of"
        f" {result['prior_sigma_m']:g} m.",
        "",
        f"![time against area]({figure})",
        "",
        *_area(result["area"]),
        "## Frame to descriptor",
        "",
        "The same network throughout. Cosine: of the descriptor to ours, mean. PyTorch runs with the weights that",
        "ship, which an adapted mission's are not: its time counts there, its descriptor does not.",
        "",
        *_contest(contests["embedding"], ("cosine_to_ours",)),
        "## Frame to the network's input",
        "",
        "The warp and the normalisation. Grey levels: root mean square difference to 256 samples a pixel.",
        "",
        *_contest(contests["warp"], ("rms_grey",)),
        "## Frame to the 20 most similar tiles",
        "",
        "Ours rectifies, embeds and searches; research code resizes the picture as it is.",
        "",
        *_contest(contests["retrieval"], ()),
        "## Search",
        "",
        "One query at a time, 20 tiles. Graphs have 16 links, effort 200 to build and 64 to search. Recall counts",
        "tiles as similar as the exact 20th. Memory: by how much the peak of its process grows. Load: to its first",
        "answer; ours verifies every file of the gallery, basemap included, and widens or loads what it searches.",
        "",
    ]
    for found in result["search"]:
        lines += [f"### {found['tiles']} tiles, {found['descriptors']}", ""]
        lines += _contest(found, ("recall", "memory_mb", "load_ms", "build_s"))
    if result["missing"]:
        lines += ["## Who did not take part", ""]
        lines += [f"- {name}: {reason}" for name, reason in result["missing"].items()]
    return "\n".join(lines).rstrip() + "\n"


def draw_area(area: Sequence[Mapping[str, Any]], file: Path, about: Mapping[str, Any]) -> None:
    """Median time against the map's area, both logarithmic, as SVG.

    Args:
        area: of the result.
        file: to write.
        about: the machine.
    """
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "cvgl"
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7.2, 4.4), layout="constrained")
    for name, (words, colour, style) in _AREA_LINES.items():
        points = [(row["area_km2"], row[name]["p50_ms"]) for row in area if name in row]
        if points:
            axes.plot(*zip(*points, strict=True), style, color=colour, label=words, markersize=5, linewidth=1.6)
    axes.set(xscale="log", yscale="log", xlabel="area of the map, km²", ylabel="a frame, ms (median)")
    axes.set_title(f"{about['processor']}, {about['cores']} cores", fontsize=10)
    axes.grid(which="both", alpha=0.25)
    axes.legend(frameon=False, fontsize=9)
    figure.savefig(file, format="svg", metadata={"Date": None})
    pyplot.close(figure)


def _area(area: Sequence[Mapping[str, Any]]) -> list[str]:
    lines = _table(
        ("km²", "tiles", *_HEADER),
        (
            (f"{row['area_km2']:.3g}", row["tiles"], words, *_placing(row[name]))
            for row in area
            for name, (words, _, _) in _AREA_LINES.items()
            if name in row
        ),
    )
    largest = area[-1]
    if "whole map, a third" in largest:
        times = largest["whole map, a third"]["p50_ms"] / largest["lost"]["p50_ms"]
        lines += [
            f"On {largest['area_km2']:.3g} km² whole-map correlation takes {times:.3g} times as long as ours.",
            "",
        ]
    return lines


def _contest(contest: Mapping[str, Any], fields: Sequence[str]) -> list[str]:
    return _table(
        ("", "times ours", "of processor time", "p50 ms", "p95 ms", *(field.replace("_", " ") for field in fields)),
        (
            (name, *_ratios(row), *_times(row), *(_plain(row.get(field)) for field in fields))
            for name, row in contest["contestants"].items()
        ),
    )


def _table(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> list[str]:
    lines = [f"| {' | '.join(header)} |", f"|{'|'.join(['---'] + ['---:'] * (len(header) - 1))}|"]
    lines += [f"| {' | '.join(str(cell) for cell in row)} |" for row in rows]
    return [*lines, ""]


def _ratios(row: Mapping[str, Any]) -> tuple[str, str]:
    """By the wall, and of processor time."""
    if all(row["ratio"][name] == 1 for name in ("value", "low", "high")):
        return "1", "1"
    wall, busy = (
        f"{_plain(found['value'])} ({_plain(found['low'])} to {_plain(found['high'])})"
        for found in (row["ratio"], row["processor_ratio"])
    )
    return f"**{wall.replace(' ', '** ', 1)}", busy


def _times(row: Mapping[str, Any]) -> tuple[str, str]:
    return _plain(row["p50_ms"]), _plain(row["p95_ms"])


def _placing(row: Mapping[str, Any]) -> tuple[Any, ...]:
    """Cells under ``_HEADER`` but for the first."""
    answered = f"{row['answered']} of {row['referenced']}"
    accuracy = (_percent(row["within_10m"]), _plain(row["median_m"]), row["beyond_25m"])
    return *_ratios(row), *_times(row), answered, *accuracy


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.1f} %"


def _plain(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
