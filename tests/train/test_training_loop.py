"""The loop: what a run leaves, that it goes on where it stopped, that processes share a batch without changing it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cvgl.errors import CvglError, ModelError
from cvgl_train.checkpoint import load_model
from cvgl_train.data.base import CrossViewSet
from cvgl_train.data.images import build_augmentation
from cvgl_train.models.base import CrossViewModel
from cvgl_train.registry import create_model
from cvgl_train.sampling import build_sampler
from cvgl_train.training.judge import describe, retrieval_scores
from cvgl_train.training.loop import launch, train
from cvgl_train.training.plan import Plan, PlanError
from cvgl_train.training.source import DatasetSource

CPU = torch.device("cpu")


class Picture:
    """A made-up image: blobs that depend on the place, noise that depends on the view."""

    def __init__(self, place: int, view: int) -> None:
        self.name, self._place, self._view = f"{place}-{view}", place, view

    def read(self) -> np.ndarray:
        coarse = np.random.default_rng(self._place).integers(0, 256, (4, 4, 3))
        noise = np.random.default_rng([self._place, self._view]).integers(-20, 21, (32, 32, 3))
        return np.clip(np.kron(coarse, np.ones((8, 8, 1), int)) + noise, 0, 255).astype(np.uint8)


def places(count: int = 16) -> CrossViewSet:
    numbers = np.arange(count)
    return CrossViewSet(
        "made up",
        "train",
        [Picture(i, 1) for i in numbers],
        [Picture(i, 2) for i in numbers],
        [np.array([i]) for i in numbers],
        numbers,
        numbers,
    )


def model(**changes: Any) -> CrossViewModel:
    torch.manual_seed(0)
    settings = {"regions": 2, "classes": 16, "image_size": 32, "width": 48, "depth": 2, "heads": 4, "bottleneck": 16}
    return create_model("fsra", **{**settings, **changes})


PLAN = Plan(
    loss=({"term": "cross_entropy"}, {"term": "triplet"}),
    optimiser={"name": "adamw", "rate": 1e-3},
    schedule={"name": "cosine", "warmup": 0.5},
    batch=4,
    epochs=3,
    precision="32",
    threads=1,
)


def run(folder: Path, plan: Plan = PLAN, *, seed: int = 0, sampler: str = "shuffled", **options: Any) -> dict[str, Any]:
    net, data = model(), places()
    augment = build_augmentation([{"name": "flip"}], net.info.query)
    source = DatasetSource(
        data, build_sampler({"name": sampler}, data, plan.batch), augment, augment, seed=seed, workers=0
    )
    fabric, half = launch("cpu", plan.precision)
    return train(
        net,
        source,
        plan,
        folder,
        seed=seed,
        fabric=fabric,
        validate=retrieval_scores(data, CPU, half),
        embed=lambda now: describe(now, data, CPU, half),
        **options,
    )


def without_clock(curve: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: value for name, value in line.items() if name != "seconds"} for line in curve]


def weights(path: Path) -> dict[str, torch.Tensor]:
    return load_model(path).state_dict()


def test_a_run_leaves_what_it_says(tmp_path: Path) -> None:
    record = run(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {
        "checkpoint.pt", "curve.json", "best.pt", "model.pt", "record.json", "tensorboard",
    }  # fmt: skip
    assert record["steps"] == 12
    assert [line.get("epoch", 0) for line in record["curve"]] == [0, 1, 2, 3]
    assert {"loss", "loss cross_entropy", "loss triplet", "R@1", "R@5", "R@10", "chance"} <= record["curve"][1].keys()
    assert record["best"] == max(line["R@1"] for line in record["curve"])
    assert json.loads((tmp_path / "record.json").read_text())["curve"] == record["curve"]
    assert any((tmp_path / "tensorboard").iterdir())


def test_one_seed_is_one_result_and_another_is_another(tmp_path: Path) -> None:
    first, again, other = (run(tmp_path / name, seed=seed) for name, seed in (("a", 0), ("b", 0), ("c", 1)))
    assert without_clock(first["curve"]) == without_clock(again["curve"])
    one, two = weights(tmp_path / "a" / "model.pt"), weights(tmp_path / "b" / "model.pt")
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert without_clock(first["curve"]) != without_clock(other["curve"])


class Killed(Exception):
    pass


@pytest.mark.parametrize("sampler", ["shuffled", "hard_neighbours", "k_fold"])
@pytest.mark.parametrize("step", [4, 6])
def test_a_killed_run_goes_on_to_the_same_curve(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sampler: str, step: int
) -> None:
    """Killed at the end of an epoch or inside one; every step is a checkpoint."""
    from cvgl_train.training import loop

    often = replace(PLAN, checkpoint_seconds=1e-9)
    whole = run(tmp_path / "whole", often, sampler=sampler)

    def stop(self: Any, now: float, done: float) -> None:
        keep(self, now, done)
        if self.state.step == step:
            raise Killed

    keep = loop._Run._keep
    with monkeypatch.context() as patch:
        patch.setattr(loop._Run, "_keep", stop)
        with pytest.raises(Killed):
            run(tmp_path / "killed", often, sampler=sampler)
    resumed = run(tmp_path / "killed", often, sampler=sampler)
    assert without_clock(resumed["curve"]) == without_clock(whole["curve"])
    one, two = weights(tmp_path / "whole" / "model.pt"), weights(tmp_path / "killed" / "model.pt")
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_a_run_can_be_made_longer(tmp_path: Path) -> None:
    run(tmp_path, replace(PLAN, schedule={"name": "constant"}))
    record = run(tmp_path, replace(PLAN, schedule={"name": "constant"}, epochs=4))
    assert [line.get("epoch", 0) for line in record["curve"]] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("change", "field"), [({"batch": 8}, "batch"), ({"loss": ({"term": "cross_entropy"},)}, "loss")]
)
def test_another_runs_checkpoint_is_refused_by_the_field(tmp_path: Path, change: dict[str, Any], field: str) -> None:
    run(tmp_path, replace(PLAN, epochs=1))
    with pytest.raises(ModelError, match=f"checkpoint.pt: {field}: a checkpoint of another run"):
        run(tmp_path, replace(PLAN, epochs=1, **change))
    run(tmp_path, replace(PLAN, epochs=1, **change), resume=False)


@pytest.mark.parametrize("damage", [b"", b"not a checkpoint"])
def test_a_damaged_checkpoint_is_named(tmp_path: Path, damage: bytes) -> None:
    (tmp_path / "checkpoint.pt").write_bytes(damage)
    with pytest.raises(ModelError, match=r"checkpoint\.pt"):
        run(tmp_path)


def test_a_loss_that_is_no_number_ends_the_run_and_says_so(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="loss: training diverged"):
        run(tmp_path, replace(PLAN, optimiser={"name": "sgd", "rate": 1e30, "momentum": 0.0}, epochs=50))


def test_sharpness_aware_steps_train_too(tmp_path: Path) -> None:
    asam = replace(PLAN, optimiser={"name": "adamw", "rate": 1e-3, "asam": {"rho": 1.0}}, epochs=2)
    plain = run(tmp_path / "plain", replace(PLAN, epochs=2))
    record = run(tmp_path / "asam", asam)
    assert np.isfinite(record["curve"][-1]["loss"])
    assert without_clock(record["curve"]) != without_clock(plain["curve"])


def test_a_run_by_the_clock_ends(tmp_path: Path) -> None:
    record = run(tmp_path, replace(PLAN, epochs=None, minutes=1 / 60, validate_every=None))
    assert 0.5 < record["seconds"] < 20


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"loss": [{"term": "kl"}]}, "epochs"),
        ({"loss": [{"term": "kl"}], "epochs": 0}, "epochs"),
        ({"loss": [], "epochs": 1}, "loss"),
        ({"loss": [{"term": "kl"}], "epochs": 1, "bach": 3}, "bach"),
        ({"loss": [{"term": "kl"}], "epochs": 1, "batch": 0}, "batch"),
        ({"loss": [{"term": "kl"}], "epochs": 1, "precision": "fp8"}, "precision"),
        ({"loss": [{"term": "kl"}], "epochs": "many"}, "epochs"),
        ({"loss": ["kl"], "epochs": 1}, "loss: a value of another kind"),
        ({"loss": [{"term": "kl"}], "epochs": 1, "threads": -2}, "threads"),
        ({"loss": [{"term": "kl"}], "epochs": 1, "optimiser": "sgd"}, "optimiser"),
    ],
)
def test_plans_that_cannot_be_followed(values: dict[str, Any], field: str) -> None:
    with pytest.raises(PlanError, match=field):
        Plan.from_dict(values)


def test_batches_are_the_same_however_they_are_made() -> None:
    net, data = model(), places()
    augment = build_augmentation([{"name": "pad_crop"}, {"name": "erase"}], net.info.query)

    def batches(workers: int, first: int) -> list[Any]:
        sampler = build_sampler({"name": "shuffled"}, data, 4)
        return list(DatasetSource(data, sampler, augment, augment, seed=3, workers=workers).batches(2, first))

    alone, ahead = batches(0, 0), batches(2, 1)
    assert len(alone) == 4 and len(ahead) == 3
    for one, two in zip(alone[1:], ahead, strict=True):
        assert torch.equal(one.query, two.query) and torch.equal(one.reference, two.reference)
        assert torch.equal(one.labels, two.labels)


def test_a_batch_that_does_not_go_round_is_named() -> None:
    net, data = model(), places(1)
    plain = build_augmentation([], net.info.query)
    sampler = build_sampler({"name": "shuffled"}, data, 4)
    source = DatasetSource(data, sampler, plain, plain, seed=0, workers=0, rank=1, world=2)
    with pytest.raises(CvglError, match=r"batch: fewer pairs than processes \(found 1, expected 2 or more"):
        list(source.batches(0, 0))


SCRIPT = """
import json, sys
from pathlib import Path
import numpy as np, torch
sys.path.insert(0, sys.argv[2])
from test_training_loop import PLAN, places
from dataclasses import replace
from cvgl_train.data.images import build_augmentation
from cvgl_train.registry import create_model
from cvgl_train.sampling import build_sampler
from cvgl_train.training.loop import launch, train
from cvgl_train.training.source import DatasetSource

plan = replace(PLAN, loss=({"term": "infonce"},), batch=8, epochs=2, clip=1.0)
fabric, _ = launch("cpu", "32")
torch.manual_seed(0)
net = create_model("frgeo", backbone="vit_tiny_patch16_224", query_layout="map", reference_layout="map",
                   query_size=(32, 32), reference_size=(32, 32))
data = places()
plain = build_augmentation([], net.info.query)
source = DatasetSource(data, build_sampler({"name": "shuffled"}, data, 8), plain, plain, seed=0, workers=0,
                       rank=fabric.global_rank, world=fabric.world_size)
record = train(net, source, plan, Path(sys.argv[1]), fabric=fabric)
assert record["processes"] == int(sys.argv[3])
"""


@pytest.mark.slow
def test_two_processes_take_the_steps_that_one_would(tmp_path: Path) -> None:
    """torchrun with two processes: each computes half of every batch, negatives come from the whole."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    here = str(Path(__file__).parent)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    for name, command, count in (("one", [sys.executable], "1"), ("two", launcher, "2")):
        done = subprocess.run(
            [*command, str(script), str(tmp_path / name), here, count],
            env=environment, capture_output=True, text=True, timeout=280,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-3000:]
    one, two = (json.loads((tmp_path / name / "record.json").read_text())["curve"] for name in ("one", "two"))
    assert [line["loss"] for line in one[-2:]] == pytest.approx([line["loss"] for line in two[-2:]], rel=1e-3)
    first, second = weights(tmp_path / "one" / "model.pt"), weights(tmp_path / "two" / "model.pt")
    for name, value in first.items():
        assert torch.allclose(value, second[name], atol=2e-4), name


def test_errors_are_ours() -> None:
    assert issubclass(PlanError, CvglError)
