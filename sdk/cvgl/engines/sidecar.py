"""The sidecar of a TensorRT engine: what the plan is and where it runs, checked before TensorRT sees a byte of it.

A plan belongs to one TensorRT version and one kind of GPU, and loading a foreign or damaged one can crash the process.
The record stands beside it as ``NAME.engine.json``: inside the plan it would make it unreadable to other tools.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cvgl.errors import ModelError
from cvgl.files import atomic_path, read_json, write_json
from cvgl.manifest import Fields

__all__ = [
    "FORMAT_VERSION",
    "HARDWARE_COMPATIBILITY",
    "Platform",
    "Sidecar",
    "check_plan",
    "misfit",
    "publish_engine",
    "read_sidecar",
    "sidecar_path",
    "write_sidecar",
]

FORMAT_VERSION = 1
HARDWARE_COMPATIBILITY = ("none", "same_compute_capability", "ampere_plus")
"""On which GPUs a plan runs: those it was built on, those of its compute capability, all from 8.0 on."""

_VERSION = re.compile(r"\d+(\.\d+){1,3}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_AMPERE = (8, 0)
# The one pair of major versions across which NVIDIA supports version-compatible plans, of those that matter here.
_ACROSS_MAJORS = {(10, 11)}


@dataclass(frozen=True)
class Platform:
    """What runs engines on this machine.

    Args:
        tensorrt: version of TensorRT.
        gpu: name of the GPU.
        compute_capability: of that GPU, (major, minor).
    """

    tensorrt: str
    gpu: str
    compute_capability: tuple[int, int]


@dataclass(frozen=True)
class Sidecar:
    """What is known of a plan.

    Args:
        tensorrt: the version that built it, and, unless version-compatible, the only one that runs it.
        cuda: version of CUDA that pycuda was built with there.
        driver: newest version of CUDA that the driver there serves.
        gpu: name of the GPU it was built on.
        compute_capability: of that GPU, (major, minor).
        hardware_compatibility: one of `HARDWARE_COMPATIBILITY`.
        version_compatible: newer versions of TensorRT run it as well.
        dla_core: the deep learning accelerator it is for; None for the GPU.
        tf32: FP32 layers may round their factors to TF32.
        plan_sha256, plan_bytes: of the plan.
        source_sha256: of the ONNX file it was built from.
        fingerprint: of the model.
        views: of the model that it embeds, "query" or "reference" or both.
        input_size: (height, width), pixels.
        batch: the least, the best and the largest batch.
        descriptor_size: length of one descriptor.
        precision: what the graph asks for, such as "fp16".
        achieved: number of layers by the precision that the built engine reports; empty where it reported none.
        made_at: ISO 8601, UTC.
        made_with: program and version.
    """

    tensorrt: str
    cuda: str
    driver: str
    gpu: str
    compute_capability: tuple[int, int]
    hardware_compatibility: str
    version_compatible: bool
    dla_core: int | None
    tf32: bool
    plan_sha256: str
    plan_bytes: int
    source_sha256: str
    fingerprint: str
    views: tuple[str, ...]
    input_size: tuple[int, int]
    batch: tuple[int, int, int]
    descriptor_size: int
    precision: str
    achieved: Mapping[str, int]
    made_at: str
    made_with: str


def sidecar_path(engine: str | Path) -> Path:
    """``model.engine`` -> ``model.engine.json``."""
    engine = Path(engine)
    return engine.with_name(engine.name + ".json")


def write_sidecar(engine: str | Path, sidecar: Sidecar) -> None:
    """Write the sidecar of the plan ``engine``, and read it back."""
    write_json(sidecar_path(engine), {"format_version": FORMAT_VERSION, **asdict(sidecar)})
    read_sidecar(engine)


def read_sidecar(engine: str | Path) -> Sidecar:
    """The sidecar of the plan ``engine``, every field checked; the plan itself is not read.

    Raises:
        ModelError: no sidecar, one of a newer format, or a field missing or unusable.
    """
    path = sidecar_path(engine)
    if not path.is_file():
        raise ModelError(
            "no sidecar: nothing says what this plan is",
            file=engine,
            field="sidecar",
            expected=f"{path.name} beside it",
        )
    data = read_json(path, ModelError)
    fields = Fields(data, path, ModelError)
    fields.version(FORMAT_VERSION)
    major, minor = _whole(fields, "compute_capability", 2, 0)
    height, width = _whole(fields, "input_size", 2, 1)
    least, best, most = _whole(fields, "batch", 3, 1)
    if not least <= best <= most:
        raise fields.refuse("batch", "the least, the best and the largest batch, in this order")
    histogram = fields.section("achieved")
    return Sidecar(
        tensorrt=_matching(fields, "tensorrt", _VERSION, "a version such as 10.3.0"),
        cuda=fields.text("cuda"),
        driver=fields.text("driver"),
        gpu=fields.text("gpu"),
        compute_capability=(major, minor),
        hardware_compatibility=_one_of(fields, "hardware_compatibility", HARDWARE_COMPATIBILITY),
        version_compatible=_flag(fields, "version_compatible", data),
        dla_core=None if data.get("dla_core", 0) is None else fields.integer("dla_core", 0),
        tf32=_flag(fields, "tf32", data),
        plan_sha256=_matching(fields, "plan_sha256", _SHA256, "64 hexadecimal digits"),
        plan_bytes=fields.integer("plan_bytes"),
        source_sha256=_matching(fields, "source_sha256", _SHA256, "64 hexadecimal digits"),
        fingerprint=fields.text("fingerprint"),
        views=_views(fields, data),
        input_size=(height, width),
        batch=(least, best, most),
        descriptor_size=fields.integer("descriptor_size"),
        precision=fields.text("precision"),
        achieved={name: histogram.integer(name, 0) for name in histogram.names()},
        made_at=fields.text("made_at"),
        made_with=fields.text("made_with"),
    )


def misfit(engine: str | Path, sidecar: Sidecar, here: Platform) -> ModelError | None:
    """Why the plan does not run here, by TensorRT's own rules of compatibility; None where it does.

    A plan of another GPU of the same compute capability is let through: TensorRT runs it, if not as fast.
    """
    if not _version_fits(sidecar, here.tensorrt):
        rule = (
            f"{sidecar.tensorrt} or newer (it is version-compatible)"
            if sidecar.version_compatible
            else sidecar.tensorrt
        )
        return ModelError(
            "built for another version of TensorRT", file=engine, field="tensorrt", found=here.tensorrt, expected=rule
        )
    any_ampere = sidecar.hardware_compatibility == "ampere_plus"
    if any_ampere and here.compute_capability < _AMPERE:
        expected = "8.0 or higher (it is hardware-compatible)"
    elif not any_ampere and here.compute_capability != sidecar.compute_capability:
        expected = f"{_dotted(sidecar.compute_capability)} ({sidecar.gpu})"
    else:
        return None
    return ModelError(
        "built for another GPU",
        file=engine,
        field="compute_capability",
        found=f"{_dotted(here.compute_capability)} ({here.gpu})",
        expected=expected,
    )


def check_plan(engine: str | Path, sidecar: Sidecar, here: Platform) -> bytes:
    """Verify size, hash, TensorRT version and compute capability of a plan.

    Returns:
        The plan: the very bytes that were checked.

    Raises:
        ModelError: the plan is absent, truncated, altered, or made for another TensorRT or GPU than this machine's.
    """
    engine = Path(engine)
    try:
        size = engine.stat().st_size
    except OSError:
        raise ModelError("no such engine", file=engine) from None
    if size != sidecar.plan_bytes:
        raise ModelError(
            "truncated or altered", file=engine, field="plan_bytes", found=size, expected=str(sidecar.plan_bytes)
        )
    plan = engine.read_bytes()
    found = hashlib.sha256(plan).hexdigest()
    if found != sidecar.plan_sha256:
        raise ModelError(
            "altered", file=engine, field="plan_sha256", found=found[:16], expected=sidecar.plan_sha256[:16]
        )
    foreign = misfit(engine, sidecar, here)
    if foreign is not None:
        raise foreign
    return plan


def publish_engine(built: str | Path, path: str | Path) -> None:
    """Move a plan and its sidecar to ``path``, on the same file system.

    A crash between the two renames leaves a sidecar that does not match its plan, which is refused when it is loaded;
    never a plan that looks right and is not.
    """
    built, path = Path(built), Path(path)
    # The inner name appears first.
    with atomic_path(path) as plan, atomic_path(sidecar_path(path)) as record:
        os.replace(sidecar_path(built), record)
        os.replace(built, plan)


def _version_fits(sidecar: Sidecar, here: str) -> bool:
    if here == sidecar.tensorrt:
        return True
    built, running = _numbers(sidecar.tensorrt), _numbers(here)
    # Releases are three numbers; a fourth counts builds, and some packages of the same release leave it out.
    if built[:3] == running[:3]:
        return True
    same_line = built[0] == running[0] or (built[0], running[0]) in _ACROSS_MAJORS
    return sidecar.version_compatible and same_line and running >= built


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version))


def _dotted(capability: tuple[int, int]) -> str:
    return f"{capability[0]}.{capability[1]}"


def _whole(fields: Fields, name: str, count: int, low: int) -> tuple[int, ...]:
    values = fields.numbers(name, count, low=low)
    if any(value != int(value) for value in values):
        raise fields.refuse(name, f"{count} whole numbers")
    return tuple(int(value) for value in values)


def _matching(fields: Fields, name: str, pattern: re.Pattern[str], expected: str) -> str:
    value = fields.text(name)
    if not pattern.fullmatch(value):
        raise fields.refuse(name, expected)
    return value


def _one_of(fields: Fields, name: str, choices: tuple[str, ...]) -> str:
    value = fields.text(name)
    if value not in choices:
        raise fields.refuse(name, " or ".join(choices))
    return value


def _flag(fields: Fields, name: str, data: Mapping[str, Any]) -> bool:
    value = data.get(name)
    if not isinstance(value, bool):
        raise fields.refuse(name, "true or false")
    return value


def _views(fields: Fields, data: Mapping[str, Any]) -> tuple[str, ...]:
    value = data.get("views")
    if not isinstance(value, list) or not value or not set(map(str, value)) <= {"query", "reference"}:
        raise fields.refuse("views", "a list of 'query', 'reference' or both")
    return tuple(value)
