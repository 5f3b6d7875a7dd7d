"""Every method at its paper's settings: descriptor, parameters, arithmetic and time, beside what its authors publish.

    python benchmarks/methods.py             # everything, about three minutes on one core
    python benchmarks/methods.py --no-time   # the counts alone, which need no memory and no arithmetic: seconds

No weights are needed: what a network costs does not depend on their values.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from record import ROOT, commit, run_app, write_record
from torch import Tensor, nn

from cvgl.bench import machine
from cvgl_train.evaluation.cost import Cost, cost_of
from cvgl_train.models.base import CrossViewModel, Features, ModelInfo, View, ViewInput
from cvgl_train.registry import METHODS, create_model

app = typer.Typer(add_completion=False)


def every_weight(cost: Cost) -> int:
    """All parameters, with what only training uses."""
    return cost.parameters


def one_view(cost: Cost) -> int:
    """What the query's descriptor depends on."""
    return cost.query.parameters


def trained(cost: Cost) -> int:
    """What training changes."""
    return cost.trainable


@dataclass(frozen=True)
class Published:
    """What is public of a method's size; None where nothing is.

    Args:
        descriptor: numbers in its descriptor.
        parameters: millions.
        counting: what those are.
        ours: the same of a model here.
        settings: with which it is built to be compared, where those are not its defaults.
        gmacs: of its backbone on 224 x 224 pixels, billions of multiply-adds.
        sources: of all this.
        difference: why the numbers here are others, one sentence.
    """

    descriptor: int | None = None
    parameters: float | None = None
    counting: str = ""
    ours: Callable[[Cost], int] = every_weight
    settings: dict[str, Any] = field(default_factory=dict)
    gmacs: float | None = None
    sources: Sequence[str] = ()
    difference: str = ""


TORCHVISION = "torchvision's record of its own models (GFLOPS there are multiply-adds), with their classifiers"
PSSR = "the PSSR paper: fully connected layers of 512, 256 and 256"
CVM_NET = "Hu et al. 2018: NetVLAD's 32768 values to 4096"

PUBLISHED: dict[str, Published] = {
    "vit-baseline": Published(
        descriptor=512,
        sources=("the code of Dai et al. 2021: features of 512 before each classifier",),
        difference="None known.",
    ),
    "fsra": Published(
        descriptor=2048,
        parameters=51.817948,
        counting="all, 701 classes",
        sources=("the code of Dai et al. 2021: four parts of 512; tensors of its state_dict",),
        difference="The authors' network keeps the classifier of ImageNet (0.77 M), which it never calls.",
    ),
    "lpn": Published(
        descriptor=2048,
        gmacs=4.089,
        sources=("Wang et al. 2021: four rings of 512", TORCHVISION),
        difference="256 px instead of 224, and the last stage keeps its resolution, at four times its cost.",
    ),
    "frgeo": Published(
        descriptor=3072,
        parameters=55.640256,
        counting="all, both views",
        gmacs=4.456,
        sources=("the code of Zhang et al. 2024: four regions of 768; tensors of its state_dict", TORCHVISION),
        difference="65536 pixels instead of 50176: 4.46 x 1.306 = 5.82.",
    ),
    "saig-s": Published(
        descriptor=3072,
        parameters=9.0,
        counting="backbone of a view",
        ours=one_view,
        settings={"head": "gap"},
        sources=("Zhu et al. 2023: eight sums of 384; parameters as the authors give them",),
        difference="The tensors of the authors' own network come to 9.10 as well; with the head and both views, to "
        "19.26 as here.",
    ),
    "saig-d": Published(
        descriptor=3072,
        parameters=15.6,
        counting="backbone of a view",
        ours=one_view,
        settings={"head": "gap"},
        sources=("Zhu et al. 2023: eight sums of 384; parameters as the authors give them",),
        difference="None; with the head and both views, 32.28 as the tensors of the authors' network.",
    ),
    "dinov2-cvv": Published(
        descriptor=384,
        parameters=2.8,
        counting="trained",
        ours=trained,
        sources=("the paper of DINOv2 with CVV heads",),
        difference="How the authors spread them over the heads is not public; the widths here are chosen to come to "
        "that.",
    ),
    "vgg16": Published(
        descriptor=256,
        gmacs=15.47,
        sources=(PSSR, TORCHVISION),
        difference="The head costs next to nothing, the classifier of ImageNet 0.12.",
    ),
    "resnet50": Published(
        descriptor=256,
        gmacs=4.089,
        sources=(PSSR, TORCHVISION),
        difference="None: the head costs as little as the classifier of ImageNet.",
    ),
    "cvm-net-1": Published(
        descriptor=4096,
        gmacs=15.47,
        sources=(CVM_NET, TORCHVISION),
        difference="5.5 and 5.2 times the pixels, without the classifier of ImageNet; NetVLAD and its layer add 0.2.",
    ),
    "cvm-net-2": Published(
        descriptor=4096,
        gmacs=15.47,
        sources=(CVM_NET, TORCHVISION),
        difference="As CVM-Net-I, and 3 more for the convolutions that bring the local features of both views closer.",
    ),
    "cvgl-nano": Published(difference="The project's own, there is no paper."),
}


class Bare(CrossViewModel):
    """A network of a library as a model, to be counted."""

    def __init__(self, name: str, net: nn.Module, size: int, outputs: int) -> None:
        super().__init__()
        view = ViewInput(size, size)
        self.info = ModelInfo(name, outputs, view, view, shared=True)
        self.net = net

    def forward(self, images: Tensor, view: View) -> Features:
        return Features(self.net(images))


@app.command()
def methods(
    out: Annotated[Path, typer.Option(help="Results go here, as JSON and Markdown.")] = ROOT / "benchmarks" / "results",
    time: Annotated[bool, typer.Option(help="Time an image of each view as well.")] = True,
    repeats: Annotated[int, typer.Option(min=1, help="Of each timing; their median stands.")] = 5,
) -> None:
    """Print the table of methods beside their authors' figures and leave it as methods.md and methods.json."""
    about = machine()
    rows = [row_of(name, time=time, repeats=repeats) for name in METHODS]
    result = {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "commit": commit(),
        "versions": {name: version(name) for name in ("torch", "torchvision", "timm")},
        "machine": about,
        "timed_on": rows[0]["cost"]["device"],
        "methods": rows,
        "context": [sample4geo()],
        "checks": checks(),
    }
    show(result)
    write_record(out, "methods", result, as_markdown(result))


def row_of(name: str, *, time: bool, repeats: int) -> dict[str, Any]:
    """A method's own figures, and the public ones."""
    public = PUBLISHED[name]
    with torch.device("cpu" if time else "meta"):
        cost = cost_of(create_model(name), measure=time, repeats=repeats)
    with torch.device("meta"):
        compared = cost_of(create_model(name, **public.settings), measure=False)
    return {
        "method": name,
        "cost": cost.as_dict(),
        "published": {
            "descriptor_size": public.descriptor,
            "parameters_m": public.parameters,
            "counting": public.counting,
            "parameters_m_here": None if public.parameters is None else public.ours(compared) / 1e6,
            "backbone_gmacs_224": public.gmacs,
            "sources": list(public.sources),
        },
        "difference": public.difference,
    }


def sample4geo() -> dict[str, Any]:
    """The network that leads the published tables, counted for context; it is no method of this project."""
    import timm

    with torch.device("meta"):
        net = timm.create_model("convnext_base", num_classes=0)
        cost = cost_of(Bare("Sample4Geo (ConvNeXt-Base, 384 px)", net, 384, 1024), measure=False)
    return {
        "cost": cost.as_dict(),
        "source": "the code of Deuser et al. 2023: ConvNeXt-Base shared by both views, 384 px on University-1652",
    }


def checks() -> list[dict[str, Any]]:
    """The counting itself: networks of torchvision against its own record of them."""
    from torchvision import models

    found = []
    for builder, weights in (
        (models.vgg16, models.VGG16_Weights.IMAGENET1K_V1),
        (models.resnet50, models.ResNet50_Weights.IMAGENET1K_V1),
        (models.convnext_tiny, models.ConvNeXt_Tiny_Weights.IMAGENET1K_V1),
        (models.convnext_base, models.ConvNeXt_Base_Weights.IMAGENET1K_V1),
        (models.vit_b_16, models.ViT_B_16_Weights.IMAGENET1K_V1),
    ):
        with torch.device("meta"):
            cost = cost_of(Bare(builder.__name__, builder(), 224, 1000), measure=False)
        found.append(
            {
                "network": builder.__name__,
                "parameters": cost.parameters,
                "parameters_published": weights.meta["num_params"],
                "gmacs": cost.query.gmacs,
                "gmacs_published": weights.meta["_ops"],
            }
        )
    return found


HEADER = (
    "method",
    "descriptor",
    "published",
    "input px",
    "all M",
    "deployed M",
    "one view M",
    "counted as published",
    "here M",
    "published M",
    "GMACs",
    "GFLOPs",
    "backbone's GMACs at 224, published",
    "ms",
)


def cells(row: dict[str, Any]) -> list[str]:
    """A line of the table, in the order of HEADER."""
    cost, public = row["cost"], row["published"]
    views = (cost["query"], cost["reference"])
    return [
        row["method"],
        str(cost["descriptor_size"]),
        known(public["descriptor_size"]),
        both(f"{view['height']} x {view['width']}" for view in views),
        f"{cost['parameters'] / 1e6:.2f}",
        f"{cost['deployed_parameters'] / 1e6:.2f}",
        f"{views[0]['parameters'] / 1e6:.2f}",
        public["counting"],
        known(public["parameters_m_here"]),
        known(public["parameters_m"]),
        both(f"{view['gmacs']:.2f}" for view in views),
        both(f"{view['gflops']:.2f}" for view in views),
        known(public["backbone_gmacs_224"]),
        both("" if view["seconds"] is None else f"{1000 * view['seconds']:.0f}" for view in views),
    ]


def known(value: float | None) -> str:
    """A cell that is empty where nothing is known."""
    return "" if value is None else str(round(value, 2))


def both(views: Iterable[str]) -> str:
    """One cell for both views."""
    query, reference = views
    return query if query == reference else f"{query} / {reference}"


def show(result: dict[str, Any]) -> None:
    """The table in the terminal, in parts that fit there."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    lines = [cells(row) for row in result["methods"]]
    for title, columns in (
        ("descriptors and parameters", (0, 1, 2, 4, 5, 6)),
        ("parameters as they are published", (0, 7, 8, 9)),
        ("arithmetic and time of an image, query / reference", (0, 3, 10, 11, 12, 13)),
    ):
        shown = Table(title=title)
        for column in columns:
            justify = "left" if column in (0, 3, 7) else "right"
            shown.add_column(HEADER[column], justify=justify, no_wrap=column == 0)
        for line in lines:
            if any(line[column] for column in columns[1:]):
                shown.add_row(*(line[column] for column in columns))
        console.print(shown)
    for row in result["methods"]:
        console.print(f"[bold]{row['method']}[/bold]: {row['difference']}")


def as_markdown(result: dict[str, Any]) -> str:
    """The whole result as a page."""
    about = result["machine"]
    load = "" if about["load_average"] is None else f", load average {about['load_average']:g}"
    timed = result["timed_on"]
    how = (
        f"Times: median of one image alone, {timed}, {about['processor']}{load}; upper bounds where other work ran."
        if timed
        else "Nothing was timed."
    )
    versions = ", ".join(f"{name} {number}" for name, number in result["versions"].items())
    context = result["context"][0]
    beyond = context["cost"]
    lines = [
        "# The methods: size, arithmetic and time, beside their authors' figures",
        "",
        f"{result['date'][:10]}, commit {result['commit']}, {versions}.",
        how,
        "Made by `python benchmarks/methods.py`; the JSON file beside this one has every digit.",
        "",
        "Parameters: all with what only training uses (classifiers); deployed is what the descriptors of both views",
        "depend on, one view what the query's depends on. A published number stands beside the same one here, and what",
        "is counted is named. GMACs are billions of multiply-adds, which is what most papers call GFLOPs; GFLOPs are",
        "twice that. Convolutions, matrix products and attention count; norms and activations do not. Two numbers are",
        "those of a query and of a reference. An empty cell is a figure that no public text at hand gives: none of the",
        "papers' own GFLOPs could be established, so their backbones' published ones on 224 x 224 pixels stand beside.",
        "",
        *table(HEADER, (cells(row) for row in result["methods"])),
        "## Why they differ",
        "",
        *(f"- **{row['method']}**: {row['difference']}" for row in result["methods"]),
        "",
        "## Where the published figures are from",
        "",
        *(
            f"- **{row['method']}**: {'; '.join(row['published']['sources'])}."
            for row in result["methods"]
            if row["published"]["sources"]
        ),
        "",
        "## For context",
        "",
        f"{beyond['model']}, no method here: {beyond['deployed_parameters'] / 1e6:.2f} M parameters,"
        f" {beyond['query']['gmacs']:.2f} GMACs an image, a descriptor of {beyond['descriptor_size']}. Counted here;",
        f"from {context['source']}.",
        "",
        "## The counting itself",
        "",
        "Networks of torchvision on 224 x 224 pixels, counted in the same way, against its own record of them.",
        "",
        *table(
            ("network", "parameters", "published", "GMACs", "published"),
            (
                (
                    check["network"],
                    check["parameters"],
                    check["parameters_published"],
                    f"{check['gmacs']:.3f}",
                    f"{check['gmacs_published']:.3f}",
                )
                for check in result["checks"]
            ),
        ),
    ]
    return "\n".join(lines).rstrip() + "\n"


def table(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> list[str]:
    """A Markdown table and the empty line after it."""
    lines = [f"| {' | '.join(header)} |", f"|{'|'.join(['---'] + ['---:'] * (len(header) - 1))}|"]
    lines += [f"| {' | '.join(str(cell) for cell in row)} |" for row in rows]
    return [*lines, ""]


if __name__ == "__main__":
    run_app(app)
