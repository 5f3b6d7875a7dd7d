"""Copies of models, and names and places of their nodes."""

from __future__ import annotations

import ast

from onnx import GraphProto, ModelProto, NodeProto, TensorProto

__all__ = ["copy_model", "copy_tensor", "name_nodes", "name_uniquely", "set_nodes"]


def name_nodes(model: ModelProto) -> ModelProto:
    """A graph whose nodes are named by the PyTorch module they came from and their operator: "blocks.2.attn/MatMul_1".

    The modules are in the metadata that PyTorch's exporter writes; call this before that is removed. Nodes without it
    keep their names. In any case every node has a name and no two the same.
    """
    model = copy_model(model)
    for node in model.graph.node:
        scopes = {entry.key: entry.value for entry in node.metadata_props}.get("pkg.torch.onnx.name_scopes")
        if scopes is None:
            continue
        modules = ast.literal_eval(scopes)[:-1]
        node.name = f"{modules[-1]}/{node.op_type}" if modules and modules[-1] else node.op_type
    name_uniquely(model.graph)
    return model


def name_uniquely(graph: GraphProto) -> None:
    """Give a name to every node that has none, and a number to every one that shares its name."""
    seen: set[str] = set()
    for node in graph.node:
        start = node.name or node.op_type
        name, number = start, 0
        while name in seen:
            number += 1
            name = f"{start}_{number}"
        seen.add(name)
        node.name = name


def copy_model(model: ModelProto) -> ModelProto:
    """A copy that shares nothing with the model."""
    copy = ModelProto()
    copy.CopyFrom(model)
    return copy


def copy_tensor(tensor: TensorProto) -> TensorProto:
    """A copy that shares nothing with the tensor."""
    copy = TensorProto()
    copy.CopyFrom(tensor)
    return copy


def set_nodes(graph: GraphProto, nodes: list[NodeProto]) -> None:
    """Put these nodes, the graph's own among them, in the place of all that it has."""
    # Nodes of the graph itself would be emptied with it.
    copies = []
    for node in nodes:
        copy = NodeProto()
        copy.CopyFrom(node)
        copies.append(copy)
    del graph.node[:]
    graph.node.extend(copies)
