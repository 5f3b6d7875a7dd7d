"""Charts: how far down the true references lie, where descriptors lie, how training went."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cvgl.errors import CvglError
from cvgl_train.evaluation.canvas import COLOURS, GREY, canvas

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["descriptor_pca", "pssr_histogram", "training_curve"]

PERCENTILES = (5, 25, 50)
"""Of the queries from the worst one: what they reach at least."""


def pssr_histogram(per_query: ArrayLike, path: str | Path, *, r_at_1: float | None = None) -> None:
    """How much of the search space each query cuts off: the distribution, and its tail on a logarithmic scale.

    Args:
        per_query: (Q,) share of the references that each query leaves behind (PSSR), 0..1.
        path: PNG or SVG by its suffix, written atomically.
        r_at_1: share of queries whose true reference comes first, 0..1, where known: it cannot be told from the
            values alone.

    Raises:
        CvglError: no values or values outside 0..1, or another suffix.
    """
    values = np.asarray(per_query, np.float64).ravel()
    if not len(values) or not np.all((values >= 0) & (values <= 1)):
        raise CvglError("not shares of a search space", field="per_query", expected="at least one value, all in 0..1")
    with canvas(path, 9.0, 3.6) as figure:
        left, right = figure.subplots(1, 2)
        bins = np.linspace(0, 1, 41)
        left.hist(values, bins, weights=np.full(len(values), 100 / len(values)), color=COLOURS[0])
        left.axhline(100 / (len(bins) - 1), color=GREY, linestyle="--", linewidth=1)
        left.annotate(
            "chance", (0, 100 / (len(bins) - 1)), (2, 3), textcoords="offset points", color="#555555", fontsize=9
        )
        left.axvline(values.mean(), color=COLOURS[5], linewidth=1.5)
        left.set(xlim=(0, 1), xlabel="PSSR: share of the references left behind", ylabel="queries, %")
        told = [f"{len(values)} {'query' if len(values) == 1 else 'queries'}", f"mean {values.mean():.4f}"]
        told += [f"{p} % of queries below {np.percentile(values, p):.4f}" for p in PERCENTILES]
        if r_at_1 is not None:
            told.append(f"R@1 {100 * r_at_1:.1f} %")
        left.legend(
            handles=[_line(COLOURS[5], told[1]), *(_line("none", text) for text in (told[0], *told[2:]))],
            loc="upper left",
            handlelength=1.2,
        )
        _tail(right, values)


def _tail(axes: Axes, values: NDArray[np.float64]) -> None:
    """Share of queries that have at most a part of the references before their true one."""
    remaining = np.sort(1 - values)
    # Queries that leave everything behind stand at the left edge, which a logarithm cannot show.
    floor = 10.0 ** np.floor(np.log10(max(remaining[remaining > 0].min(initial=0.01), 1e-7)))
    x = np.concatenate([[floor], np.maximum(remaining, floor), [1.0]])
    y = np.concatenate([[0], np.arange(1, len(remaining) + 1), [len(remaining)]]) * 100 / len(remaining)
    axes.step(x, y, where="post", color=COLOURS[0], linewidth=1.8)
    grid = np.geomspace(floor, 1, 100)
    axes.plot(grid, 100 * grid, color=GREY, linestyle="--", linewidth=1)
    axes.annotate("chance", (0.3, 30), (-6, 0), textcoords="offset points", color="#555555", fontsize=9, ha="right")
    axes.set(xscale="log", xlim=(floor, 1), ylim=(0, 102))
    axes.set(xlabel="1 − PSSR: share of the references at least as close", ylabel="queries within it, %")
    axes.grid(True)
    axes.set_axisbelow(True)


def _line(colour: str, label: str) -> object:
    from matplotlib.lines import Line2D

    return Line2D([], [], color=colour, linewidth=1.5, label=label)


def descriptor_pca(
    queries: ArrayLike,
    references: ArrayLike,
    matches: Sequence[NDArray[np.int64]],
    path: str | Path,
    *,
    limit: int = 150,
) -> None:
    """Descriptors of both views in the plane of their greatest variance, true pairs joined by lines.

    Args:
        queries, references: (Q, D), (R, D).
        matches: per query, the indices of its true references, as in `CrossViewSet`.
        path: PNG or SVG by its suffix, written atomically.
        limit: queries drawn, evenly spread over all; the plane is that of all descriptors.

    Raises:
        CvglError: descriptors that do not fit together, fewer than two of them, or another suffix.
    """
    from sklearn.decomposition import PCA  # type: ignore[import-untyped]

    queries, references = np.asarray(queries, np.float64), np.asarray(references, np.float64)
    fits = queries.ndim == references.ndim == 2 and queries.shape[1] == references.shape[1] > 1
    if not fits or not len(queries) or not len(references):
        raise CvglError(
            "do not fit together",
            field="descriptors",
            found=(queries.shape, references.shape),
            expected="(Q, D) and (R, D)",
        )
    if len(matches) != len(queries):
        raise CvglError("does not fit the queries", field="matches", found=len(matches), expected=str(len(queries)))
    pca = PCA(2, svd_solver="full" if queries.shape[1] < 512 else "randomized", random_state=0)
    both = np.concatenate([queries, references])
    # Descriptors that are all the same have no variance to explain.
    with np.errstate(invalid="ignore"):
        plane = pca.fit_transform(both)
    explained = np.nan_to_num(pca.explained_variance_ratio_)
    drawn = np.unique(np.linspace(0, len(queries) - 1, min(limit, len(queries))).round().astype(int))
    here, there = plane[: len(queries)], plane[len(queries) :]
    wanted = np.unique(np.concatenate([matches[q] for q in drawn])).astype(int)
    others = np.setdiff1d(np.arange(len(references)), wanted)
    with canvas(path, 6.4, 5.6) as figure:
        from matplotlib.collections import LineCollection

        axes = figure.subplots()
        axes.plot(*there[others].T, ".", color="#c8c8c8", markersize=4, zorder=1, rasterized=len(others) > 2000)
        lines = [(here[q], there[r]) for q in drawn for r in matches[q]]
        axes.add_collection(LineCollection(lines, colors=GREY, linewidths=0.8, alpha=0.7, zorder=2))
        axes.plot(*here[drawn].T, "o", color=COLOURS[0], markersize=5, markeredgecolor="white", markeredgewidth=0.5)
        axes.plot(*there[wanted].T, "s", color=COLOURS[1], markersize=5, markeredgecolor="white", markeredgewidth=0.5)
        shown = "" if len(drawn) == len(queries) else f" ({len(drawn)} of {len(queries)})"
        handles = [
            _marker("o", COLOURS[0], f"queries{shown}"),
            _marker("s", COLOURS[1], "their true references"),
            _line(GREY, "true pairs"),
        ]
        if len(others):
            handles.append(_marker(".", "#c8c8c8", "other references"))
        figure.legend(handles=handles, loc="outside upper center", ncols=len(handles), columnspacing=1.2)
        axes.set_aspect("equal", "datalim")
        for name, share, label in (("x", explained[0], "first"), ("y", explained[1], "second")):
            axes.set(**{f"{name}label": f"{label} principal axis ({100 * share:.1f} % of the variance)"})


def _marker(marker: str, colour: str, label: str) -> object:
    from matplotlib.lines import Line2D

    return Line2D([], [], marker=marker, color=colour, linestyle="none", label=label)


def training_curve(
    records: Mapping[str, Sequence[Mapping[str, float]]],
    path: str | Path,
    *,
    over: Literal["seconds", "step"] = "seconds",
    score: str = "R@1",
    chance: float | None = None,
) -> None:
    """Loss and a validation score of one run or of several, over time or steps.

    Args:
        records: per run its curve: dicts with "step", "seconds" and what was measured then, "loss" and the score among
            it; not each needs to have each.
        path: PNG or SVG by its suffix, written atomically.
        over: what runs to the right.
        score: name of the score.
        chance: what a model that knows nothing scores, in the score's unit; drawn as a dashed line.

    Raises:
        CvglError: no runs, a record without `over`, or another suffix.
    """
    if not records:
        raise CvglError("nothing to show", field="records", file=path)
    for run, curve in records.items():
        if any(over not in record for record in curve):
            raise CvglError("a record without it", field=over, found=run)
    latest = max((record[over] for curve in records.values() for record in curve), default=0)
    unit, scale = _unit(latest) if over == "seconds" else ("step", 1.0)
    looks: dict[str, dict[str, Any]] = {
        run: {
            "color": COLOURS[n % len(COLOURS)],
            "linestyle": ("-", "--", ":")[n // len(COLOURS) % 3],
            "linewidth": 1.8,
        }
        for n, run in enumerate(records)
    }
    columns = min(len(records), 4)
    with canvas(path, 9.0, 3.6 + 0.2 * ((len(records) - 1) // columns)) as figure:
        from matplotlib.lines import Line2D

        left, right = figure.subplots(1, 2, sharex=True)
        for axes, what in ((left, "loss"), (right, score)):
            for run, curve in records.items():
                points = [(record[over] / scale, record[what]) for record in curve if what in record]
                # A single measurement would have no line, and a few deserve to be seen as few.
                marker = "o" if len(points) <= 20 else ""
                axes.plot(*np.array(points).reshape(-1, 2).T, **looks[run], marker=marker, markersize=3.5)
            axes.set(xlabel="steps" if over == "step" else f"time, {unit}", ylabel=what)
            axes.set_xlim(0, 1.03 * latest / scale or 1)
            axes.grid(True)
            axes.set_axisbelow(True)
        if chance is not None:
            right.axhline(chance, color="#555555", linestyle="--", linewidth=1)
            right.annotate(
                "chance",
                (1, chance),
                (-2, 3),
                xycoords=("axes fraction", "data"),
                textcoords="offset points",
                color="#555555",
                fontsize=9,
                ha="right",
            )
        right.set_ylim(bottom=0)
        handles = [Line2D([], [], **looks[run], label=run) for run in records]
        figure.legend(handles=handles, loc="outside upper center", ncols=columns)


def _unit(seconds: float) -> tuple[str, float]:
    """A unit of time in which a duration is not a great number, and its seconds."""
    for unit, size in (("h", 3600.0), ("min", 60.0)):
        if seconds >= 3 * size:
            return unit, size
    return "s", 1.0
