"""The one training loop: budgets, checkpoints that survive a kill, the best model kept, a curve of what was reached."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from lightning_fabric.strategies import DDPStrategy
from torch import Tensor, nn

from cvgl.errors import MissingDependencyError, ModelError
from cvgl.files import write_json
from cvgl.versions import versions

from ..asam import Asam
from ..checkpoint import save_model
from ..data.batch import Batch
from ..losses.terms import Objective, build_objective
from ..models.base import CrossViewModel, Features
from ..optimisers import build_optimiser, build_schedule
from .kept import RunState, load_run, restoring, save_run
from .plan import Plan, PlanError
from .source import Descriptors, Source
from .threads import Threads

__all__ = ["Progress", "Validate", "launch", "pick_device", "train"]

Progress = Callable[[float, dict[str, Any]], None]
"""Called with the share of the work that is done (0..1) and the latest line of the curve."""

Validate = Callable[[CrossViewModel], dict[str, float]]
"""Scores of a model by name; the model is in evaluation mode on the training device."""

BEST = "best.pt"
FINAL = "model.pt"
RECORD = "record.json"


def pick_device(device: str) -> torch.device:
    """`"auto"` is the GPU where there is one.

    Raises:
        ModelError: not the name of a device.
        MissingDependencyError: a device that is not here.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
    except RuntimeError:
        raise ModelError("no such device", field="device", found=device, expected="auto, cpu or cuda") from None
    try:
        torch.zeros(1, device=chosen)
    except (RuntimeError, AssertionError, NotImplementedError) as reason:
        first = (str(reason).splitlines() or [""])[0]
        raise MissingDependencyError(f"cannot be used: {first}", field="device", found=device) from reason
    return chosen


def launch(device: str = "auto", precision: str = "auto") -> tuple[Fabric, bool]:
    """The processes of a run, several where ``torchrun`` started them, and whether it computes in bfloat16.

    Raises:
        ModelError, MissingDependencyError: as `pick_device`.
    """
    target = pick_device(device)
    half = _half_precision(target) if precision == "auto" else precision == "bf16"
    world = int(os.environ.get("WORLD_SIZE", "1"))
    local = int(os.environ.get("LOCAL_WORLD_SIZE", str(world)))
    fabric = Fabric(
        accelerator="gpu" if target.type == "cuda" else "cpu",
        devices=local if world > 1 else ([target.index] if target.index is not None else 1),
        num_nodes=world // local,
        # Heads that no term of the loss looks at get no gradient, which DDP must be told.
        strategy=DDPStrategy(find_unused_parameters=True) if world > 1 else "auto",
        precision="bf16-mixed" if half else "32-true",
    )
    fabric.launch()
    return fabric, half


def train(
    model: CrossViewModel,
    source: Source,
    plan: Plan,
    folder: Path,
    *,
    seed: int = 0,
    fabric: Fabric | None = None,
    validate: Validate | None = None,
    embed: Callable[[CrossViewModel], Descriptors] | None = None,
    about: dict[str, Any] | None = None,
    resume: bool = True,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Train a model in place; on return it is in evaluation mode on the CPU, with the last step's weights.

    The folder gets `checkpoint.pt` (to go on from), `curve.json`, `best.pt` (by `plan.select`), TensorBoard's files,
    and at the end `model.pt` and `record.json`.

    Args:
        model: on the CPU.
        source: of batches.
        plan: how.
        folder: of the run; made where it is not there.
        seed: of everything random here; what a source draws has a seed of its own.
        fabric: from `launch`; None for one process on the automatic device.
        validate: judges the model; without it the curve has only the loss, and no best model is kept.
        embed: makes the descriptors of the training set, for samplers that learn from them.
        about: more to record, and what else a run has to have in common with the one it goes on with: the recipe, the
            data.
        resume: go on from the folder's checkpoint of the same run.
        progress: called about once a second, in the first process.

    Returns:
        The record: plan, seed, steps, seconds, device, arithmetic, curve, best score.

    Raises:
        ModelError: the loss is not finite, or the checkpoint is another run's.
    """
    fabric = fabric or launch(precision=plan.precision)[0]
    run = _Run(model, source, plan, folder, seed, fabric, validate, embed, about or {})
    return run.go(resume, progress)


class _Pair(nn.Module):
    """Both views in one call: what is wrapped for several processes must be entered by its `forward`."""

    def __init__(self, model: CrossViewModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, query: Tensor, reference: Tensor) -> tuple[tuple[Tensor | None, ...], ...]:
        pair = self.model.forward_pair(query, reference)
        return tuple((features.descriptor, features.parts, features.logits) for features in pair)


class _Run:
    def __init__(
        self,
        model: CrossViewModel,
        source: Source,
        plan: Plan,
        folder: Path,
        seed: int,
        fabric: Fabric,
        validate: Validate | None,
        embed: Callable[[CrossViewModel], Descriptors] | None,
        about: dict[str, Any],
    ) -> None:
        self.model, self.source, self.plan, self.folder, self.seed = model, source, plan, folder, seed
        self.fabric, self.validate = fabric, validate
        self.embed, self.about = embed, about
        self.objective: Objective = build_objective(list(plan.loss), model)
        self.state = RunState()
        self.parts: dict[str, float] = {}
        self.total = self._total_steps()
        self.saved = self.told = time.perf_counter()

    def go(self, resume: bool, progress: Progress | None) -> dict[str, Any]:
        fabric, plan = self.fabric, self.plan
        self.folder.mkdir(parents=True, exist_ok=True)
        kept = load_run(self.folder, self.model, plan, self.seed, self.about) if resume else None
        self.model.to(fabric.device)
        if fabric.device.type == "cpu":
            self.model.to(memory_format=torch.channels_last)
        self.model.train()
        self.optimiser = build_optimiser(self.model, dict(plan.optimiser))
        self.schedule = build_schedule(dict(plan.schedule))
        if kept is not None:
            with restoring(self.folder):
                self.optimiser.load_state_dict(kept["optimiser"])
                self.source.load_state_dict(kept["sampler"])
            self.state = kept["state"]
        base = self.optimiser.base if isinstance(self.optimiser, Asam) else self.optimiser
        self.rates = [(group, float(group.get("initial_lr", group["lr"]))) for group in base.param_groups]
        for group, rate in self.rates:
            group["initial_lr"] = rate
        self.pair = fabric.setup_module(_Pair(self.model))
        self.board = self._open_board() if fabric.is_global_zero else None
        threads = Threads(fabric.device, plan.threads)
        try:
            self._epochs(threads, progress)
        finally:
            threads.restore()
            if self.board is not None:
                self.board.close()
        if not self.state.curve or self.state.curve[-1]["step"] != self.state.step:
            self._note()
        self._save()
        self.model.to("cpu")
        self.model.to(memory_format=torch.contiguous_format)
        self.model.eval()
        record = self._record()
        if fabric.is_global_zero:
            save_model(self.model, self.folder / FINAL, record)
            write_json(self.folder / RECORD, record)
        if progress is not None and fabric.is_global_zero:
            progress(1.0, self.state.curve[-1])
        fabric.barrier()
        return record

    def _epochs(self, threads: Threads, progress: Progress | None) -> None:
        state, size = self.state, self.source.steps_per_epoch
        if state.step == 0 and self.validate is not None:
            # What the weights it starts from are worth.
            self._note()
        while self._done() < 1.0:
            epoch, first = divmod(state.step, size)
            if epoch != state.epoch:
                refresh = epoch % self.plan.refresh_every == 0 and self.embed is not None
                self.source.begin(epoch, self._embed if refresh and self.fabric.is_global_zero else None)
                if self.fabric.world_size > 1:
                    # All processes must draw the same batches, to the last bit of what they are drawn by.
                    self.source.load_state_dict(self.fabric.broadcast(self.source.state_dict()))
                state.epoch = epoch
            started = time.perf_counter()
            for batch in self.source.batches(epoch, first):
                self._step(batch)
                now = time.perf_counter()
                state.seconds += now - started
                threads.took(now - started)
                done = self._done()
                self._keep(now, done)
                if progress is not None and self.fabric.is_global_zero and now - self.told >= 1.0:
                    progress(done, self._line())
                    self.told = now
                if done >= 1.0:
                    break
                started = time.perf_counter()

    def _step(self, batch: Batch) -> None:
        batch = batch.to(self.fabric.device)
        progress = self._done()
        # A run by the clock, whose number of steps nobody knows, is one epoch long to its schedule.
        epochs = self.total / self.source.steps_per_epoch if self.total else 1.0
        factor = self.schedule(progress * epochs, epochs)
        for group, rate in self.rates:
            group["lr"] = rate * factor
        # Dropout at step n depends on the seed and n alone, so that a resumed run drops the same.
        torch.manual_seed(((self.seed << 40) + (self.state.step << 8) + self.fabric.global_rank) % (1 << 63))
        self.optimiser.zero_grad(set_to_none=True)
        loss, parts = self._loss(batch)
        self.fabric.backward(loss)
        if isinstance(self.optimiser, Asam):
            self.optimiser.ascend()
            self.optimiser.zero_grad(set_to_none=True)
            self.fabric.backward(self._loss(batch)[0])
            self._clip()
            self.optimiser.descend()
        else:
            self._clip()
            self.optimiser.step()
        value = float(loss.detach())
        if not math.isfinite(value):
            raise ModelError(
                "training diverged", field="loss", found=value, expected="a finite number (a lower rate helps)"
            )
        state = self.state
        state.loss = value if state.step == 0 else 0.95 * state.loss + 0.05 * value
        self.parts = {name: float(part) for name, part in parts.items()}
        state.step += 1

    def _loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        query, reference = (Features(*values) for values in self.pair(batch.query, batch.reference))
        if self.fabric.world_size > 1:
            query, reference = self._gather(query), self._gather(reference)
        return self.objective(query, reference, batch)

    def _gather(self, features: Features) -> Features:
        """Everybody's features, with gradients, so that negatives come from the whole batch.

        Every process computes the same loss. The gather's backward pass adds the gradients of all of them up, and DDP
        divides by their number: what remains is the gradient of the whole batch.
        """

        def whole(value: Tensor) -> Tensor:
            gathered = self.fabric.all_gather(value, sync_grads=True)
            assert isinstance(gathered, Tensor)
            return gathered.flatten(0, 1)

        parts, logits = features.parts, features.logits
        return Features(
            whole(features.descriptor),
            None if parts is None else whole(parts),
            None if logits is None else whole(logits),
        )

    def _clip(self) -> None:
        if self.plan.clip is not None:
            nn.utils.clip_grad_norm_([p for p in self.model.parameters() if p.requires_grad], self.plan.clip)

    def _total_steps(self) -> int | None:
        plan = self.plan
        ends = [plan.steps] if plan.steps is not None else []
        if plan.epochs is not None and math.isfinite(plan.epochs):
            ends.append(max(1, math.ceil(plan.epochs * self.source.steps_per_epoch)))
        return min(ends) if ends else None

    def _done(self) -> float:
        """The share of the budget that is used."""
        by_steps = self.state.step / self.total if self.total else 0.0
        if self.plan.minutes is None:
            return min(1.0, by_steps)
        by_time = self.state.seconds / (self.plan.minutes * 60)
        if self.fabric.world_size > 1:
            # Clocks differ; the processes must stop at the same step.
            by_time = float(self.fabric.broadcast(by_time))
        return min(1.0, max(by_time, by_steps))

    def _keep(self, now: float, done: float) -> None:
        """Validate and save when it is time to."""
        every, size = self.plan.validate_every, self.source.steps_per_epoch
        timely = now - self.saved >= self.plan.checkpoint_seconds
        if self.fabric.world_size > 1:
            timely = bool(self.fabric.broadcast(timely))
        steps = None if every is None else max(1, round(every * size))
        judged = timely if steps is None else self.state.step % steps == 0
        if judged and done < 1.0:
            self._note()
        if timely:
            self._save()
            self.saved = time.perf_counter()

    def _embed(self) -> Descriptors:
        assert self.embed is not None
        self.model.eval()
        made = self.embed(self.model)
        self.model.train()
        return made

    def _note(self) -> None:
        """Add a line to the curve; keep the model if it is the best so far."""
        state = self.state
        scores: dict[str, float] = {}
        if self.fabric.is_global_zero:
            if self.validate is not None:
                self.model.eval()
                with torch.no_grad():
                    scores = {name: round(float(value), 4) for name, value in self.validate(self.model).items()}
                self.model.train()
            state.curve.append(self._line() | scores)
            if self.board is not None:
                for name, value in state.curve[-1].items():
                    self.board.add_scalar(name, value, state.step)
            chosen = scores.get(self.plan.select)
            if scores and chosen is None:
                expected = " or ".join(scores)
                raise PlanError("no such score", field="select", found=self.plan.select, expected=expected)
            if chosen is not None and (state.best is None or chosen > state.best):
                state.best = chosen
                save_model(self.model, self.folder / BEST, {"step": state.step, "scores": scores, "seed": self.seed})
        else:
            state.curve.append(self._line())
        self.fabric.barrier()

    def _line(self) -> dict[str, Any]:
        state = self.state
        if state.step == 0:
            return {"step": 0, "seconds": 0.0}
        parts = {f"loss {name}": round(value, 4) for name, value in self.parts.items()} if len(self.parts) > 1 else {}
        epoch = {} if self.source.steps_per_epoch > 1 << 30 else {"epoch": state.step / self.source.steps_per_epoch}
        return {
            "step": state.step,
            **{name: round(value, 3) for name, value in epoch.items()},
            "seconds": round(state.seconds, 1),
            "loss": round(state.loss, 4),
            **parts,
        }

    def _save(self) -> None:
        if self.fabric.is_global_zero:
            optimiser = self.optimiser.state_dict()
            sampler = self.source.state_dict()
            save_run(self.folder, self.model, optimiser, sampler, self.state, self.plan, self.seed, self.about)
        self.fabric.barrier()

    def _record(self) -> dict[str, Any]:
        state = self.state
        return {
            "plan": asdict(self.plan),
            "model": self.model.info.name,
            "settings": asdict(self.model.settings),
            "seed": self.seed,
            "steps": state.step,
            "seconds": round(state.seconds, 3),
            "device": str(self.fabric.device),
            "processes": self.fabric.world_size,
            "arithmetic": "bfloat16 mixed" if "bf16" in str(self.fabric._precision.precision) else "float32",
            "threads": self.plan.threads,
            "versions": {**versions(), "torch": str(torch.__version__)},
            **self.about,
            "best": state.best,
            "curve": state.curve,
        }

    def _open_board(self) -> Any:
        from torch.utils.tensorboard import SummaryWriter

        return SummaryWriter(str(self.folder / "tensorboard"), purge_step=self.state.step or None)


def _half_precision(device: torch.device) -> bool:
    """Whether bfloat16 is the faster arithmetic here. On a CPU only tile instructions (AMX) make it so, by a factor of
    three; elsewhere it is converted to and fro and loses."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported()
    has_tiles = getattr(torch.cpu, "_is_amx_tile_supported", None)
    return device.type == "cpu" and has_tiles is not None and bool(has_tiles())
