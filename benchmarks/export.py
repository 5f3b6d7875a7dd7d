"""Every method exported: FP16 and INT8 against FP32 on 500 tiles, and what an export costs in time and memory.

    python benchmarks/export.py                      # half an hour on two cores
    python benchmarks/export.py frgeo cvgl-nano      # these alone

Two kinds of networks. Trained ones, in the small size of their recipes (`benchmarks/small_runs.py` makes them) and the
base model that ships, are compared on 500 tiles: whether a search finds the same tile says something only of a network
that tells tiles apart. Full-size ones, of random weights since no published weights are at hand, are exported by the
command itself, which is timed.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import Annotated, Any

import onnx
import torch
import typer
from record import ROOT, commit, slug

from cvgl.bench import machine
from cvgl.errors import CvglError, ModelError
from cvgl.files import atomic_path, read_json, write_json
from cvgl_export.descriptors import Descriptors
from cvgl_export.graphs.half import half_graph
from cvgl_export.graphs.quantise import int8_graph
from cvgl_export.graphs.types import describe_types
from cvgl_export.parity import Parity, Thresholds, compare
from cvgl_export.running import onnx_descriptors, torch_descriptors
from cvgl_export.source import VIEWS, Source, open_source
from cvgl_export.tile_sources import procedural_tiles
from cvgl_export.tiles import ParityTiles
from cvgl_train.checkpoint import save_model
from cvgl_train.registry import METHODS, create_model

# Those whose arithmetic is convolutions; INT8 is asked of them.
CONVOLUTIONAL = ("lpn", "frgeo", "vgg16", "resnet50", "cvm-net-1", "cvm-net-2", "cvgl-nano")
BASE = ROOT / "sdk" / "cvgl" / "models" / "cvgl-nano.cvgl"
CALIBRATION_TILES, CALIBRATION_BATCH = 128, 8

app = typer.Typer(add_completion=False)


@app.command()
def main(
    methods: Annotated[
        list[str] | None, typer.Argument(help="Methods; by default all. What is known of others stays.")
    ] = None,
    runs: Annotated[Path, typer.Option(help="Folder of the small runs.")] = Path("runs"),
    tiles: Annotated[int, typer.Option(help="Tiles to compare on.")] = 500,
    agreement: Annotated[bool, typer.Option(help="Compare trained networks on the tiles.")] = True,
    full: Annotated[bool, typer.Option(help="Also export at full size, timed.")] = True,
    out: Annotated[Path, typer.Option(help="Folder of the results.")] = ROOT / "benchmarks" / "results",
) -> None:
    """Export every method and write how well the exports agree and what they cost."""
    chosen = methods or list(METHODS)
    about = machine()
    target = out / f"export-{slug(about['processor'])}-{about['cores']}-cores"
    before = read_json(target.with_suffix(".json"), ModelError) if target.with_suffix(".json").is_file() else {}
    data: dict[str, Any] = {
        "made": datetime.now(timezone.utc).date().isoformat(),
        "machine": about,
        "command": "python benchmarks/export.py",
        # What was measured before stands until it is measured again; every row names its commit.
        "agreement": [row for row in before.get("agreement", []) if row["method"] not in chosen or not agreement],
        "costs": [row for row in before.get("costs", []) if row["method"] not in chosen or not full],
    }
    for name in chosen:
        checkpoint = runs / f"{name}-small" / "model.pt"
        made: list[dict[str, Any]] = []
        if agreement and checkpoint.is_file():
            made += _agreement(f"{name}, small", open_source(checkpoint), tiles, int8=name in CONVOLUTIONAL)
        if agreement and name == "cvgl-nano":
            made += _agreement("cvgl-nano, base", open_source(BASE), tiles, int8=True)
        data["agreement"] += [{"method": name, "commit": commit(), **row} for row in made]
        if full:
            data["costs"].append({"commit": commit(), **_cost(name)})
            print(data["costs"][-1], flush=True)
        # After each, so that an hour's work is not lost with the last method.
        order = list(METHODS)
        for key in ("agreement", "costs"):
            data[key].sort(key=lambda row: order.index(row["method"]))
        write_json(target.with_suffix(".json"), data)
        with atomic_path(target.with_suffix(".md")) as temporary:
            temporary.write_text(_page(data), encoding="utf-8")
    print(target.with_suffix(".md"))


def _agreement(title: str, source: Source, count: int, *, int8: bool) -> list[dict[str, Any]]:
    """FP16, and INT8 where asked, against the network itself."""
    sizes = source.inputs["query"], source.inputs["reference"]
    tiles = procedural_tiles(*sizes, count=count)
    with tempfile.TemporaryDirectory() as scratch:
        graphs = source.write_graphs(Path(scratch))
        original = _describe(graphs, source, tiles) if source.model is None else _torch(source, tiles)
        rows = []
        for precision in ("fp16", "int8") if int8 else ("fp16",):
            files, counts = {}, {}
            for name, path in graphs.items():
                graph = onnx.load(str(path))
                if precision == "fp16":
                    made = half_graph(graph)
                else:
                    views = [view for view in VIEWS if source.file_of(view) == name]
                    other = procedural_tiles(*sizes, count=CALIBRATION_TILES, seed=1)
                    batches = (
                        other.batch(view, start, start + CALIBRATION_BATCH)
                        for view in views
                        for start in range(0, CALIBRATION_TILES, CALIBRATION_BATCH)
                    )
                    made = int8_graph(graph, batches, rest="fp16")
                files[name] = Path(scratch) / f"{precision}-{name}"
                onnx.save(made, str(files[name]))
                for found in describe_types(made).values():
                    for kind, number in found.items():
                        counts[kind] = counts.get(kind, 0) + number
            parity = compare(original, _describe(files, source, tiles), tiles.truth, Thresholds.of(precision))
            rows.append(_row(title, precision, parity, counts))
            print(rows[-1], flush=True)
    return rows


def _torch(source: Source, tiles: ParityTiles) -> Descriptors:
    assert source.model is not None
    query, reference = (torch_descriptors(source.model, tiles, view) for view in VIEWS)
    return Descriptors(query, reference, "PyTorch")


def _describe(files: dict[str, Path], source: Source, tiles: ParityTiles) -> Descriptors:
    query, reference = (onnx_descriptors(files[source.file_of(view)], tiles, view) for view in VIEWS)
    return Descriptors(query, reference, "ONNX Runtime")


def _row(title: str, precision: str, parity: Parity, counts: dict[str, int]) -> dict[str, Any]:
    seen = parity.retrieval
    assert seen is not None
    return {
        "network": title,
        "queries": len(parity.cosine_query),
        "precision": precision,
        "nodes": counts,
        "cosine_median": parity.cosine_median,
        "cosine_minimum": parity.cosine_minimum,
        "agreement": seen.agreement,
        "exact_agreement": seen.exact_agreement,
        "recall_before": seen.recall_before,
        "recall_after": seen.recall_after,
        "pssr_change": seen.pssr_change,
        "spread": parity.spread,
        "failures": [str(failure) for failure in parity.failures],
    }


def _cost(name: str) -> dict[str, Any]:
    """The command on the full-size network of random weights: seconds, peak memory, sizes, how it ended."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        torch.manual_seed(0)
        save_model(create_model(name), folder / "model.pt", {"note": "random weights"})
        out = folder / "model.cvgl"
        code = f"import sys; sys.argv = ['cvgl-export', {str(folder / 'model.pt')!r}, '--out', {str(out)!r}]\n"
        code += "from cvgl_export.cli import app_main\napp_main()"
        started = time.perf_counter()
        # A process of its own asks after its only child: the greatest memory is per process tree, and never falls.
        watch = (
            "import json, resource, subprocess, sys\n"
            f"done = subprocess.run([sys.executable, '-c', {code!r}], capture_output=True, text=True)\n"
            "used = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss\n"
            "print(json.dumps({'status': done.returncode, 'mib': used / 1024, 'said': done.stderr[-400:]}))"
        )
        told = json.loads(subprocess.run([sys.executable, "-c", watch], capture_output=True, text=True).stdout)
        seconds = time.perf_counter() - started
        report = (out if out.is_dir() else folder / "model.failed") / "report.json"
        stages = json.loads(report.read_text())["stages"] if report.is_file() else []
        last = next((stage["parity"] for stage in reversed(stages) if stage["parity"]), None)
        return {
            "method": name,
            "seconds": round(seconds, 1),
            "peak_mib": round(told["mib"]),
            "status": told["status"],
            # Without the temporary folder, which means nothing elsewhere.
            "said": told["said"].replace(f"{folder}/", "").split("; see ")[0].strip() if told["status"] else "",
            "bundle_mib": round(sum(file.stat().st_size for file in out.rglob("*")) / 2**20, 1)
            if out.is_dir()
            else None,
            "queries": last["queries"] if last else None,
            "cosine": last["cosine"] if last else None,
        }


def _page(data: dict[str, Any]) -> str:
    computer = data["machine"]
    commits = sorted({row["commit"] for row in (*data["agreement"], *data["costs"])})
    counts = sorted({row["queries"] for row in data["agreement"]})
    lines = [
        "# Exports",
        "",
        f"{data['made']}, commits {', '.join(commits)}, {computer['processor']}, {computer['cores']} cores.",
        "Made by `python benchmarks/export.py`; the JSON file beside this one has every digit.",
        "",
        f"## Against FP32 on {' or '.join(map(str, counts))} procedural tiles",
        "",
        "Trained networks. Descriptors by ONNX Runtime with every rounding to half precision done as a GPU does it; no",
        "TensorRT took part. Asked of FP16: median cosine at least 0.9999, least 0.999, same nearest tile for 99.5 %;",
        "of INT8 (convolutional networks): same nearest tile for 98 %. Nodes are counted by the types the graph has.",
        "",
        "| network | precision | cosine, median | least | same nearest tile % | R@1 % | nodes | |",
        "|---|---|---:|---:|---:|---:|---|---|",
    ]
    for row in data["agreement"]:
        nodes = ", ".join(f"{count} {kind}" for kind, count in sorted(row["nodes"].items()))
        verdict = "passes" if not row["failures"] else "; ".join(row["failures"])
        recall = f"{100 * row['recall_before']:.1f} → {100 * row['recall_after']:.1f}"
        lines.append(
            f"| {row['network']} | {row['precision']} | {row['cosine_median']:.7f} | {row['cosine_minimum']:.6f} "
            f"| {100 * row['agreement']:.1f} | {recall} | {nodes} | {verdict} |"
        )
    if data["costs"]:
        lines += [
            "",
            "## The command at full size, random weights",
            "",
            "`cvgl-export model.pt`, FP16, both views, proof and report included. Asked: cvgl-nano under 60 s, the",
            "largest under 300 s and 8 GB.",
            "",
            "| method | seconds | peak MiB | bundle MiB | tiles | cosine, median | least | exit |",
            "|---|---:|---:|---:|---:|---:|---:|---|",
        ]
        for row in data["costs"]:
            cosine = row["cosine"] or {}
            median, least = (f"{cosine[key]:.6f}" if key in cosine else "" for key in ("median", "minimum"))
            ended = str(row["status"]) + (f": {row['said'].strip().splitlines()[-1]}" if row["said"].strip() else "")
            lines.append(
                f"| {row['method']} | {row['seconds']:.0f} | {row['peak_mib']} | {row['bundle_mib'] or ''} "
                f"| {row['queries'] or ''} | {median} | {least} | {ended} |"
            )
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    try:
        app()
    except CvglError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_status)
