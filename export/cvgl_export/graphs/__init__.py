"""Typed ONNX graphs: which nodes of a network run in half precision or INT8, and what a graph really is.

TensorRT takes a network with the types that its ONNX graph states, so precision is decided here and nowhere else. All
that can be said of a graph afterwards is read back from its types.
"""

from __future__ import annotations
