"""Pictures made of pictures: what a query found, and what a model looks at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cvgl.errors import ModelError
from cvgl_train.data.base import CrossViewSet, DatasetError
from cvgl_train.evaluation.canvas import COLOURS, GREY, canvas, plain_axes
from cvgl_train.evaluation.metrics import distances_m
from cvgl_train.evaluation.ranks import rank_scores
from cvgl_train.models.base import CrossViewModel, View

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from torch import Tensor

__all__ = ["PanelRow", "Retrieved", "hsm_panel", "panel_rows", "retrieval_panel"]

Kind = Literal["true", "semi", "false"]

_FRAMES: dict[Kind, tuple[str, str]] = {"true": (COLOURS[2], "✓"), "semi": (GREY, "~"), "false": (COLOURS[5], "✗")}


@dataclass(frozen=True)
class Retrieved:
    """One reference that a query found.

    Args:
        image: (H, W, 3) uint8 RGB.
        place: in the list of all references by score, from 1.
        kind: whether it is a true reference, neither true nor false, or false.
        score: its similarity, greater is closer.
        distance_m: from the query, metres, where positions are known.
    """

    image: NDArray[np.uint8]
    place: int
    kind: Kind
    score: float
    distance_m: float | None = None


@dataclass(frozen=True)
class PanelRow:
    """A query and what it found.

    Args:
        name: of the query.
        query: (H, W, 3) uint8 RGB.
        found: the first few references, best first.
        true: the best true one where it is not among them.
    """

    name: str
    query: NDArray[np.uint8]
    found: Sequence[Retrieved]
    true: Retrieved | None = None


def panel_rows(data: CrossViewSet, queries: Sequence[int], scores: ArrayLike, *, first: int = 5) -> list[PanelRow]:
    """What some queries of a dataset found, for `retrieval_panel`; only the images shown are read.

    Args:
        queries: which, n indices; each has a true reference.
        scores: (n, R) similarity of each with every reference, greater is closer.
        first: references shown per query.

    Raises:
        DatasetError: scores of another shape, fewer than one reference wanted, a query without a true reference, or an
            image that cannot be read.
        ModelError: a score that is not finite.
    """
    scores = np.asarray(scores, np.float32)
    if scores.shape != (len(queries), len(data.references)):
        raise DatasetError(
            "does not fit", field="scores", found=scores.shape, expected=f"({len(queries)}, {len(data.references)})"
        )
    if first < 1:
        raise DatasetError("nothing to show", field="first", found=first, expected="1 or more")
    matches = [data.matches[query] for query in queries]
    semi = None if data.semi is None else [data.semi[query] for query in queries]
    ranks = rank_scores(scores, matches, semi, top=first)
    # The place in the list that is shown, in which those that are neither true nor false stand too.
    places = ranks.counting_semi().worst()
    rows = []
    for i, query in enumerate(queries):
        best = int(matches[i][np.argmax(scores[i, matches[i]])])
        listed = [(int(index), place) for place, index in enumerate(ranks.top[i], 1)]
        if not np.isin(ranks.top[i], matches[i]).any():
            listed.append((best, int(places[i])))
        distances = _distances(data, query, [index for index, _ in listed])
        found = [
            Retrieved(
                data.references[index].read(),
                place,
                "true" if index in matches[i] else "semi" if semi is not None and index in semi[i] else "false",
                float(scores[i, index]),
                distance,
            )
            for (index, place), distance in zip(listed, distances, strict=True)
        ]
        source, shown = data.queries[query], ranks.top.shape[1]
        rows.append(PanelRow(source.name, source.read(), found[:shown], found[shown] if len(found) > shown else None))
    return rows


def _distances(data: CrossViewSet, query: int, found: Sequence[int]) -> list[float | None]:
    """Metres from a query to some references; None where positions are not known."""
    if data.query_positions is None or data.reference_positions is None:
        return [None] * len(found)
    here = data.query_positions[query : query + 1]
    return list(distances_m(here, data.reference_positions, np.array([found]), data.frame)[0])


def retrieval_panel(rows: Sequence[PanelRow], path: str | Path) -> None:
    """Per query a row: its image, the references it found with place, score and distance, the true one at the end.

    True references are framed green with a tick, false ones red with a cross, those that are neither grey.

    Args:
        path: PNG or SVG by its suffix, written atomically.

    Raises:
        CvglError: no rows, or another suffix.
    """
    if not rows:
        raise DatasetError("nothing to show", field="rows", file=path)
    columns = max(len(row.found) for row in rows)
    ends = any(row.true is not None for row in rows)
    # A column is as wide as its widest picture at a height of one.
    shapes = [[_aspect(row.query) for row in rows]]
    shapes += [[_aspect(row.found[c].image) for row in rows if c < len(row.found)] for c in range(columns)]
    if ends:
        shapes.append([_aspect(row.true.image) for row in rows if row.true is not None])
    widths = [max(column) for column in shapes]
    inches = 1.3
    with canvas(path, inches * sum(widths) + 0.15 * len(widths), (inches + 0.42) * len(rows) + 0.3) as figure:
        axes = figure.subplots(len(rows), len(widths), squeeze=False, gridspec_kw={"width_ratios": widths})
        for axis in axes.flat:
            axis.set_axis_off()
        for row, line in zip(rows, axes, strict=True):
            _picture(line[0], row.query, _shortened(row.name, widths[0] * inches))
            for axis, found in zip(line[1:], row.found, strict=False):
                _framed(axis, found)
            if row.true is not None:
                _framed(line[-1], row.true)
        for axis, width in zip(axes[0], widths, strict=True):
            if not axis.images:
                # As high as a picture, so that what stands above is level.
                axis.set_box_aspect(1 / width)
        heads = ["query", "found, best first", *[""] * (columns - 1)]
        if ends:
            heads.append("best true one")
        for axis, head in zip(axes[0], heads, strict=True):
            axis.annotate(
                head, (0, 1), (0, 4), xycoords="axes fraction", textcoords="offset points", weight="bold", va="bottom"
            )


def _aspect(image: NDArray[np.uint8]) -> float:
    return image.shape[1] / image.shape[0]


def _shortened(name: str, inches: float) -> str:
    """As many of a name's last components as fit, which tell more than its first ones."""
    letters = max(8, int(inches * 15))
    if len(name) <= letters:
        return name
    parts = name.split("/")
    while len(parts) > 1:
        parts = parts[1:]
        if len("/".join(parts)) <= letters:
            return "/".join(parts)
    return "…" + name[1 - letters :]


def _picture(axis: Axes, image: NDArray[np.uint8], label: str) -> None:
    axis.set_axis_on()
    plain_axes(axis)
    axis.imshow(image)
    axis.set_xlabel(label, fontsize=8, labelpad=4)


def _framed(axis: Axes, found: Retrieved) -> None:
    colour, mark = _FRAMES[found.kind]
    distance = "" if found.distance_m is None else f"  {_metres(found.distance_m)}"
    _picture(axis, found.image, f"{mark} {found.place}.  {found.score:#.3g}{distance}")
    for spine in axis.spines.values():
        spine.set(visible=True, color=colour, linewidth=4 if found.kind == "true" else 2.5)


def _metres(distance: float) -> str:
    return f"{distance:.0f} m" if distance < 1000 else f"{distance / 1000:.3g} km"


def hsm_panel(model: CrossViewModel, images: Mapping[View, Tensor], path: str | Path) -> None:
    """What a model looks at: per image its heat and the regions made of it, both views side by side.

    Args:
        model: one whose `CrossViewModel.regions` gives something.
        images: per view (B, 3, H, W) normalised images; image i of both views belong together.
        path: PNG or SVG by its suffix, written atomically.

    Raises:
        ModelError: the model has no regions, or the images do not fit it.
        CvglError: another suffix.
    """
    import torch

    counts = {view: len(batch) for view, batch in images.items()}
    if len(set(counts.values())) != 1 or not all(counts.values()):
        raise ModelError("not as many images of one view as of the other", field="images", found=counts)
    training = model.training
    model.eval()
    try:
        shown = []
        for view, batch in images.items():
            model.check(batch, view)
            with torch.no_grad():
                found = model.regions(batch, view)
            if found is None:
                raise ModelError("has no regions to show", field="model", found=model.info.name)
            heat, regions = (value.detach().cpu().numpy() for value in found)
            shown.append((view, _pictures(model, batch, view), heat, regions))
    finally:
        model.train(training)
    aspects = [_aspect(pictures[0]) for _, pictures, _, _ in shown for _ in range(3)]
    rows = next(iter(counts.values()))
    inches = min(1.7, 15 / sum(aspects))
    numbers = sorted({int(n) for _, _, _, regions in shown for n in np.unique(regions) if n >= 0})
    with canvas(path, inches * sum(aspects) + 0.12 * len(aspects), (inches + 0.1) * rows + 0.7) as figure:
        axes = figure.subplots(rows, len(aspects), squeeze=False, gridspec_kw={"width_ratios": aspects})
        for block, (view, pictures, heat, regions) in enumerate(shown):
            first = axes[0, 3 * block : 3 * block + 3]
            for axis, title in zip(first, (view, "heat", "regions"), strict=True):
                axis.set_title(title, loc="left", weight="bold")
            for row in range(rows):
                plain, hot, split = axes[row, 3 * block : 3 * block + 3]
                height, width = pictures[row].shape[:2]
                for axis in (plain, hot, split):
                    plain_axes(axis)
                    axis.imshow(_faded(pictures[row]) if axis is not plain else pictures[row])
                    axis.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5))
                edges = (-0.5, width - 0.5, height - 0.5, -0.5)
                hot.imshow(heat[row], cmap="inferno", alpha=0.6, extent=edges, interpolation="bilinear")
                split.imshow(_tinted(regions[row], numbers), extent=edges, interpolation="nearest")
        columns = min(len(numbers), max(1, int(inches * sum(aspects) / 1.1)))
        figure.legend(handles=_legend(numbers), loc="outside lower center", ncols=columns)


def _pictures(model: CrossViewModel, images: Tensor, view: View) -> list[NDArray[np.uint8]]:
    """(H, W, 3) uint8 RGB of normalised images."""
    wanted = model.info.view(view)
    values = images.detach().cpu().float().permute(0, 2, 3, 1).numpy() * np.array(wanted.std) + np.array(wanted.mean)
    return list((255 * np.clip(values, 0, 1)).round().astype(np.uint8))


def _faded(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """In grey, so that the only colours are those laid over it."""
    grey = image.astype(np.float64) @ (0.299, 0.587, 0.114)
    return np.repeat(grey.round().astype(np.uint8)[..., None], 3, axis=2)


def _colours(numbers: Sequence[int]) -> NDArray[np.float64]:
    """(n, 3) RGB in 0..1, as many as there are regions."""
    import matplotlib
    from matplotlib.colors import to_rgb

    if len(numbers) < len(COLOURS):
        return np.array([to_rgb(colour) for colour in COLOURS[: len(numbers)]])
    return np.asarray(matplotlib.colormaps["viridis"](np.linspace(0, 1, len(numbers)))[:, :3], np.float64)


def _tinted(regions: NDArray[np.int64], numbers: Sequence[int]) -> NDArray[np.float64]:
    """(h, w, 4) RGBA of a map of regions; cells of none (below 0) are clear."""
    tints = np.zeros((*regions.shape, 4))
    for number, colour in zip(numbers, _colours(numbers), strict=True):
        tints[regions == number] = (*colour, 0.55)
    return tints


def _legend(numbers: Sequence[int]) -> list[object]:
    from matplotlib.patches import Patch

    return [
        Patch(facecolor=(*colour, 0.7), label=f"region {number}")
        for number, colour in zip(numbers, _colours(numbers), strict=True)
    ]
