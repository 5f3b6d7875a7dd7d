"""What every record of a measurement has: its commit, its machine, and two files, for programs and for people."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import typer

from cvgl.errors import CvglError
from cvgl.files import atomic_path, write_json

__all__ = ["ROOT", "commit", "on_machine", "run_app", "slug", "write_record"]

ROOT = Path(__file__).resolve().parents[1]


def commit() -> str:
    """The project's git commit, with ``+changes`` where the working tree differs from it."""

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()

    try:
        changed = git("status", "--porcelain", "--untracked-files=no", "--", "sdk", "train", "export", "ros_bridge")
        return git("rev-parse", "--short=12", "HEAD") + ("+changes" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def slug(text: str) -> str:
    """Lower case with dashes, for file names."""
    return re.sub(r"[^a-z0-9]+", "-", re.sub(r"\((r|tm)\)", "", text.lower())).strip("-")


def on_machine(name: str, about: dict[str, Any]) -> str:
    """The name of a record of times, which hold for one machine.

    Args:
        name: of the benchmark.
        about: the machine, from `cvgl.bench.machine`.
    """
    return f"{name}-{slug(about['processor'])}-{about['cores']}-cores"


def write_record(folder: Path, name: str, data: dict[str, Any], page: str) -> None:
    """Write what was measured as ``NAME.json``, and the same for people as ``NAME.md``; say where.

    Args:
        folder: of the results.
        name: of the record.
        data: every digit; JSON values.
        page: Markdown.
    """
    write_json(folder / f"{name}.json", data)
    with atomic_path(folder / f"{name}.md") as temporary:
        temporary.write_text(page, encoding="utf-8")
    print(f"written: {folder / name}.md and .json", flush=True)


def run_app(app: typer.Typer) -> None:
    """Run a benchmark's command; what the project refuses ends in words and its exit status."""
    try:
        app()
    except CvglError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_status)
