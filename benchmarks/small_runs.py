"""Every recipe's small version, trained and recorded: curves, scores, and the two ablations.

    python benchmarks/small_runs.py                  # about an hour on two cores; what is trained already is read
    python benchmarks/small_runs.py fsra cvgl-nano   # these alone

The dataset is procedural and nothing is pretrained, so the figures say that a method trains, not how good it is: for
that there are the recipes themselves, the published datasets and `cvgl-eval`.
"""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path
from typing import Annotated, Any

import cv2
import numpy as np
import typer
from numpy.typing import NDArray
from record import ROOT, commit, run_app, write_record

from cvgl.bench import machine
from cvgl_train.ablation import run_ablation
from cvgl_train.data.base import CrossViewSet
from cvgl_train.evaluation.figures import training_curve
from cvgl_train.evaluation.metrics import chance_at, recall_at
from cvgl_train.evaluation.ranks import rank_descriptors
from cvgl_train.methods import finished_record, open_data, train_method
from cvgl_train.recipes import MethodRecipe, apply_change, read_recipe
from cvgl_train.registry import METHODS

ABLATIONS = ("fsra", "frgeo")
THUMBNAIL_PX = 8

app = typer.Typer(add_completion=False)


@app.command()
def main(
    methods: Annotated[list[str] | None, typer.Argument(help="Recipes; by default every method's.")] = None,
    runs: Annotated[Path, typer.Option(help="Folder of the runs.")] = Path("runs"),
    out: Annotated[Path, typer.Option(help="Folder of the results.")] = ROOT / "benchmarks" / "results",
    ablations: Annotated[bool, typer.Option(help="Run the ablations as well.")] = True,
    threads: Annotated[int, typer.Option(help="Of every run; the record holds for this number.")] = 1,
) -> None:
    """Train the small version of every recipe and write what came of it."""
    chosen = methods or list(METHODS)
    changes = [f"plan.threads={threads}"]
    rows = []
    for name in chosen:
        values = read_recipe(name, [], ["method"], small=True)[1]
        for change in changes:
            apply_change(values, change, Path(name))
        values["out"] = str(runs / f"{name}-small")
        print(f"{name} ...", flush=True)
        rows.append({"method": name, **_record(MethodRecipe.from_dict(values))})
    tables = {name: run_ablation(name, changes, runs / "ablation" / name) for name in (ABLATIONS if ablations else ())}
    held = open_data(MethodRecipe.from_dict(read_recipe(chosen[0], [], ["method"], small=True)[1]))[1]
    data = {
        "made": datetime.now(timezone.utc).date().isoformat(),
        "commit": commit(),
        "machine": machine(),
        "command": "python benchmarks/small_runs.py",
        "thumbnail": _thumbnail(held),
        "runs": rows,
        "ablations": tables,
    }
    training_curve(
        {row["method"]: row["curve"] for row in rows}, out / "small-runs.png", chance=rows[0]["curve"][-1]["chance"]
    )
    write_record(out, "small-runs", data, _page(data))


def _record(recipe: MethodRecipe) -> dict[str, Any]:
    return finished_record(recipe) or train_method(recipe)[1]


def _thumbnail(held: CrossViewSet) -> dict[str, float]:
    """Retrieval by 8 x 8 pixels of the image: what needs no network, and what a network has to beat."""

    def describe(images: Any) -> NDArray[np.float32]:
        small = np.stack([cv2.resize(i.read(), (THUMBNAIL_PX,) * 2, interpolation=cv2.INTER_AREA) for i in images])
        flat = small.reshape(len(small), -1).astype(np.float32)
        flat -= flat.mean(1, keepdims=True)
        normed: NDArray[np.float32] = flat / np.linalg.norm(flat, axis=1, keepdims=True)
        return normed

    ranks = rank_descriptors(describe(held.queries), describe(held.references), held.matches, held.semi)
    return {**{f"R@{k}": round(recall_at(ranks, k), 4) for k in (1, 5, 10)}, "chance": round(chance_at(ranks, 1), 4)}


def _page(data: dict[str, Any]) -> str:
    thumbnail, computer = data["thumbnail"], data["machine"]
    first = data["runs"][0]

    def percent(share: float) -> str:
        return f"{100 * share:.1f}"

    lines = [
        "# Every recipe's small version",
        "",
        f"{data['made']}, commit {data['commit']}, {computer['processor']}, {computer['cores']} cores; several runs",
        "at a time, one thread each, so that seconds are upper bounds. Made by `python benchmarks/small_runs.py`; each",
        "row is `cvgl-train METHOD --small plan.threads=1`, curves and settings are in the JSON file beside this one.",
        "",
        f"Procedural places, trained from random weights: {first['data']['queries']} drone views of",
        f"{first['data']['references']} places; judged on {first['validation']['queries']} views of other places",
        f"against {first['validation']['references']} satellite images. Guessing finds",
        f"{percent(thumbnail['chance'])} %,",
        f"comparing 8 x 8 pixel thumbnails {percent(thumbnail['R@1'])} % (R@5 {percent(thumbnail['R@5'])} %):",
        "the set is small and easy, and north is up. It shows that a method trains, not which is better: sizes are",
        "cut to what minutes on one core allow, and none has the pretrained weights that the papers start from.",
        "",
        "![curves](small-runs.png)",
        "",
        "| method | untrained R@1 % | R@1 % | R@5 % | R@10 % | times chance | steps | minutes | arithmetic |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---|",
    ]
    for row in data["runs"]:
        start, last = row["curve"][0], row["curve"][-1]
        shares = " | ".join(percent(last[key]) for key in ("R@1", "R@5", "R@10"))
        lines.append(
            f"| {row['method']} | {percent(start['R@1'])} | {shares} | {last['R@1'] / last['chance']:.0f} "
            f"| {row['steps']} | {row['seconds'] / 60:.1f} | {row['arithmetic']} |"
        )
    for name, rows in data["ablations"].items():
        lines += [
            "",
            f"## `cvgl-train ablation {name}`",
            "",
            "| | R@1 % | R@5 % | R@10 % | steps |",
            "|---|---:|---:|---:|---:|",
        ]
        for row in rows:
            shares = " | ".join(percent(row[key]) for key in ("R@1", "R@5", "R@10"))
            lines.append(f"| {row['name']} | {shares} | {row['steps']} |")
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    run_app(app)
