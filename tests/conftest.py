"""Fixtures every test may use."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def cvgl_data() -> Path:
    """The folder of real flights, maps and models; a test that asks for it is skipped where it is absent."""
    folder = Path(os.environ.get("CVGL_DATA") or ROOT.parent / "shared").expanduser()
    if not (folder / "flights").is_dir():
        pytest.skip(f"no shared data at {folder} (set CVGL_DATA to the folder that holds flights/ and maps/)")
    return folder
