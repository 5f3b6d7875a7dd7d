"""Whether two engines are the same model still: their descriptors of the same tiles, and what a search finds."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from cvgl.engines.onnxruntime import OnnxEngine
from cvgl.errors import ModelError
from cvgl_train.evaluation.metrics import pssr, recall_at
from cvgl_train.evaluation.ranks import Ranks, rank_descriptors
from cvgl_train.models.base import CrossViewModel, View

from .graphs.emulate import emulate
from .graphs.types import is_half
from .tiles import ParityTiles

__all__ = [
    "COLLAPSED",
    "TIE",
    "Descriptors",
    "Failure",
    "Latency",
    "NonFinite",
    "Parity",
    "Retrieval",
    "Thresholds",
    "compare",
    "describe",
    "judge",
    "latency",
    "onnx_descriptors",
    "onnx_latency",
    "onnx_runner",
    "processor",
    "torch_descriptors",
    "torch_latency",
]

Floats = NDArray[np.float32]
Metric = Literal["cosine", "euclidean"]
Progress = Callable[[int, int], None]
"""Called with the number of images done and the number in all."""
Run = Callable[[Floats], Floats]
"""(B, 3, H, W) normalised images to (B, D) descriptors."""

TIE = 1e-6
"""Two references whose similarities differ by no more than this are as close as each other: about ten times what the
order of summation changes in single precision. Of distances, as a share of their median."""

COLLAPSED = 0.01
"""Spread below which a model's descriptors of different tiles hardly differ."""

_VIEWS: tuple[View, View] = ("query", "reference")
_BATCH = 16
_ROWS = 512
_SPREAD_TILES = 512


# What is compared.


@dataclass(frozen=True, eq=False)
class Descriptors:
    """What one engine makes of the tiles.

    Args:
        query: (Q, D) of the queries.
        reference: (R, D) of the references.
        engine: what made them, for people.

    Raises:
        ModelError: other shapes.
    """

    query: Floats
    reference: Floats
    engine: str = ""

    def __post_init__(self) -> None:
        for name, value in (("query", self.query), ("reference", self.reference)):
            if value.ndim != 2 or value.shape[1] != self.query.shape[-1] or value.shape[1] == 0:
                raise ModelError(
                    "not descriptors", field=name, found=value.shape, expected=f"(N, {self.query.shape[-1]})"
                )

    def view(self, view: View) -> Floats:
        """Those of a view."""
        return self.query if view == "query" else self.reference


@dataclass(frozen=True)
class NonFinite:
    """Values of descriptors that are no numbers.

    Args:
        nan, inf: how many.
        first: the first tile that has one, such as "query 3"; None without any.
    """

    nan: int = 0
    inf: int = 0
    first: str | None = None

    @property
    def count(self) -> int:
        """Of both kinds."""
        return self.nan + self.inf


@dataclass(frozen=True)
class Retrieval:
    """What a search finds under both engines.

    Args:
        agreement: share of queries whose nearest reference is the same. A query also agrees where the candidate's
            nearest is, to the original engine, as close as its own nearest to within `TIE`: then either answer is the
            original's own. Ties that only the candidate has are not excused.
        exact_agreement: the same without that excuse; the lower number among exact ties is the nearest.
        tied: share of queries for which the original engine has two or more nearest references to within `TIE`.
        recall_before, recall_after: R@1, 0..1, ties broken by chance.
        chance: R@1 of a random order.
        pssr_before, pssr_after: mean of (R - k) / R, k the references as close as or closer than the true one.
        displacement: mean number of ranks by which the true reference moves, either way.
        largest_displacement: of any query.
    """

    agreement: float
    exact_agreement: float
    tied: float
    recall_before: float
    recall_after: float
    chance: float
    pssr_before: float
    pssr_after: float
    displacement: float
    largest_displacement: int

    @property
    def recall_change(self) -> float:
        """R@1 after less before."""
        return self.recall_after - self.recall_before

    @property
    def pssr_change(self) -> float:
        """PSSR after less before."""
        return self.pssr_after - self.pssr_before


@dataclass(frozen=True)
class Thresholds:
    """What an export has to reach; None is not judged. `of` has the defaults by precision.

    Args:
        cosine_median, cosine_minimum: between both engines' descriptors of a tile, over all tiles of both views.
        agreement: see `Retrieval`.
        recall_drop, pssr_drop: by how much R@1 and PSSR may fall.
        error: largest difference of any value.
        spread: see `Parity`. Below `COLLAPSED` a model gives much the same for every tile, and agreement with it proves
            little; to export it is the user's right all the same, so that by default this is said and not judged.
    """

    cosine_median: float | None = 0.9999
    cosine_minimum: float | None = 0.999
    agreement: float | None = 0.995
    recall_drop: float | None = 0.005
    pssr_drop: float | None = 0.001
    error: float | None = None
    spread: float | None = None

    @classmethod
    def of(cls, precision: str) -> Thresholds:
        """The defaults of a precision.

        fp32: cosine 0.99999 (median) and 0.9999 (least), agreement 99.5 %. fp16: 0.9999, 0.999, 99.5 %. bf16 has 8
        bits where fp16 has 11, which turns the nearest of two close tiles eight times as often: 0.999, 0.99, 95 %.
        int8: 0.99, 0.95, 98 %. R@1 may fall by 0.5 points (fp32, fp16) or 2 points (bf16, int8), PSSR by 0.1 or 0.5.

        Raises:
            ModelError: no such precision.
        """
        if precision not in _DEFAULTS:
            raise ModelError("no such precision", field="precision", found=precision, expected=" or ".join(_DEFAULTS))
        return _DEFAULTS[precision]


_DEFAULTS = {
    "fp32": Thresholds(cosine_median=0.99999, cosine_minimum=0.9999),
    "fp16": Thresholds(),
    "bf16": Thresholds(cosine_median=0.999, cosine_minimum=0.99, agreement=0.95, recall_drop=0.02, pssr_drop=0.005),
    "int8": Thresholds(cosine_median=0.99, cosine_minimum=0.95, agreement=0.98, recall_drop=0.02, pssr_drop=0.005),
}


@dataclass(frozen=True)
class Failure:
    """A threshold that was not reached.

    Args:
        metric: which.
        found: what was measured.
        expected: what it should have been, such as "at least 0.9999".
        note: what more there is to know.
    """

    metric: str
    found: float
    expected: str
    note: str = ""

    def __str__(self) -> str:
        note = f": {self.note}" if self.note else ""
        return f"{self.metric} {self.found:.7g}, expected {self.expected}{note}"


@dataclass(frozen=True, eq=False)
class Parity:
    """How far a candidate is from the original engine. True where it passes.

    Args:
        reference, candidate: names of the engines.
        metric: by which descriptors are compared in a search.
        dimension: length of a descriptor.
        cosine_query, cosine_reference: (Q,), (R,) cosine between both engines' descriptors of each tile; not a number
            where one of them is not finite.
        max_error: largest difference of any two values that are finite.
        max_error_tile: where, such as "query 3".
        before, after: values that are not finite, of the original and of the candidate.
        spread: median over pairs of different references of 1 - cosine, by the original engine: how different its
            descriptors of different tiles are at all. 0 for a model that gives the same for every tile.
        retrieval: None where a descriptor is not finite.
        nearest_before, nearest_after: (Q, 2) the two nearest references; -1 where a descriptor is not finite.
        thresholds: by which it is judged.
    """

    reference: str
    candidate: str
    metric: Metric
    dimension: int
    cosine_query: NDArray[np.float64]
    cosine_reference: NDArray[np.float64]
    max_error: float
    max_error_tile: str
    before: NonFinite
    after: NonFinite
    spread: float
    retrieval: Retrieval | None
    nearest_before: NDArray[np.int64]
    nearest_after: NDArray[np.int64]
    thresholds: Thresholds = field(default_factory=Thresholds)

    @property
    def cosines(self) -> NDArray[np.float64]:
        """(Q + R,) of both views, without what is not finite."""
        both = np.concatenate([self.cosine_query, self.cosine_reference])
        return both[np.isfinite(both)]

    @property
    def cosine_median(self) -> float:
        """Median over the tiles of both views; nan where none is finite."""
        return float(np.median(self.cosines)) if len(self.cosines) else float("nan")

    @property
    def cosine_percentile_1(self) -> float:
        """What 99 % of the tiles reach."""
        return float(np.percentile(self.cosines, 1)) if len(self.cosines) else float("nan")

    @property
    def cosine_minimum(self) -> float:
        """Of the worst tile."""
        return float(self.cosines.min()) if len(self.cosines) else float("nan")

    @property
    def failures(self) -> list[Failure]:
        """By its own thresholds."""
        return judge(self, self.thresholds)

    def __bool__(self) -> bool:
        return not self.failures

    def __repr__(self) -> str:
        agreement = "no retrieval" if self.retrieval is None else f"top-1 agreement {self.retrieval.agreement:.4f}"
        verdict = "passed" if self else "failed"
        return (
            f"Parity({verdict}: cosine median {self.cosine_median:.7f}, least {self.cosine_minimum:.7f}, {agreement})"
        )


def compare(
    reference: Descriptors,
    candidate: Descriptors,
    truth: NDArray[np.int64],
    thresholds: Thresholds | None = None,
    *,
    metric: Metric = "cosine",
    tie: float = TIE,
) -> Parity:
    """Two engines' descriptors of the same tiles.

    Args:
        reference: of the original, which is taken for right.
        candidate: of the export.
        truth: (Q,) the true reference of each query.
        thresholds: by which the result is judged; those of FP16 without.
        metric: of the model, see `cvgl_train.models.base.ModelInfo`.
        tie: see `TIE`.

    Raises:
        ModelError: descriptors of different shapes, or a truth that does not fit them.
    """
    for view in _VIEWS:
        if reference.view(view).shape != candidate.view(view).shape:
            raise ModelError(
                "the engines' descriptors do not have one shape",
                field=view,
                found=candidate.view(view).shape,
                expected=str(reference.view(view).shape),
            )
    truth = np.asarray(truth, np.int64)
    queries, references = len(reference.query), len(reference.reference)
    if truth.shape != (queries,) or queries == 0 or references < 2 or truth.min() < 0 or truth.max() >= references:
        raise ModelError(
            "does not fit the descriptors",
            field="truth",
            found=truth.shape,
            expected=f"({queries},) indices of {references} references, two or more",
        )
    error, place = _largest_error(reference, candidate)
    before, after = _non_finite(reference), _non_finite(candidate)
    none = np.full((queries, 2), -1, np.int64)
    nearest_before = none if before.count else _nearest(reference, metric)
    nearest_after = none if after.count else _nearest(candidate, metric)
    retrieval = None
    if before.count == after.count == 0:
        retrieval = _retrieval(reference, candidate, truth, nearest_before[:, 0], nearest_after[:, 0], metric, tie)
    return Parity(
        reference.engine,
        candidate.engine,
        metric,
        reference.query.shape[1],
        _cosines(reference.query, candidate.query),
        _cosines(reference.reference, candidate.reference),
        error,
        place,
        before,
        after,
        _spread(reference.reference),
        retrieval,
        nearest_before,
        nearest_after,
        thresholds or Thresholds(),
    )


def judge(parity: Parity, thresholds: Thresholds) -> list[Failure]:
    """Every threshold that was not reached; an empty list is a pass.

    A descriptor that is not finite fails whatever the thresholds are: so does an original engine that gives one, since
    nothing can be proven against it.
    """
    found: list[Failure] = []
    for name, scan in (("original", parity.before), ("candidate", parity.after)):
        if scan.count:
            words = f"{scan.nan} NaN and {scan.inf} infinite, first in {scan.first}"
            found.append(Failure(f"values of the {name} that are not finite", scan.count, "none", words))

    def least(metric: str, value: float, limit: float | None, note: str = "") -> None:
        # Not "value < limit": what is not a number must fail.
        if limit is not None and not value >= limit:
            found.append(Failure(metric, value, f"at least {limit:.7g}", note))

    def most(metric: str, value: float, limit: float | None, note: str = "") -> None:
        if limit is not None and not value <= limit:
            found.append(Failure(metric, value, f"at most {limit:.7g}", note))

    least("cosine (median)", parity.cosine_median, thresholds.cosine_median)
    least("cosine (minimum)", parity.cosine_minimum, thresholds.cosine_minimum, _worst(parity))
    most("maximum error", parity.max_error, thresholds.error, f"in {parity.max_error_tile}")
    least(
        "spread of the original's descriptors",
        parity.spread,
        thresholds.spread,
        "it gives much the same for every tile, so that agreement with it proves nothing",
    )
    seen = parity.retrieval
    if seen is not None:
        queries = len(parity.cosine_query)
        same = f"{round(seen.agreement * queries)} of {queries} queries"
        least("top-1 agreement", seen.agreement, thresholds.agreement, same)
        falls = _fall(seen.recall_change), _fall(seen.pssr_change)
        most("fall of R@1", falls[0], thresholds.recall_drop, _change(seen.recall_before, seen.recall_after))
        most("fall of PSSR", falls[1], thresholds.pssr_drop, _change(seen.pssr_before, seen.pssr_after))
    return found


def _fall(change: float) -> float:
    # The rounding of a mean of whole numbers must not fail a limit that is met exactly.
    return max(0.0, round(-change, 12))


def _change(before: float, after: float) -> str:
    return f"from {before:.4f} to {after:.4f}"


def _worst(parity: Parity) -> str:
    both = np.concatenate([parity.cosine_query, parity.cosine_reference])
    if not np.isfinite(both).any():
        return ""
    index, queries = int(np.nanargmin(both)), len(parity.cosine_query)
    return f"in query {index}" if index < queries else f"in reference {index - queries}"


def _cosines(one: Floats, other: Floats) -> NDArray[np.float64]:
    """(N,) row by row; 0 where a row is all zeros, nan where one is not finite."""
    left, right = one.astype(np.float64), other.astype(np.float64)
    good = np.isfinite(left).all(1) & np.isfinite(right).all(1)
    result = np.full(len(left), np.nan)
    left, right = left[good], right[good]
    lengths = np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
    result[good] = (left * right).sum(1) / np.where(lengths > 0, lengths, 1.0)
    return result


def _largest_error(one: Descriptors, other: Descriptors) -> tuple[float, str]:
    largest, place = -1.0, ""
    for view in _VIEWS:
        with np.errstate(invalid="ignore", over="ignore"):
            error = np.abs(one.view(view).astype(np.float64) - other.view(view).astype(np.float64))
        error[~np.isfinite(error)] = -1.0
        row = int(error.max(1).argmax()) if len(error) else 0
        if len(error) and error[row].max() > largest:
            largest, place = float(error[row].max()), f"{view} {row}"
    return (largest, place) if largest >= 0 else (float("nan"), "")


def _non_finite(descriptors: Descriptors) -> NonFinite:
    nan = inf = 0
    first = None
    for view in _VIEWS:
        values = descriptors.view(view)
        nan += int(np.isnan(values).sum())
        inf += int(np.isinf(values).sum())
        bad = np.flatnonzero(~np.isfinite(values).all(1))
        if first is None and len(bad):
            first = f"{view} {int(bad[0])}"
    return NonFinite(nan, inf, first)


def _spread(references: Floats) -> float:
    """Median of 1 - cosine over pairs of different rows; of many rows, evenly chosen ones."""
    chosen = np.linspace(0, len(references) - 1, min(len(references), _SPREAD_TILES)).round().astype(int)
    rows = references[chosen].astype(np.float64)
    rows = rows[np.isfinite(rows).all(1)]
    if len(rows) < 2:
        return float("nan")
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    rows /= np.where(lengths > 0, lengths, 1.0)
    return float(1 - np.median((rows @ rows.T)[np.triu_indices(len(rows), 1)]))


def _similarities(descriptors: Descriptors, start: int, metric: Metric) -> NDArray[np.float64]:
    """(B, R) of some queries with all references, greater is closer, in double precision."""
    mine = descriptors.query[start : start + _ROWS].astype(np.float64)
    theirs = descriptors.reference.astype(np.float64)
    if metric == "cosine":
        return mine @ theirs.T
    squares = (mine**2).sum(1)[:, None] + (theirs**2).sum(1) - 2 * mine @ theirs.T
    return -np.sqrt(np.maximum(squares, 0.0))


def _nearest(descriptors: Descriptors, metric: Metric) -> NDArray[np.int64]:
    """(Q, 2) indices of the two nearest references, the lower index first among equals."""
    found = []
    for start in range(0, len(descriptors.query), _ROWS):
        found.append(np.argsort(-_similarities(descriptors, start, metric), axis=1, kind="stable")[:, :2])
    return np.concatenate(found).astype(np.int64)


def _retrieval(
    reference: Descriptors,
    candidate: Descriptors,
    truth: NDArray[np.int64],
    first_before: NDArray[np.int64],
    first_after: NDArray[np.int64],
    metric: Metric,
    tie: float,
) -> Retrieval:
    agrees = np.zeros(len(truth), bool)
    tied = np.zeros(len(truth), bool)
    for start in range(0, len(truth), _ROWS):
        scores = _similarities(reference, start, metric)
        rows = np.arange(len(scores))
        part = slice(start, start + len(scores))
        within = tie if metric == "cosine" else tie * float(np.median(-scores))
        close = scores >= scores.max(1, keepdims=True) - within
        agrees[part] = close[rows, first_after[part]]
        tied[part] = close.sum(1) > 1
    matches = [truth[i : i + 1] for i in range(len(truth))]
    before, after = (
        rank_descriptors(engine.query, engine.reference, matches, metric=metric) for engine in (reference, candidate)
    )
    moved = np.abs(after.worst() - before.worst())
    return Retrieval(
        float(agrees.mean()),
        float((first_before == first_after).mean()),
        float(tied.mean()),
        recall_at(before, 1),
        recall_at(after, 1),
        1 / len(reference.reference),
        _pssr(before),
        _pssr(after),
        float(moved.mean()),
        int(moved.max()),
    )


def _pssr(ranks: Ranks) -> float:
    return float(pssr(ranks).mean())


# Descriptors of tiles.


def describe(
    run: Run, tiles: ParityTiles, view: View, *, batch: int = _BATCH, progress: Progress | None = None
) -> Floats:
    """(N, D) descriptors of all tiles of a view, whatever is not finite included.

    Args:
        run: the engine; always given `batch` images, the last ones padded with zeros, so that it may have a fixed size.
        tiles: the images.
        view: of them.
        batch: images at a time.
        progress: told how far it is.

    Raises:
        ModelError: the engine gives something else than one descriptor an image.
    """
    count = len(tiles.images(view))
    found: list[Floats] = []
    for start in range(0, count, batch):
        images = tiles.batch(view, start, start + batch)
        size = len(images)
        if size < batch:
            images = np.concatenate([images, np.zeros((batch - size, *images.shape[1:]), np.float32)])
        descriptors = np.asarray(run(images), np.float32)
        if descriptors.ndim != 2 or len(descriptors) != batch:
            raise ModelError("not a descriptor an image", field=view, found=descriptors.shape, expected=f"({batch}, D)")
        found.append(descriptors[:size])
        if progress is not None:
            progress(start + size, count)
    return np.concatenate(found)


def torch_descriptors(
    model: CrossViewModel,
    tiles: ParityTiles,
    view: View,
    *,
    batch: int = _BATCH,
    unit: bool = True,
    progress: Progress | None = None,
) -> Floats:
    """(N, D) descriptors by PyTorch, on the model's device; the model is put into evaluation mode.

    Args:
        model, tiles, view: whose and of what.
        batch: images at a time.
        unit: of unit length whatever the model's metric is, as exported graphs give them; otherwise as
            `CrossViewModel.embed` does.
        progress: told how far it is.

    Raises:
        ModelError: images of another size than the model's.
    """
    return describe(_torch_runner(model, view, unit), tiles, view, batch=batch, progress=progress)


def onnx_descriptors(
    path: str | Path,
    tiles: ParityTiles,
    view: View,
    *,
    batch: int = _BATCH,
    threads: int | None = None,
    exact: bool = True,
    progress: Progress | None = None,
) -> Floats:
    """(N, D) descriptors by ONNX Runtime on the CPU.

    Args:
        path: the ONNX file; a fixed batch size is kept to.
        tiles, view: the images.
        batch: images at a time, where the file leaves it free.
        threads: of one inference; ONNX Runtime's default without.
        exact: see `onnx_runner`.
        progress: told how far it is.

    Raises:
        ModelError: a file that ONNX Runtime does not load or run, or that takes other images.
    """
    run, fixed = onnx_runner(path, threads=threads, exact=exact)
    return describe(run, tiles, view, batch=fixed or batch, progress=progress)


def onnx_runner(model: str | Path | Any, *, threads: int | None = None, exact: bool = True) -> tuple[Run, int | None]:
    """A function that runs a graph, and its batch size where that is fixed.

    ONNX Runtime's CPU kernels for half precision are few: around the others it puts casts to FP32, and where two of
    them meet it takes both away. A value beyond 65504 then passes through an FP16 graph unharmed, and agreement with
    FP32 says nothing of a GPU. It also fuses Q/DQ pairs into kernels which saturate on processors without VNNI.

    Args:
        model: an ONNX file or a ModelProto.
        threads: of one inference; ONNX Runtime's default without.
        exact: run what the graph says: `cvgl_export.graphs.emulate` of it where it computes in half precision, and
            Q/DQ pairs as they stand. Otherwise as ONNX Runtime sees fit.

    Raises:
        ModelError: it cannot be loaded.
    """
    import onnx
    import onnxruntime

    file = Path(model) if isinstance(model, (str, Path)) else None
    try:
        graph: Any = onnx.load(os.fspath(file)) if file is not None else model
    except Exception as reason:  # protobuf's, onnx's and the system's errors, depending on where the damage is
        raise ModelError(f"not readable as ONNX: {reason}", file=file) from reason
    options = onnxruntime.SessionOptions()
    if threads is not None:
        options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    if exact:
        options.add_session_config_entry("session.disable_quant_qdq", "1")
        if is_half(graph):
            graph = emulate(graph)
    try:
        session = onnxruntime.InferenceSession(graph.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except Exception as reason:  # the runtime's own exceptions have no common base
        raise ModelError(f"ONNX Runtime does not load it: {_first_line(reason)}", file=file) from reason
    inputs = session.get_inputs()
    if len(inputs) != 1 or len(inputs[0].shape) != 4:
        found = [(node.name, node.shape) for node in inputs]
        raise ModelError(
            "not an embedding network", file=file, field="inputs", found=found, expected="one of (B, 3, H, W)"
        )
    first = session.get_outputs()[0].name

    def run(images: Floats) -> Floats:
        try:
            return np.asarray(session.run([first], {inputs[0].name: images})[0], np.float32)
        except Exception as reason:
            raise ModelError(f"ONNX Runtime fails: {_first_line(reason)}", file=file) from reason

    fixed = inputs[0].shape[0]
    return run, fixed if isinstance(fixed, int) else None


def _torch_runner(model: CrossViewModel, view: View, unit: bool = True) -> Run:
    model.eval()
    device = next(model.parameters()).device

    def run(images: Floats) -> Floats:
        with torch.inference_mode():
            found = model.embed(torch.from_numpy(images).to(device), view).float()
            descriptors: Floats = (F.normalize(found, dim=1) if unit else found).cpu().numpy()
        return descriptors

    return run


# How long an image takes.


@dataclass(frozen=True)
class Latency:
    """Of single images, one after another.

    Args:
        p50_ms, p99_ms: milliseconds within which half and 99 % of the runs ended.
        runs: how many were timed, after a warm-up.
        engine: what ran.
        machine: on what.
    """

    p50_ms: float
    p99_ms: float
    runs: int
    engine: str
    machine: str


def latency(
    run: Run, images: Floats, *, engine: str, machine: str | None = None, runs: int = 50, warm_up: int = 5
) -> Latency:
    """Time an engine.

    Args:
        run: the engine; must not return before it is done.
        images: (B, 3, H, W) what every run is given.
        engine: its name, for people.
        machine: what it ran on; this machine's processor without.
        runs, warm_up: timed runs, and those before them.
    """
    for _ in range(warm_up):
        run(images)
    times = np.empty(max(runs, 1))
    for i in range(len(times)):
        start = time.perf_counter()
        run(images)
        times[i] = time.perf_counter() - start
    middle, late = (float(1e3 * np.percentile(times, share)) for share in (50, 99))
    return Latency(middle, late, len(times), engine, machine or processor())


def torch_latency(model: CrossViewModel, tiles: ParityTiles, view: View, *, runs: int = 50) -> Latency:
    """PyTorch's for one image of a view, on the model's device."""
    device = next(model.parameters()).device
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else None
    engine = f"PyTorch {torch.__version__}, {device.type}, {torch.get_num_threads()} threads"
    return latency(_torch_runner(model, view), tiles.batch(view, 0, 1), engine=engine, machine=where, runs=runs)


def onnx_latency(
    path: str | Path, tiles: ParityTiles, view: View, *, threads: int | None = None, runs: int = 50
) -> Latency:
    """ONNX Runtime's for one image of a view, or for as many as the file's batch has, as the SDK runs it on a CPU.

    Raises:
        ModelError: a file that is no embedding network.
    """
    engine = OnnxEngine(path, threads)
    images = tiles.batch(view, 0, 1).repeat(engine.batch or 1, axis=0)
    return latency(engine.run, images, engine=engine.description, runs=runs)


def processor() -> str:
    """This machine's processor, for people."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    names = [line.split(":", 1)[1].strip() for line in lines if line.lower().startswith("model name") and ":" in line]
    return f"CPU {names[0] if names else platform.machine()}"


def _first_line(reason: Exception) -> str:
    return (str(reason).splitlines() or [type(reason).__name__])[0]
