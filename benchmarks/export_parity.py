"""A network exported in lower precision, as the command does it, beside itself in FP32."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cvgl.errors import ModelError
from cvgl_export.bundle import ExportOptions, export_bundle
from cvgl_export.calibration import calibrated_tiles
from cvgl_export.descriptors import Descriptors
from cvgl_export.report import REPORT, read_report
from cvgl_export.running import onnx_descriptors
from cvgl_export.source import VIEWS, Source
from cvgl_export.tile_sources import open_tiles
from cvgl_export.tiles import ParityTiles

__all__ = ["by_onnx", "change", "compared", "nodes", "number", "verdict"]


def compared(
    source: Source, precision: str, tiles: Path | None, count: int, folder: Path
) -> tuple[dict[str, Any], Path | None]:
    """Export a network and read what its report says of it.

    Args:
        source: the network.
        precision: "fp16" or "int8".
        tiles: a gallery; None for the procedural world.
        count: of tiles to compare on; fewer where INT8 needs others of the gallery to calibrate with.
        folder: to write into.

    Returns:
        Figures, JSON values, those of an export that fails too; and the bundle, None where there is none.
    """
    sizes = source.inputs["query"], source.inputs["reference"]
    if precision == "int8":
        judging, calibration = calibrated_tiles(tiles, *sizes, count=count)
    else:
        judging, calibration = open_tiles(tiles, *sizes, count=count), None
    out = folder / f"{precision}.cvgl"
    refused = ""
    try:
        export_bundle(source, out, judging, ExportOptions(precision), calibration=calibration)  # type: ignore[arg-type]
    except ModelError as reason:
        refused = reason.message
    report = (out if out.is_dir() else out.with_suffix(".failed")) / REPORT
    row: dict[str, Any] = {"precision": precision, "tiles": judging.source}
    if not report.is_file():
        return {**row, "queries": len(judging), "failures": [refused]}, None
    return {**row, **_figures(read_report(report))}, out if out.is_dir() else None


def _figures(report: Mapping[str, Any]) -> dict[str, Any]:
    """Of the last stage that was compared."""
    parity = [stage["parity"] for stage in report["stages"] if stage["parity"]][-1]
    seen = parity["retrieval"] or {}
    counts: Counter[str] = Counter()
    for found in report["precision"]:
        counts.update(found["achieved"] or {})
    chosen = report.get("int8")
    return {
        "queries": parity["queries"],
        "references": parity["references"],
        "nodes": dict(counts),
        "int8": None if chosen is None else {"share": chosen["share"], "words": chosen["words"]},
        "cosine_median": parity["cosine"].get("median"),
        "cosine_minimum": parity["cosine"].get("minimum"),
        **{name: seen.get(name) for name in ("agreement", "exact_agreement", "recall_before", "recall_after")},
        "pssr_change": seen.get("pssr_change"),
        "spread": parity["spread"],
        "failures": [failure["text"] for failure in parity["failures"]],
    }


def verdict(row: Mapping[str, Any]) -> str:
    """For a table's last column."""
    return "; ".join(row["failures"]) or "passes"


def nodes(row: Mapping[str, Any]) -> str:
    """For a table: how many nodes compute in which type, and what share of the work INT8 does."""
    words = ", ".join(f"{count} {kind}" for kind, count in sorted(row.get("nodes", {}).items()))
    chosen = row.get("int8")
    return words if chosen is None else f"{words} ({100 * chosen['share']:.0f} % of the work)"


def number(value: float | None, digits: int) -> str:
    """For a table; nothing where nothing is known."""
    return "" if value is None else f"{value:.{digits}f}"


def change(row: Mapping[str, Any], name: str) -> str:
    """For a table: a share before and after, in percent."""
    before, after = row.get(f"{name}_before"), row.get(f"{name}_after")
    return "" if before is None or after is None else f"{100 * before:.1f} → {100 * after:.1f}"


def by_onnx(folder: Path, source: Source, tiles: ParityTiles) -> Descriptors:
    """What ONNX Runtime makes of the tiles, every rounding to half precision done as a GPU does it.

    Args:
        folder: with the networks, a bundle or another.
        source: that they were made from.
        tiles: the images.
    """
    query, reference = (onnx_descriptors(folder / source.file_of(view), tiles, view) for view in VIEWS)
    return Descriptors(query, reference, "ONNX Runtime")
