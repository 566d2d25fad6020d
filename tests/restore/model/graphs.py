"""Small ONNX graphs with the interface of face restorers, and of what is none."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

Shape = Sequence[int | str]


def value(name: str, shape: Shape, kind: int = TensorProto.FLOAT) -> Any:
    """An input or output."""
    return helper.make_tensor_value_info(name, kind, list(shape))


def save(file: Path, nodes: Sequence[Any], inputs: Sequence[Any], outputs: Sequence[Any], **constants: Any) -> Path:
    """Write the graph of these nodes; `constants` are its weights by name."""
    weights = [numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()]
    graph = helper.make_graph(list(nodes), "face", list(inputs), list(outputs), weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), file)
    return file


def sharpener(kind: Any = np.float32) -> Any:
    """A 3 x 3 kernel for each channel."""
    kernel = np.full((3, 1, 3, 3), -0.25, kind)
    kernel[:, :, 1, 1] = 3
    return kernel


def convolution(out: str = "output") -> Any:
    """The node that sharpens `input`."""
    return helper.make_node("Conv", ["input", "kernel"], [out], pads=[1, 1, 1, 1], group=3)


def sharpening(file: Path, side: int | str = 64, count: int | str = 1, kind: int = TensorProto.FLOAT) -> Path:
    """A graph that sharpens faces, with an image's shape of (count, 3, side, side)."""
    shape = [count, 3, side, side if isinstance(side, int) else "width"]
    kernel = sharpener(helper.tensor_dtype_to_np_dtype(kind))
    return save(file, [convolution()], [value("input", shape, kind)], [value("output", shape, kind)], kernel=kernel)


def weighted(file: Path, kind: int = TensorProto.DOUBLE, shape: Shape = (), side: int = 64) -> Path:
    """As CodeFormer's export: a scalar `weight` of how much of the input is kept."""
    face = [1, 3, side, side]
    nodes = [
        helper.make_node("Cast", ["weight"], ["share"], to=TensorProto.FLOAT),
        convolution("sharp"),
        helper.make_node("Sub", ["input", "sharp"], ["change"]),
        helper.make_node("Mul", ["change", "share"], ["some"]),
        helper.make_node("Add", ["sharp", "some"], ["output"]),
        helper.make_node("ReduceSum", ["output"], ["logits"], keepdims=0),
    ]
    made = [value("output", face), value("logits", [])]  # a second result, as some exports have
    return save(file, nodes, [value("input", face), value("weight", shape, kind)], made, kernel=sharpener())


def drawing(file: Path, side: int = 64) -> Path:
    """A graph that adds random numbers, as a GFPGAN exported with its noise does."""
    face = [1, 3, side, side]
    nodes = [
        convolution("sharp"),
        helper.make_node("RandomNormalLike", ["sharp"], ["noise"], scale=0.2),
        helper.make_node("Add", ["sharp", "noise"], ["output"]),
    ]
    return save(file, nodes, [value("input", face)], [value("output", face)], kernel=sharpener())
