"""The offline encoder on ONNX Runtime."""

from __future__ import annotations

import os
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from moulin.arrays import Floats, Ints
from moulin.audio.fbank import PADDING_VALUE
from moulin.bundle.files import Precision
from moulin.bundle.onnx_graph import OnnxGraph, TensorSpec
from moulin.bundle.spec import MIN_FRAMES
from moulin.decoding.blank_skip import with_blank
from moulin.engine.batching import CPU_BATCH_FRAMES, GPU_BATCH_FRAMES
from moulin.engine.device import gpu_index
from moulin.engine.onnxruntime.session import new_session, rewritten_encoder, run
from moulin.errors import EngineError, OptionsError

if TYPE_CHECKING:
    import onnxruntime

_LONGEST_MIN_FRAMES = 1024
"""The search for the shortest input ends at ten seconds of audio; an encoder that fails on that does not run."""


class OnnxRuntimeEncoder:
    """An encoder as ONNX Runtime sessions.

    On the CPU there are two sessions: concurrent calls get one thread each, which avoids synchronisation, and a call
    that is `alone` gets all `threads`.
    """

    def __init__(
        self,
        graph: OnnxGraph,
        *,
        feature_dim: int,
        precision: Precision,
        device: str = "cpu",
        threads: int | None = None,
        workers: int | None = None,
        rewrite: bool = True,
        fixed_shapes: bool = False,
        ctc_output: str | None = None,
        out: str = "encoder_out",
    ) -> None:
        """`device` is cpu, cuda or cuda:N; `threads` is the number of CPU threads, by default all of this process;
        `workers` is the number of concurrent calls on a CPU, by default one for each thread.

        `rewrite` allows rewriting the graph to fewer operators (`onnx_rewrites`); `fixed_shapes` allows a GPU to take
        seconds for each new shape. `out` is the output with the frames, to which `ctc_output` adds the
        channel of `moulin.decoding.blank_skip`.

        Raises EngineError where ONNX Runtime, the device or the model does not work.
        """
        if threads is not None and threads < 1:
            raise OptionsError(f"Expected at least 1 thread, got {threads}")
        self.device = device
        self._graph, self._ctc_output, self._out = graph, ctc_output, out
        self._feature_dim = feature_dim
        self._threads = threads or len(os.sched_getaffinity(0))
        self._workers = workers or self._threads
        content = rewritten_encoder(graph, precision, device, fixed_shapes=fixed_shapes) if rewrite else None
        self._encoder = new_session(graph.file, device, 1, content, fixed_shapes=fixed_shapes, precision=precision)
        self._whole_machine_encoder = (
            self._encoder
            if self.on_cuda or self._threads == 1
            else new_session(graph.file, device, self._threads, content, precision=precision)
        )
        self.min_frames = self._find_min_frames()

    @property
    def on_cuda(self) -> bool:
        return self.device != "cpu"

    @property
    def threads(self) -> int:
        return self._threads

    @property
    def num_workers(self) -> int:
        return 1 if self.on_cuda else self._workers

    @property
    def max_batch_frames(self) -> int:
        if not self._takes_lengths:
            return 1  # an export without lengths cannot tell padding from speech: no batches
        return GPU_BATCH_FRAMES if self.on_cuda else CPU_BATCH_FRAMES

    def encoder(self, x: Floats, x_lens: Ints, *, alone: bool = False) -> tuple[Floats, Ints]:
        missing = self.min_frames - x.shape[1]
        if missing > 0:
            x = np.pad(x, ((0, 0), (0, missing), (0, 0)), constant_values=PADDING_VALUE)
        encoder_out, *rest = self._run_encoder(self._whole_machine_encoder if alone else self._encoder, x, x_lens)
        if self._ctc_output:
            encoder_out = with_blank(encoder_out, rest.pop())
        lengths = rest[0] if rest else np.full(len(x), encoder_out.shape[1])
        return encoder_out.astype(np.float32, copy=False), lengths.astype(np.int64, copy=False)

    def bound(self, x: Floats, x_lens: Ints) -> tuple[Any, onnxruntime.InferenceSession]:
        """An I/O binding with the features on the encoder's device and outputs allocated there, and its session."""
        from onnxruntime import OrtValue

        index = gpu_index(self.device)
        place = ("cpu", 0) if index is None else ("cuda", index)
        session = self._whole_machine_encoder
        binding = session.io_binding()
        values: list[NDArray[Any]] = [x, x_lens]
        for tensor, value in zip(self._encoder_inputs, values, strict=False):
            on_device = OrtValue.ortvalue_from_numpy(value.astype(tensor.dtype, copy=False), *place)
            binding.bind_ortvalue_input(tensor.name, on_device)
        for name in self._encoder_outputs:
            binding.bind_output(name, *place)
        return binding, session

    def _run_encoder(self, session: onnxruntime.InferenceSession, x: Floats, x_lens: Ints) -> list[NDArray[Any]]:
        values: list[NDArray[Any]] = [x, x_lens]
        # An export may have no input for lengths.
        return run(session, self._encoder_outputs, list(zip(self._encoder_inputs, values, strict=False)))

    def _find_min_frames(self) -> int:
        """The shortest input in frames that the encoder runs with; `encoder` pads to it, without changing the lengths.

        Most exports run with MIN_FRAMES. Causal Zipformers need the full extent of their convolutions, 121 frames for
        digits-en; ONNX Runtime fails below. Raises EngineError for an encoder that does not run at all.
        """

        def runs_with(num_frames: int) -> EngineError | None:
            x = np.full((1, num_frames, self._feature_dim), PADDING_VALUE, dtype=np.float32)
            try:
                self._run_encoder(self._encoder, x, np.array([num_frames]))
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
