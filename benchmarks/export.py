"""Every method exported: FP16 and INT8 against FP32 on 500 tiles, and what an export costs in time and memory.

    python benchmarks/export.py                               # an hour on two cores
    python benchmarks/export.py frgeo cvgl-nano               # these methods alone
    python benchmarks/export.py --no-agreement --no-full      # the real flight alone: two minutes

Trained networks, in the small size of their recipes (`benchmarks/small_runs.py` makes them) and the base model that
ships, are compared on 500 procedural tiles: whether a search finds the same tile says something only of a network that
tells tiles apart. Missions of a real map (`benchmarks/fengyuan.py` makes them), one of them adapted to it, are compared
on their galleries' tiles and on the photos of the real flight. Full-size networks, of random weights since no published
weights are at hand, are exported by the command itself, which is timed.
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

import torch
import typer
from export_flight import measure_mission, section
from export_parity import change, compared, nodes, number, verdict
from record import ROOT, commit, on_machine, run_app, write_record

from cvgl.bench import machine
from cvgl.errors import ModelError
from cvgl.files import read_json
from cvgl_export.source import Source, open_source
from cvgl_train.checkpoint import save_model
from cvgl_train.registry import METHODS, create_model

# Those whose arithmetic is convolutions; INT8 is asked of them.
CONVOLUTIONAL = ("lpn", "frgeo", "vgg16", "resnet50", "cvm-net-1", "cvm-net-2", "cvgl-nano")
BASE = ROOT / "sdk" / "cvgl" / "models" / "cvgl-nano.cvgl"
_ORDER = (*METHODS, "adapted", "plain")

app = typer.Typer(add_completion=False)


@app.command()
def main(
    methods: Annotated[
        list[str] | None, typer.Argument(help="Methods; by default all. What is known of others stays.")
    ] = None,
    runs: Annotated[Path, typer.Option(help="Folder of the small runs.")] = Path("runs"),
    tiles: Annotated[int, typer.Option(help="Tiles to compare on.")] = 500,
    agreement: Annotated[bool, typer.Option(help="Compare trained networks on procedural tiles.")] = True,
    full: Annotated[bool, typer.Option(help="Also export at full size, timed.")] = True,
    flight: Annotated[bool, typer.Option(help="Also compare on a real flight and its map, with the missions.")] = True,
    mission: Annotated[Path, typer.Option(help="A mission adapted to the Fengyuan map.")] = ROOT
    / "build"
    / "fengyuan"
    / "adapted-10min-seed0",
    plain: Annotated[Path, typer.Option(help="A mission of the same map made with --no-adapt.")] = ROOT
    / "build"
    / "fengyuan"
    / "plain-seed0",
    data: Annotated[
        Path, typer.Option(envvar="CVGL_DATA", help="The folder that holds flights/ and maps/.")
    ] = ROOT.parent / "shared",
    out: Annotated[Path, typer.Option(help="Folder of the results.")] = ROOT / "benchmarks" / "results",
) -> None:
    """Export every method and write how well the exports agree and what they cost."""
    chosen = methods or list(METHODS)
    about = machine()
    name = on_machine("export", about)
    known = out / f"{name}.json"
    before = read_json(known, ModelError) if known.is_file() else {}
    record: dict[str, Any] = {
        "made": datetime.now(timezone.utc).date().isoformat(),
        "machine": about,
        "command": "python benchmarks/export.py",
        # What was measured before stands until it is measured again; every row names its commit.
        **{key: before.get(key, []) for key in ("agreement", "costs", "flight")},
    }

    def replace(key: str, rows: list[dict[str, Any]]) -> None:
        """New rows for old ones of the same method or mission; written at once: an hour's work hangs on nothing."""
        names = {_name(row) for row in rows}
        kept = [row for row in record[key] if _name(row) not in names]
        record[key] = sorted([*kept, *rows], key=lambda row: _ORDER.index(_name(row)))
        write_record(out, name, record, _page(record))

    for title, folder in (("adapted", mission), ("plain", plain)) if flight else ():
        replace("flight", _flown(title, folder, data, tiles))
    for method in chosen:
        checkpoint = runs / f"{method}-small" / "model.pt"
        made: list[dict[str, Any]] = []
        if agreement and checkpoint.is_file():
            made += _agreement(f"{method}, small", open_source(checkpoint), tiles, int8=method in CONVOLUTIONAL)
        if agreement and method == "cvgl-nano":
            made += _agreement("cvgl-nano, base", open_source(BASE), tiles, int8=True)
        replace("agreement", [{"method": method, "commit": commit(), **row} for row in made])
        if full:
            replace("costs", [{"commit": commit(), **_cost(method)}])
            print(record["costs"][-1], flush=True)


def _name(row: dict[str, Any]) -> str:
    """Whose figures a row holds: a method's or a mission's."""
    return str(row.get("method") or row["mission"])


def _agreement(title: str, source: Source, count: int, *, int8: bool) -> list[dict[str, Any]]:
    """FP16, and INT8 where asked, against the network itself."""
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        for precision in ("fp16", "int8") if int8 else ("fp16",):
            rows.append({"network": title, **compared(source, precision, None, count, Path(scratch))[0]})
            print(rows[-1], flush=True)
    return rows


def _flown(name: str, mission: Path, data: Path, count: int) -> list[dict[str, Any]]:
    """A mission over the real flight; nothing where one of them is not there."""
    flight = data / "flights" / "fengyuan"
    for path, where in ((flight / "map.tif", "CVGL_DATA"), (mission, "benchmarks/fengyuan.py makes it")):
        if not path.exists():
            print(f"skipped: no {path} ({where})", file=sys.stderr)
            return []
    found = {"mission": name, "commit": commit(), **measure_mission(mission, flight, flight / "map.tif", count)}
    print(found, flush=True)
    return [found]


def _cost(name: str) -> dict[str, Any]:
    """The command on the full-size network of random weights: seconds, peak memory, sizes, how it ended.

    Seconds of the wall are those of a quiet machine only; those of the processors, all of them together, hardly depend
    on what else runs.
    """
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
            "used = resource.getrusage(resource.RUSAGE_CHILDREN)\n"
            "print(json.dumps({'status': done.returncode, 'said': done.stderr[-400:], 'mib': used.ru_maxrss / 1024,"
            " 'processor': used.ru_utime + used.ru_stime}))"
        )
        told = json.loads(subprocess.run([sys.executable, "-c", watch], capture_output=True, text=True).stdout)
        seconds = time.perf_counter() - started
        report = (out if out.is_dir() else folder / "model.failed") / "report.json"
        stages = json.loads(report.read_text())["stages"] if report.is_file() else []
        last = next((stage["parity"] for stage in reversed(stages) if stage["parity"]), None)
        return {
            "method": name,
            "seconds": round(seconds, 1),
            "processor_seconds": round(told["processor"], 1),
            "load_average": machine()["load_average"],
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
    commits = sorted({row["commit"] for key in ("agreement", "flight", "costs") for row in data[key]})
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
        agreement = row.get("agreement")
        lines.append(
            f"| {row['network']} | {row['precision']} | {number(row.get('cosine_median'), 7)} "
            f"| {number(row.get('cosine_minimum'), 6)} | {number(None if agreement is None else 100 * agreement, 1)} "
            f"| {change(row, 'recall')} | {nodes(row)} | {verdict(row)} |"
        )
    lines += section(data["flight"])
    if data["costs"]:
        lines += [
            "",
            "## The command at full size, random weights",
            "",
            "`cvgl-export model.pt`, FP16, both views, proof and report included. Asked: cvgl-nano under 60 s, the",
            "largest under 300 s and 8 GB.",
            "",
            "Seconds of the wall hold for how busy the machine was (its load average at the end); those of the",
            "processors, all together, hardly depend on it.",
            "",
            "| method | seconds | of processors | load | MiB | bundle MiB | tiles | cosine, median | least | exit |",
            "|---|---:|---:|---:|---:|---:|---:|---:|---:|---|",
        ]
        for row in data["costs"]:
            cosine = row["cosine"] or {}
            median, least = (f"{cosine[key]:.6f}" if key in cosine else "" for key in ("median", "minimum"))
            ended = str(row["status"]) + (f": {row['said'].strip().splitlines()[-1]}" if row["said"].strip() else "")
            lines.append(
                f"| {row['method']} | {row['seconds']:.0f} | {number(row.get('processor_seconds'), 0)} "
                f"| {number(row.get('load_average'), 0)} | {row['peak_mib']} | {row['bundle_mib'] or ''} "
                f"| {row['queries'] or ''} | {median} | {least} | {ended} |"
            )
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    run_app(app)
