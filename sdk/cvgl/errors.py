"""Every error this project raises on purpose.

Each message names the file, the field, what was found and what was expected, as far as they are known. Most classes
are built-ins as well, so that callers who know nothing of cvgl can still catch them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

__all__ = [
    "EXIT_BAD_INPUT",
    "EXIT_MISSING",
    "EXIT_USAGE",
    "CameraError",
    "CvglError",
    "FlightError",
    "FrameError",
    "GalleryError",
    "MapError",
    "MissingDependencyError",
    "MissionError",
    "ModelError",
]

EXIT_USAGE = 2
EXIT_MISSING = 3
EXIT_BAD_INPUT = 4


class CvglError(Exception):
    """Base of all errors of this project.

    Args:
        message: what is wrong, in one sentence.
        file: the file or folder at fault.
        field: the field, column or argument at fault.
        found: what was there.
        expected: what should have been there.
    """

    exit_status = EXIT_BAD_INPUT

    def __init__(
        self,
        message: str,
        *,
        file: str | Path | None = None,
        field: str | None = None,
        found: Any = None,
        expected: str | None = None,
    ) -> None:
        self.message = message
        self.file = None if file is None else Path(file)
        self.field = field
        self.found = found
        self.expected = expected
        parts = [] if file is None else [f"{file}: "]
        if field is not None:
            parts.append(f"{field}: ")
        parts.append(message)
        details = []
        if found is not None:
            details.append(f"found {found!r}")
        if expected is not None:
            details.append(f"expected {expected}")
        if details:
            parts.append(f" ({', '.join(details)})")
        super().__init__("".join(parts))


class CameraError(CvglError, ValueError):
    """A camera description that cannot be used."""


class FrameError(CvglError, ValueError):
    """A frame that cannot be localised as it is: image, time, height or attitude."""


class FlightError(CvglError, ValueError):
    """A flight folder that cannot be read."""


class MapError(CvglError, ValueError):
    """Satellite imagery that cannot be used: unreadable, without georeference, empty."""


class ModelError(CvglError, ValueError):
    """A model bundle that cannot be used."""


class GalleryError(CvglError, ValueError):
    """A gallery that cannot be used, or does not belong to the model."""


class MissionError(CvglError, ValueError):
    """A mission folder that cannot be used."""


class MissingDependencyError(CvglError, ImportError):
    """A package or device that the command needs is not here."""

    exit_status = EXIT_MISSING
