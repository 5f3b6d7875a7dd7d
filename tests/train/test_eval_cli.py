"""``cvgl-eval`` from a checkpoint and a tree of University-1652's shape to tables and pictures."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from cvgl_train.checkpoint import save_model
from cvgl_train.eval_cli import app, app_main
from cvgl_train.registry import create_model

SHOTS = (1, 20, 54)


def write(path: Path, place: int, noise: int) -> None:
    """A pattern of the place, seen a little differently each time."""
    coarse = np.random.default_rng(place).integers(0, 256, (6, 6, 3)).astype(np.uint8)
    image = cv2.resize(coarse, (48, 48), interpolation=cv2.INTER_NEAREST).astype(np.int16)
    image += np.random.default_rng(1000 * place + noise).integers(-8, 9, image.shape).astype(np.int16)
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.clip(image, 0, 255).astype(np.uint8), [cv2.IMWRITE_JPEG_QUALITY, 98])


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four places with three drone images, and two distractors in both galleries."""
    root = tmp_path_factory.mktemp("University-1652")
    for place in range(6):
        name = f"{place:04d}"
        for kind in ("gallery", "query") if place < 4 else ("gallery",):
            write(root / "test" / f"{kind}_satellite" / name / f"{name}.jpg", place, 0)
            for shot in SHOTS:
                write(root / "test" / f"{kind}_drone" / name / f"image-{shot:02d}.jpeg", place, shot)
    return root


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("model") / "nano.pt"
    save_model(create_model("cvgl-nano", input_px=32, widths=(8, 8, 8), reduced=8, descriptor_size=16), path, {})
    return path


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["cvgl-eval", *arguments])
    with pytest.raises(SystemExit) as ended:
        app_main()
    return int(ended.value.code or 0)


@pytest.mark.slow
def test_from_a_checkpoint_to_tables_and_pictures(
    tree: Path, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    out = tmp_path / "eval"
    assert run(monkeypatch, str(checkpoint), f"university-1652:{tree}", "--out", str(out), "--robustness") == 0
    shown = capsys.readouterr().out
    for words in ("AP trapezoidal", "AP standard", "PSSR", "black pad", "flip pad", "params, M", "short"):
        assert words in shown

    result = json.loads((out / "results.json").read_text())
    assert (result["model"], result["dataset"], result["split"]) == ("cvgl-nano", "university-1652", "test")
    forward, backward = (result["directions"][way] for way in ("query->reference", "reference->query"))
    # Each way has its own gallery, and that of the drone's images has the distractors'.
    assert (forward["queries"], forward["gallery"]) == (12, 6)
    assert (backward["queries"], backward["gallery"]) == (4, 18)
    assert list(forward["groups"]) == ["long", "middle", "short"]
    assert {group["queries"] for group in forward["groups"].values()} == {4.0}
    # The same pattern with a little noise: even a network that never learnt anything finds it.
    assert forward["values"]["R@1"] > 0.9
    assert backward["values"]["AP_trapezoidal"] > 0.9
    assert list(result["robustness"]["shift"]["flip"]) == ["0", "10", "20", "30", "40", "50", "60"]
    assert result["cost"]["descriptor_size"] == 16

    with open(out / "table.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["direction"] for row in rows] == ["query->reference", "reference->query"]
    assert float(rows[0]["R@1"]) == pytest.approx(100 * forward["values"]["R@1"], abs=0.01)
    assert r"\toprule" in (out / "table.tex").read_text()
    for name in ("distance", "robustness", "cost"):
        assert (out / f"{name}.csv").read_text().count("\n") > 2
        assert (out / f"{name}.tex").is_file()
    assert {path.name for path in (out / "figures").iterdir()} == {
        "pca.png",
        "pssr-query-to-reference.png",
        "pssr-reference-to-query.png",
        "retrieval-query-to-reference.png",
        "retrieval-reference-to-query.png",
    }


def test_options_of_the_reader_are_passed_on(
    tree: Path, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ("--option", "gallery=satellite", "--option", "distance=short", "--batch", "5", "--workers", "1")
    out = tmp_path / "eval"
    assert run(monkeypatch, str(checkpoint), f"university-1652:{tree}", *options, "--out", str(out)) == 0
    directions = json.loads((out / "results.json").read_text())["directions"]
    assert (directions["query->reference"]["queries"], directions["query->reference"]["gallery"]) == (4, 6)
    # The same set turned round.
    assert (directions["reference->query"]["queries"], directions["reference->query"]["gallery"]) == (4, 4)
    assert directions["query->reference"]["groups"] == {}


@pytest.mark.slow
def test_regions_and_the_mirror_image_of_a_model_that_has_them(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.manual_seed(0)
    small = {"image_size": 96, "width": 96, "depth": 1, "heads": 2, "bottleneck": 8, "classes": 4}
    save_model(create_model("fsra", **small), tmp_path / "fsra.pt", {})
    model, data = str(tmp_path / "fsra.pt"), f"university-1652:{tree}"
    assert run(monkeypatch, model, data, "--out", str(tmp_path / "eval")) == 0
    assert (tmp_path / "eval" / "figures" / "regions.png").is_file()
    plain = json.loads((tmp_path / "eval" / "results.json").read_text())["cost"]["query"]["gmacs"]
    capsys.readouterr()
    assert run(monkeypatch, model, data, "--mirror") == 0
    row = next(line for line in capsys.readouterr().out.splitlines() if "GMAC" in line)
    # Every image is embedded twice.
    assert float(row.split("│")[2]) == pytest.approx(2 * plain, rel=0.1)


@pytest.mark.parametrize(
    ("dataset", "options", "status", "words"),
    [
        ("university-1652", (), 2, "is not READER:ROOT"),
        ("{tree}", (), 2, "is not READER:ROOT"),
        ("university-1652:{tree}", ("--option", "distance"), 2, "is not KEY=VALUE"),
        ("university-1652:{tree}", ("--batch", "0"), 2, "batch"),
        ("univ:{tree}", (), 4, "dataset: no such dataset (found 'univ'"),
        ("university-1652:{tree}/gone", (), 4, "no such folder"),
        ("university-1652:{tree}", ("--option", "colour=red"), 4, "colour: no such option of university-1652"),
        ("university-1652:{tree}", ("--mirror",), 4, "mirror: the model has no such setting (found 'cvgl-nano')"),
        ("university-1652:{tree}", ("--score", "classifier"), 4, "score: the model has no such setting"),
        ("university-1652:{tree}", ("--device", "cuda:99"), 3, "device: cannot be used"),
        ("university-1652:{tree}", ("--device", "abacus"), 3, "device: cannot be used"),
    ],
)
def test_bad_input_ends_with_one_line_and_its_status(
    dataset: str,
    options: tuple[str, ...],
    status: int,
    words: str,
    tree: Path,
    checkpoint: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    assert run(monkeypatch, str(checkpoint), dataset.format(tree=tree), *options) == status
    # The terminal's frame may break a line.
    assert words in " ".join(capsys.readouterr().err.replace("│", " ").split())


def test_a_file_that_is_no_checkpoint_is_named(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, str(tmp_path / "gone.pt"), f"university-1652:{tree}") == 4
    assert "gone.pt: no such file" in capsys.readouterr().err
    assert run(monkeypatch, str(tmp_path), f"university-1652:{tree}") == 4
    assert "manifest.json" in capsys.readouterr().err


def test_the_help_teaches_by_example() -> None:
    shown = CliRunner().invoke(app, ["--help"], env={"COLUMNS": "100"}).output
    for words in ("READER:ROOT", "cvgl-eval fsra.pt university-1652:/data/University-1652 --mirror", "--robustness"):
        assert words in shown
