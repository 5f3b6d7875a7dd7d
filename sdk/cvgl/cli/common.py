"""What all command lines share: errors become one line on stderr and an exit status."""

from __future__ import annotations

import sys

import typer

from cvgl.errors import CvglError

__all__ = ["main"]


def main(app: typer.Typer) -> None:
    """Run a command line; an error of ours ends it with one line and its exit status (see cvgl.errors)."""
    try:
        app()
    except CvglError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_status)
