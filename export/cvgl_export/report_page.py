"""The report of an export as one page of HTML."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from typing import Any

import cv2
import jinja2
import numpy as np
from numpy.typing import NDArray

import cvgl.report
from cvgl.report.overview import jpeg_uri

from .parity import Parity, Thresholds
from .report_charts import cosine_histogram, precision_bar
from .report_data import ReportData, Stage
from .tiles import ParityTiles

__all__ = ["page"]

_WORST = 6
_THUMBNAIL = 144


def page(data: ReportData) -> str:
    """HTML that needs nothing beside it."""
    last = data.judged[-1] if data.judged else None
    return (
        _environment()
        .get_template("export.html")
        .render(
            data=data,
            last=last,
            histograms=[(stage, cosine_histogram(stage.parity)) for stage in data.judged if stage.parity is not None],
            precisions=[
                (found, precision_bar(found.by_precision) if found.by_precision else None) for found in data.precisions
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
