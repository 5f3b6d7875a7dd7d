"""ONNX's operators by what they do to the numbers that pass through them."""

from __future__ import annotations

__all__ = ["CONTRACTIONS", "CURVES", "MOVES", "NORMS", "POINTWISE", "QUANTISERS", "SOFTMAX", "SUMS", "UNTYPED"]

CONTRACTIONS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})

MOVES = frozenset({
    "Cast", "Concat", "DepthToSpace", "Expand", "Flatten", "Gather", "GatherElements", "GatherND", "Identity", "Pad",
    "Reshape", "Slice", "SpaceToDepth", "Split", "Squeeze", "Tile", "Transpose", "Unsqueeze",
})  # fmt: skip
QUANTISERS = frozenset({"QuantizeLinear", "DequantizeLinear"})
UNTYPED = frozenset({"Shape", "Size", "ConstantOfShape", "Range"})

# Exact, or with an error of one rounding, on whatever half precision can hold.
POINTWISE = frozenset({
    "Abs", "Add", "And", "ArgMax", "ArgMin", "Ceil", "Clip", "Div", "Dropout", "Elu", "Equal", "Erf", "Floor", "Gelu",
    "GlobalMaxPool", "Greater", "GreaterOrEqual", "HardSigmoid", "HardSwish", "IsInf", "IsNaN", "LeakyRelu", "Less",
    "LessOrEqual", "Max", "MaxPool", "Min", "Mul", "Neg", "PRelu", "ReduceMax", "ReduceMin", "Relu", "Resize", "Round",
    "Selu", "Sigmoid", "Sign", "Sub", "Tanh", "TopK", "Where",
})  # fmt: skip

NORMS = frozenset({
    "BatchNormalization", "GroupNormalization", "InstanceNormalization", "LayerNormalization",
    "LpNormalization", "MeanVarianceNormalization", "RMSNormalization",
})  # fmt: skip
SOFTMAX = frozenset({"LogSoftmax", "Softmax"})

SUMS = frozenset({
    "AveragePool", "CumSum", "Einsum", "GlobalAveragePool", "GlobalLpPool", "LpPool", "ReduceL1", "ReduceL2",
    "ReduceLogSum", "ReduceLogSumExp", "ReduceMean", "ReduceProd", "ReduceSum", "ReduceSumSquare",
})  # fmt: skip
CURVES = frozenset({"Exp", "Log", "Pow", "Reciprocal", "Softplus", "Sqrt"})
