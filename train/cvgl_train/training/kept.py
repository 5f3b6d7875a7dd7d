"""What a run keeps in its folder, so that it goes on where it was stopped."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from cvgl.errors import ModelError
from cvgl.files import atomic_path, write_json

from ..models.base import CrossViewModel
from ..weights import unreadable
from .plan import Plan

__all__ = ["CHECKPOINT", "CURVE", "RunState", "load_run", "restoring", "save_run"]

CHECKPOINT = "checkpoint.pt"
CURVE = "curve.json"
_FORMAT, _VERSION = "cvgl-run", 1
_NEEDED = "an empty folder, resume=false, or the run that was begun here"
# A run may be made longer or go on elsewhere; everything else would make it another one.
_MAY_CHANGE = {"epochs", "steps", "minutes", "checkpoint_seconds", "precision", "threads"}


@dataclass
class RunState:
    """How far a run has come.

    Args:
        step: optimiser steps done.
        seconds: of training.
        loss: running mean.
        curve: one line a validation.
        best: the best selected score so far.
        epoch: whose batches the sampler's state belongs to.
    """

    step: int = 0
    seconds: float = 0.0
    loss: float = 0.0
    curve: list[dict[str, Any]] = field(default_factory=list)
    best: float | None = None
    epoch: int = -1


def save_run(
    folder: Path,
    model: CrossViewModel,
    optimiser: dict[str, Any],
    sampler: dict[str, Any],
    state: RunState,
    plan: Plan,
    seed: int,
    about: dict[str, Any],
) -> None:
    """Write the checkpoint and the curve, each atomically."""
    with atomic_path(folder / CHECKPOINT) as temporary:
        torch.save(
            {
                "format": _FORMAT,
                "version": _VERSION,
                "run": _identity(model, plan, seed, about),
                "model": model.state_dict(),
                "optimiser": optimiser,
                "sampler": sampler,
                "state": asdict(state),
            },
            temporary,
        )
    write_json(folder / CURVE, {"curve": state.curve})


def load_run(
    folder: Path, model: CrossViewModel, plan: Plan, seed: int, about: dict[str, Any]
) -> dict[str, Any] | None:
    """The checkpoint in the folder, its weights put into the model; None where there is none.

    Returns:
        `optimiser`, `sampler` (state dicts) and `state` (a `RunState`).

    Raises:
        ModelError: not a checkpoint, or one of another run; the fields in which they differ are named.
    """
    path = folder / CHECKPOINT
    if not path.exists():
        return None
    try:
        data = torch.load(path, map_location="cpu", weights_only=True)
        if data["format"] != _FORMAT or data["version"] != _VERSION:
            raise ValueError(f"{data['format']} {data['version']}")
        begun, now = dict(data["run"]), _identity(model, plan, seed, about)
    except Exception as reason:
        # torch raises pickle's, zipfile's and its own errors, depending on where the damage is.
        raise ModelError(f"not a checkpoint of a run: {unreadable(reason)}", file=path, expected=_NEEDED) from reason
    differs = sorted(key for key in begun.keys() | now.keys() if begun.get(key) != now.get(key))
    if differs:
        raise ModelError(
            "a checkpoint of another run",
            file=path,
            field=", ".join(differs),
            found=begun.get(differs[0]),
            expected=f"{now.get(differs[0])!r}; {_NEEDED}",
        )
    with restoring(folder):
        model.load_state_dict(data["model"])
        return {"optimiser": data["optimiser"], "sampler": data["sampler"], "state": RunState(**data["state"])}


@contextmanager
def restoring(folder: Path) -> Iterator[None]:
    """Names the checkpoint where PyTorch finds that a part of it fits nothing here. Raises ModelError."""
    try:
        yield
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as reason:
        raise ModelError(
            f"not a checkpoint of this run: {reason}", file=folder / CHECKPOINT, expected=_NEEDED
        ) from reason


def _identity(model: CrossViewModel, plan: Plan, seed: int, about: dict[str, Any]) -> dict[str, Any]:
    kept = {name: value for name, value in asdict(plan).items() if name not in _MAY_CHANGE}
    whole: dict[str, Any] = {
        "model": model.info.name,
        "settings": asdict(model.settings),
        **kept,
        "seed": seed,
        **about,
    }
    return {name: _plain(value) for name, value in whole.items()}


def _plain(value: Any) -> Any:
    """Tuples as lists, so that what was saved compares equal with what a YAML file says."""
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, (list, tuple)) else value
