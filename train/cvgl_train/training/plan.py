"""How a run trains: for how long, with which loss, optimiser and arithmetic."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from cvgl.errors import CvglError

from ..factories import checked_fields

__all__ = ["Plan", "PlanError"]


class PlanError(CvglError, ValueError):
    """A plan of training that cannot be followed."""


@dataclass(frozen=True)
class Plan:
    """How to train.

    A run ends with its epochs, its steps or its minutes, whichever comes first; at least one of them has to be given.

    Args:
        loss: terms of the objective, see `cvgl_train.losses.terms`.
        optimiser, schedule: see `cvgl_train.optimisers`.
        batch: pairs a step, over all processes together.
        epochs, steps: of training.
        minutes: of training time; a resumed run counts what it had used. Such a run follows the clock, so that no two
            are the same.
        precision: "32", "bf16", or "auto": bfloat16 where this device is faster with it.
        clip: largest norm of the gradient; None for no limit.
        validate_every: epochs between validations; None: at every checkpoint, which follows the clock.
        checkpoint_seconds: between checkpoints.
        refresh_every: epochs between the moments at which a sampler that learns from descriptors gets new ones.
        select: the score of the validation by which the best model is kept.
        threads: of a step on a CPU; None: one or all, whichever is faster at the moment, which is not repeatable
            bit for bit.
    """

    loss: tuple[dict[str, Any], ...]
    optimiser: dict[str, Any] = field(default_factory=lambda: {"name": "adamw", "rate": 1e-3})
    schedule: dict[str, Any] = field(default_factory=lambda: {"name": "cosine"})
    batch: int = 32
    epochs: float | None = None
    steps: int | None = None
    minutes: float | None = None
    precision: str = "auto"
    clip: float | None = None
    validate_every: float | None = 1.0
    checkpoint_seconds: float = 60.0
    refresh_every: int = 1
    select: str = "R@1"
    threads: int | None = 2

    def __post_init__(self) -> None:
        ends = [value for value in (self.epochs, self.steps, self.minutes) if value is not None]
        if not ends or min(ends) <= 0:
            raise PlanError("no end", field="epochs, steps, minutes", found=ends, expected="one of them, more than 0")
        if not any(math.isfinite(value) for value in ends):
            raise PlanError("no end", field="epochs, steps, minutes", found=ends, expected="a finite one")
        if self.precision not in ("auto", "32", "bf16"):
            raise PlanError("unknown", field="precision", found=self.precision, expected="auto, 32 or bf16")
        for name in ("batch", "checkpoint_seconds", "refresh_every", "clip", "validate_every", "threads"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise PlanError("out of range", field=name, found=value, expected="more than 0")

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Plan:
        """From a recipe's values. Raises PlanError for a field that there is not, or one that cannot be."""
        if not isinstance(values.get("loss"), (list, tuple)) or not values["loss"]:
            raise PlanError("no loss", field="loss", found=values.get("loss"), expected="a list of terms")
        # YAML reads 32 as a number.
        named = {**values, "precision": str(values.get("precision", "auto"))}
        return cls(**checked_fields(cls, named, PlanError, "plan"))

    @property
    def repeatable(self) -> bool:
        """Whether the same seed gives the same weights on the same machine."""
        return self.minutes is None and self.threads is not None
