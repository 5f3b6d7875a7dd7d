"""Building TensorRT engines: against the genuine bindings of three versions, and what needs none of them."""

from __future__ import annotations

import ast
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cvgl.errors import MissingDependencyError, ModelError
from cvgl_export.tensorrt import Achieved, EngineOptions, build_engine, read_layers

ROOT = Path(__file__).resolve().parents[2]
VERSIONS = ("10.3.0", "10.13.3.9", "11.4.0.106")
# What TensorRT 11 no longer has, of all that code written for 8 and 10 asks for.
REMOVED = {
    "FP16",
    "INT8",
    "BF16",
    "FP8",
    "INT4",
    "FP4",
    "STRICT_TYPES",
    "OBEY_PRECISION_CONSTRAINTS",
    "PREFER_PRECISION_CONSTRAINTS",
    "REJECT_EMPTY_ALGORITHMS",
    "WEIGHTLESS",
    "EXPLICIT_BATCH",
    "PROFILE_SHARING_0806",
    "int8_calibrator",
    "algorithm_selector",
    "quantization_flags",
    "set_quantization_flag",
    "set_calibration_profile",
    "platform_has_fast_fp16",
    "platform_has_fast_int8",
    "platform_has_tf32",
    "max_workspace_size",
    "build_engine_from_network",
    "build_cuda_engine",
    "supports_model",
    "parse_with_weight_descriptors",
    "num_bindings",
    "get_binding_shape",
    "get_binding_index",
    "set_binding_shape",
    "binding_is_input",
    "execute_async",
    "execute_async_v2",
    "device_memory_size",
    "all_shape_inputs_specified",
    "create_execution_context_without_device_memory",
    "set_dynamic_range",
    "set_output_type",
    "reset_precision",
}


@pytest.mark.parametrize("version", VERSIONS)
def test_with_the_genuine_bindings(version: str, check_with_tensorrt: Callable[[str, str], None]) -> None:
    check_with_tensorrt(version, "check_build.py")


def layer(inputs: list[Any], outputs: list[Any], **more: Any) -> dict[str, Any]:
    def tensors(formats: list[Any]) -> list[dict[str, Any]]:
        return [{"Name": f"t{index}", "Format/Datatype": text} for index, text in enumerate(formats)]

    return {"Name": "x", "LayerType": "kgen", "Inputs": tensors(inputs), "Outputs": tensors(outputs), **more}


@pytest.mark.parametrize(
    ("record", "precision"),
    [
        (layer(["Half"], ["Half"]), "fp16"),
        (layer(["Float"], ["Float"]), "fp32"),
        (layer(["BFloat16"], ["BFloat16"]), "bf16"),
        (layer(["BF16"], ["Float"]), "fp32+bf16"),
        (layer(["Row major linear FP32"], ["Row major linear FP16 format"]), "fp32+fp16"),
        (layer(["Channel major FP16 format where channel % 8 == 0"] * 2, ["Half"]), "fp16"),
        (layer(["Thirty-two wide channel vectorized row major Int8 format."], ["Int8"]), "int8"),
        (layer(["Half", "Int64"], ["Half"]), "fp16"),
        (layer(["Int64", "Bool"], ["Int64"]), "bool+int64"),
        (layer(["FP8"], ["Half"], Weights={"Type": "FP8", "Count": 9}), "fp16+fp8"),
        (layer(["Half"], ["Half"], Weights={"Type": "Int4", "Count": 9}), "fp16+int4"),
        (layer([], ["Half"]), "fp16"),
        (layer(["Half"], ["N/A due to dynamic shapes"]), "unknown"),
        (layer(["Half"], ["Row major linear"]), "unknown"),
        (layer(["Half"], ["Half or Float"]), "unknown"),
        (layer(["Half"], [None]), "unknown"),
        (layer([], []), "unknown"),
        ({"Name": "conv_fp16", "LayerType": "CaskConvolution"}, "unknown"),
        ({"Name": "x", "Inputs": "Half", "Outputs": ["Half"], "TacticName": "sm80_xmma_fprop_f16f16"}, "unknown"),
        ("h884gemm_fp16", "unknown"),
        (None, "unknown"),
    ],
)
def test_precision_is_what_the_layer_says_or_unknown(record: Any, precision: str) -> None:
    read = read_layers(json.dumps({"Layers": [record]}))
    assert [found.precision for found in read.layers] == [precision]
    assert read.histogram == {precision: 1}
    assert (read.note is None) == (precision != "unknown")


def test_names_types_and_weights_are_kept() -> None:
    record = layer(["Half"], ["Float"], Weights={"Type": "Half", "Count": 3})
    (found,) = read_layers(json.dumps({"Layers": [record], "Bindings": ["a"]})).layers
    assert (found.name, found.kind, found.inputs, found.outputs) == ("x", "kgen", ("fp16",), ("fp32",))
    assert found.weights == "fp16"


@pytest.mark.parametrize("text", ["", "{", "3", "null", "[]", "{}", '{"Layers": {}}'])
def test_an_unreadable_report_is_no_precision_and_no_error(text: str) -> None:
    read = read_layers(text)
    assert read == Achieved((), "the engine inspector's report is not readable: no precision is known")
    assert read.histogram == {}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("batch", (0, 1, 2)),
        ("batch", (2, 1, 4)),
        ("batch", (1, 2)),
        ("workspace_mib", 0),
        ("hardware_compatibility", "any"),
        ("dla_core", -1),
        ("optimization_level", 6),
    ],
)
def test_an_option_that_cannot_be_is_refused_by_name(field: str, value: Any) -> None:
    with pytest.raises(ModelError, match=f"{field}: not usable"):
        EngineOptions(**{field: value})


def test_without_tensorrt_the_install_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # None in sys.modules is how Python itself marks a module that must not be found.
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    (tmp_path / "a.onnx").write_bytes(b"x")
    with pytest.raises(MissingDependencyError, match=r"TensorRT is not usable here: .*; install: ") as caught:
        build_engine(tmp_path / "a.onnx", tmp_path / "a.engine", fingerprint="f", views=("query",), precision="fp16")
    assert caught.value.exit_status == 3
    with pytest.raises(ModelError, match="no such file"):
        build_engine(tmp_path / "b.onnx", tmp_path / "a.engine", fingerprint="f", views=("query",), precision="fp16")
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.onnx"]


def removed_names(source: str) -> set[str]:
    """Names of removed things that a module asks TensorRT for, as attributes or, with getattr, as texts."""
    tree = ast.parse(source)
    named = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    named |= {
        alias.name.split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names
    }
    asks_tensorrt = bool({"trt", "tensorrt"} & named)
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr in REMOVED:
            of = ast.unparse(node.value)
            # Elsewhere INT8 is ONNX's own, and only a flag that says it is one counts.
            if of.endswith("BuilderFlag") or (asks_tensorrt and not of.endswith("DataType")):
                found.add(node.attr)
        elif asks_tensorrt and isinstance(node, ast.Attribute) and node.attr == "precision":
            found |= {"precision ="} if isinstance(node.ctx, ast.Store) else set()
        elif asks_tensorrt and isinstance(node, ast.Constant) and isinstance(node.value, str):
            found |= {node.value} & REMOVED
    return found


def test_no_code_asks_for_what_tensorrt_11_removed() -> None:
    asks = {}
    for package in ("sdk/cvgl", "train/cvgl_train", "export/cvgl_export", "ros_bridge/cvgl_ros"):
        for path in sorted((ROOT / package).rglob("*.py")):
            if found := removed_names(path.read_text(encoding="utf-8")):
                asks[str(path.relative_to(ROOT))] = found
    assert asks == {}


@pytest.mark.parametrize(
    ("source", "finds"),
    [
        ("import tensorrt as trt\nconfig.set_flag(trt.BuilderFlag.FP16)", {"FP16"}),
        ("if hasattr(trt.BuilderFlag, 'INT8'): pass", {"INT8"}),
        ("def f(trt, layer): layer.precision = trt.float16", {"precision ="}),
        ("trt = load()\nlayer.precision = trt.float16\nconfig.int8_calibrator = c", {"precision =", "int8_calibrator"}),
        ("flags.set(BuilderFlag.BF16)", {"BF16"}),
        ("onnx.TensorProto.INT8", set()),
        ("import tensorrt\nkind = tensorrt.DataType.INT8", set()),
    ],
)
def test_the_search_for_removed_names_finds_them(source: str, finds: set[str]) -> None:
    assert removed_names(source) == finds
