"""Parameters are refused with the file, the name, what was found and what was expected."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvgl_ros.parameters import LIVE, ParameterError, Parameters, read_parameters

SHIPPED = Path(__file__).resolve().parents[2] / "ros_bridge" / "cvgl_ros" / "localizer.yaml"


def test_the_shipped_file_states_every_parameter_with_its_default() -> None:
    values = read_parameters(SHIPPED)
    assert set(values) == {field.name for field in dataclasses.fields(Parameters)}
    assert Parameters().changed_to(Parameters.from_dict(values)) == frozenset()


def test_the_shipped_file_marks_what_may_change_while_flying() -> None:
    marked = set()
    comment = ""
    for line in SHIPPED.read_text(encoding="utf-8").splitlines():
        text = line.strip()
        if text.startswith("#"):
            comment += text
        elif ":" in text:
            if "[live]" in comment + line and not text.startswith("/**"):
                marked.add(text.split(":")[0])
            comment = ""
    # One comment stands above two parameters of the debug image.
    assert marked | {"debug_image_period_s"} == LIVE


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"missoin": "x"}, "missoin: unknown"),
        ({"threads": 1.5}, "threads: not usable.*a whole number"),
        ({"threads": True}, "threads: not usable"),
        ({"threads": -1}, "threads: out of range.*0 to 64"),
        ({"tracking": 1}, "tracking: not usable.*true or false"),
        ({"frame_id": ""}, "frame_id: not a frame"),
        ({"frame_id": "/base"}, "frame_id: not a frame"),
        ({"map_frame": "a b"}, "map_frame: not a frame"),
        ({"mode": "sometimes"}, "mode: not one of these.*continuous, trigger"),
        ({"max_telemetry_age_s": math.nan}, "max_telemetry_age_s: not usable"),
        ({"max_telemetry_age_s": "1"}, "max_telemetry_age_s: not usable.*a number"),
        ({"telemetry_wait_s": 1e9}, "telemetry_wait_s: out of range"),
        ({"max_telemetry_age_s": 1.5}, "max_telemetry_age_s: too long.*at most clock_jump_s"),
        ({"map_origin_latitude": 47.0}, "map_origin_latitude: half an origin"),
        ({"altitude_source": "topic"}, "altitude_sigma_m: not set"),
        ({"altitude_source": "constant", "altitude_sigma_m": 1.0}, "altitude_ellipsoid_m: not set"),
        ({"altitude_source": "ground", "ground_ellipsoid_m": 1.0, "altitude_sigma_m": 1}, "height_sigma_m: not set"),
        ({"height_source": "altitude"}, "ground_ellipsoid_m: not set"),
        ({"altitude_source": "topic", "altitude_sigma_m": 0.0}, "altitude_sigma_m: out of range"),
    ],
)
def test_what_cannot_be_used_is_named(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ParameterError, match=message) as caught:
        Parameters.from_dict(values, "my.yaml")
    assert str(caught.value).startswith("my.yaml: ")


def test_height_and_altitude_do_not_make_each_other() -> None:
    values = {"height_source": "altitude", "altitude_source": "ground", "ground_ellipsoid_m": 1.0}
    with pytest.raises(ParameterError, match="goes in a circle"):
        Parameters.from_dict({**values, "altitude_sigma_m": 1.0, "height_sigma_m": 1.0})


def test_a_whole_number_may_stand_for_a_real_one() -> None:
    assert Parameters.from_dict({"telemetry_wait_s": 1}).telemetry_wait_s == 1.0


def test_the_nodes_own_section_goes_over_the_common_one(tmp_path: Path) -> None:
    file = tmp_path / "p.yaml"
    file.write_text(
        "/**:\n  ros__parameters: {frame_id: a, map_frame: m, use_sim_time: true}\n"
        "localizer:\n  ros__parameters: {frame_id: b}\n",
        encoding="utf-8",
    )
    assert read_parameters(file) == {"frame_id": "b", "map_frame": "m"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not a parameter file"),
        ("[1, 2]", "not a parameter file"),
        ("other:\n  ros__parameters: {}", "no section for this node"),
        ("/**: 3", r"/\*\*: not usable"),
        ("/**:\n  ros__parameters: 7", r"/\*\*: not usable"),
        ("a: [", "not readable as YAML"),
    ],
)
def test_files_that_are_none_are_refused(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "p.yaml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(ParameterError, match=message) as caught:
        read_parameters(file)
    assert str(caught.value).startswith(str(file))


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(ParameterError, match="no such file"):
        read_parameters(tmp_path / "absent.yaml")


NAMES = st.sampled_from([field.name for field in dataclasses.fields(Parameters)])
ANYTHING = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5), st.lists(st.none()))


@given(st.dictionaries(NAMES, ANYTHING, max_size=4))
def test_any_values_are_taken_or_refused_with_a_name(values: dict[str, Any]) -> None:
    try:
        Parameters.from_dict(values)
    except ParameterError as error:
        assert error.field
