"""`gallery.py faults`: every damage and fifty kills, as the tests do them, and what came of it."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as xml
from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import typer
from record import ROOT, commit, on_machine, write_record

from cvgl.bench.machine import machine

__all__ = ["faults"]

_TESTS = ROOT / "tests" / "sdk" / "test_gallery_faults.py"


def faults(
    chosen: Annotated[str, typer.Option("--only", help="Names of tests, as pytest -k takes them.")] = "",
    out: Annotated[Path, typer.Option(help="Where the record goes.")] = ROOT / "benchmarks" / "results",
) -> None:
    """Run the fault tests with CVGL_FAULTS=all, and count what was tried: some ten minutes of one core."""
    with tempfile.TemporaryDirectory() as scratch:
        report = Path(scratch) / "report.xml"
        words = [sys.executable, "-m", "pytest", "-q", str(_TESTS), f"--junitxml={report}", "--timeout=7200"]
        words += ["-o", "junit_family=xunit1"]
        done = subprocess.run(
            [*words, *(["-k", chosen] if chosen else [])], cwd=ROOT, env={**os.environ, "CVGL_FAULTS": "all"}
        )
        cases = list(xml.parse(report).iter("testcase")) if report.is_file() else []
    counts: dict[str, Counter[str]] = {}
    for case in cases:
        for one in case.iter("property"):
            counts.setdefault(one.attrib["name"], Counter()).update(ast.literal_eval(one.attrib["value"]))
    failed = [
        case.attrib["name"] for case in cases if case.find("failure") is not None or case.find("error") is not None
    ]
    about = machine()
    record: dict[str, Any] = {
        "commit": commit(), "machine": about, "only": chosen, "tests": len(cases), "failed": failed,
        "counts": {name: dict(count) for name, count in counts.items()},
    }  # fmt: skip
    damaged = {
        "a bit of a byte flipped": counts.get("flipped", Counter()), "cut short": counts.get("truncated", Counter())
    }  # fmt: skip
    killed = counts.get("killed", Counter())
    page = [
        "# Damaged galleries and killed builds",
        "",
        f"{about['processor']}, {about['cores']} cores, commit {record['commit']}; {len(cases)} tests,"
        f" {len(failed)} failed{': ' + ', '.join(failed) if failed else ''}. A small gallery of two layers; parts up to"
        " 16 kB at every byte, the basemap at 4000 places.",
        "",
        "| | tried | error that names the part | no difference (manifest's white space) |",
        "| --- | ---: | ---: | ---: |",
        *(
            f"| {name} | {sum(count.values())} | {count['raised']} | {count['harmless']} |"
            for name, count in damaged.items()
        ),
        "",
    ]
    if killed:
        page += [
            f"{killed['builds']} builds were killed {killed['kills']} times at random moments,"
            f" {killed['with pieces done']} times with work done that was taken up; each ended with the bytes of a"
            " build that was let alone.",
            "",
        ]
    write_record(out, on_machine("gallery-faults", about), record, "\n".join(page))
    raise typer.Exit(done.returncode)
