"""Evaluations as tables: for the terminal, as CSV, and for LaTeX with booktabs."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .cost import Cost
from .evaluate import Evaluation
from .robustness import Robustness

if TYPE_CHECKING:
    from rich.table import Table

__all__ = [
    "Sheet",
    "as_csv",
    "as_latex",
    "as_table",
    "cost_sheet",
    "evaluation_sheet",
    "group_sheet",
    "robustness_sheet",
]

# Metrics that people compare, in the order in which papers print them; the rest is in the JSON and the CSV.
_SHOWN = {
    "R@1": "R@1",
    "R@5": "R@5",
    "R@10": "R@10",
    "R@1%_university1652": "R@1 % (univ)",
    "R@1%_cvusa": "R@1 % (cvusa)",
    "R@1_ties_against": "R@1, ties against",
    "R@1_chance": "R@1 by chance",
    "AP_trapezoidal": "AP trapezoidal",
    "AP_standard": "AP standard",
    "hit_rate": "hit rate",
    "PSSR": "PSSR",
    "SDM_degrees@1": "SDM@1 degrees",
    "SDM_metres@1": "SDM@1 metres",
    "distance_m_p50": "median, m",
    "distance_m_p90": "90 %, m",
}
_BRIEF = {
    "R@1": "R@1",
    "R@5": "R@5",
    "R@10": "R@10",
    "AP_trapezoidal": "AP trap.",
    "AP_standard": "AP std.",
    "PSSR": "PSSR",
}


@dataclass(frozen=True)
class Sheet:
    """A table before it takes a form.

    Args:
        title: one line.
        names: how many columns at the left are names; the rest are numbers.
        columns: headings.
        rows: texts, one per column.
    """

    title: str
    names: int
    columns: list[str]
    rows: list[list[str]]

    def turned(self) -> Sheet:
        """Rows as columns: a few evaluations with many metrics fit a terminal that way."""
        columns = [list(column) for column in zip(*self.rows, strict=True)]
        heads = self.columns if columns else []
        return Sheet(
            self.title, 1, ["", *("" for _ in self.rows)], [[h, *c] for h, c in zip(heads, columns, strict=True)]
        )


def _format(key: str, value: float | None) -> str:
    if value is None:
        return ""
    if key == "queries":
        return f"{value:.0f}"
    if key.startswith("PSSR"):
        return f"{100 * value:.3f}"
    if key.startswith(("distance_m", "rank")):
        return f"{value:.1f}"
    return f"{100 * value:.2f}"


def evaluation_sheet(evaluations: Sequence[Evaluation], *, every: bool = False) -> Sheet:
    """One row for each model, dataset and direction; shares in percent.

    Args:
        evaluations: of one model or several.
        every: all metrics by their keys instead of those people compare.
    """
    lines = [(e, way, d) for e in evaluations for way, d in e.directions.items()]
    present = list(dict.fromkeys(key for _, _, d in lines for key in d.values))
    chosen = {key: key for key in present} if every else {k: v for k, v in _SHOWN.items() if k in present}
    rows = [
        [e.model, f"{e.dataset} {e.split}", way, str(d.queries), str(d.gallery)]
        + [_format(key, d.values.get(key)) for key in chosen]
        + [f"{1e3 * e.seconds_per_image[way.split('->')[0]]:.2f}"]
        for e, way, d in lines
    ]
    columns = ["model", "dataset", "direction", "queries", "gallery", *chosen.values(), "ms/image"]
    return Sheet("Retrieval (shares in %)", 3, columns, rows)


def group_sheet(evaluation: Evaluation) -> Sheet:
    """One row for each group of queries, such as a flying height."""
    rows = [
        [name, *(_format(key, values.get(key)) for key in ("queries", *_BRIEF))]
        for direction in evaluation.directions.values()
        for name, values in direction.groups.items()
    ]
    return Sheet("By flying distance", 1, ["from", "queries", *_BRIEF.values()], rows)


def robustness_sheet(found: Robustness) -> Sheet:
    """One row for each change of the query images."""
    lines = [(f"{pad} pad", f"{px} px", values) for pad, row in found.shift.items() for px, values in row.items()]
    lines += [("detail", f"{px} px", values) for px, values in found.size.items()]
    rows = [[what, much, *(_format(key, values.get(key)) for key in _BRIEF)] for what, much, values in lines]
    title = "Robustness (shifts in px of an image 256 wide)"
    return Sheet(title, 2, ["query", "by", *_BRIEF.values()], rows)


def cost_sheet(costs: Mapping[str, Cost]) -> Sheet:
    """One row for each model's view.

    Args:
        costs: by the model's name.
    """
    rows = [
        [
            name,
            view,
            f"{part.height} x {part.width}",
            f"{part.parameters / 1e6:.2f}",
            f"{part.gmacs:.3f}",
            f"{part.gflops:.3f}",
            "" if part.seconds is None else f"{1e3 * part.seconds:.2f}",
            str(cost.descriptor_size),
        ]
        for name, cost in costs.items()
        for view, part in (("query", cost.query), ("reference", cost.reference))
    ]
    columns = ["model", "view", "input", "params, M", "GMAC", "GFLOP", "ms alone", "size"]
    return Sheet("Cost (a multiply-add is 1 MAC, 2 FLOP; size of a descriptor)", 3, columns, rows)


def as_table(sheet: Sheet) -> Table:
    """For the terminal."""
    from rich.table import Table

    table = Table(title=sheet.title, title_justify="left", show_header=any(sheet.columns))
    for place, column in enumerate(sheet.columns):
        table.add_column(column, justify="left" if place < sheet.names else "right", no_wrap=place >= sheet.names)
    for row in sheet.rows:
        table.add_row(*row)
    return table


def as_csv(sheet: Sheet) -> str:
    """Comma-separated, with a line of headings."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(sheet.columns)
    writer.writerows(sheet.rows)
    return text.getvalue()


def as_latex(sheet: Sheet) -> str:
    r"""A ``tabular`` that needs ``\usepackage{booktabs}``."""
    kinds = "".join("l" if place < sheet.names else "r" for place in range(len(sheet.columns)))
    lines = [rf"% {sheet.title}", rf"\begin{{tabular}}{{{kinds}}}", r"\toprule"]
    lines += [_latex_row(sheet.columns), r"\midrule", *map(_latex_row, sheet.rows)]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""])


_LATEX = {c: rf"\{c}" for c in "&%$#_{}"} | {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
}


def _latex_row(cells: Sequence[str]) -> str:
    escaped = ("".join(_LATEX.get(c, c) for c in cell).replace("->", r"$\rightarrow$") for cell in cells)
    return " & ".join(escaped) + r" \\"
