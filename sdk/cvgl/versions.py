"""The versions that a record of how something was made names."""

from __future__ import annotations

import platform

__all__ = ["versions"]

_PACKAGES = ("cvgl", "numpy", "opencv-python-headless", "onnxruntime", "hnswlib", "rasterio")


def versions() -> dict[str, str]:
    """Of Python and of every package that takes part."""
    # Imported here: it costs a cold start as much as all of this package, and flight asks for no versions.
    import importlib.metadata

    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:  # run from a source tree
            found[package] = "not installed"
    return found
