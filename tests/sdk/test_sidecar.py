"""The sidecar of an engine: what is refused by name, before TensorRT would see the plan."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvgl.engines.sidecar import (
    Platform,
    Sidecar,
    check_plan,
    misfit,
    publish_engine,
    read_sidecar,
    sidecar_path,
    write_sidecar,
)
from cvgl.errors import ModelError

PLAN = bytes(range(256)) * 3
HERE = Platform("10.3.0", "Orin", (8, 7))
SIDECAR = replace(
    read_sidecar(Path(__file__).parents[1] / "sample.engine"),
    plan_sha256=hashlib.sha256(PLAN).hexdigest(),
    plan_bytes=len(PLAN),
)


@pytest.fixture
def engine(tmp_path: Path) -> Path:
    path = tmp_path / "embed.engine"
    path.write_bytes(PLAN)
    write_sidecar(path, SIDECAR)
    return path


def test_it_is_read_as_it_was_written(engine: Path) -> None:
    assert sidecar_path(engine).name == "embed.engine.json"
    assert read_sidecar(engine) == SIDECAR
    write_sidecar(engine, replace(SIDECAR, dla_core=1, achieved={}, views=("query",)))
    assert read_sidecar(engine) == replace(SIDECAR, dla_core=1, achieved={}, views=("query",))
    assert check_plan(engine, SIDECAR, HERE) == PLAN


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (lambda s: s.pop("format_version"), "format_version: missing"),
        (lambda s: s.update(format_version=2), "format_version: written by a newer cvgl"),
        (lambda s: s.update(tensorrt="ten"), "tensorrt: not usable"),
        (lambda s: s.update(tensorrt=10.3), "tensorrt: not usable"),
        (lambda s: s.pop("cuda"), "cuda: missing"),
        (lambda s: s.update(driver=None), "driver: not usable"),
        (lambda s: s.update(gpu=7), "gpu: not usable"),
        (lambda s: s.update(compute_capability=[8]), "compute_capability: not usable"),
        (lambda s: s.update(compute_capability=[8, 7.5]), "compute_capability: not usable"),
        (lambda s: s.update(hardware_compatibility="all"), "hardware_compatibility: not usable"),
        (lambda s: s.update(version_compatible="no"), "version_compatible: not usable"),
        (lambda s: s.pop("tf32"), "tf32: not usable"),
        (lambda s: s.pop("dla_core"), "dla_core: missing"),
        (lambda s: s.update(dla_core=-1), "dla_core: not usable"),
        (lambda s: s.update(plan_sha256="f" * 63), "plan_sha256: not usable"),
        (lambda s: s.update(plan_bytes=0), "plan_bytes: not usable"),
        (lambda s: s.update(source_sha256=""), "source_sha256: not usable"),
        (lambda s: s.pop("fingerprint"), "fingerprint: missing"),
        (lambda s: s.update(views=[]), "views: not usable"),
        (lambda s: s.update(views=["drone"]), "views: not usable"),
        (lambda s: s.update(views="query"), "views: not usable"),
        (lambda s: s.update(input_size=[224, 0]), r"input_size\[1\]: not usable"),
        (lambda s: s.update(batch=[1, 16]), "batch: not usable"),
        (lambda s: s.update(batch=[4, 1, 16]), "batch: not usable"),
        (lambda s: s.update(descriptor_size=True), "descriptor_size: not usable"),
        (lambda s: s.update(precision=16), "precision: not usable"),
        (lambda s: s.update(achieved=["fp16"]), "achieved: not usable"),
        (lambda s: s["achieved"].update(fp16="many"), r"achieved\.fp16: not usable"),
        (lambda s: s.pop("made_at"), "made_at: missing"),
        (lambda s: s.update(made_with=[]), "made_with: not usable"),
    ],
)
def test_a_record_that_cannot_be_right_is_refused_by_field(engine: Path, change: Any, field: str) -> None:
    path = sidecar_path(engine)
    record = json.loads(path.read_text())
    change(record)
    path.write_text(json.dumps(record))
    with pytest.raises(ModelError, match=field) as caught:
        read_sidecar(engine)
    assert str(path) in str(caught.value)


@given(st.binary(max_size=400))
def test_no_bytes_make_it_fail_otherwise(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.mktemp("sidecar") / "a.engine"
    sidecar_path(path).write_bytes(content)
    with pytest.raises(ModelError):
        read_sidecar(path)


def test_a_damaged_record_is_refused_or_still_guards_its_plan(engine: Path) -> None:
    path = sidecar_path(engine)
    whole = path.read_bytes()
    for place in range(0, len(whole), 5):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        try:
            found = read_sidecar(engine)
        except ModelError as error:
            assert "embed.engine" in str(error)
        else:
            same = (found.plan_sha256, found.plan_bytes) == (SIDECAR.plan_sha256, SIDECAR.plan_bytes)
            assert same or _refused(engine, found)


def _refused(engine: Path, sidecar: Sidecar) -> bool:
    with pytest.raises(ModelError):
        check_plan(engine, sidecar, HERE)
    return True


def test_every_flipped_or_missing_byte_of_the_plan_is_found(engine: Path) -> None:
    for place in range(0, len(PLAN), 29):
        engine.write_bytes(PLAN[:place] + bytes([PLAN[place] ^ 8]) + PLAN[place + 1 :])
        with pytest.raises(ModelError, match=r"embed\.engine: plan_sha256: altered \(found"):
            check_plan(engine, SIDECAR, HERE)
        engine.write_bytes(PLAN[:place])
        with pytest.raises(ModelError, match=rf"plan_bytes: truncated or altered \(found {place}, expected 768\)"):
            check_plan(engine, SIDECAR, HERE)
    engine.unlink()
    with pytest.raises(ModelError, match=r"embed\.engine: no such engine"):
        check_plan(engine, SIDECAR, HERE)
    sidecar_path(engine).unlink()
    with pytest.raises(ModelError, match=r"sidecar: no sidecar: .*expected embed\.engine\.json beside it"):
        read_sidecar(engine)


V, H = "version_compatible", "hardware_compatibility"


@pytest.mark.parametrize(
    ("built", "changes", "running", "fits"),
    [
        ("10.3.0", {}, "10.3.0", True),
        ("10.13.3.9", {}, "10.13.3", True),
        ("10.13.3", {}, "10.13.3.9", True),
        ("10.13.3.9", {}, "10.13.2.6", False),
        ("10.3.0", {}, "10.13.3.9", False),
        ("10.3.0", {}, "11.4.0.106", False),
        ("10.3.0", {V: True}, "10.13.3.9", True),
        ("10.13.3.9", {V: True}, "10.3.0", False),
        ("10.3.0", {V: True}, "11.4.0.106", True),
        ("11.4.0.106", {V: True}, "10.13.3.9", False),
        ("8.6.1", {V: True}, "11.4.0.106", False),
    ],
)
def test_which_version_of_tensorrt_runs_it(built: str, changes: dict[str, Any], running: str, fits: bool) -> None:
    found = misfit("a.engine", replace(SIDECAR, tensorrt=built, **changes), replace(HERE, tensorrt=running))
    assert (found is None) == fits
    if found is not None:
        assert found.field == "tensorrt"
        assert (running in str(found), built in str(found)) == (True, True)


@pytest.mark.parametrize(
    ("level", "capability", "fits"),
    [
        ("none", (8, 7), True),
        ("none", (8, 6), False),
        ("none", (12, 0), False),
        ("same_compute_capability", (8, 7), True),
        ("same_compute_capability", (9, 0), False),
        ("ampere_plus", (8, 0), True),
        ("ampere_plus", (11, 0), True),
        ("ampere_plus", (7, 5), False),
    ],
)
def test_which_gpu_runs_it(level: str, capability: tuple[int, int], fits: bool) -> None:
    there = Platform("10.3.0", "Another", capability)
    found = misfit("a.engine", replace(SIDECAR, hardware_compatibility=level), there)
    assert (found is None) == fits
    if found is not None:
        assert found.field == "compute_capability"
        assert f"{capability[0]}.{capability[1]} (Another)" in str(found)


def test_a_foreign_plan_is_refused_and_says_what_it_would_take(engine: Path) -> None:
    with pytest.raises(ModelError, match=r"tensorrt: built for another version .*found '11\.4\.0', expected 10\.3\.0"):
        check_plan(engine, SIDECAR, replace(HERE, tensorrt="11.4.0"))
    with pytest.raises(ModelError, match=r"another GPU \(found '9\.0 \(H100\)', expected 8\.7 \(Orin\)\)"):
        check_plan(engine, SIDECAR, Platform("10.3.0", "H100", (9, 0)))


def test_an_engine_is_published_with_its_record(engine: Path, tmp_path: Path) -> None:
    target = tmp_path / "there" / "query.engine"
    target.parent.mkdir()
    target.write_bytes(b"older")
    publish_engine(engine, target)
    assert check_plan(target, read_sidecar(target), HERE) == PLAN
    assert sorted(str(entry.relative_to(tmp_path)) for entry in tmp_path.rglob("*")) == [
        "there",
        "there/query.engine",
        "there/query.engine.json",
    ]
