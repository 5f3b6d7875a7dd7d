"""An export that ends in an engine, against the genuine bindings of three versions of TensorRT."""

from __future__ import annotations

from collections.abc import Callable

import pytest


@pytest.mark.parametrize("version", ["10.3.0", "10.13.3.9", "11.4.0.106"])
def test_with_the_genuine_bindings(version: str, check_with_tensorrt: Callable[[str, str], None]) -> None:
    check_with_tensorrt(version, "check_export.py")
