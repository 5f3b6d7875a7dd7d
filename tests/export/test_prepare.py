"""Map in, mission out: whole or not at all, resumed where it was killed, and clear about what it cannot use."""

from __future__ import annotations

import fcntl
import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import rasterio
import torch
import yaml
from typer.testing import CliRunner

from cvgl import Localizer
from cvgl.camera import Camera
from cvgl.errors import MapError, MissionError
from cvgl.features import FeatureChoice, FeatureFiles
from cvgl.mission import Mission
from cvgl.model import Model
from cvgl.sim import World, write_map
from cvgl_export import prepare as preparing
from cvgl_export import prepare_cli
from cvgl_export.bundle import ExportOptions, export_bundle
from cvgl_export.prepare import CheckSize, prepare
from cvgl_export.self_check import worries
from cvgl_export.source import open_source
from cvgl_export.tile_sources import open_tiles
from cvgl_train.models.nano import Nano, NanoConfig, save_weights

CAMERA = Camera.from_field_of_view(320, 240, 60.0)
HEIGHT = 60.0
LITTLE = CheckSize(views=12, frames=4, trials=3)
SMALL = NanoConfig(widths=(12, 16, 24), blocks=(0, 0, 0), reduced=8, descriptor_size=48, input_px=64)


class Listener:
    """A reporter that remembers; it raises where it is told to."""

    def __init__(self, fail_in: str = "") -> None:
        self.lines: list[str] = []
        self.fail_in = fail_in

    def begin(self, stage: str) -> None:
        if stage == self.fail_in:
            raise RuntimeError(stage)

    def progress(self, share: float, words: str = "") -> None:
        assert 0 <= share <= 1 + 1e-9

    def end(self, stage: str, words: str) -> None:
        self.lines.append(f"{stage}: {words}")

    def say(self, message: str) -> None:
        self.lines.append(message)

    warn = say

    @property
    def text(self) -> str:
        return "\n".join(self.lines)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with map.tif, camera.yaml, weights.npz and model.cvgl."""
    folder = tmp_path_factory.mktemp("inputs")
    write_map(World.generate(4, 280.0), folder / "map.tif", gsd=0.5)
    CAMERA.to_yaml(folder / "camera.yaml")
    torch.manual_seed(0)
    net = Nano(SMALL).eval()
    save_weights(net, folder / "weights.npz")
    source = open_source(folder / "weights.npz")
    tiles = open_tiles(folder / "map.tif", source.inputs["query"], source.inputs["reference"], count=8)
    export_bundle(source, folder / "model.cvgl", tiles, ExportOptions("fp32"), gsd_m=0.8)
    return folder


def quick(inputs: Path, out: Path, **changes: Any) -> dict[str, Any]:
    options: dict[str, Any] = {"adapt": False, "model": inputs / "model.cvgl", "stride_m": 24.0, "check": LITTLE}
    return prepare(inputs / "map.tif", CAMERA, HEIGHT, out, **(options | changes))


@pytest.fixture(scope="module")
def mission(inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("made") / "mission"
    quick(inputs, out)
    return out


def test_the_mission_opens_and_says_how_it_was_made(mission: Path, inputs: Path) -> None:
    localizer = Localizer.open(mission)
    record = localizer.mission.record
    assert localizer.camera == CAMERA and localizer.mission.height_m == HEIGHT
    assert record["map"]["source"] == "map.tif" and len(record["map"]["sha256"]) == 64
    assert record["map"]["attribution"] == "generated, no rights reserved"
    assert record["model"]["fingerprint"] == Model.open(inputs / "model.cvgl").fingerprint
    assert set(record["seconds"]) == {"model", "gallery", "calibrate", "check"} and record["versions"]["cvgl"]
    assert record["seed"] == 0 and record["gallery"]["tiles"] == len(localizer.gallery)


def test_the_mission_carries_its_self_check(mission: Path) -> None:
    check = json.loads((mission / "selfcheck.json").read_text())
    assert 0.9 <= check["index_recall"] <= 1
    shares = [check["retrieval"][f"R@{k}"] for k in (1, 5, 20)]
    assert check["retrieval"]["views"] == 12 and shares == sorted(shares)
    frames = check["frames"]
    assert frames["frames"] == 4 == frames["no_fix"] + frames["coarse"] + frames["refined"]
    assert frames["refined_beyond_10m"] == 0


def test_nothing_is_left_beside_the_mission(mission: Path) -> None:
    assert [p.name for p in mission.parent.iterdir()] == ["mission"]
    assert {p.name for p in mission.iterdir()} == {
        "mission.json", "camera.yaml", "model.cvgl", "area.gallery", "selfcheck.json"
    }  # fmt: skip


def test_the_laws_of_chance_are_learned_from_the_local_features_that_fly(inputs: Path, tmp_path: Path) -> None:
    quick(inputs, tmp_path / "mission", features=FeatureFiles("orb"))
    assert Mission.open(tmp_path / "mission").features == FeatureChoice("orb")


@pytest.mark.data
def test_the_networks_of_local_features_are_carried(inputs: Path, cvgl_data: Path, tmp_path: Path) -> None:
    quick(inputs, tmp_path / "mission", features=FeatureFiles("xfeat", cvgl_data / "models" / "xfeat_dense.onnx"))
    assert (tmp_path / "mission" / "features" / "xfeat.onnx").is_file()
    moved = shutil.move(tmp_path / "mission", tmp_path / "carried")
    assert Localizer.open(moved).mission.features.detector == "xfeat"


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (("--features", "xfeat"), "--features"),
        (("--features", "sift", "--xfeat", "net.onnx"), "--features"),
        (("--lighterglue", "net.onnx"), "--lighterglue"),
    ],
)
def test_networks_that_do_not_go_together_are_wrong_usage(inputs: Path, words: tuple[str, ...], named: str) -> None:
    wanted = ["--camera", str(inputs / "camera.yaml"), "--height", "60", "--out", str(inputs / "never"), "--no-adapt"]
    answer = CliRunner().invoke(prepare_cli.app, [str(inputs / "map.tif"), *wanted, *words])
    assert answer.exit_code == 2 and named in answer.output


KILLED = """
import os, signal, sys
from pathlib import Path
from cvgl_export.growing import Silent
from cvgl_export.prepare import CheckSize, prepare
from cvgl.camera import Camera

class Killer(Silent):
    now = ""
    def begin(self, stage):
        self.now = stage
    def progress(self, share, words=""):
        if self.now == "gallery" and share > 0.3:
            os.kill(os.getpid(), signal.SIGKILL)

inputs, out = map(Path, sys.argv[1:])
prepare(inputs / "map.tif", Camera.from_yaml(inputs / "camera.yaml"), 60.0, out, adapt=False,
        model=inputs / "model.cvgl", stride_m=24.0, check=CheckSize(12, 4, 3), reporter=Killer())
"""


def test_killed_it_leaves_no_mission_and_goes_on_where_it_was(inputs: Path, tmp_path: Path) -> None:
    out = tmp_path / "mission"
    done = subprocess.run([sys.executable, "-c", KILLED, str(inputs), str(out)], timeout=120)
    assert done.returncode == -signal.SIGKILL
    assert not out.exists() and (tmp_path / "mission.partial").is_dir()
    listener = Listener()
    quick(inputs, out, reporter=listener)
    assert "going on" in listener.text and "model: model (done before)" in listener.text
    assert "gallery: " in listener.text and listener.text.count("(done before)") == 1
    assert Localizer.open(out).gallery and [p.name for p in tmp_path.iterdir()] == ["mission"]


def test_with_other_inputs_it_starts_afresh_and_says_so(inputs: Path, tmp_path: Path) -> None:
    out = tmp_path / "mission"
    with pytest.raises(RuntimeError, match="calibrate"):
        quick(inputs, out, reporter=Listener(fail_in="calibrate"))
    listener = Listener()
    quick(inputs, out, seed=5, reporter=listener)
    assert "another seed: starting afresh" in listener.text and "done before" not in listener.text


def test_a_mission_that_stands_there_is_replaced_only_at_the_end(mission: Path, inputs: Path, tmp_path: Path) -> None:
    out = tmp_path / "mission"
    shutil.copytree(mission, out)
    (out / "notes.txt").write_text("of the old one")
    with pytest.raises(RuntimeError, match="check"):
        quick(inputs, out, seed=7, reporter=Listener(fail_in="check"))
    assert (out / "notes.txt").exists() and Localizer.open(out).mission.record["seed"] == 0
    quick(inputs, out, seed=7)
    assert not (out / "notes.txt").exists() and Localizer.open(out).mission.record["seed"] == 7


def test_killed_between_its_last_two_renames_it_gives_the_old_mission_back(inputs: Path, tmp_path: Path) -> None:
    work = tmp_path / "mission.partial"
    (work / "replaced").mkdir(parents=True)
    (work / "replaced" / "mission.json").write_text("{}")
    (work / "plan.json").write_text("{}")
    with pytest.raises(RuntimeError, match="model"):
        quick(inputs, tmp_path / "mission", reporter=Listener(fail_in="model"))
    assert (tmp_path / "mission" / "mission.json").exists()


def test_one_preparation_at_a_time(inputs: Path, tmp_path: Path) -> None:
    (tmp_path / "mission.partial").mkdir()
    with open(tmp_path / "mission.partial" / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(MissionError, match="another cvgl-prepare"):
            quick(inputs, tmp_path / "mission")


def test_a_map_smaller_than_the_view_is_refused(inputs: Path, tmp_path: Path) -> None:
    with pytest.raises(MapError, match=r"map\.tif: size: smaller than what the camera sees"):
        prepare(inputs / "map.tif", CAMERA, 400.0, tmp_path / "m", adapt=False, model=inputs / "model.cvgl")
    assert not any(tmp_path.iterdir())


def test_a_poor_self_check_is_said_out_loud() -> None:
    good = {"retrieval": {"R@20": 0.99}, "frames": {"frames": 100, "refined_within_10m": 0.97, "refined_beyond_10m": 0}}
    assert worries(good) == []
    poor = {"retrieval": {"R@20": 0.3}, "frames": {"frames": 100, "refined_within_10m": 0.2, "refined_beyond_10m": 9}}
    assert len(worries(poor)) == 3


def run(monkeypatch: pytest.MonkeyPatch, program: Any, *arguments: object) -> int:
    """Exit status of a command line."""
    monkeypatch.setattr(sys, "argv", ["command", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        program.app_main()
    return int(ended.value.code or 0)


def without_georeference(folder: Path) -> None:
    with rasterio.open(folder / "map.tif") as source:
        pixels = source.read()
    profile = {"driver": "GTiff", "width": pixels.shape[2], "height": pixels.shape[1], "count": 3, "dtype": "uint8"}
    with rasterio.open(folder / "map.tif", "w", **profile) as target:
        target.write(pixels)


def without_focal_length(folder: Path) -> None:
    fields = yaml.safe_load((folder / "camera.yaml").read_text())
    del fields["fx"]
    (folder / "camera.yaml").write_text(yaml.safe_dump(fields))


def with_something_at_out(folder: Path) -> None:
    (folder / "out").mkdir()
    (folder / "out" / "thesis.doc").write_text("all of it")


def with_something_at_partial(folder: Path) -> None:
    (folder / "out.partial").mkdir()
    (folder / "out.partial" / "thesis.doc").write_text("all of it")


def with_a_truncated_model(folder: Path) -> None:
    file = folder / "model.cvgl" / "embed.onnx"
    file.write_bytes(file.read_bytes()[:1000])


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
@pytest.mark.parametrize(
    ("spoil", "changes", "named"),
    [
        (without_georeference, {}, ["map.tif", "CRS"]),
        (without_focal_length, {}, ["camera.yaml", "fx"]),
        (None, {"--height": -5}, ["height", "-5"]),
        (None, {"--height": "nan"}, ["height", "nan"]),
        (None, {"--stride": -1}, ["stride", "-1"]),
        (None, {"--height": 400}, ["map.tif", "size"]),
        (with_something_at_out, {}, ["out", "no mission"]),
        (with_something_at_partial, {}, ["out.partial", "thesis.doc"]),
        (with_a_truncated_model, {}, ["embed.onnx", "truncated"]),
    ],
)
def test_bad_input_is_named_and_ends_with_4(
    inputs: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    spoil: Any,
    changes: dict[str, Any],
    named: list[str],
) -> None:
    folder = tmp_path / "in"
    shutil.copytree(inputs, folder)
    if spoil is not None:
        spoil(folder)
    before = sorted(folder.rglob("*"))
    options = {"--camera": folder / "camera.yaml", "--height": 60, "--out": folder / "out"}
    options |= {"--model": folder / "model.cvgl", **changes}
    words = [str(word) for option in options.items() for word in option]
    assert run(monkeypatch, prepare_cli, folder / "map.tif", "--no-adapt", *words) == 4
    message = next(line for line in capsys.readouterr().err.splitlines() if line.startswith("error:"))
    assert all(word in message for word in named), message
    assert sorted(folder.rglob("*")) == before


@pytest.mark.parametrize(
    "options",
    [["--no-adapt", "--minutes", "3"], ["--model", "x.cvgl"], ["--no-adapt", "--weights", "x.npz"], ["--trials", "3"]],
)
def test_options_that_contradict_each_other_end_with_2(
    inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: list[str]
) -> None:
    given = [inputs / "map.tif", "--camera", inputs / "camera.yaml", "--height", 60, "--out", tmp_path / "m", *options]
    assert run(monkeypatch, prepare_cli, *given) == 2


def test_without_pytorch_it_says_what_to_install_and_ends_with_3(
    inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(preparing, "_NEEDED_TO_ADAPT", ("no_such_package",))
    given = [inputs / "map.tif", "--camera", inputs / "camera.yaml", "--height", 60, "--out", tmp_path / "m"]
    assert run(monkeypatch, prepare_cli, *given) == 3
    message = capsys.readouterr().err
    assert "pip install 'cvgl[train,export]'" in message and "--no-adapt" in message
    assert not any(tmp_path.iterdir())


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_device_that_is_not_there_ends_with_3(
    inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [inputs / "map.tif", "--camera", inputs / "camera.yaml", "--height", 60, "--out", tmp_path / "m"]
    assert run(monkeypatch, prepare_cli, *given, "--device", "cuda") == 3
    assert "device" in capsys.readouterr().err and not any(tmp_path.iterdir())


def test_the_command_makes_a_mission_and_tells_what_it_found(
    inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(CheckSize, "of", classmethod(lambda cls, trials: LITTLE))
    given = [inputs / "map.tif", "--camera", inputs / "camera.yaml", "--height", 60, "--out", tmp_path / "m"]
    given += ["--no-adapt", "--model", inputs / "model.cvgl", "--stride", 30]
    assert run(monkeypatch, prepare_cli, *given) == 0
    said = capsys.readouterr().out
    assert "simulated views" in said and "simulated frames" in said and "recall" in said
    assert Localizer.open(tmp_path / "m").gallery.manifest.stride_m == pytest.approx(30, abs=1)


def test_interrupted_it_says_how_to_go_on(
    inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(preparing._Job, "_gallery", interrupted)
    given = [inputs / "map.tif", "--camera", inputs / "camera.yaml", "--height", 60, "--out", tmp_path / "m"]
    assert run(monkeypatch, prepare_cli, *given, "--no-adapt", "--model", inputs / "model.cvgl") == 130
    assert "m.partial: the same command goes on" in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["m.partial"]


def test_it_needs_no_pytorch_to_be_imported() -> None:
    code = "import sys, cvgl_export.prepare, cvgl_export.prepare_cli, cvgl_export.cli, cvgl.cli.demo\n"
    code += "print(*{'torch', 'onnx', 'cvgl_train'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout.split()) == (0, []), done.stderr


@pytest.mark.slow
def test_it_adapts_exports_and_says_so(inputs: Path, tmp_path: Path) -> None:
    options = {"adapt": True, "model": None, "weights": inputs / "weights.npz", "minutes": 0.05, "device": "cpu"}
    record = quick(inputs, tmp_path / "mission", **options)
    assert record["model"]["adapted"]["steps"] > 0 and record["model"]["name"] == "cvgl-nano-map"
    localizer = Localizer.open(tmp_path / "mission")
    (stage,) = (name for name in localizer.model.training["export"] if name.startswith("ONNX Runtime, fp32, "))
    assert localizer.model.training["export"][stage]["cosine_minimum"] > 0.9999
    assert localizer.model.views["query"].gsd_m == pytest.approx(localizer.gallery.manifest.tile_gsd_m)
    assert [p.name for p in tmp_path.iterdir()] == ["mission"]
