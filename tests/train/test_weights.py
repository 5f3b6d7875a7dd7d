"""Weight files as the world publishes them: wrappers taken off, what is hostile or does not fit refused by name."""

from __future__ import annotations

import pickle
import socket
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from cvgl.errors import MissingDependencyError, ModelError
from cvgl_train import create_model
from cvgl_train.weights import fill_exactly, load_backbone, load_pretrained, read_state

STATE = {"stem.weight": torch.arange(6.0).reshape(2, 3), "head.bias": torch.ones(2)}
WRAPPERS = ("state_dict", "model_state_dict", "model", "net", "teacher")
in_a_folder = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> bool:
    return found.keys() == expected.keys() and all(torch.equal(found[name], expected[name]) for name in expected)


@given(
    wrappers=st.lists(st.sampled_from(WRAPPERS), max_size=3),
    prefixes=st.lists(st.sampled_from(["module.", "_orig_mod."]), max_size=2),
)
@in_a_folder
def test_wrappers_and_prefixes_are_taken_off(tmp_path: Path, wrappers: list[str], prefixes: list[str]) -> None:
    data: dict[str, Any] = {"".join(prefixes) + name: value for name, value in STATE.items()}
    for wrapper in wrappers:
        data = {wrapper: data, "epoch": 3, "best": 0.5}
    torch.save(data, tmp_path / "weights.pth")
    assert same(read_state(tmp_path / "weights.pth"), STATE)


def test_a_prefix_that_not_every_name_has_belongs_to_the_names(tmp_path: Path) -> None:
    mixed = {"module.a": torch.ones(1), "b": torch.ones(1)}
    torch.save(mixed, tmp_path / "weights.pth")
    assert same(read_state(tmp_path / "weights.pth"), mixed)


def test_safetensors_are_read(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file(STATE, tmp_path / "weights.safetensors")
    assert same(read_state(tmp_path / "weights.safetensors"), STATE)


@pytest.mark.parametrize(
    "beside", [np.float64(0.9), np.int64(3), np.ones((2, 3)), Namespace(rate=0.1, name="run"), [1, "a"], None]
)
def test_what_training_scripts_save_beside_weights_is_no_obstacle(tmp_path: Path, beside: Any) -> None:
    torch.save({"model": STATE, "beside": beside}, tmp_path / "weights.pth")
    assert same(read_state(tmp_path / "weights.pth"), STATE)


class Payload:
    """Unpickled by a reader that trusts its file, this makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("bare", [True, False])
def test_no_code_of_a_weights_file_is_run(tmp_path: Path, bare: bool) -> None:
    path, ran = tmp_path / "weights.pth", tmp_path / "ran"
    if bare:
        path.write_bytes(pickle.dumps(Payload(ran)))
    else:
        torch.save({**STATE, "more": Payload(ran)}, path)
    with pytest.raises(ModelError, match=r"weights\.pth: not readable as weights"):
        read_state(path)
    assert not ran.exists()


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.pth", None, r"a\.pth: no such file"),
        ("a.safetensors", None, r"a\.safetensors: no such file"),
        ("a.pth", b"", "not readable as weights"),
        ("a.pth", b"text, no weights", "not readable as weights"),
        ("a.safetensors", b"text, no weights", "not readable as weights"),
        ("a.pth", {"state_dict": {"epoch": 3}}, "no tensors in it .found 'dict', expected a state_dict"),
        ("a.pth", [torch.ones(1)], "no tensors in it .found 'list'"),
        ("a.pth", {}, "no tensors in it"),
    ],
)
def test_files_without_weights_are_named(tmp_path: Path, name: str, data: Any, message: str) -> None:
    path = tmp_path / name
    if isinstance(data, bytes):
        path.write_bytes(data)
    elif data is not None:
        torch.save(data, path)
    with pytest.raises(ModelError, match=message) as caught:
        read_state(path)
    assert caught.value.file == path


@given(share=st.floats(0, 0.999))
@in_a_folder
def test_a_file_cut_anywhere_is_named(tmp_path: Path, share: float) -> None:
    path = tmp_path / "weights.pth"
    torch.save(STATE, path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(ModelError, match=r"weights\.pth: not readable as weights"):
        read_state(path)


def small() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))


NAMES = sorted(name for name in small().state_dict() if not name.endswith("num_batches_tracked"))


@given(
    lost=st.sets(st.sampled_from(NAMES)),
    added=st.sets(st.sampled_from(["head.weight", "0.scale", "9.bias", "a", "b", "c"])),
    reshaped=st.sets(st.sampled_from(NAMES)),
)
@settings(max_examples=40, deadline=None)
def test_whatever_does_not_fit_is_named_and_nothing_is_filled(
    lost: set[str], added: set[str], reshaped: set[str]
) -> None:
    module, other = small(), small()
    state = {name: value for name, value in other.state_dict().items() if name not in lost}
    state |= {name: torch.ones(5, 5) for name in (added | reshaped) - lost}
    wrong = lost | added | (reshaped - lost)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    if not wrong:
        fill_exactly(module, state, "it")
        assert same(module.state_dict(), dict(other.state_dict()))
        return
    with pytest.raises(ModelError, match="weights do not fit it") as caught:
        fill_exactly(module, state, "it")
    assert all(name in str(caught.value.found) for name in wrong)
    assert same(dict(module.state_dict()), before)


def test_a_names_error_gives_the_files_own_name_too() -> None:
    with pytest.raises(ModelError, match=r"0\.weight \(1,\) for \(4, 3\) \[theirs\.fc\]"):
        fill_exactly(small(), {**small().state_dict(), "0.weight": torch.ones(1)}, "it", {"0.weight": "theirs.fc"})


NANO: dict[str, Any] = {"widths": (8, 8, 8), "descriptor_size": 8, "input_px": 32}


def test_backbone_weights_that_do_not_fit_name_their_file(tmp_path: Path) -> None:
    path = tmp_path / "other.pth"
    torch.save(STATE, path)
    with pytest.raises(ModelError, match=r"other\.pth: state_dict: weights do not fit .*stem\.weight"):
        load_backbone(create_model("cvgl-nano", **NANO), path)


@pytest.fixture
def looked_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """No network and no downloaded weights; the hosts that were asked for."""
    import huggingface_hub.constants

    hosts: list[str] = []

    def offline(host: Any, *arguments: Any, **options: Any) -> None:
        hosts.append(str(host))
        raise socket.gaierror(socket.EAI_NONAME, "no such host")

    monkeypatch.setattr(socket, "getaddrinfo", offline)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    return hosts


def test_pretrained_weights_that_cannot_come_are_a_missing_dependency(looked_up: list[str]) -> None:
    model = create_model("lpn", backbone="resnet18", image_size=64, classes=3)
    with pytest.raises(MissingDependencyError, match=r"no such host.* \(found 'resnet18\.\w+', expected .*weights="):
        load_pretrained(model)
    # timm alone makes twelve requests of it, with pauses in between.
    assert len(looked_up) < 6


def test_pretrained_weights_that_came_before_need_no_network(looked_up: list[str], tmp_path: Path) -> None:
    import timm
    from safetensors.torch import save_file

    torch.manual_seed(1)
    model, trunk = create_model("lpn", backbone="resnet18", image_size=64, classes=3), timm.create_model("resnet18")
    about = timm.get_pretrained_cfg(model.timm_name)
    folder = tmp_path / f"models--{about.hf_hub_id.replace('/', '--')}"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text("0" * 40)
    snapshot = folder / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    save_file(trunk.state_dict(), snapshot / "model.safetensors")
    assert load_pretrained(model) == ["fc.bias", "fc.weight"]
    assert torch.equal(model.backbone.get_parameter("conv1.weight"), trunk.conv1.weight)


def test_a_method_without_pretrained_weights_says_so() -> None:
    with pytest.raises(ModelError, match="pretrained: no official pretrained weights for this method"):
        create_model("cvgl-nano", pretrained=True, **NANO)
