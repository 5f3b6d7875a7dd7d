"""``python -m cvgl_train`` is ``cvgl-train``; torchrun starts modules."""

from __future__ import annotations

from .cli import app_main

if __name__ == "__main__":
    app_main()
