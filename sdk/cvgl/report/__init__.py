"""The flight report: one HTML file that carries everything it shows and opens offline."""

from __future__ import annotations

from cvgl.report.build import write_report
from cvgl.report.overview import Overview

__all__ = ["Overview", "write_report"]
