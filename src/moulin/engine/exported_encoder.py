"""An exported offline encoder, by whatever runtime: the encoder's part of a `Runner` but for the runtime's call."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moulin.arrays import Floats, Ints
from moulin.audio.fbank import PADDING_VALUE
from moulin.bundle.onnx_graph import OnnxGraph, TensorSpec
from moulin.bundle.spec import MIN_FRAMES
from moulin.decoding.blank_skip import with_blank
from moulin.errors import EngineError
from moulin.processor import num_cores

_LONGEST_MIN_FRAMES = 1024
"""The search for the shortest input ends at ten seconds of audio; an encoder that fails on that does not run."""


Values = Sequence[tuple[TensorSpec, NDArray[Any]]]
"""A graph's inputs, each with its value, whose dtype may be another than the graph's."""


class ExportedEncoder(ABC):
    """Pads short inputs to what the graph runs with, and reads its outputs."""

    def __init__(self, graph: OnnxGraph, *, feature_dim: int, ctc_output: str | None, out: str) -> None:
        """`out` is the output with the frames, to which `ctc_output` adds the channel of `moulin.decoding.blank_skip`.
        A subclass sets `min_frames` once it can run."""
        self._graph, self._ctc_output, self._out = graph, ctc_output, out
        self._feature_dim = feature_dim
        self.min_frames = MIN_FRAMES

    @abstractmethod
    def _infer(self, values: Values, outputs: list[str], *, alone: bool) -> list[NDArray[Any]]:
        """The graph's `outputs` for `values`; `alone` as for `encoder`. Raises EngineError."""

    def encoder(self, x: Floats, x_lens: Ints, *, alone: bool = False) -> tuple[Floats, Ints]:
        missing = self.min_frames - x.shape[1]
        if missing > 0:
            x = np.pad(x, ((0, 0), (0, missing), (0, 0)), constant_values=PADDING_VALUE)
        encoder_out, *rest = self._run_encoder(x, x_lens, alone=alone)
        if self._ctc_output:
            encoder_out = with_blank(encoder_out, rest.pop())
        lengths = rest[0] if rest else np.full(len(x), encoder_out.shape[1])
        return encoder_out.astype(np.float32, copy=False), lengths.astype(np.int64, copy=False)

    def _run_encoder(self, x: Floats, x_lens: Ints, *, alone: bool = False) -> list[NDArray[Any]]:
        values: list[NDArray[Any]] = [x, x_lens]
        # An export may have no input for lengths.
        return self._infer(list(zip(self._encoder_inputs, values, strict=False)), self._encoder_outputs, alone=alone)

    def _find_min_frames(self) -> int:
        """The shortest input in frames that the encoder runs with; `encoder` pads to it, without changing the lengths.

        Most exports run with MIN_FRAMES. Causal Zipformers need the full extent of their convolutions, 121 frames for
        digits-en; ONNX Runtime fails below. Raises EngineError for an encoder that does not run at all.
        """

        def runs_with(num_frames: int) -> EngineError | None:
            x = np.full((1, num_frames, self._feature_dim), PADDING_VALUE, dtype=np.float32)
            try:
                self._run_encoder(x, np.array([num_frames]))
            except EngineError as error:
                return error
            return None

        if runs_with(MIN_FRAMES) is None:
            return MIN_FRAMES
        too_few, enough = MIN_FRAMES, _LONGEST_MIN_FRAMES
        if error := runs_with(enough):
            raise error
        while enough - too_few > 1:
            middle = (too_few + enough) // 2
            too_few, enough = (too_few, middle) if runs_with(middle) is None else (middle, enough)
        return enough

    @cached_property
    def _takes_lengths(self) -> bool:
        return len(self._graph.inputs) > 1

    @cached_property
    def _encoder_inputs(self) -> list[TensorSpec]:
        x = self._graph.input("x", 0)
        return [x, self._graph.input("x_lens", 1)] if self._takes_lengths else [x]

    @cached_property
    def _encoder_outputs(self) -> list[str]:
        names = [self._graph.output(self._out, 0).name]
        if len(self._graph.outputs) > 1:
            names.append(self._graph.output("encoder_out_lens", 1).name)
        return [*names, self._ctc_output] if self._ctc_output else names


def threads_alone(threads: int) -> int:
    """Threads of a call that no other is beside, of the `threads` that an encoder may use: one a core. It is told by
    the machine and not measured, so that the same server gives the same words however busy it was when it started."""
    return min(threads, num_cores())
