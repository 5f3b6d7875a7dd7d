"""What a user gets wrong on the command line ends with a status and words that name it, never with a traceback."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from cvgl_train import create_model, save_model
from cvgl_train.cli import app_main as train_main
from cvgl_train.eval_cli import app_main as eval_main

TREE = (
    "train/drone", "train/satellite", "test/query_drone", "test/query_satellite", "test/gallery_drone",
    "test/gallery_satellite",
)  # fmt: skip
NANO = ["model.widths=[8,8,8]", "model.input_px=32", "plan.batch=2", "plan.threads=1", "device=cpu"]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """University-1652 of two places, one image each."""
    root = tmp_path / "university"
    for folder in TREE:
        for place in ("0001", "0002"):
            path = root / folder / place / "image-01.jpeg"
            path.parent.mkdir(parents=True)
            colour = np.random.default_rng(int(place)).integers(0, 256, (32, 32, 3)).astype(np.uint8)
            assert cv2.imwrite(str(path), colour)
    return root


@pytest.fixture
def nano(tmp_path: Path) -> Path:
    path = tmp_path / "nano.pt"
    save_model(create_model("cvgl-nano", widths=(8, 8, 8), descriptor_size=8, input_px=32), path, {})
    return path


@pytest.fixture
def tell(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """Runs a command line; gives its exit status and what it says on stderr."""

    def run(*words: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", list(words))
        with pytest.raises(SystemExit) as ended:
            (train_main if words[0] == "cvgl-train" else eval_main)()
        said = capsys.readouterr().err
        assert "Traceback" not in said
        return int(ended.value.code or 0), said

    return run


@pytest.mark.parametrize(
    ("words", "status", "named"),
    [
        (["nosuch"], 4, ["nosuch: no such recipe", "vit-baseline"]),
        (["fsra", "--smal"], 2, ["--smal"]),
        (["fsra", "colour=red"], 4, ["colour: unknown field of plan"]),
        (["fsra", "data.root=/nonexistent"], 4, ["/nonexistent: no such folder", "query_drone"]),
        (["fsra", "plan.batch=0"], 4, ["batch: out of range", "found 0", "more than 0"]),
        (["fsra", "plan.steps=1.5"], 4, ["steps: a value of another kind", "found 1.5", "a whole number"]),
        (["fsra", "plan.loss=[kl]"], 4, ["loss: a value of another kind", "'kl'", "a list of mappings"]),
        (["fsra", "plan.optimiser=adam"], 4, ["optimiser: a value of another kind", "'adam'", "a mapping"]),
        (["fsra", "sampler=shuffled"], 4, ["sampler: a value of another kind", "'shuffled'", "a mapping"]),
        (["fsra", "workers=-1"], 4, ["workers: out of range", "found -1"]),
        (["fsra", "workers=many"], 4, ["workers: a value of another kind", "'many'"]),
        (["fsra", "seed=x"], 4, ["seed: a value of another kind", "'x'"]),
        (["fsra", "device=foo"], 4, ["device: no such device", "'foo'", "auto, cpu or cuda"]),
        (["fsra", "device=cuda:99"], 3, ["device: cannot be used", "cuda:99"]),
        (["fsra", "validation.queries=many"], 4, ["validation.queries", "'many'"]),
        (["fsra", "data.reader=nosuch"], 4, ["no such dataset", "'nosuch'", "university-1652"]),
        (["nano-base", "--small"], 4, ["small: has no small version"]),
        (["nano-base", "minutes=many"], 4, ["minutes: a value of another kind"]),
        (["nano-base", "places=4"], 4, ["places: out of range", "more than validation_places=4"]),
        (["nano-adapt"], 4, ["map: missing field", "map=PATH"]),
        (["nano-adapt", "map=a.tif", "camera=b.yaml", "height_m=high"], 4, ["height_m: a value of another kind"]),
        (["nano-adapt", "map=a.tif", "camera=b.yaml"], 4, ["a.tif: no such file"]),
        (["ablation", "nosuch"], 4, ["nosuch: no such ablation", "frgeo or fsra"]),
        (["import", "missing.pth", "--as", "fsra"], 4, ["missing.pth: no such file"]),
        (["import", "missing.pth"], 2, ["--as"]),
        (["import", "missing.pth", "--as", "fsra", "--setting", "a=["], 4, ["--setting a: not a value"]),
    ],
)
def test_training_that_cannot_be(tell: Any, words: list[str], status: int, named: list[str]) -> None:
    found, said = tell("cvgl-train", *words)
    assert found == status
    assert all(name in said for name in named), said


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ("out=/dev/null/run", ["/dev/null/run: Not a directory"]),
        ("sampler.name=foo", ["no such sampler", "'foo'", "shuffled"]),
        ("model.widths=large", ["widths: a value of another kind", "'large'", "a list of 3 numbers"]),
        ("augment.query=flip", ["augment: not a list", "'flip'"]),
        ("augment.query=[flip]", ["augment: not an augmentation", "'flip'"]),
        ("weights=missing.pth", ["missing.pth: no such file"]),
        ("start=missing.pt", ["missing.pt: no such file"]),
        ("plan.select=foo", ["select: no such score", "'foo'", "R@1"]),
        ("plan.loss=[{term: foo}]", ["no such term", "'foo'", "infonce"]),
        ("data.split=nosuch", ["split: no such choice", "'nosuch'", "train"]),
    ],
)
def test_parts_of_a_recipe_that_cannot_be(tell: Any, tree: Path, tmp_path: Path, change: str, named: list[str]) -> None:
    words = ["cvgl-nano", f"data.root={tree}", f"out={tmp_path / 'run'}", "workers=0", *NANO, "steps=1", change]
    found, said = tell("cvgl-train", *words)
    assert found == 4
    assert all(name in said for name in named), said


@pytest.mark.parametrize("workers", [0, 1])
def test_a_damaged_image_of_the_training_set_is_named(tell: Any, tree: Path, tmp_path: Path, workers: int) -> None:
    """Whichever process reads it."""
    (tree / "train/drone/0002/image-01.jpeg").write_bytes(b"no image")
    words = [f"data.root={tree}", f"out={tmp_path / 'run'}", *NANO, "steps=2", f"workers={workers}"]
    found, said = tell("cvgl-train", "cvgl-nano", *words)
    assert found == 4
    assert said.count("error: ") == 1 and said.strip().endswith("0002/image-01.jpeg: not readable as an image"), said


def test_an_empty_dataset_is_named(tell: Any, tmp_path: Path) -> None:
    (tmp_path / "train" / "drone").mkdir(parents=True)
    (tmp_path / "train" / "satellite").mkdir(parents=True)
    found, said = tell("cvgl-train", "cvgl-nano", f"data.root={tmp_path}", f"out={tmp_path / 'run'}", *NANO)
    assert found == 4 and "train/drone: no folders of places in it" in said


@pytest.mark.parametrize(
    ("model", "dataset", "options", "status", "named"),
    [
        ("missing.pt", "university-1652:{tree}", [], 4, ["missing.pt: no such file"]),
        ("{nano}", "nosuch", [], 2, ["READER:ROOT"]),
        ("{nano}", "nosuch:x", [], 4, ["no such dataset", "'nosuch'"]),
        ("{nano}", "university-1652:/nonexistent", [], 4, ["/nonexistent: no such folder"]),
        ("{nano}", "university-1652:{tree}", ["--split", "foo"], 4, ["split: no such choice", "'foo'"]),
        ("{nano}", "university-1652:{tree}", ["--option", "foo=1"], 4, ["foo: no such option of university-1652"]),
        ("{nano}", "university-1652:{tree}", ["--option", "gallery=["], 2, ["not a value in YAML"]),
        ("{nano}", "university-1652:{tree}", ["--device", "foo"], 3, ["device: cannot be used", "'foo'"]),
        ("{tree}/train/drone/0001/image-01.jpeg", "university-1652:{tree}", [], 4, ["image-01.jpeg: not readable"]),
    ],
)
def test_evaluation_that_cannot_be(
    tell: Any, tree: Path, nano: Path, model: str, dataset: str, options: list[str], status: int, named: list[str]
) -> None:
    places = {"tree": tree, "nano": nano}
    found, said = tell("cvgl-eval", model.format(**places), dataset.format(**places), *options)
    assert found == status
    assert all(name in said for name in named), said
    assert "weights_only" not in said


def test_no_dataset_is_made_for_a_model_that_is_not_there(tell: Any, tmp_path: Path) -> None:
    """The procedural reader makes its dataset, which takes minutes."""
    found, said = tell("cvgl-eval", "missing.pt", f"procedural:{tmp_path / 'set'}")
    assert found == 4 and "missing.pt" in said and not (tmp_path / "set").exists()


def test_a_checkpoint_of_ours_is_not_taken_for_an_authors(tell: Any, nano: Path, tmp_path: Path) -> None:
    found, said = tell("cvgl-train", "import", str(nano), "--as", "fsra")
    assert found == 4 and "nano.pt: format: this project's own checkpoint" in said
    path = tmp_path / "theirs.pth"
    torch.save({"epoch": 3}, path)
    assert "theirs.pth: no tensors in it" in tell("cvgl-train", "import", str(path), "--as", "fsra")[1]
