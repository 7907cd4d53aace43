"""Convolved features flattened channels last, for engines whose convolutions keep them so.

Zipformer's embedding flattens [N, channels, T, bands] to [N, T, channels * bands] before its linear layer. OpenVINO's
convolutions leave the channels last in memory: flattened to [N, T, bands * channels] nothing moves, where the other
order is two passes over one of the largest tensors of the network. The rows of the layer's weights are put in that
order once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from moulin.onnx_rewrites.graph_view import GraphView

if TYPE_CHECKING:
    import onnx

_CHANNELS_SECOND, _CHANNELS_LAST = [0, 2, 1, 3], [0, 2, 3, 1]


def flatten_channels_last(model: onnx.ModelProto) -> int:
    """Put the channels last wherever `model` flattens convolved features for a product with constant weights, in place;
    return the number of places."""
    view = GraphView(model)
    found = 0
    for node in model.graph.node:
        perm = [attribute for attribute in node.attribute if attribute.name == "perm"]
        if node.op_type != "Transpose" or [list(one.ints) for one in perm] != [_CHANNELS_SECOND]:
            continue
        takers = [taker for taker in view.takers(node.output[0]) if taker.op_type != "Shape"]
        flat = takers[0] if len(takers) == 1 and takers[0].op_type == "Reshape" else None
        product = view.only_taker(flat.output[0], "MatMul") if flat is not None else None
        weight = view.constant(product.input[1]) if product is not None else None
        channels = _channels(view, node.input[0])
        if product is None or weight is None or weight.ndim != 2 or not channels or len(weight) % channels:
            continue
        found += 1
        perm[0].ints[:] = _CHANNELS_LAST
        by_band = weight.reshape(channels, -1, weight.shape[1]).transpose(1, 0, 2).reshape(weight.shape)
        product.input[1] = view.add_constant(f"{product.output[0]}/by_band", np.ascontiguousarray(by_band))
    return found


def _channels(view: GraphView, tensor: str) -> int | None:
    """The channels of `tensor`, made by a convolution over two dimensions, to whose result something may be added."""
    node = view.made_by(tensor, "Conv", "Add")
    if node is None:
        return None
    if node.op_type == "Add":
        return next((count for name in node.input if (count := _channels(view, name))), None)
    weight = view.constant(node.input[1])
    return len(weight) if weight is not None and weight.ndim == 4 else None
