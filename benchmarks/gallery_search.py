"""Search by this project's index and tree, and by faiss and usearch, on the same synthetic tiles.

    python benchmarks/gallery_search.py search GALLERY --sizes 10000,100000
    python benchmarks/gallery_search.py search GALLERY --sizes 1000000 --engines cvgl,faiss-hnsw
    python benchmarks/gallery_search.py product GALLERY

GALLERY is a real one, to whose descriptors the law of the synthetic ones is fitted (gallery_synthetic.py). Each engine
runs at each size in a process of its own, one after the other, and what it reached is kept under --work: a run that was
interrupted goes on where it stopped, and the record has whatever is there.
"""

from __future__ import annotations

import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from gallery_engines import ENGINES, NOTES, Left, Task, measure_engine
from gallery_synthetic import Law, likeness, write_descriptors
from record import ROOT, commit, on_machine, run_app, write_record

from cvgl.bench.machine import machine
from cvgl.errors import GalleryError
from cvgl.files import read_json, write_json
from cvgl.gallery import Gallery, ranking
from cvgl.gallery.axes import axes_name
from cvgl.gallery.fit import Fitting, ask, fit_index
from cvgl.gallery.index import find, load_index
from cvgl.gallery.recall import AT, SIMILARITY, TARGET, disturbed, kth_similarity

app = typer.Typer(add_completion=False, help=__doc__)

_SEED = 5
_DIMENSION = 384
_CHOOSING, _JUDGING = 500, 1000
_SIZES, _BATCHES, _ASKED = (2_000, 5_000, 10_000, 20_000, 50_000), (1, 36), 200


@app.command()
def search(
    gallery: Annotated[Path, typer.Argument(metavar="GALLERY", help="A real one, of some ten thousand tiles.")],
    sizes: Annotated[str, typer.Option(help="Numbers of tiles.")] = "10000,100000",
    engines: Annotated[
        str, typer.Option(help="Which; others that were measured before stay in the record.")
    ] = ",".join(ENGINES),
    work: Annotated[Path, typer.Option(help="Tiles, indices and partial results.")] = ROOT / "build" / "gallery-search",
    out: Annotated[Path, typer.Option(help="Where the record goes.")] = ROOT / "benchmarks" / "results",
) -> None:
    """Build time, memory, load time, time of a query on one thread and recall at 20, engine by engine."""
    work.mkdir(parents=True, exist_ok=True)
    law = None
    for count in map(int, sizes.split(",")):
        task = Task(work / f"{count}-{_DIMENSION}")
        if not (task.folder / "task.json").exists():
            law = law or Law.of(Gallery.open(gallery))
            _prepare(task, law, count, gallery)
        for engine in engines.split(","):
            if task.result(engine).exists():
                continue
            print(f"{count} tiles, {engine}:", flush=True)
            # What one engine leaves in memory must not count for the next.
            subprocess.run([sys.executable, __file__, "one", str(task.folder), engine], check=True)
            _report(work, gallery, out)
    _report(work, gallery, out)


@app.command()
def product(
    gallery: Annotated[Path, typer.Argument(metavar="GALLERY", help="A real one of 50 000 tiles or more.")],
    out: Annotated[Path, typer.Option(help="Where the record goes.")] = ROOT / "benchmarks" / "results",
) -> None:
    """Comparing with every tile against the index, of one query and of 36, as the number of tiles grows.

    In milliseconds of processor on one thread, which other work on the machine
    lengthens less than those of the clock.
    """
    rows = np.asarray(Gallery.open(gallery).descriptors, np.float32)
    found = []
    for count in (size for size in _SIZES if size <= len(rows)):
        some = np.ascontiguousarray(rows[np.sort(np.random.default_rng(count).permutation(len(rows))[:count])])

        def chosen(which: Any, some: Any = some) -> Any:
            return some[which]

        questions = ask(chosen, count)
        with tempfile.TemporaryDirectory() as scratch:
            path = Path(scratch) / "index.hnsw"
            about = Fitting(Path(scratch), chosen, count, rows.shape[1], [questions], TARGET, lambda done: None)
            entry = fit_index(path, about)
            axes = np.load(path.with_name(axes_name(path.name))) if "axes" in entry else None
            index = load_index(None, path, entry.get("axes", rows.shape[1]), count)
        index.set_ef(entry["ef"])
        row: dict[str, Any] = {"tiles": count, "M": entry["M"], "ef": entry["ef"]}
        for batch in _BATCHES:
            batches = questions.queries[: len(questions.queries) // batch * batch].reshape(-1, batch, rows.shape[1])
            row[f"index_{batch}"] = _median_ms(
                lambda q, index=index, axes=axes, chosen=chosen: find(index, axes, q, AT, chosen), batches
            )
            row[f"product_{batch}"] = _median_ms(lambda q, some=some: ranking.best_of_all(q, some, AT), batches)
        print(row, flush=True)
        found.append(row)
    about = machine()
    data = {"commit": commit(), "machine": about, "dimension": rows.shape[1], "k": AT, "rows": found}
    lines = [
        "# Comparing with every tile, or searching the index",
        "",
        f"{about['processor']}, commit {data['commit']}; {rows.shape[1]}-d, k = {AT}, one thread, medians, milliseconds"
        f" of processor; the index's parameters chosen for recall {TARGET}.",
        "",
        "| tiles | M | ef | index, one query | product | index, 36 queries | product |",
        "| ---: " * 7 + "|",
    ]
    for row in found:
        times = " | ".join(f"{row[f'{way}_{batch}']:.2f}" for batch in _BATCHES for way in ("index", "product"))
        lines.append(f"| {row['tiles']} | {row['M']} | {row['ef']} | {times} |")
    write_record(out, on_machine("gallery-product", about), data, "\n".join([*lines, ""]))


def _median_ms(ask_it: Callable[[Any], Any], batches: Any) -> float:
    spent = []
    for queries in batches[:_ASKED]:
        began = time.thread_time()
        ask_it(queries)
        spent.append(1e3 * (time.thread_time() - began))
    return float(np.median(spent))


@app.command(hidden=True)
def one(folder: Path, engine: str) -> None:
    """A process that measures one engine at one size."""
    task = Task(folder)
    write_json(task.result(engine), measure_engine(task, engine))


def _prepare(task: Task, law: Law, count: int, gallery: Path) -> None:
    """Tiles, queries to choose an engine's effort by, others to judge it by, and the exact answers to both."""
    task.folder.mkdir(parents=True, exist_ok=True)
    task.rows.unlink(missing_ok=True)
    tell = Left(f"{count} tiles", count)
    write_descriptors(law, task.rows, count, _DIMENSION, _SEED, tell)
    rows = np.load(task.rows, mmap_mode="r")
    rng = np.random.default_rng([_SEED, count])

    def some(which: Any) -> np.ndarray:
        return np.asarray(rows[which], np.float32)

    for name, queries in (("choosing", _CHOOSING), ("judging", _JUDGING)):
        asked = disturbed(some, count, queries, rng)
        kth = kth_similarity(asked, lambda start, stop: some(slice(start, stop)), count, AT)
        np.savez(task.folder / f"{name}.npz", queries=asked, kth=kth)
    about = {"count": count, "dimension": _DIMENSION, "like": gallery.parent.name, "synthetic": likeness(rows)}
    write_json(task.folder / "task.json", about)


def _report(work: Path, gallery: Path, out: Path) -> None:
    about = machine()
    opened = Gallery.open(gallery)
    tasks: list[dict[str, Any]] = []
    for file in sorted(work.glob("*/task.json"), key=lambda path: int(path.parent.name.split("-")[0])):
        told = read_json(file, GalleryError)
        found = {
            name: read_json(path, GalleryError) for name in ENGINES if (path := Task(file.parent).result(name)).exists()
        }
        tasks.append({**told, "engines": found})
    real = likeness(opened.descriptors)
    data = {"commit": commit(), "machine": about, "real": {"tiles": len(opened), **real}, "sizes": tasks}
    lines = [
        "# Search among synthetic tiles",
        "",
        f"{about['processor']}, {about['cores']} cores, {about['memory_gb']} GB, commit {data['commit']}. Queries are"
        f" tiles led astray to a similarity of {SIMILARITY} (the median of real photos to their tiles): {_CHOOSING} by"
        f" which every engine's effort is chosen as the least that reaches recall@{AT} of {TARGET}, {_JUDGING} others"
        " that judge it, one at a time on one thread. Load: from disk, the files not in memory, until the first query"
        " is answered. Load average is that of the machine when the engine was done: times beside other work are upper"
        " bounds.",
        "",
    ]
    for task in tasks:
        synthetic = task["synthetic"]
        lines += [
            f"## {task['count']} tiles of {task['dimension']}-d",
            "",
            f"Similarity of random pairs, percentiles 1, 50, 99: {_listed(synthetic['random_pairs'])} (the real gallery"
            f" of {len(opened)} tiles: {_listed(real['random_pairs'])}); to the nearest, 4th, 20th, 100th other tile:"
            f" {_listed(synthetic['nearest'])} (real: {_listed(real['nearest'])}).",
            "",
            f"| engine | effort | recall@{AT} | 95 % interval | query p50, ms | p95, ms | p50 of processor, ms |"
            " build, s | of processor, s |"
            " peak of build, MB | on disk, MB | load, ms | memory loaded, MB | load average |",
            "| --- " + "| ---: " * 13 + "|",
        ]
        for name, row in task["engines"].items():
            lines.append(
                f"| {name} | {row['effort']} | {row['recall']:.4f} | {row['low']:.4f} to {row['high']:.4f} |"
                f" {row['p50_ms']:.2f} | {row['p95_ms']:.2f} | {row['p50_processor_ms']:.2f} | {row['build_s']:.0f} |"
                f" {row['build_processor_s']:.0f} |"
                f" {row['build_peak_mb']:.0f} | {row['disk_mb']:.0f} | {row['load_ms']:.0f} | {row['loaded_mb']:.0f} |"
                f" {row['load_average']:.1f} |"
            )
        lines.append("")
    lines += [f"- {name}: {note}" for name, note in NOTES.items()]
    write_record(out, on_machine("gallery-search", about), data, "\n".join([*lines, ""]))


def _listed(values: dict[str, float]) -> str:
    return ", ".join(f"{value:.2f}" for value in values.values() if math.isfinite(value))


if __name__ == "__main__":
    run_app(app)
