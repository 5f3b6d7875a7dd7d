"""The methods and metrics against their authors' own numbers, one line each.

    python benchmarks/golden.py [FOLDER]     # by default CVGL_DATA/golden; half a minute

Weights are a function of each tensor's official name and shape, so no checkpoint is needed: the state goes to a file
with the authors' names, through `cvgl-train import`, and the model's output is held against the recorded one.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import Annotated, Any

import numpy as np
import torch
import typer
from numpy.typing import NDArray
from record import run_app
from rich.console import Console
from rich.table import Table

from cvgl.errors import CvglError
from cvgl_train import import_checkpoint
from cvgl_train.data.batch import Batch
from cvgl_train.evaluation.metrics import ap_trapezoidal, recall_at, recall_at_percent
from cvgl_train.evaluation.ranks import rank_descriptors
from cvgl_train.evaluation.sdm import sdm_degrees
from cvgl_train.losses.terms import TERMS
from cvgl_train.models.base import CrossViewModel, Features

ARRAYS, VALUES = 1e-4, 1e-5
app = typer.Typer(add_completion=False)

Array = NDArray[Any]


@app.command()
def main(
    folder: Annotated[Path | None, typer.Argument(help="With vectors.npz, losses_metrics.npz, stand_in.py.")] = None,
) -> None:
    """Print every recorded array and value, ours, and how far apart they are; exit status 1 if one is too far."""
    golden = folder or Path(os.environ.get("CVGL_DATA", "../shared")) / "golden"
    if not (golden / "vectors.npz").exists():
        raise CvglError("no recorded numbers", file=golden, expected="vectors.npz (CVGL_DATA)")
    table = Table("recorded", "from", "difference", "allowed", "", box=None)
    bad = 0
    for name, source, difference, allowed in [*_arrays(golden), *_values(golden)]:
        fits = difference <= allowed
        bad += not fits
        table.add_row(name, source, f"{difference:.1e}", f"{allowed:.0e}", "" if fits else "TOO FAR")
    Console(width=100).print(table)
    if bad:
        raise typer.Exit(1)


def _arrays(golden: Path) -> list[tuple[str, str, float, float]]:
    """Relative to the array's largest value."""
    described = json.loads((golden / "vectors.json").read_text())
    recorded = np.load(golden / "vectors.npz")
    stand_in = ModuleType("stand_in")
    exec((golden / "stand_in.py").read_text(), stand_in.__dict__)
    rows = []
    for kind, spec in described.items():
        state = {n: torch.from_numpy(np.asarray(stand_in.fill(n, shape))) for n, shape in spec["state"].items()}
        images = {
            key: torch.from_numpy(stand_in.image(**value))
            for key, value in spec.items()
            if key in ("input", "query", "reference", "ground", "satellite")
        }
        outputs = _outputs(kind, state, images)
        for name, ours in outputs.items():
            theirs = recorded[name]
            difference = float(np.abs(ours - theirs).max() / np.abs(theirs).max())
            rows.append((name, "cvgl-train import --as " + kind.replace("_", "-"), difference, ARRAYS))
    missing = set(recorded.files) - {row[0] for row in rows}
    if missing:
        raise CvglError("recorded arrays that nothing here makes", file=golden / "vectors.npz", found=sorted(missing))
    return rows


def _outputs(kind: str, state: dict[str, torch.Tensor], images: dict[str, torch.Tensor]) -> dict[str, Array]:
    def model(**settings: Any) -> CrossViewModel:
        with TemporaryDirectory() as temporary:
            path = Path(temporary) / "authors.pth"
            torch.save({"state_dict": state}, path)
            return import_checkpoint(path, kind.replace("_", "-"), **settings)

    with torch.no_grad():
        if kind == "fsra":
            net = model()
            parts = net(images["input"], "query").parts
            assert parts is not None
            descriptor = net.embed(images["input"], "query")
            return {"fsra_raw": parts.transpose(1, 2).numpy(), "fsra_descriptor": descriptor.numpy()}
        if kind == "frgeo":
            net = model()
            return {
                "frgeo_query": net(images["query"], "query").descriptor.numpy(),
                "frgeo_reference": net(images["reference"], "reference").descriptor.numpy(),
            }
        net = model()
        found = {
            f"{kind}_ground": net(images["ground"], "query").descriptor.numpy(),
            f"{kind}_satellite": net(images["satellite"], "reference").descriptor.numpy(),
        }
        # The same backbone without the spatial mixing, as the recorded mean token was taken.
        for name in [name for name in state if ".linear" in name]:
            del state[name]
        net = model(head="gap")
        found[f"{kind}_gap_satellite"] = net(images["satellite"], "reference").descriptor.numpy()
        return found


def _values(golden: Path) -> list[tuple[str, str, float, float]]:
    """Relative to the value, or absolute below 1: a loss of 0.0007, recorded in single precision from logits of 50, is
    itself 5e-5 of its size away from what double precision gives."""
    data = np.load(golden / "losses_metrics.npz")
    q, r = (torch.from_numpy(np.asarray(data[name], np.float32)) for name in ("q", "r"))
    labels = torch.from_numpy(np.asarray(data["labels"]).astype(np.int64))

    def loss(term: str, classes: torch.Tensor | None = None, **settings: Any) -> Callable[[], float]:
        def value() -> float:
            features = [Features(x, parts=None, logits=x[:, None]) for x in (q, r)]
            numbers = torch.arange(len(q))
            alone = torch.zeros(len(q), len(q), dtype=torch.bool)
            batch = Batch(q, r, numbers if classes is None else classes, alone, numbers, numbers)
            return float(TERMS[term](**settings)(features[0], features[1], batch))

        return value

    gallery = data["metric_gl"]
    ranks = rank_descriptors(
        np.asarray(data["metric_qf"], np.float32),
        np.asarray(data["metric_gf"], np.float32),
        [np.flatnonzero(gallery == label) for label in data["metric_ql"]],
    )
    ours: dict[str, tuple[str, Callable[[], float]]] = {
        "fsra_triplet_m0.3": ("term triplet", loss("triplet", labels)),
        "fsra_triplet_m0.3_unique_labels": ("term triplet", loss("triplet")),
        "fsra_kl_q_to_r": ("term kl", loss("kl", learner="query")),
        "frgeo_wbl_cosine_a10": ("term wbl", loss("wbl")),
        "frgeo_wbl_paper_l2_a10": ("term wbl, form: paper", loss("wbl", form="paper")),
        "saig_triplet_w10": ("term saig_triplet", loss("saig_triplet")),
        "saig_semisoft_trihard_w10": ("term saig_semisoft_trihard", loss("saig_semisoft_trihard")),
        "saig_infonce_t0.02": ("term saig_infonce", loss("saig_infonce")),
        **{f"univ1652_R{k}": ("cvgl-eval", lambda k=k: 100 * recall_at(ranks, k)) for k in (1, 5, 10)},
        "univ1652_R1pct": ("cvgl-eval", lambda: 100 * recall_at_percent(ranks)),
        "queries_with_positive": ("cvgl-eval", lambda: float((ranks.counts > 0).sum())),
        "univ1652_AP": ("cvgl-eval", lambda: 100 * ap_trapezoidal(ranks)),
        **{f"denseuav_sdm_{k}": ("cvgl-eval", lambda k=k: _sdm(data, k)) for k in (1, 3, 5, 10)},
    }
    inputs = {"q", "r", "labels"} | {n for n in data.files if n.startswith(("metric_", "sdm_"))}
    missing = set(data.files) - inputs - set(ours)
    if missing:
        raise CvglError("recorded values that nothing here makes", file=golden, found=sorted(missing))
    rows = []
    for name, (source, value) in ours.items():
        theirs = float(data[name])
        rows.append((name, source, abs(value() - theirs) / max(abs(theirs), 1.0), VALUES))
    return rows


def _sdm(data: Any, k: int) -> float:
    return float(sdm_degrees(data["sdm_query_lonlat"][None], data["sdm_gallery_lonlat"][None], k)[0])


if __name__ == "__main__":
    run_app(app)
