"""Checkpoints of a model: what goes in comes out, and what is damaged, foreign or hostile is refused by name."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cvgl.errors import ModelError
from cvgl_train import create_model, load_model, save_model
from cvgl_train.checkpoint import read_checkpoint

NANO: dict[str, Any] = {"widths": (8, 8, 8), "descriptor_size": 8, "input_px": 32}
RECORD = {"steps": 3, "curve": [{"step": 3, "R@1": 0.5}]}


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    path = tmp_path / "nano.pt"
    save_model(create_model("cvgl-nano", **NANO), path, RECORD)
    return path


def test_what_goes_in_comes_out(tmp_path: Path) -> None:
    model = create_model("cvgl-nano", **NANO).train()
    save_model(model, tmp_path / "model.pt", RECORD)
    again = load_model(tmp_path / "model.pt")
    assert (again.info, again.settings, again.training) == (model.info, model.settings, False)
    for name, value in model.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name
    assert read_checkpoint(tmp_path / "model.pt")["record"] == RECORD


def test_nothing_is_left_of_a_write_that_fails(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full_disk(data: Any, path: Path) -> None:
        path.write_bytes(b"half of it")
        raise OSError("no space left")

    before = saved.read_bytes()
    monkeypatch.setattr(torch, "save", full_disk)
    with pytest.raises(OSError, match="no space"):
        save_model(create_model("cvgl-nano", **NANO), saved, {})
    assert saved.read_bytes() == before and list(saved.parent.iterdir()) == [saved]


@given(share=st.floats(0, 0.999))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_file_cut_anywhere_is_named(saved: Path, share: float) -> None:
    whole = saved.read_bytes()
    cut = saved.with_name("cut.pt")
    cut.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(ModelError, match=r"cut\.pt: not readable as a checkpoint"):
        load_model(cut)


class Payload:
    """Unpickled by a reader that trusts its file, this makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("where", ["settings", "record", "state", None])
def test_no_code_of_a_checkpoint_is_run(saved: Path, where: str | None) -> None:
    ran = saved.with_name("ran")
    if where is None:
        saved.write_bytes(pickle.dumps(Payload(ran)))
    else:
        data = torch.load(saved, weights_only=True)
        data[where] = {**data[where], "more": Payload(ran)}
        torch.save(data, saved)
    with pytest.raises(ModelError, match=r"nano\.pt: not readable as a checkpoint"):
        load_model(saved)
    assert not ran.exists()


def nothing(data: dict[str, Any]) -> Any:
    return [1, 2]


def put(**values: Any) -> Callable[[dict[str, Any]], Any]:
    return lambda data: {**data, **values}


def without(field: str) -> Callable[[dict[str, Any]], Any]:
    return lambda data: {name: value for name, value in data.items() if name != field}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (nothing, r"format: not a checkpoint of this project \(found 'list'.*cvgl-train import"),
        (without("format"), "format: not a checkpoint of this project"),
        (put(format="cvgl-run"), "found 'cvgl-run'"),
        (put(version=2), r"version: of another version \(found 2, expected 1"),
        (without("settings"), "settings: not a checkpoint's"),
        (put(settings=[1]), r"settings: not a checkpoint's \(found 'list', expected a dict"),
        (put(state=None), "state: not a checkpoint's"),
        (put(state={"stem": 3}), "state: stem: not a tensor"),
        (put(model=3), "model: not a checkpoint's"),
        (put(model="nobody"), r"model: no such method \(found 'nobody'"),
        (put(settings={"width": 3}), "width: unknown field of cvgl-nano"),
        (put(settings={"input_px": "large"}), r"input_px: a value of another kind \(found 'large'"),
        (put(settings={"input_px": 30}), "input_px: not a size"),
        # Names of `create_model`'s own arguments: a checkpoint must not make us open other files.
        (put(settings={"weights": "elsewhere.pth"}), "weights: unknown field"),
        (put(settings={"pretrained": True}), "pretrained: unknown field"),
    ],
)
def test_contents_that_are_no_checkpoints_are_named(
    saved: Path, change: Callable[[dict[str, Any]], Any], message: str
) -> None:
    torch.save(change(torch.load(saved, weights_only=True)), saved)
    with pytest.raises(ModelError, match=rf"nano\.pt: {message}" if ":" in message else message) as caught:
        load_model(saved)
    assert caught.value.file == saved


def test_weights_of_another_network_are_named(saved: Path) -> None:
    data = torch.load(saved, weights_only=True)
    names = sorted(data["state"])
    lost, reshaped = names[0], names[1]
    del data["state"][lost]
    data["state"] |= {"surplus": torch.ones(2), reshaped: torch.ones(7, 7)}
    torch.save(data, saved)
    with pytest.raises(ModelError) as caught:
        load_model(saved)
    assert caught.value.file == saved
    assert all(name in str(caught.value) for name in (lost, reshaped, "surplus", "(7, 7)"))


@pytest.mark.parametrize("kind", ["nothing", "folder"])
def test_what_is_no_file_is_named(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a.pt"
    if kind == "folder":
        path.mkdir()
    with pytest.raises(ModelError, match=r"a\.pt: "):
        load_model(path)
