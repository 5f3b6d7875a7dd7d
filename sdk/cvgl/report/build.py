"""Put a report together: choose what is shown, draw it, fill the page."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import jinja2
import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from cvgl.camera import Camera
from cvgl.errors import FrameError
from cvgl.files import atomic_path
from cvgl.fix import Fix, FixStatus
from cvgl.flight import FrameRecord
from cvgl.report.charts import error_curve, error_per_frame, stage_bar
from cvgl.report.mapview import flight_map, frame_crop, places
from cvgl.report.overview import Overview, jpeg_uri
from cvgl.results import aircraft_errors, center_errors

__all__ = ["write_report"]

_CARDS = 6
_THUMBNAIL = 360


def write_report(
    path: str | Path,
    records: Sequence[FrameRecord],
    fixes: Sequence[Fix],
    summary: dict[str, Any],
    *,
    overview: Overview,
    camera: Camera,
    title: str,
    notes: Sequence[str] = (),
    attribution: str = "",
) -> None:
    """Write ``report.html``: one file without scripts that shows a flight's results and opens offline.

    Pictures of at most a dozen frames are read again for it; all else is in the arguments.

    Args:
        path: where to write, by atomic rename.
        records: the flight's frames.
        fixes: the answers, in the same order.
        summary: what :func:`cvgl.results.summarise` made of them.
        overview: the map's picture.
        camera: that took the frames, for their footprints.
        title: the flight's name.
        notes: what was assumed, for people.
        attribution: of the map's imagery.
    """
    centers = _metres(center_errors(records, fixes))
    aircraft = _metres(aircraft_errors(records, fixes))
    # The image's middle is what is matched; the aircraft's own position adds the attitude's error and its
    # receiver's.
    primary = "center" if summary["reference"]["center"] else "aircraft"
    reference = summary["reference"][primary]
    errors = centers if primary == "center" else aircraft
    where = places(overview, records, fixes)
    largest, refused = _worst(fixes, errors)
    page = _environment().get_template("report.html.j2")
    html = page.render(
        title=title,
        summary=summary,
        primary=primary,
        reference=reference,
        map=flight_map(overview, where, records, fixes, camera),
        what=where.what,
        has_reference_track=bool(np.isfinite(where.reference).any()),
        curve=_curve(records, centers, aircraft) if reference else None,
        curves=[kind for kind in ("center", "aircraft") if summary["reference"][kind]],
        per_frame=_per_frame(records, fixes, errors, primary) if reference else None,
        stages=list(summary["latency_ms"]["stages_p50"].items()),
        stage_bar=stage_bar(list(summary["latency_ms"]["stages_p50"].items())),
        largest=[_card(overview, camera, records[i], fixes[i], i, errors[i]) for i in largest],
        refused=[_card(overview, camera, records[i], fixes[i], i, errors[i]) for i in refused],
        rows=[
            _row(record, fix, float(center), float(plane))
            for record, fix, center, plane in zip(records, fixes, centers, aircraft, strict=True)
        ],
        notes=notes,
        attribution=attribution,
    )
    with atomic_path(path) as temporary:
        temporary.write_text(html, encoding="utf-8")


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["metres"] = lambda value: _number(value, " m")
    environment.filters["milliseconds"] = lambda value: _number(value, " ms")
    environment.filters["percent"] = lambda value: "–" if value is None else f"{100 * value:.0f} %"
    environment.filters["count"] = lambda value: f"{value:,}".replace(",", "\u202f")
    return environment


def _number(value: float | None, unit: str) -> str:
    """Three figures at most: nobody reads more, and there are no more in the data."""
    if value is None or not math.isfinite(value):
        return "–"
    digits = 2 if abs(value) < 1 else 1 if abs(value) < 100 else 0
    return f"{value:.{digits}f}{unit}"


def _metres(errors: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.hypot(errors[:, 0], errors[:, 1])


def _curve(records: Sequence[FrameRecord], centers: NDArray[np.float64], aircraft: NDArray[np.float64]) -> Markup:
    kinds = (
        ("image centre", "center", centers, [record.center_latitude is not None for record in records]),
        ("aircraft", "aircraft", aircraft, [record.gps_latitude is not None for record in records]),
    )
    return error_curve([(label, css, errors[known]) for label, css, errors, known in kinds if any(known)])


def _per_frame(
    records: Sequence[FrameRecord], fixes: Sequence[Fix], errors: NDArray[np.float64], primary: str
) -> Markup:
    covariances = [fix.center_covariance if primary == "center" else fix.covariance for fix in fixes]
    sigmas = [math.nan if p is None else math.sqrt(max(0.0, float(np.linalg.eigvalsh(p)[-1]))) for p in covariances]
    names = [record.name for record in records]
    return error_per_frame(names, [fix.status.value for fix in fixes], errors, np.array(sigmas))


def _worst(fixes: Sequence[Fix], errors: NDArray[np.float64]) -> tuple[list[int], list[int]]:
    """Frames worth a look: those with the largest errors (without references, the least certain), and refused
    ones."""
    badness = errors if np.isfinite(errors).any() else np.array([fix.sigma_m for fix in fixes])
    placed = [index for index, fix in enumerate(fixes) if fix and math.isfinite(badness[index])]
    largest = sorted(placed, key=lambda index: -badness[index])[:_CARDS]
    refused = [index for index, fix in enumerate(fixes) if fix.status is FixStatus.NO_FIX]
    # Spread over the flight: neighbours tend to be refused for the same reason.
    chosen = np.linspace(0, len(refused) - 1, min(_CARDS, len(refused))).round().astype(int)
    return largest, [refused[i] for i in chosen]


def _card(
    overview: Overview, camera: Camera, record: FrameRecord, fix: Fix, index: int, error: float
) -> dict[str, Any]:
    try:
        if record.problem:
            raise FrameError(record.problem)
        image = record.picture()
        scale = _THUMBNAIL / max(image.shape[:2])
        size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
        picture = jpeg_uri(np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), dtype=np.uint8), 72)
    except FrameError:
        picture = None
    crop, caption = frame_crop(overview, camera, record, fix)
    return {
        "index": index,
        "name": record.name,
        "status": fix.status.value,
        "reason": fix.reason,
        "error": float(error),
        "sigma": fix.sigma_m,
        "probability": _probability(fix),
        "score": fix.score,
        "picture": picture,
        "crop": crop,
        "caption": caption,
    }


def _probability(fix: Fix) -> str:
    """That the place is right; nines are not rounded to a certainty."""
    digits = 1 if fix.probability < 0.999 else 4
    return f"{100 * fix.probability:.{digits}f} %"


def _radius(fix: Fix) -> str:
    if not fix:
        return "–"
    return _number(fix.protection_radius_m, " m") if math.isfinite(fix.protection_radius_m) else "∞"


def _row(record: FrameRecord, fix: Fix, center: float, aircraft: float) -> dict[str, Any]:
    return {
        "name": record.name,
        "time": record.time_text or (f"{record.time:.3f}" if math.isfinite(record.time) else ""),
        "status": fix.status.value,
        "reason": fix.reason,
        "position": f"{fix.latitude:.6f}, {fix.longitude:.6f}" if fix else "",
        "sigma": fix.sigma_m,
        "probability": _probability(fix),
        "protection": _radius(fix),
        "center": center,
        "aircraft": aircraft,
        "heading": f"{fix.heading_deg:.1f}°" if math.isfinite(fix.heading_deg) else "–",
        "score": fix.score,
        "latency": fix.latency_ms if fix.timings_ms else math.nan,
    }
