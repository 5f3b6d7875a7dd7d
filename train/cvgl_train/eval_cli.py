"""``cvgl-eval``: how good a model is on a dataset, by every metric the field reports."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import typer
import yaml
from numpy.typing import NDArray

from cvgl.cli.common import main
from cvgl.errors import ModelError
from cvgl.files import atomic_path, write_json

if TYPE_CHECKING:
    from .data.base import CrossViewSet, ImageSource
    from .evaluation.cost import Cost
    from .evaluation.embed import BundleEmbedder, ModelEmbedder
    from .evaluation.evaluate import Evaluation, Progress
    from .evaluation.robustness import Robustness
    from .evaluation.tables import Sheet
    from .models.base import View

__all__ = ["app", "app_main"]

app = typer.Typer(add_completion=False)

_PANEL_QUERIES = 6
_HSM_PAIRS = 4


@app.command(no_args_is_help=True)
def evaluate(
    model: Annotated[str, typer.Argument(metavar="CHECKPOINT_OR_BUNDLE", help="A .pt file, or a folder NAME.cvgl.")],
    dataset: Annotated[str, typer.Argument(metavar="READER:ROOT", help="A dataset's name and its official folder.")],
    split: Annotated[str, typer.Option(help="As the dataset names it.")] = "test",
    option: Annotated[
        list[str] | None, typer.Option(metavar="KEY=VALUE", help="Of the dataset's reader; may be given again.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for results.json, tables and figures.")] = None,
    robustness: Annotated[
        bool, typer.Option("--robustness", help="Also with shifted and with coarser query images: some 20 times more.")
    ] = False,
    score: Annotated[
        Literal["descriptor", "classifier"],
        typer.Option(help="What is compared, for models with a classifier of pairs."),
    ] = "descriptor",
    mirror: Annotated[
        bool, typer.Option("--mirror", help="Add the mirror image's features, as FSRA and LPN are tested.")
    ] = False,
    device: Annotated[str, typer.Option(help="As PyTorch names it, such as cpu or cuda.")] = "cpu",
    batch: Annotated[int, typer.Option(min=1, help="Images at a time.")] = 32,
    workers: Annotated[int, typer.Option(min=1, help="Threads that read images.")] = 2,
) -> None:
    """Evaluate a model on a dataset, from queries to references and back.

    READER is one of university-1652, sues-200, denseuav, cvusa, cvact,
    vigor, gta-uav, uav-visloc, flight, map, procedural; ROOT is the folder
    as its authors publish it. An authors' checkpoint is brought in by
    cvgl-train import first.

    Where the true reference and false ones are exactly as close, R@K is
    what chance gives, so that a model whose descriptors are all alike
    wins nothing. AP is given twice: by trapezoids, as University-1652's
    code computes it, and as scikit-learn does.

    University-1652, SUES-200 and DenseUAV have another gallery for the
    way back, which is read too; --option gallery=satellite turns the one
    set round instead.

    With --out DIR: results.json with all metrics, table.csv, table.tex
    (booktabs), and figures of what queries found, of PSSR, of the
    descriptors and, where a model has regions, of them.

    Examples:

      cvgl-eval fsra.pt university-1652:/data/University-1652 --mirror

      cvgl-eval base.cvgl sues-200:/data/SUES-200 --option height=150 --out eval
    """
    reader, colon, root = dataset.partition(":")
    if not colon or not reader or not root:
        raise typer.BadParameter(f"{dataset!r} is not READER:ROOT, such as university-1652:/data/University-1652")
    options = _options(option or [])

    # Imported here, so that --help does not wait for PyTorch.
    from .evaluation.embed import ModelEmbedder, open_embedder, own_score
    from .evaluation.evaluate import FORWARD
    from .evaluation.evaluate import evaluate as measure_all
    from .evaluation.robustness import robustness as measure_robustness
    from .evaluation.tables import as_table, cost_sheet, evaluation_sheet, group_sheet, robustness_sheet

    # The model first: a reader may take minutes, or make its dataset.
    embedder = open_embedder(model, device)
    _set(embedder, score, mirror)
    data, turned, groups = _read(reader, root, split, options)
    compare = own_score(embedder.model) if isinstance(embedder, ModelEmbedder) and score == "classifier" else None
    on = "cuda" if device.startswith("cuda") else "cpu"
    found: Robustness | None = None
    with _progress() as tell:
        result = measure_all(
            embedder,
            data,
            turned=turned,
            groups=groups,
            score=compare,
            batch=batch,
            workers=workers,
            device=on,
            progress=tell,
        )
        if robustness and FORWARD in result.searches:
            found = measure_robustness(
                embedder,
                result.searches[FORWARD],
                score=compare,
                batch=batch,
                workers=workers,
                device=on,
                progress=tell,
            )
    cost = _cost(embedder)
    sheets: dict[str, Sheet] = {"table": evaluation_sheet([result])}
    if any(direction.groups for direction in result.directions.values()):
        sheets["distance"] = group_sheet(result)
    if found is not None:
        sheets["robustness"] = robustness_sheet(found)
    if cost is not None:
        sheets["cost"] = cost_sheet({result.model: cost})

    from rich.console import Console

    console = Console()
    for name, sheet in sheets.items():
        console.print(as_table(sheet.turned() if name in ("table", "cost") else sheet))
    if out is not None:
        _write(out, model, result, found, cost, sheets)
        _draw(out / "figures", embedder, result)
        console.print(f"{out}: results.json, {', '.join(f'{name}.csv/.tex' for name in sheets)}, figures")


def _options(given: list[str]) -> dict[str, Any]:
    options = {}
    for text in given:
        key, sign, value = text.partition("=")
        if not sign or not key:
            raise typer.BadParameter(f"{text!r} is not KEY=VALUE", param_hint="--option")
        try:
            options[key] = yaml.safe_load(value)
        except yaml.YAMLError as reason:
            raise typer.BadParameter(f"{text!r}: not a value in YAML", param_hint="--option") from reason
    return options


def _read(
    reader: str, root: str, split: str, options: dict[str, Any]
) -> tuple[CrossViewSet, CrossViewSet | None, dict[str, NDArray[np.int64]] | None]:
    """The set, the set for the other way where the official one is another, and its queries by distance."""
    from .data.readers import READERS, read_dataset

    data = read_dataset(reader, root, split, **options)
    parameters = inspect.signature(READERS[reader].load()).parameters
    turned = None
    if "gallery" in parameters and "gallery" not in options and split == "test":
        # Satellite images search another gallery than the drone images that search them: one with distractors.
        gallery = options.get("queries", parameters["queries"].default) if "queries" in parameters else "drone"
        turned = read_dataset(reader, root, split, **options, gallery=gallery)
    groups = None
    if "distance" in parameters and "distance" not in options and not data.unmatched:
        groups = _by_distance(reader, root, split, options, data)
    return data, turned, groups


def _by_distance(
    reader: str, root: str, split: str, options: dict[str, Any], data: CrossViewSet
) -> dict[str, NDArray[np.int64]] | None:
    """Queries by the distances that University-1652's reader knows."""
    from .data.base import DatasetError
    from .data.readers import read_dataset
    from .data.university1652 import DISTANCES

    where = {source.name: index for index, source in enumerate(data.queries)}
    groups = {}
    for distance in DISTANCES:
        try:
            part = read_dataset(reader, root, split, **options, distance=distance)
        except DatasetError:
            # The whole set was read: only this distance is not there, or the queries have none.
            continue
        groups[distance] = np.array(sorted(where[source.name] for source in part.queries), np.int64)
    return groups or None


def _set(embedder: ModelEmbedder | BundleEmbedder, score: str, mirror: bool) -> None:
    """Change a model's settings as the options say."""
    from .evaluation.embed import ModelEmbedder

    changes: dict[str, Any] = {}
    if score != "descriptor":
        changes["score"] = score
    if mirror:
        changes["mirror"] = True
    for name in changes:
        if not isinstance(embedder, ModelEmbedder):
            raise ModelError("is set where a bundle is made, not here", field=name, found=embedder.name)
        if name not in {field.name for field in fields(embedder.model.settings)}:
            raise ModelError("the model has no such setting", field=name, found=embedder.name)
    if isinstance(embedder, ModelEmbedder) and changes:
        embedder.model.settings = replace(embedder.model.settings, **changes)


@contextmanager
def _progress() -> Iterator[Progress]:
    """A bar for each thing that is being done."""
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Bars(*columns, transient=True) as bars:
        now: dict[str, Any] = {"what": None, "task": None, "done": 0}

        def tell(what: str, done: int, size: int) -> None:
            # The same words mean a new task when they start again.
            if what != now["what"] or done <= now["done"]:
                if now["task"] is not None:
                    bars.remove_task(now["task"])
                now.update(what=what, task=bars.add_task(what, total=size))
            now["done"] = done
            bars.update(now["task"], completed=done)

        yield tell


def _cost(embedder: ModelEmbedder | BundleEmbedder) -> Cost | None:
    from .evaluation.cost import cost_of
    from .evaluation.embed import ModelEmbedder

    return cost_of(embedder.model) if isinstance(embedder, ModelEmbedder) else None


def _write(
    out: Path,
    model: str,
    result: Evaluation,
    found: Robustness | None,
    cost: Cost | None,
    sheets: dict[str, Sheet],
) -> None:
    """results.json and every table twice."""
    from .evaluation.tables import as_csv, as_latex, evaluation_sheet

    write_json(
        out / "results.json",
        {
            "file": model,
            **result.as_dict(),
            "robustness": None if found is None else found.as_dict(),
            "cost": None if cost is None else cost.as_dict(),
        },
    )
    for name, sheet in sheets.items():
        full = evaluation_sheet([result], every=True) if name == "table" else sheet
        for suffix, text in ((".csv", as_csv(full)), (".tex", as_latex(sheet))):
            with atomic_path(out / f"{name}{suffix}") as temporary:
                temporary.write_text(text, encoding="utf-8")


def _draw(folder: Path, embedder: ModelEmbedder | BundleEmbedder, result: Evaluation) -> None:
    """Pictures of every direction, and of regions where the model has them."""
    from .evaluation.figures import descriptor_pca, panel_rows, pssr_histogram, retrieval_panel

    for way, direction in result.directions.items():
        name = way.replace("->", "-to-")
        found = result.searches[way]
        pssr_histogram(direction.pssr, folder / f"pssr-{name}.png", r_at_1=direction.values["R@1"])
        chosen = _spread(len(found.query), _PANEL_QUERIES)
        retrieval_panel(panel_rows(found.dataset, chosen, found.similarity(chosen)), folder / f"retrieval-{name}.png")
    found = next(iter(result.searches.values()))
    if found.query.shape[1] > 1:
        descriptor_pca(found.query, found.reference, found.dataset.matches, folder / "pca.png")
    _draw_regions(folder, embedder, result)


def _draw_regions(folder: Path, embedder: ModelEmbedder | BundleEmbedder, result: Evaluation) -> None:
    import torch

    from .evaluation.embed import ModelEmbedder
    from .evaluation.evaluate import FORWARD
    from .evaluation.figures import hsm_panel

    if not isinstance(embedder, ModelEmbedder) or FORWARD not in result.searches:
        return
    data = result.searches[FORWARD].dataset
    chosen = _spread(len(data.queries), _HSM_PAIRS)
    pairs: dict[View, list[ImageSource]] = {
        "query": [data.queries[i] for i in chosen],
        "reference": [data.references[int(data.matches[i][0])] for i in chosen],
    }
    images = {
        view: torch.stack([embedder.prepare(source.read(), view) for source in sources]).to(embedder.device)
        for view, sources in pairs.items()
    }
    with torch.no_grad():
        if embedder.model.regions(images["query"][:1], "query") is None:
            return
    hsm_panel(embedder.model, images, folder / "regions.png")


def _spread(size: int, wanted: int) -> list[int]:
    """Indices spread evenly, so that they are the same for every model."""
    chosen: list[int] = np.unique(np.linspace(0, size - 1, wanted).round().astype(int)).tolist()
    return chosen


def app_main() -> None:
    """Entry of the `cvgl-eval` command."""
    main(app)
