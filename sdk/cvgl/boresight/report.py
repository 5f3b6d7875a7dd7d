"""What a calibration found, as JSON and as a page with its residuals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from cvgl.boresight.fit import Calibration
from cvgl.boresight.solve import parameters
from cvgl.files import atomic_path
from cvgl.report.svg import drawing, element

__all__ = ["as_record", "table_rows", "write_page"]

_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _EDGE = 560.0, 260.0, 56.0, 34.0, 14.0
_UNIT = {"log": "px"}
_WORDS = {
    "focal_length": "focal length",
    "mount_roll": "mount roll",
    "mount_pitch": "mount pitch",
    "mount_yaw": "mount yaw, with any constant error of the headings",
    "time_offset": "GNSS after exposure",
    "map_east": "GNSS to map, east",
    "map_north": "GNSS to map, north",
    "height_offset": "true height less reported",
}


def as_record(calibration: Calibration) -> dict[str, Any]:
    """Everything that was found, for programs: estimates with their sigmas, residuals by frame, errors before and
    after."""
    left = calibration.solution.residuals
    return {
        "frames": calibration.frames,
        "sights": len(calibration.sights),
        "rounds": calibration.rounds,
        "settled": calibration.settled,
        "start": calibration.start.to_dict(),
        "parts": [
            {"frames": names, "camera": camera.to_dict()}
            for camera, names in zip(calibration.solution.cameras, _frames_by_part(calibration), strict=True)
        ],
        "estimates": {
            parameter.name: {
                "value": calibration.solution.estimates[parameter.name].value,
                "sigma": calibration.solution.estimates[parameter.name].sigma,
                "unit": _UNIT.get(parameter.unit, parameter.unit),
                "determined": calibration.solution.estimates[parameter.name].determined,
            }
            for parameter in parameters(len(calibration.solution.cameras))
        },
        "changes": [
            {"frame": change.name, "forward_deg": change.forward_deg, "right_deg": change.right_deg}
            for change in calibration.changes
        ],
        "aircraft_error_m": {
            "before": _spread(calibration.errors_before),
            "after_held_out": _spread(calibration.errors_after),
        },
        "residuals": [
            {
                "frame": sight.name,
                "part": calibration.parts[index] + 1,
                "forward_m": float(left.forward_m[index]),
                "right_m": float(left.right_m[index]),
                "scale": float(left.scale[index]),
                "azimuth_deg": float(left.azimuth_deg[index]),
                "weight": float(left.weight[index]),
            }
            for index, sight in enumerate(calibration.sights)
        ],
    }


def write_page(path: str | Path, calibration: Calibration, *, title: str) -> None:
    """Write a self-contained page: the estimates, and for every frame what they leave unexplained.

    Args:
        path: by atomic rename.
        calibration: what is shown.
        title: the flight's name.
    """
    left = calibration.solution.residuals
    names = [sight.name for sight in calibration.sights]
    charts = [
        ("Image's middle, along image-up (m)", _per_frame(names, left.forward_m, left.weight, "m")),
        ("Image's middle, to the right (m)", _per_frame(names, left.right_m, left.weight, "m")),
        ("Scale (%)", _per_frame(names, 100 * left.scale, left.weight, "%")),
        ("Direction of image-up (degrees)", _per_frame(names, left.azimuth_deg, left.weight, "°")),
    ]
    here = Path(__file__).parent
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([here, here.parent / "report"]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    record = as_record(calibration)
    html = environment.get_template("page.html.j2").render(
        title=title, record=record, words=_WORDS, charts=charts, rows=table_rows(record)
    )
    with atomic_path(path) as temporary:
        temporary.write_text(html, encoding="utf-8")


def table_rows(record: dict[str, Any]) -> list[dict[str, str]]:
    """The estimates of :func:`as_record` in words: ``what``, ``value``, ``sigma``, ``unit``, ``determined``."""
    rows = []
    for name, estimate in record["estimates"].items():
        digits = 1 if estimate["unit"] in ("px", "m") else 2
        # Only focal length and mount are in the file; an offset that is not determined is just not known.
        kept = "no: left as it was" if name.startswith(("focal", "mount")) else "no"
        rows.append(
            {
                "what": _words(name),
                "value": f"{estimate['value']:.{digits}f}",
                "sigma": f"{estimate['sigma']:.{digits}f}",
                "unit": estimate["unit"],
                "determined": "yes" if estimate["determined"] else kept,
            }
        )
    return rows


def _words(name: str) -> str:
    stem, _, part = name.rpartition("_")
    return f"{_WORDS[stem]}, part {part}" if part.isdigit() else _WORDS[name]


def _frames_by_part(calibration: Calibration) -> list[list[str]]:
    """Names of the frames of each part that were found."""
    names: list[list[str]] = [[] for _ in calibration.solution.cameras]
    for sight, part in zip(calibration.sights, calibration.parts, strict=True):
        names[part].append(sight.name)
    return names


def _spread(errors: NDArray[np.float64]) -> dict[str, float]:
    p50, p95 = np.percentile(errors, [50, 95])
    return {"p50": float(p50), "p95": float(p95), "max": float(errors.max())}


def _per_frame(names: Sequence[str], values: NDArray[np.float64], weights: NDArray[np.float64], unit: str) -> Markup:
    """One dot a frame in the order of the flight, around zero; what the fit disbelieves is drawn as a ring."""
    reach = _nice(float(np.abs(values).max()))
    middle = (_EDGE + _HEIGHT - _BOTTOM) / 2
    tall = (_HEIGHT - _BOTTOM - _EDGE) / 2
    parts = []
    for level in (-reach, 0.0, reach):
        y = middle - level / reach * tall
        parts.append(element("line", css="grid", x1=_LEFT, y1=y, x2=_WIDTH - _EDGE, y2=y))
        parts.append(element("text", f"{level:g} {unit}", x=_LEFT - 8, y=y + 4, text_anchor="end"))
    step = (_WIDTH - _EDGE - _LEFT) / len(names)
    for index, (name, value, weight) in enumerate(zip(names, values, weights, strict=True)):
        x, y = _LEFT + step * (index + 0.5), middle - float(value) / reach * tall
        css = "dot refined" if weight > 0.5 else "refused"
        title = f"{name}: {value:+.2f} {unit}" + ("" if weight > 0.5 else ", hardly believed")
        parts.append(element("circle", css=css, cx=x, cy=y, r=min(4.0, max(1.5, step * 0.4)), title=title))
    text = f"frames 1 to {len(names)}, in order"
    parts.append(element("text", text, x=(_LEFT + _WIDTH) / 2, y=_HEIGHT - 10, text_anchor="middle"))
    return drawing("chart", (_WIDTH, _HEIGHT), "What the fit leaves unexplained, frame by frame", parts)


def _nice(value: float) -> float:
    """The next of 1, 2, 5, 10 ... at or above a value."""
    if value <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(power * factor for factor in (1, 2, 5, 10) if power * factor >= value)
