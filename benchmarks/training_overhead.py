"""What the trainer costs beside the same loop written in plain PyTorch.

    python benchmarks/training_overhead.py              # about twenty minutes
    python benchmarks/training_overhead.py --steps 20   # an impression, three minutes

Three runs train side by side in one process, a step of each in turn: the project's trainer with everything it does
between steps (sampling by seed, schedule, checkpoints, TensorBoard), and the plain loop below twice. Whatever else the
machine does meets all three, so the ratio of the first to the mean of the others is that of the loops; the ratio of the
plain ones to each other, which should be 1, says how far it can be trusted.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import numpy as np
import torch
import torch.nn.functional as F
import typer
from numpy.typing import NDArray
from record import ROOT, commit, on_machine, run_app, write_record
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from cvgl.bench import machine
from cvgl_train.data.base import CrossViewSet
from cvgl_train.data.batch import Batch
from cvgl_train.data.images import build_augmentation
from cvgl_train.models.base import CrossViewModel, ViewInput
from cvgl_train.registry import create_model
from cvgl_train.sampling import build_sampler
from cvgl_train.training.loop import launch, train
from cvgl_train.training.plan import Plan
from cvgl_train.training.source import DatasetSource, Embed

PAIRS, SEED, WARM_UP = 256, 0, 5
PAD, BRIGHTNESS, CONTRAST = 8, 0.3, 0.3
RATE, DECAY, TEMPERATURE = 1e-3, 0.05, 0.05
ALLOWED = 1.05

app = typer.Typer(add_completion=False)


Clocks = tuple[float, float]
"""Seconds on the wall, and seconds of a processor, which other programs do not lengthen."""


def now() -> Clocks:
    return time.perf_counter(), time.process_time()


def since(start: Clocks) -> Clocks:
    wall, processor = now()
    return wall - start[0], processor - start[1]


@dataclass(frozen=True)
class Case:
    """A network and the size of its batches; the smaller the step, the more weighs what lies between steps."""

    method: str
    batch: int
    settings: dict[str, Any] = field(default_factory=dict)


CASES = (
    Case("cvgl-nano", 32),
    Case("cvgl-nano", 8),
    Case("fsra", 16, {"image_size": 128, "width": 384, "depth": 4, "heads": 6, "classes": PAIRS}),
)


@dataclass(frozen=True)
class Decoded:
    """An image in memory."""

    name: str
    image: NDArray[np.uint8]

    def read(self) -> NDArray[np.uint8]:
        return self.image


class PlainPairs(Dataset[tuple[Tensor, Tensor]]):
    """Pairs for the plain loop: the same images and the same changes to them."""

    def __init__(self, data: CrossViewSet, view: ViewInput) -> None:
        self.data = data
        self.change = v2.Compose(
            [
                v2.Pad(PAD, padding_mode="edge"),
                v2.RandomCrop((view.height, view.width)),
                v2.ColorJitter(BRIGHTNESS, CONTRAST),
            ]
        )
        self.mean = 255 * torch.tensor(view.mean)[:, None, None]
        self.scale = 1 / (255 * torch.tensor(view.std)[:, None, None])

    def __len__(self) -> int:
        return len(self.data.queries)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.read(self.data.queries[index].image), self.read(self.data.references[index].image)

    def read(self, image: NDArray[np.uint8]) -> Tensor:
        return (self.change(torch.from_numpy(image).permute(2, 0, 1)).float() - self.mean) * self.scale


class PlainLoop:
    """The loop that one writes by hand: AdamW, a cosine, symmetric InfoNCE, nothing else."""

    def __init__(self, model: CrossViewModel, data: CrossViewSet, batch: int, steps: int) -> None:
        self.model = model.train().to(memory_format=torch.channels_last)
        self.loader = DataLoader(PlainPairs(data, model.info.query), batch, shuffle=True, drop_last=True)
        self.batches = iter(self.loader)
        self.optimiser = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=DECAY)
        self.schedule = torch.optim.lr_scheduler.CosineAnnealingLR(self.optimiser, steps)
        self.target = torch.arange(batch)
        self.losses: list[float] = []

    def step(self) -> Clocks:
        """One step; returns what it took."""
        start = now()
        try:
            query, reference = next(self.batches)
        except StopIteration:
            self.batches = iter(self.loader)
            query, reference = next(self.batches)
        self.optimiser.zero_grad(set_to_none=True)
        queries, references = (
            F.normalize(features.descriptor, dim=1) for features in self.model.forward_pair(query, reference)
        )
        logits = queries @ references.T / TEMPERATURE
        loss = (F.cross_entropy(logits, self.target) + F.cross_entropy(logits.T, self.target)) / 2
        loss.backward()
        self.optimiser.step()
        self.schedule.step()
        self.losses.append(loss.item())
        return since(start)


class Interleaved:
    """The trainer's source of batches, which has the plain loops do a step each before it goes on."""

    def __init__(self, inner: DatasetSource, plain: tuple[PlainLoop, PlainLoop]) -> None:
        self.inner, self.plain = inner, plain
        self.steps_per_epoch = inner.steps_per_epoch
        self.taken: list[tuple[Clocks, Clocks, Clocks]] = []
        """By a step of the trainer, of the first and of the second plain loop."""

    def begin(self, epoch: int, embed: Embed | None) -> None:
        self.inner.begin(epoch, embed)

    def batches(self, epoch: int, first: int) -> Iterator[Batch]:
        source = self.inner.batches(epoch, first)
        while True:
            start = now()
            batch = next(source, None)
            if batch is None:
                return
            # Whatever the trainer does until it wants the next batch is its step.
            yield batch
            own = since(start)
            if len(self.taken) % 2:
                one, other = self.plain[0].step(), self.plain[1].step()
            else:
                other, one = self.plain[1].step(), self.plain[0].step()
            self.taken.append((own, one, other))

    def state_dict(self) -> dict[str, Any]:
        return self.inner.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.inner.load_state_dict(state)


@app.command()
def training_overhead(
    steps: Annotated[int, typer.Option(min=10, help="Of each run that count, after a few that do not.")] = 120,
    threads: Annotated[int, typer.Option(min=1, help="Of every step.")] = 1,
    out: Annotated[Path, typer.Option(help="Results go here, as JSON and Markdown.")] = ROOT / "benchmarks" / "results",
) -> None:
    """Measure the project's trainer against the same loop in plain PyTorch, step by step in one run."""
    about = machine()
    torch.set_num_threads(threads)
    rows = []
    for case in CASES:
        rows.append(measure(case, steps, threads))
        print(f"{rows[-1]['case']}: {in_words(rows[-1])}", flush=True)
    result = {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "commit": commit(),
        "torch": torch.__version__,
        "machine": about,
        "steps": steps,
        "threads": threads,
        "allowed": ALLOWED,
        "cases": rows,
    }
    write_record(out, on_machine("training-overhead", about), result, as_markdown(result))


def measure(case: Case, steps: int, threads: int) -> dict[str, Any]:
    """One case: the ratio of the loops, and the control."""
    torch.manual_seed(SEED)
    model = create_model(case.method, **case.settings)
    view = model.info.query
    data = pairs(view)
    total = steps + WARM_UP + 1
    plain = tuple(PlainLoop(copy.deepcopy(model), data, case.batch, total) for _ in range(2))
    changes = [{"name": "pad_crop", "pad": PAD}, {"name": "colour", "brightness": BRIGHTNESS, "contrast": CONTRAST}]
    source = DatasetSource(
        data,
        build_sampler({"name": "shuffled"}, data, case.batch),
        build_augmentation(changes, view),
        build_augmentation(changes, view),
        seed=SEED,
        workers=0,
    )
    interleaved = Interleaved(source, (plain[0], plain[1]))
    plan = Plan(
        loss=({"term": "infonce", "temperature": TEMPERATURE},),
        optimiser={"name": "adamw", "rate": RATE, "weight_decay": DECAY},
        schedule={"name": "cosine"},
        batch=case.batch,
        steps=total,
        precision="32",
        validate_every=1.0,
        threads=threads,
    )
    with TemporaryDirectory() as folder:
        fabric = launch("cpu", "32")[0]
        record = train(model, interleaved, plan, Path(folder), seed=SEED, fabric=fabric)
    # (steps, loops, clocks)
    taken = np.array(interleaved.taken)[WARM_UP:]
    own, control = taken[:, 0], taken[:, 1:]
    wall, plain_wall = own[:, 0], control.mean(1)[:, 0]
    return {
        "case": f"{case.method}, batch {case.batch}",
        "settings": case.settings,
        "input_px": [view.height, view.width],
        "steps": len(taken),
        "ratio": ratio(wall, plain_wall),
        "ratio_of_medians": ratio(wall, plain_wall, np.median),
        "ratio_of_processor_time": ratio(own[:, 1], control.mean(1)[:, 1]),
        "plain_to_plain": ratio(control[:, 0, 0], control[:, 1, 0]),
        "plain_to_plain_processor_time": ratio(control[:, 0, 1], control[:, 1, 1]),
        "step_ms": {"cvgl": 1000 * float(wall.mean()), "plain": 1000 * float(plain_wall.mean())},
        "pairs_per_second": {"cvgl": case.batch / float(wall.mean()), "plain": case.batch / float(plain_wall.mean())},
        "last_loss": {"cvgl": record["curve"][-1]["loss"], "plain": float(np.mean(plain[0].losses[-20:]))},
    }


def pairs(view: ViewInput) -> CrossViewSet:
    """Smooth noise of the input's size, each query a noisy copy of its reference, all in memory."""
    rng = np.random.default_rng(SEED)
    coarse = torch.from_numpy(rng.uniform(0, 255, (PAIRS, 3, 8, 8)))
    smooth = F.interpolate(coarse, (view.height, view.width), mode="bilinear").permute(0, 2, 3, 1).numpy()
    noisy = np.clip(smooth + rng.normal(0, 20, smooth.shape), 0, 255)
    numbers = np.arange(PAIRS)
    queries, references = (
        [Decoded(f"{name}/{i}", np.ascontiguousarray(image)) for i, image in enumerate(images.astype(np.uint8))]
        for name, images in (("query", noisy), ("reference", smooth))
    )
    return CrossViewSet("noise", "train", queries, references, list(numbers[:, None]), numbers, numbers)


def ratio(own: NDArray[np.float64], other: NDArray[np.float64], summary: Any = np.mean) -> dict[str, float]:
    """Time of the first to time of the second, with the 95 % interval of a bootstrap over paired steps."""
    rng = np.random.default_rng(SEED)
    chosen = rng.integers(0, len(own), (5000, len(own)))
    drawn = summary(own[chosen], axis=1) / summary(other[chosen], axis=1)
    low, high = np.percentile(drawn, [2.5, 97.5])
    return {"value": float(summary(own) / summary(other)), "low": float(low), "high": float(high)}


def interval(found: dict[str, float]) -> str:
    return f"{found['value']:.3f} ({found['low']:.3f} to {found['high']:.3f})"


def in_words(row: dict[str, Any]) -> str:
    return (
        f"a step takes {interval(row['ratio'])} of the plain loop's time,"
        f" {interval(row['ratio_of_processor_time'])} of its processor time;"
        f" plain to plain {interval(row['plain_to_plain'])}, {interval(row['plain_to_plain_processor_time'])}"
    )


def as_markdown(result: dict[str, Any]) -> str:
    """The whole result as a page."""
    about = result["machine"]
    load = "" if about["load_average"] is None else f" Load average at the start: {about['load_average']:g}."
    header = (
        "case",
        "cvgl / plain",
        "of medians",
        "of processor time",
        "plain / plain",
        "of processor time",
        "cvgl ms",
        "plain ms",
        "cvgl pairs/s",
        "plain pairs/s",
    )
    lines = [
        "# What the trainer costs beside the same loop in plain PyTorch",
        "",
        f"{result['date'][:10]}, commit {result['commit']}, torch {result['torch']}, {about['processor']},"
        f" {about['cores']} cores, {result['threads']} thread(s) used.{load}",
        "Made by `python benchmarks/training_overhead.py`; everything else is in the JSON file beside this one.",
        "",
        "Time of a step of the project's trainer to that of a loop written by hand, from paired steps in turn in one",
        "process: the same network, images in memory, augmentations, AdamW, InfoNCE and data loading in the process",
        f"itself. Asked: at most {result['allowed']:g}. In brackets the 95 % interval of a bootstrap over the steps.",
        "Means hold everything, checkpoints and what other programs did; medians hold the usual step; processor time",
        "leaves out what other programs did. Two plain loops stand against each other as a control.",
        "",
        f"| {' | '.join(header)} |",
        f"|{'|'.join(['---'] + ['---:'] * (len(header) - 1))}|",
    ]
    for row in result["cases"]:
        values = (
            f"{row['case']}, {row['input_px'][0]} px",
            f"**{interval(row['ratio'])}**",
            interval(row["ratio_of_medians"]),
            interval(row["ratio_of_processor_time"]),
            interval(row["plain_to_plain"]),
            interval(row["plain_to_plain_processor_time"]),
            *(f"{row['step_ms'][name]:.1f}" for name in ("cvgl", "plain")),
            *(f"{row['pairs_per_second'][name]:.1f}" for name in ("cvgl", "plain")),
        )
        lines.append(f"| {' | '.join(values)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    run_app(app)
