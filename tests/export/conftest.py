"""What the tests of exports share."""

from __future__ import annotations

from collections.abc import Callable, Collection

import onnx
import pytest
from onnx import ModelProto, TensorProto, helper


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
