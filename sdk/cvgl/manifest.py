"""Manifests: the JSON files that say what a folder of ours is, read field by field with errors that name the field."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cvgl.errors import CvglError

__all__ = ["MANIFEST", "Fields", "is_plain_name", "refuse_to_replace_others"]

MANIFEST = "manifest.json"


class Fields:
    """Checked access to the fields of a JSON manifest.

    Args:
        data: the object.
        file: named in errors.
        error: the class that is raised.
        section: where in the manifest the object stands, with a dot at the end; empty for the top.
    """

    def __init__(self, data: Mapping[str, Any], file: Path, error: type[CvglError], section: str = "") -> None:
        self._data, self._file, self._error, self._section = data, file, error, section

    def _get(self, name: str, expected: str) -> Any:
        if name not in self._data:
            raise self._error("missing field", file=self._file, field=self._section + name, expected=expected)
        return self._data[name]

    def refuse(self, name: str, expected: str) -> CvglError:
        """The error for a field of the wrong kind or value."""
        return self._error(
            "not usable",
            file=self._file,
            field=self._section + name,
            found=self._data.get(name),
            expected=expected,
        )

    def text(self, name: str) -> str:
        """A string, which may be empty."""
        value = self._get(name, "a text")
        if not isinstance(value, str):
            raise self.refuse(name, "a text")
        return value

    def number(self, name: str, low: float = -math.inf, high: float = math.inf) -> float:
        """A finite number within the bounds."""
        upto = "" if math.isinf(high) else f" to {high:g}"
        expected = "a finite number" if math.isinf(low) else f"a number from {low:g}{upto}"
        value = self._get(name, expected)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            raise self.refuse(name, expected)
        if not low <= value <= high:
            raise self.refuse(name, expected)
        return float(value)

    def positive(self, name: str) -> float:
        """A finite number above 0."""
        value = self.number(name)
        if value <= 0.0:
            raise self.refuse(name, "a number above 0")
        return value

    def positive_or_none(self, name: str) -> float | None:
        """A finite number above 0, or null for what is not known."""
        return None if self._get(name, "a number above 0, or null") is None else self.positive(name)

    def integer(self, name: str, low: int = 1) -> int:
        """A whole number of at least ``low``."""
        value = self._get(name, f"a whole number from {low}")
        if isinstance(value, bool) or not isinstance(value, int) or value < low:
            raise self.refuse(name, f"a whole number from {low}")
        return value

    def numbers(self, name: str, count: int, low: float = -math.inf) -> tuple[float, ...]:
        """A list of ``count`` finite numbers."""
        value = self._get(name, f"{count} numbers")
        if not isinstance(value, list) or len(value) != count:
            raise self.refuse(name, f"{count} numbers")
        items = Fields({f"{name}[{i}]": item for i, item in enumerate(value)}, self._file, self._error, self._section)
        return tuple(items.number(f"{name}[{i}]", low) for i in range(count))

    def section(self, name: str) -> Fields:
        """An object inside this one."""
        value = self._get(name, "an object")
        if not isinstance(value, dict):
            raise self.refuse(name, "an object")
        return Fields(value, self._file, self._error, f"{self._section}{name}.")

    def sections(self, name: str) -> list[Fields]:
        """A list of objects inside this one."""
        value = self._get(name, "a list of objects")
        if not isinstance(value, list):
            raise self.refuse(name, "a list of objects")
        items = Fields({f"{name}[{i}]": item for i, item in enumerate(value)}, self._file, self._error, self._section)
        return [items.section(f"{name}[{i}]") for i in range(len(value))]

    def names(self) -> list[str]:
        """The fields that are there."""
        return list(self._data)

    def version(self, newest: int) -> int:
        """``format_version``, which must not be of the future."""
        value = self.integer("format_version")
        if value > newest:
            raise self._error(
                "written by a newer cvgl",
                file=self._file,
                field="format_version",
                found=value,
                expected=f"at most {newest}",
            )
        return value

    def files(self, *required: str) -> dict[str, dict[str, Any]]:
        """``files``: sizes and hashes by plain name, as ``cvgl.files.hash_files`` makes them."""
        section = self.section("files")
        files = {}
        for name in section.names():
            if not is_plain_name(name):
                raise self._error(
                    "not a plain file name",
                    file=self._file,
                    field="files",
                    found=name,
                    expected="a name in this folder",
                )
            entry = section.section(name)
            files[name] = {"bytes": entry.integer("bytes", 0), "sha256": entry.text("sha256")}
        for name in required:
            if name not in files:
                raise self._error("a file is not listed", file=self._file, field=f"files.{name}", expected="its hash")
        return files


def refuse_to_replace_others(path: Path, error: type[CvglError]) -> None:
    """Keep a slip of the hand from replacing a folder that is not one of ours.

    Raises:
        error: something stands at ``path`` that is neither an empty folder nor one with a manifest.
    """
    ours = path.is_dir() and ((path / MANIFEST).is_file() or not any(path.iterdir()))
    if path.exists() and not ours:
        raise error("stands there already and would be replaced", file=path, expected="a new or empty folder")


def is_plain_name(name: str) -> bool:
    """True for the name of a file directly in the folder: a manifest must not reach outside of it."""
    return bool(name) and Path(name).name == name and name not in (".", "..") and "\\" not in name and "\0" not in name
