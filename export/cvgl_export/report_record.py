"""The report of an export in JSON values."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from .parity import Parity
from .report_data import Precision, ReportData, Stage

__all__ = ["FORMAT", "FORMAT_VERSION", "to_json"]

FORMAT = "cvgl-export-report"
FORMAT_VERSION = 1


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
        {name: asdict(found) for name, found in data.bisections.items()},
        None if data.int8 is None else {"words": data.int8.words, **asdict(data.int8)},
        [asdict(file) for file in data.files],
        dict(data.versions),
        data.machine,
        data.command,
        list(data.notes),
    )
    plain: dict[str, Any] = _plain(asdict(record))
    return plain


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
    bisections: dict[str, dict[str, Any]]
    int8: dict[str, Any] | None
    files: list[dict[str, Any]]
    versions: dict[str, str]
    machine: str
    command: str
    notes: list[str]


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
