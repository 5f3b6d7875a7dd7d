"""What every record of a measurement names: the project's commit, and the machine as part of a file name."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

__all__ = ["ROOT", "commit", "slug"]

ROOT = Path(__file__).resolve().parents[1]


def commit() -> str:
    """The project's git commit, with ``+changes`` where the working tree differs from it."""

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()

    try:
        changed = git("status", "--porcelain", "--untracked-files=no", "--", "sdk", "train", "export")
        return git("rev-parse", "--short=12", "HEAD") + ("+changes" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def slug(text: str) -> str:
    """Lower case with dashes, for file names."""
    return re.sub(r"[^a-z0-9]+", "-", re.sub(r"\((r|tm)\)", "", text.lower())).strip("-")
