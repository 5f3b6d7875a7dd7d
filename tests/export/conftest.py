"""What the tests of exports share."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import onnx
import pytest
import torch
from onnx import ModelProto, TensorProto, helper

from cvgl_train.models.base import CrossViewModel
from cvgl_train.recipes import read_recipe
from cvgl_train.registry import create_model


@pytest.fixture(scope="session")
def small() -> Callable[..., CrossViewModel]:
    """A function that makes a method in the size of its recipe's small version."""

    def make(name: str, **changes: Any) -> CrossViewModel:
        """Of norms other than the initial ones: to fold those would prove nothing, and after a LayerNorm without scales
        all of FSRA's tokens have the same mean but for rounding, by which it sorts."""
        settings = read_recipe(name, [], ["method"], small=True)[1].get("model", {})
        torch.manual_seed(0)
        model = create_model(name, **{**settings, **changes})
        for module in model.modules():
            if isinstance(module, (torch.nn.BatchNorm1d, torch.nn.BatchNorm2d, torch.nn.LayerNorm)):
                torch.nn.init.uniform_(module.weight, 0.5, 1.5)
                torch.nn.init.normal_(module.bias, std=0.2)
            if isinstance(module, (torch.nn.BatchNorm1d, torch.nn.BatchNorm2d)):
                torch.nn.init.normal_(module.running_mean, std=0.2)
                torch.nn.init.uniform_(module.running_var, 0.5, 1.5)
        return model.eval()

    return make


@pytest.fixture(scope="session")
def force_half() -> Callable[[ModelProto, Collection[str]], ModelProto]:
    """A function that makes the mistake which reports have to catch."""

    def force(model: ModelProto, ops: Collection[str]) -> ModelProto:
        """A typed graph with some of its FP32 operators in FP16: the mistake that the report has to catch."""
        broken = ModelProto()
        broken.CopyFrom(model)
        types = {v.name: v.type.tensor_type.elem_type for v in broken.graph.value_info}
        types |= {t.name: t.data_type for t in broken.graph.initializer}
        nodes = []
        for node in broken.graph.node:
            if node.op_type not in ops:
                nodes.append(node)
                continue
            for place, value in enumerate(node.input):
                if types.get(value) == TensorProto.FLOAT:
                    name = f"{node.name}/{place}"
                    nodes.append(helper.make_node("Cast", [value], [name], name=name, to=TensorProto.FLOAT16))
                    node.input[place] = name
            result = node.output[0]
            node.output[0] = f"{result}/forced"
            nodes.append(node)
            name = f"{result}/back"
            nodes.append(helper.make_node("Cast", [node.output[0]], [result], name=name, to=TensorProto.FLOAT))
        copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
        del broken.graph.node[:]
        broken.graph.node.extend(copies)
        del broken.graph.value_info[:]
        return broken

    return force
