"""Training a cvgl-nano on pairs drawn from maps on the fly: what the base model and every adaptation do."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..data.batch import Batch
from ..models.base import CrossViewModel
from ..models.nano import Nano, NanoModel
from ..pairs import PairSource
from .loop import Progress, launch, train
from .plan import Plan
from .source import StreamSource

__all__ = ["FitSettings", "fit", "retrieval"]


@dataclass(frozen=True)
class FitSettings:
    """How to train.

    Args:
        minutes: of training time; a resumed run counts what it had used. Infinite if `steps` alone ends it.
        steps: optimiser steps at most; None for as many as the time allows.
        batch: pairs a step.
        rate: peak learning rate; it rises over `warmup` of the budget and falls by a half cosine.
        weight_decay: of AdamW.
        temperature: of the loss.
        radius: distance, in tiles, under which two positions are the same place.
        validate: pairs of a validation.
        checkpoint_seconds: between checkpoints and validations.
    """

    minutes: float = 10.0
    steps: int | None = None
    batch: int = 64
    rate: float = 2e-3
    warmup: float = 0.05
    weight_decay: float = 0.05
    temperature: float = 0.05
    radius: float = 0.25
    validate: int = 192
    checkpoint_seconds: float = 30.0

    def plan(self) -> Plan:
        """The same as a plan of the training loop."""
        decay = {"weight_decay": self.weight_decay, "decay_norm_and_bias": False}
        return Plan(
            loss=({"term": "infonce", "temperature": self.temperature},),
            optimiser={"name": "adamw", "rate": self.rate, **decay},
            schedule={"name": "cosine", "warmup_share": self.warmup, "last": 0.01},
            batch=self.batch,
            steps=self.steps,
            minutes=self.minutes if math.isfinite(self.minutes) else None,
            validate_every=None,
            checkpoint_seconds=self.checkpoint_seconds,
            # A laptop does other things while it prepares a mission.
            threads=None,
        )


def fit(
    net: Nano,
    source: PairSource,
    folder: Path,
    settings: FitSettings,
    *,
    validation: PairSource | None = None,
    seed: int = 0,
    device: str = "auto",
    resume: bool = True,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Train a network in place; on return it is in evaluation mode on the CPU.

    Args:
        net: changed in place.
        source: of training pairs. Step n's batch follows from the seed and n alone.
        folder: of the run, see `cvgl_train.training.loop.train`.
        settings: how.
        validation: pairs of its own to judge by; None: unseen draws from `source`.
        seed: of everything random here.
        device: "auto", "cpu", "cuda".
        resume: go on from a checkpoint of the same run in the folder, if there is one.
        progress: called about once a second.

    Returns:
        The loop's record.

    Raises:
        ModelError: the device is not there, the loss is not finite, or the checkpoint is another run's.
    """
    plan = settings.plan()
    fabric, _ = launch(device, plan.precision)
    # Drawing is the work of one CPU core; a GPU takes what eight can draw.
    ahead = 1 if fabric.device.type == "cpu" else 8
    share = {"rank": fabric.global_rank, "world": fabric.world_size}
    stream = StreamSource(source, settings.batch, settings.radius, seed=seed, ahead=ahead, **share)
    held = StreamSource(validation or source, settings.batch, settings.radius, seed=seed).held_back(settings.validate)
    return train(
        NanoModel.of(net),
        stream,
        plan,
        folder,
        seed=seed,
        fabric=fabric,
        validate=_judged_on(held, fabric.device),
        about={"radius": settings.radius, "validation": {"pairs": settings.validate}},
        resume=resume,
        progress=progress,
    )


def retrieval(net: Nano, batch: Batch, device: torch.device) -> dict[str, float]:
    """Share of the batch's queries whose own reference comes first, and among the first five.

    A reference that shows the same place (`Batch.ignored`) is no competitor; one exactly as close as the query's own
    is, so that a collapsed network scores 0. The network is left in evaluation mode.
    """
    net.eval()
    with torch.no_grad():
        queries, references = (
            torch.cat([net(part.to(device)).float().cpu() for part in images.split(64)])
            for images in (batch.query, batch.reference)
        )
    scores = (queries @ references.T).masked_fill(batch.ignored, -2.0)
    own = scores.diagonal()[:, None]
    better = (scores >= own).sum(1) - 1
    return {"R@1": float((better < 1).float().mean()), "R@5": float((better < 5).float().mean())}


def _judged_on(held: Batch, device: torch.device) -> Callable[[CrossViewModel], dict[str, float]]:
    def judge(model: CrossViewModel) -> dict[str, float]:
        assert isinstance(model, NanoModel)
        return retrieval(model.net, held, device)

    return judge
