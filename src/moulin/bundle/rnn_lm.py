"""The facts about an RNN language model in ONNX, as Icefall's `rnn_lm/export-onnx.py` writes it in two forms.

With states (`with-state-*.onnx`): tokens int64 [N, 1], h0 and c0 float32 [layers, N, hidden], to log-probabilities of
the token that follows [N, vocab_size] and the next states. Without (`no-state-*.onnx`): whole texts int64 [N, L] and
their lengths int64 [N] to their negative log-likelihoods [N], `<sos>` and `<eos>` being added within the graph.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from moulin.bundle.onnx_graph import OnnxGraph, TensorSpec, read_onnx_graph
from moulin.errors import BundleError
from moulin.quoting import listed, quoted

_IR_VERSION = b"\x08"
"""The first byte of an ONNX file: the tag of its field `ir_version`. No text begins with it."""
_MOST_STATE_FLOATS = 1 << 20


@dataclass(frozen=True, slots=True)
class RnnStates:
    """The states of a model that goes on token by token."""

    num_layers: int
    hidden_size: int
    sos_id: int
    """The token before the first one."""


@dataclass(frozen=True, slots=True)
class RnnLm:
    """A checked RNN language model."""

    graph: OnnxGraph
    vocab_size: int | None
    """None where the file does not tell."""
    states: RnnStates | None
    """None for a model that scores whole texts."""


def is_rnn_lm(file: Path | None) -> bool:
    """Whether `file` is meant as an ONNX file, by its name or its first byte."""
    if file is None:
        return False
    if file.suffix == ".onnx":
        return True
    try:
        with file.open("rb") as opened:
            return opened.read(1) == _IR_VERSION
    except OSError:
        return False


def read_rnn_lm(file: Path) -> RnnLm:
    """Raises BundleError where `file` is in neither form, and EngineError without the package onnx."""
    if not file.is_file():
        raise BundleError(f"There is no language model {file}")
    graph = read_onnx_graph(file)
    if graph.external_files:
        raise BundleError(f"Expected {file} to hold its weights itself, got {listed(map(str, graph.external_files))}")
    inputs = [(tensor.dtype, len(tensor.shape)) for tensor in graph.inputs]
    states: RnnStates | None = None
    match inputs, len(graph.outputs):
        case [("int64", 2), ("float32", 3), ("float32", 3)], 3:
            states = _states(graph)
            vocab_size = _agreed(graph, "vocab_size", graph.outputs[0], -1)
        case [("int64", 2), ("int64", 1)], 1:
            vocab_size = graph.metadata_int("vocab_size")
        case _:
            names = listed(f"{tensor.name} {tensor.dtype} {quoted(list(tensor.shape))}" for tensor in graph.inputs)
            raise BundleError(
                f"Expected {file} to take tokens and two states (x, h0, c0), or whole texts (x, x_lens), got {names}",
                hint="Icefall's rnn_lm/export-onnx.py writes both forms",
            )
    return RnnLm(graph, vocab_size, states)


def _states(graph: OnnxGraph) -> RnnStates:
    num_layers = _agreed(graph, "num_layers", graph.inputs[1], 0)
    hidden_size = _agreed(graph, "hidden_size", graph.inputs[1], 2)
    sos_id = graph.metadata_int("sos_id")
    if num_layers is None or hidden_size is None or sos_id is None:
        raise BundleError(
            f"Expected num_layers, hidden_size and sos_id in the metadata of {graph.file}, got "
            f"{listed(map(quoted, graph.metadata)) or 'none'}",
            hint="Icefall's rnn_lm/export-onnx.py writes them",
        )
    if num_layers < 1 or hidden_size < 1 or num_layers * hidden_size > _MOST_STATE_FLOATS or sos_id < 0:
        raise BundleError(
            f"Expected sizes of a network in the metadata of {graph.file}, got num_layers {num_layers}, "
            f"hidden_size {hidden_size}, sos_id {sos_id}"
        )
    return RnnStates(num_layers, hidden_size, sos_id)


def _agreed(graph: OnnxGraph, key: str, tensor: TensorSpec, axis: int) -> int | None:
    """The number `key` of the metadata, or where there is none the fixed size of an axis. Raises BundleError where
    they differ."""
    said = graph.metadata_int(key)
    size = tensor.shape[axis] if tensor.shape else None
    if not isinstance(size, int):
        return said
    if said not in (None, size):
        raise BundleError(f"Expected the {key} {said} of the metadata in '{tensor.name}' of {graph.file}, got {size}")
    return size
