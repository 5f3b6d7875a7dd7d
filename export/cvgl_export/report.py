"""The proof of an export as files: ``report.json`` for programs, and one page for people that opens offline."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cvgl.errors import ModelError
from cvgl.files import atomic_path, read_json, write_json

from .report_data import ReportData
from .report_page import page
from .report_record import FORMAT, FORMAT_VERSION, to_json

__all__ = ["PAGE", "REPORT", "read_report", "write_report"]

REPORT, PAGE = "report.json", "report.html"


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
    html = page(data)
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
