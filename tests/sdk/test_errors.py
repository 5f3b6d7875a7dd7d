"""Errors say which file, which field, what was found and what was expected, and end a command as scripts expect."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest

from cvgl import errors
from cvgl.errors import CvglError, MissingDependencyError

CHILDREN = [value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, CvglError)]


@pytest.mark.parametrize(
    ("details", "expected"),
    [
        ({}, "not usable"),
        ({"file": "camera.yaml"}, "camera.yaml: not usable"),
        ({"file": Path("a/camera.yaml"), "field": "fx"}, "a/camera.yaml: fx: not usable"),
        ({"field": "fx", "found": -1.0}, "fx: not usable (found -1.0)"),
        ({"expected": "a number"}, "not usable (expected a number)"),
        (
            {"file": "camera.yaml", "field": "fx", "found": "wide", "expected": "a number"},
            "camera.yaml: fx: not usable (found 'wide', expected a number)",
        ),
        # Nothing and zero are things that can be found.
        ({"found": 0}, "not usable (found 0)"),
        ({"found": ""}, "not usable (found '')"),
        ({"found": []}, "not usable (found [])"),
    ],
)
def test_message_says_all_that_is_known(details: dict[str, Any], expected: str) -> None:
    error = CvglError("not usable", **details)
    assert str(error) == expected
    assert error.message == "not usable"
    assert error.file == (Path(details["file"]) if "file" in details else None)
    for name in ("field", "found", "expected"):
        assert getattr(error, name) == details.get(name)


@pytest.mark.parametrize(
    ("child", "built_in", "status"),
    [
        (errors.CameraError, ValueError, 4),
        (errors.FrameError, ValueError, 4),
        (errors.FlightError, ValueError, 4),
        (errors.MapError, ValueError, 4),
        (errors.ModelError, ValueError, 4),
        (errors.GalleryError, ValueError, 4),
        (errors.MissionError, ValueError, 4),
        (errors.MissingDependencyError, ImportError, 3),
    ],
)
def test_is_a_built_in_too_and_has_an_exit_status(
    child: type[CvglError], built_in: type[Exception], status: int
) -> None:
    with pytest.raises(built_in, match="broken"):
        raise child("broken", file="somewhere")
    assert issubclass(child, CvglError)
    assert child("broken").exit_status == status


def test_exit_statuses() -> None:
    assert (errors.EXIT_USAGE, errors.EXIT_MISSING, errors.EXIT_BAD_INPUT) == (2, 3, 4)
    assert CvglError.exit_status == errors.EXIT_BAD_INPUT
    assert MissingDependencyError.exit_status == errors.EXIT_MISSING


@pytest.mark.parametrize("child", CHILDREN)
def test_every_error_is_exported_and_documented(child: type[CvglError]) -> None:
    assert child.__name__ in errors.__all__
    assert child.__doc__


@pytest.mark.parametrize("child", CHILDREN)
def test_crosses_processes(child: type[CvglError]) -> None:
    error = child("not usable", file="camera.yaml", field="fx", found=-1.0, expected="a positive number")
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is child
    assert (copy.message, copy.file, copy.field, copy.found) == ("not usable", Path("camera.yaml"), "fx", -1.0)
