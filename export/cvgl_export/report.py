"""The proof of an export as files: ``report.json`` for programs, and one page for people that opens offline."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import cv2
import jinja2
import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

import cvgl.report
from cvgl.errors import ModelError
from cvgl.files import atomic_path, read_json, sha256_file, write_json
from cvgl.report.overview import jpeg_uri
from cvgl.report.svg import drawing, element
from cvgl_train.models.base import View

from .bisect import Bisection
from .latency import Latency
from .parity import Failure, Parity, Thresholds
from .tiles import ParityTiles

__all__ = [
    "FORMAT",
    "FORMAT_VERSION",
    "PAGE",
    "REPORT",
    "FileFact",
    "KeptNode",
    "Layer",
    "Precision",
    "ReportData",
    "Stage",
    "cosine_histogram",
    "read_report",
    "to_json",
    "write_report",
]

FORMAT = "cvgl-export-report"
FORMAT_VERSION = 1
REPORT, PAGE = "report.json", "report.html"

_WORST = 6
_THUMBNAIL = 144


# What a report is made of.


@dataclass(frozen=True)
class Layer:
    """A layer, or a node of a graph.

    Args:
        name, kind: of it; the kind is its operator, or what TensorRT calls it.
        precision: that it computes in, as read.
    """

    name: str
    kind: str
    precision: str


@dataclass(frozen=True)
class Precision:
    """In which precision a graph or an engine computes, as it was read from it.

    Args:
        of: which file.
        read_from: where it says so: "types of the ONNX graph", "TensorRT's engine inspector".
        layers: every layer; None where nothing could be read. What was asked for has no place here.
        reason: why nothing could be read.
        counts: number of layers by precision, where layers are not known one by one.

    Raises:
        ModelError: neither layers, nor counts, nor a reason; or a reason beside them.
    """

    of: str
    read_from: str
    layers: tuple[Layer, ...] | None = None
    reason: str | None = None
    counts: Mapping[str, int] | None = None

    def __post_init__(self) -> None:
        if (self.layers is None and self.counts is None) != (self.reason is not None):
            raise ModelError(
                "either a precision that was read, or a reason why none was", field=f"precision of {self.of}"
            )

    @property
    def by_precision(self) -> dict[str, int] | None:
        """Number of layers by precision, the most frequent first; None where nothing could be read."""
        if self.layers is not None:
            return dict(Counter(layer.precision for layer in self.layers).most_common())
        return None if self.counts is None else dict(self.counts)


@dataclass(frozen=True)
class KeptNode:
    """A node that stays in FP32 in a graph of less precision.

    Args:
        file: the graph.
        name, op: of the node.
        why: it does.
    """

    file: str
    name: str
    op: str
    why: str


@dataclass(frozen=True)
class FileFact:
    """A file that the export wrote.

    Args:
        name: of it.
        bytes: of it.
        sha256: of its content.
    """

    name: str
    bytes: int
    sha256: str

    @classmethod
    def of(cls, path: str | Path, name: str | None = None) -> FileFact:
        """From the file itself."""
        path = Path(path)
        return cls(name or path.name, path.stat().st_size, sha256_file(path))


@dataclass(frozen=True)
class Stage:
    """One engine on the way from PyTorch to TensorRT.

    Args:
        name: such as "ONNX Runtime, FP16".
        read_from: what ran, and how: where all figures of the stage were measured.
        parity: with the original; None for the original itself and for a stage that did not run.
        skipped: why it did not run here; None where it did.
        latency: of single images, by view.
        bytes: size of its files; None where it has none.
        note: what else there is to know.

    Raises:
        ModelError: figures of a stage that did not run.
    """

    name: str
    read_from: str
    parity: Parity | None = None
    skipped: str | None = None
    latency: Mapping[View, Latency] = field(default_factory=dict)
    bytes: int | None = None
    note: str = ""

    def __post_init__(self) -> None:
        if self.skipped is not None and (self.parity is not None or self.latency):
            raise ModelError("figures of a stage that did not run", field=self.name, found=self.skipped)


@dataclass(frozen=True)
class ReportData:
    """Everything that a report says.

    Args:
        model: name of what was exported.
        architecture: of it.
        fingerprint: of the bundle, or None before there is one.
        precision: that was asked for.
        descriptor_size: length of a descriptor.
        tiles: that the figures were taken on.
        stages: the original first; the last one that ran is what the export is judged by, and so is every other one.
        precisions: that were achieved, or why none can be told.
        files: that were written.
        versions: of everything that took part.
        machine: where it ran.
        command: that makes this report again.
        kept: nodes that stay in FP32.
        bisection: the search for such nodes, where there was one.
        notes: what else there is to know.
        created: when, ISO 8601.
    """

    model: str
    architecture: str
    precision: str
    descriptor_size: int
    tiles: ParityTiles
    stages: Sequence[Stage]
    precisions: Sequence[Precision]
    files: Sequence[FileFact]
    versions: Mapping[str, str]
    machine: str
    command: str
    fingerprint: str | None = None
    kept: Sequence[KeptNode] = ()
    bisection: Bisection | None = None
    notes: Sequence[str] = ()
    created: str = field(default_factory=lambda: datetime.now(timezone.utc).isoformat(timespec="seconds"))

    @property
    def judged(self) -> list[Stage]:
        """Stages with figures of parity."""
        return [stage for stage in self.stages if stage.parity is not None]

    @property
    def failures(self) -> list[tuple[Stage, Failure]]:
        """Of every stage."""
        return [
            (stage, failure) for stage in self.stages if stage.parity is not None for failure in stage.parity.failures
        ]

    @property
    def passed(self) -> bool:
        """Whether something was compared at all, and all of it passed."""
        return bool(self.judged) and not self.failures

    @property
    def words(self) -> str:
        """The verdict in one sentence."""
        if not self.judged:
            return "Nothing was compared, so nothing is proven."
        last = self.judged[-1].name
        absent = [stage.name for stage in self.stages if stage.skipped is not None]
        rest = f" Not run here: {', '.join(absent)}." if absent else ""
        if self.passed:
            return f"{last} is the same model, by every threshold.{rest}"
        count = len(self.failures)
        return f"Not the same model: {count} threshold{'s' if count > 1 else ''} not reached.{rest}"


def write_report(folder: str | Path, data: ReportData) -> Path:
    """Write ``report.json`` and ``report.html``, each whole or not at all.

    Args:
        folder: made where it is not there.
        data: what to say.

    Returns:
        Path of ``report.json``.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    html = _page(data)
    with atomic_path(folder / PAGE) as temporary:
        temporary.write_text(html, encoding="utf-8")
    write_json(folder / REPORT, to_json(data))
    return folder / REPORT


def read_report(path: str | Path) -> dict[str, Any]:
    """What `write_report` wrote, by `to_json`.

    Raises:
        ModelError: no such file, not a report, or one of another version.
    """
    data = read_json(path, ModelError)
    for name, expected in (("format", FORMAT), ("format_version", FORMAT_VERSION)):
        if data.get(name) != expected:
            raise ModelError(
                "not a report of an export", file=path, field=name, found=data.get(name), expected=str(expected)
            )
    return data


# As JSON.


@dataclass(frozen=True)
class _ParityRecord:
    """`Parity` in plain values; what is not finite is null."""

    original: str
    candidate: str
    queries: int
    references: int
    dimension: int
    metric: str
    cosine: dict[str, float]
    max_error: float
    max_error_tile: str
    not_finite: dict[str, dict[str, Any]]
    spread: float
    retrieval: dict[str, Any] | None
    thresholds: dict[str, float | None]
    failures: list[dict[str, Any]]
    passed: bool

    @classmethod
    def of(cls, parity: Parity) -> _ParityRecord:
        seen = parity.retrieval
        changes = {} if seen is None else {"recall_change": seen.recall_change, "pssr_change": seen.pssr_change}
        return cls(
            parity.reference,
            parity.candidate,
            len(parity.cosine_query),
            len(parity.cosine_reference),
            parity.dimension,
            parity.metric,
            {
                "median": parity.cosine_median,
                "percentile_1": parity.cosine_percentile_1,
                "minimum": parity.cosine_minimum,
            },
            parity.max_error,
            parity.max_error_tile,
            {"original": asdict(parity.before), "candidate": asdict(parity.after)},
            parity.spread,
            None if seen is None else {**asdict(seen), **changes},
            asdict(parity.thresholds),
            [{**asdict(failure), "text": str(failure)} for failure in parity.failures],
            bool(parity),
        )


@dataclass(frozen=True)
class _StageRecord:
    """`Stage` in plain values."""

    name: str
    ran: bool
    skipped: str | None
    read_from: str
    parity: _ParityRecord | None
    latency: dict[str, dict[str, Any]]
    bytes: int | None
    note: str

    @classmethod
    def of(cls, stage: Stage) -> _StageRecord:
        return cls(
            stage.name,
            stage.skipped is None,
            stage.skipped,
            stage.read_from,
            None if stage.parity is None else _ParityRecord.of(stage.parity),
            {view: asdict(found) for view, found in stage.latency.items()},
            stage.bytes,
            stage.note,
        )


@dataclass(frozen=True)
class _PrecisionRecord:
    """`Precision` in plain values; `achieved` is null where nothing was read."""

    of: str
    read_from: str
    achieved: dict[str, int] | None
    reason: str | None
    layers: list[dict[str, str]] | None

    @classmethod
    def of_precision(cls, found: Precision) -> _PrecisionRecord:
        layers = None if found.layers is None else [asdict(layer) for layer in found.layers]
        return cls(found.of, found.read_from, found.by_precision, found.reason, layers)


@dataclass(frozen=True)
class _ReportRecord:
    """``report.json``."""

    format: str
    format_version: int
    created: str
    passed: bool
    words: str
    model: dict[str, Any]
    precision_asked: str
    tiles: dict[str, Any]
    stages: list[_StageRecord]
    precision: list[_PrecisionRecord]
    kept_in_fp32: list[dict[str, str]]
    bisection: dict[str, Any] | None
    files: list[dict[str, Any]]
    versions: dict[str, str]
    machine: str
    command: str
    notes: list[str]


def to_json(data: ReportData) -> dict[str, Any]:
    """A report in JSON values; numbers that are not finite are null."""
    tiles = data.tiles
    record = _ReportRecord(
        FORMAT,
        FORMAT_VERSION,
        data.created,
        data.passed,
        data.words,
        {
            "name": data.model,
            "architecture": data.architecture,
            "descriptor_size": data.descriptor_size,
            "fingerprint": data.fingerprint,
        },
        data.precision,
        {
            "source": tiles.source,
            "queries": len(tiles.query),
            "references": len(tiles.reference),
            "duplicates_left_out": tiles.duplicates,
            "sha256": tiles.fingerprint,
        },
        [_StageRecord.of(stage) for stage in data.stages],
        [_PrecisionRecord.of_precision(found) for found in data.precisions],
        [asdict(node) for node in data.kept],
        None if data.bisection is None else asdict(data.bisection),
        [asdict(file) for file in data.files],
        dict(data.versions),
        data.machine,
        data.command,
        list(data.notes),
    )
    plain: dict[str, Any] = _plain(asdict(record))
    return plain


def _plain(value: Any) -> Any:
    """Values that any JSON parser reads."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, (float, np.floating)):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, np.integer):
        return int(value)
    return value


# As a page.

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


def _precision_bar(counts: Mapping[str, int]) -> Markup:
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


def _page(data: ReportData) -> str:
    last = data.judged[-1] if data.judged else None
    return (
        _environment()
        .get_template("export.html")
        .render(
            data=data,
            last=last,
            histograms=[(stage, cosine_histogram(stage.parity)) for stage in data.judged if stage.parity is not None],
            precisions=[
                (found, _precision_bar(found.by_precision) if found.by_precision else None) for found in data.precisions
            ],
            reasons=Counter(node.why for node in data.kept).most_common(),
            worst=_worst(data.tiles, last.parity) if last is not None and last.parity is not None else [],
            rows=[_row(stage) for stage in data.stages],
        )
    )


def _environment() -> jinja2.Environment:
    own, house = Path(__file__).parent / "templates", Path(cvgl.report.__file__).parent
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([own, house]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["cosine"] = _cosine
    environment.filters["percent"] = lambda value: "–" if value is None else f"{100 * value:.1f} %"
    environment.filters["points"] = lambda value: f"{100 * value:+.2f} points"
    environment.filters["bytes"] = _bytes
    environment.filters["figure"] = _figure
    return environment


def _cosine(value: float) -> str:
    """Cut, not rounded: 0.99996 must not become 1.0000."""
    return f"{math.floor(value * 1e7) / 1e7:.7f}" if math.isfinite(value) else "–"


def _figure(value: float, digits: int = 2) -> str:
    if math.isfinite(value):
        return f"{value:.{digits}g}"
    return "–" if math.isnan(value) else "not finite"


def _bytes(value: int | None) -> str:
    if value is None:
        return "–"
    return f"{value / 1e6:.1f} MB" if value >= 1e5 else f"{value / 1e3:.1f} kB"


def _row(stage: Stage) -> dict[str, Any]:
    """A stage in the table: figures beside their thresholds, each marked where it fails."""
    parity = stage.parity
    if parity is None:
        return {"stage": stage, "cells": None}
    limits: Thresholds = parity.thresholds
    failed = {failure.metric for failure in parity.failures}
    seen = parity.retrieval

    def cell(text: str, limit: str, metric: str) -> dict[str, Any]:
        return {"text": text, "limit": limit, "failed": metric in failed}

    def least(value: float | None) -> str:
        return "" if value is None else f"≥ {value:g}"

    def fall(value: float | None) -> str:
        return "" if value is None else f"≥ −{100 * value:g} points"

    none = "no descriptors to search by"
    after = parity.after.count + parity.before.count
    return {
        "stage": stage,
        "cells": [
            cell(_cosine(parity.cosine_median), least(limits.cosine_median), "cosine (median)"),
            cell(_cosine(parity.cosine_percentile_1), "", ""),
            cell(_cosine(parity.cosine_minimum), least(limits.cosine_minimum), "cosine (minimum)"),
            cell(
                f"{parity.max_error:.1e}" if math.isfinite(parity.max_error) else "–",
                "" if limits.error is None else f"≤ {limits.error:g}",
                "maximum error",
            ),
            {"text": str(after), "limit": "0", "failed": after > 0},
            cell(
                none if seen is None else f"{100 * seen.agreement:.1f} %",
                "" if limits.agreement is None else f"≥ {100 * limits.agreement:g} %",
                "top-1 agreement",
            ),
            cell(
                "–" if seen is None else f"{100 * seen.recall_before:.1f} → {100 * seen.recall_after:.1f} %",
                fall(limits.recall_drop),
                "fall of R@1",
            ),
            cell(
                "–" if seen is None else f"{100 * seen.pssr_before:.2f} → {100 * seen.pssr_after:.2f} %",
                fall(limits.pssr_drop),
                "fall of PSSR",
            ),
        ],
    }


def _worst(tiles: ParityTiles, parity: Parity) -> list[dict[str, Any]]:
    """Queries worth a look: those that are no numbers, those whose nearest reference changed, then by cosine."""
    known = np.isfinite(parity.cosine_query)
    before, after = parity.nearest_before[:, 0], parity.nearest_after[:, 0]
    moved = (before != after) & (before >= 0) & (after >= 0)
    order = np.lexsort((np.where(known, parity.cosine_query, -2.0), ~moved, known))[:_WORST]
    return [
        {
            "index": int(i),
            "cosine": float(parity.cosine_query[i]),
            "moved": bool(moved[i]),
            "query": _thumbnail(tiles.query[i]),
            "before": _references(tiles, parity.nearest_before[i], int(tiles.truth[i])),
            "after": _references(tiles, parity.nearest_after[i], int(tiles.truth[i])),
        }
        for i in order.tolist()
    ]


def _references(tiles: ParityTiles, found: NDArray[np.int64], truth: int) -> list[dict[str, Any]]:
    return [
        {"name": tiles.names[i], "true": i == truth, "picture": _thumbnail(tiles.reference[i])}
        for i in found.tolist()
        if i >= 0
    ]


def _thumbnail(image: NDArray[np.uint8]) -> str:
    scale = _THUMBNAIL / max(image.shape[:2])
    size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
    way = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    return jpeg_uri(
        np.ascontiguousarray(np.asarray(cv2.resize(image, size, interpolation=way), np.uint8)[..., ::-1]), 78
    )
