"""The one training loop: a time budget, checkpoints that survive a kill, and a curve of what was reached."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cvgl.errors import ModelError
from cvgl.files import atomic_path, write_json

from .losses.infonce import info_nce, same_place
from .models.nano import Nano
from .pairs import PairBatch, PairSource

__all__ = ["FitSettings", "Progress", "fit", "pick_device", "retrieval"]

Progress = Callable[[float, dict[str, Any]], None]
"""Called with the share of the work that is done (0..1) and the latest line of the curve."""

CHECKPOINT = "checkpoint.pt"
CURVE = "curve.json"


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


class _Threads:
    """How many threads a step uses on a CPU: one or all, whichever is faster at the moment.

    Where other programs take cores away, threads that wait for each other at every layer are several times
    slower than a single one, and who else runs changes while we train. So the other count is tried now and
    then.
    """

    _EVERY, _TRIAL = 120, 3

    def __init__(self, device: torch.device) -> None:
        most = torch.get_num_threads()
        self._counts = [1, most] if device.type == "cpu" and most > 1 else [most]
        self._before = most
        self._times: dict[int, list[float]] = {count: [] for count in self._counts}
        self._trying = False
        self._use(self._counts[0])
        # The first trial comes soon.
        self._since = self._EVERY - 2 * self._TRIAL

    def took(self, seconds: float) -> None:
        """Tell how long the last step was."""
        if len(self._counts) == 1:
            return
        self._times[self._now].append(seconds)
        self._since += 1
        typical = {count: _median(times[-self._TRIAL :]) for count, times in self._times.items() if times}
        if self._trying:
            if self._since == self._TRIAL:
                self._trying = False
                self._use(min(typical, key=lambda count: typical[count]))
            return
        other = next(count for count in self._counts if count != self._now)
        disturbed = self._since >= 2 * self._TRIAL and typical[self._now] > 1.3 * typical.get(other, math.inf)
        if self._since >= self._EVERY or disturbed:
            self._trying = True
            self._use(other)

    def restore(self) -> None:
        """Back to the count before."""
        torch.set_num_threads(self._before)

    def _use(self, count: int) -> None:
        self._now, self._since = count, 0
        torch.set_num_threads(count)


def _median(values: list[float]) -> float:
    return sorted(values)[len(values) // 2]


@dataclass
class _State:
    step: int = 0
    seconds: float = 0.0
    loss: float = 0.0
    curve: list[dict[str, Any]] = field(default_factory=list)


def pick_device(device: str) -> torch.device:
    """`"auto"` is the GPU where there is one. Raises ModelError for a device that is not there."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
        torch.zeros(1, device=chosen)
    except (RuntimeError, AssertionError) as reason:
        raise ModelError(
            f"not available: {reason}", field="device", found=device, expected="auto, cpu or cuda"
        ) from None
    return chosen


def retrieval(net: Nano, batch: PairBatch, device: torch.device, radius: float) -> dict[str, float]:
    """Share of the batch's queries whose own reference comes first, and among the first five.

    A reference that shows the same place (see `same_place`) is no competitor; one exactly as close as the
    query's own is, so that a collapsed network scores 0.
    """
    net.eval()
    with torch.no_grad():
        parts = [net(part.to(device)).float().cpu() for part in batch.images.split(64)]
    net.train()
    references, queries = torch.cat(parts).chunk(2)
    near = same_place(batch.queries, batch.references, batch.groups, radius)
    scores = (queries @ references.T).masked_fill(near, -2.0)
    own = scores.diagonal()[:, None]
    better = (scores >= own).sum(1) - 1
    return {"R@1": float((better < 1).float().mean()), "R@5": float((better < 5).float().mean())}


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
    """Train a network in place.

    Args:
        net: changed in place; on return in evaluation mode on the CPU.
        source: of training pairs. Step n's batch follows from the seed and n alone.
        folder: for the checkpoint and the curve.
        settings: how.
        validation: pairs of its own to judge by; None: unseen draws from `source`.
        seed: of everything random here.
        device: "auto", "cpu", "cuda".
        resume: go on from a checkpoint of the same run in the folder, if there is one.
        progress: called about once a second.

    Returns:
        The record: settings, steps, seconds, device, curve.

    Raises:
        ModelError: the device is not there, the loss is not finite, or the checkpoint is another network's.
    """
    target = pick_device(device)
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    layout = torch.channels_last if target.type == "cpu" else torch.contiguous_format
    net.to(target)
    _lay_out(net, layout)
    net.train()
    optimizer = torch.optim.AdamW(_groups(net, settings.weight_decay), lr=settings.rate)
    state = _load(folder / CHECKPOINT, net, optimizer, seed) if resume else _State()
    held = (validation or source).draw(np.random.default_rng([seed, 2]), settings.validate)
    half = _half_precision(target)
    workers = 1 if target.type == "cpu" else 8
    saved = told = time.perf_counter()
    pool = ThreadPoolExecutor(workers)
    ahead: list[Future[PairBatch]] = []
    threads = _Threads(target)

    def prepare(step: int) -> Future[PairBatch]:
        return pool.submit(source.draw, np.random.default_rng([seed, 1, step]), settings.batch)

    try:
        ahead = [prepare(state.step + i) for i in range(workers + 1)]
        while (done := _share(state, settings)) < 1.0:
            started = time.perf_counter()
            batch = ahead.pop(0).result()
            ahead.append(prepare(state.step + workers + 1))
            for group in optimizer.param_groups:
                group["lr"] = settings.rate * _schedule(done, settings.warmup)
            loss = _step(net, optimizer, batch, settings, target, half)
            state.loss = loss if state.step == 0 else 0.95 * state.loss + 0.05 * loss
            state.step += 1
            now = time.perf_counter()
            state.seconds += now - started
            threads.took(now - started)
            if now - saved >= settings.checkpoint_seconds:
                _note(state, net, held, target, settings)
                _save(folder, net, optimizer, state, seed)
                saved = time.perf_counter()
            if progress is not None and now - told >= 1.0:
                progress(done, {"step": state.step, "loss": round(state.loss, 3), **_last_scores(state)})
                told = now
    finally:
        threads.restore()
        for future in ahead:
            future.cancel()
        pool.shutdown(wait=True)
    _note(state, net, held, target, settings)
    _save(folder, net, optimizer, state, seed)
    if progress is not None:
        progress(1.0, state.curve[-1])
    net.to("cpu")
    _lay_out(net, torch.contiguous_format)
    net.eval()
    return {
        "settings": asdict(settings) | {"minutes": settings.minutes if math.isfinite(settings.minutes) else None},
        "seed": seed,
        "steps": state.step,
        "seconds": round(state.seconds, 1),
        "device": str(target),
        "arithmetic": "bfloat16 mixed" if half else "float32",
        "curve": state.curve,
    }


def _lay_out(net: Nano, layout: torch.memory_format) -> None:
    net.to(memory_format=layout)


def _groups(net: Nano, decay: float) -> list[dict[str, Any]]:
    """Weight decay for matrices and filters, none for biases and normalisation."""
    parameters = list(net.parameters())
    return [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]


def _share(state: _State, settings: FitSettings) -> float:
    by_time = state.seconds / (settings.minutes * 60) if settings.minutes > 0 else 1.0
    by_steps = state.step / settings.steps if settings.steps else 0.0
    return min(1.0, max(by_time, by_steps))


def _schedule(done: float, warmup: float) -> float:
    if done < warmup:
        return max(done / warmup, 0.02)
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * (done - warmup) / (1 - warmup)))


def _step(
    net: Nano,
    optimizer: torch.optim.Optimizer,
    batch: PairBatch,
    settings: FitSettings,
    device: torch.device,
    half: bool,
) -> float:
    with torch.autocast(device.type, torch.bfloat16) if half else nullcontext():
        descriptors = net(batch.images.to(device))
    references, queries = descriptors.float().chunk(2)
    near = same_place(batch.queries, batch.references, batch.groups, settings.radius).to(device)
    loss = info_nce(queries, references, near, settings.temperature)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()
    value = float(loss.detach())
    if not math.isfinite(value):
        raise ModelError(
            "training diverged", field="loss", found=value, expected="a finite number (a lower rate helps)"
        )
    return value


def _half_precision(device: torch.device) -> bool:
    """Whether bfloat16 is the faster arithmetic here. On a CPU only tile instructions (AMX) make it so, by a
    factor of three; elsewhere it is converted to and fro and loses."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported()
    has_tiles = getattr(torch.cpu, "_is_amx_tile_supported", None)
    return device.type == "cpu" and has_tiles is not None and bool(has_tiles())


def _last_scores(state: _State) -> dict[str, Any]:
    return {key: value for key, value in (state.curve[-1] if state.curve else {}).items() if key.startswith("R@")}


def _note(state: _State, net: Nano, held: PairBatch, device: torch.device, settings: FitSettings) -> None:
    scores = {key: round(value, 4) for key, value in retrieval(net, held, device, settings.radius).items()}
    state.curve.append({"step": state.step, "seconds": round(state.seconds, 1), "loss": round(state.loss, 4), **scores})


def _save(folder: Path, net: Nano, optimizer: torch.optim.Optimizer, state: _State, seed: int) -> None:
    with atomic_path(folder / CHECKPOINT) as temporary:
        torch.save(
            {
                "net": net.state_dict(),
                "config": asdict(net.config),
                "optimizer": optimizer.state_dict(),
                "state": asdict(state),
                "seed": seed,
            },
            temporary,
        )
    write_json(folder / CURVE, {"curve": state.curve})


def _load(path: Path, net: Nano, optimizer: torch.optim.Optimizer, seed: int) -> _State:
    """The state of an earlier run, its weights put into the network; a fresh one where there is none."""
    if not path.exists():
        return _State()
    try:
        data = torch.load(path, map_location="cpu", weights_only=True)
        fitting = data["seed"] == seed and _plain(data["config"]) == _plain(asdict(net.config))
        if fitting:
            net.load_state_dict(data["net"])
            optimizer.load_state_dict(data["optimizer"])
            return _State(**data["state"])
    except Exception as reason:
        raise ModelError(
            f"not a checkpoint of this run: {reason}", file=path, expected="none, or one to resume"
        ) from reason
    raise ModelError(
        "a checkpoint of another run",
        file=path,
        field="seed, config",
        found=data["seed"],
        expected=f"seed {seed}",
    )


def _plain(config: dict[str, Any]) -> dict[str, Any]:
    return {key: list(value) if isinstance(value, (list, tuple)) else value for key, value in config.items()}
