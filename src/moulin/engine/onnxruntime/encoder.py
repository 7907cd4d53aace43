"""The offline encoder on ONNX Runtime."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from moulin.arrays import Floats, Ints
from moulin.bundle.files import Precision
from moulin.bundle.onnx_graph import OnnxGraph
from moulin.engine.batching import CPU_BATCH_FRAMES, GPU_BATCH_FRAMES
from moulin.engine.device import gpu_index
from moulin.engine.exported_encoder import ExportedEncoder, Values, threads_alone
from moulin.engine.onnxruntime.checked_rewrite import open_checked
from moulin.engine.onnxruntime.session import new_session, run
from moulin.errors import OptionsError

if TYPE_CHECKING:
    import onnxruntime


class OnnxRuntimeEncoder(ExportedEncoder):
    """An encoder as ONNX Runtime sessions.

    On the CPU concurrent calls get one thread each, which avoids synchronisation. On more than one core there is a
    second session for a call that is `alone`, with a thread a core.
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
        seconds for each new shape. `ctc_output` and `out` are those of `ExportedEncoder`.

        Raises EngineError where ONNX Runtime, the device or the model does not work.
        """
        if threads is not None and threads < 1:
            raise OptionsError(f"Expected at least 1 thread, got {threads}")
        super().__init__(graph, feature_dim=feature_dim, ctc_output=ctc_output, out=out)
        self.device = device
        self._threads = threads or len(os.sched_getaffinity(0))
        self._workers = workers or self._threads
        self._encoder, content = open_checked(
            graph, device, 1, feature_dim=feature_dim, precision=precision, rewrite=rewrite, fixed_shapes=fixed_shapes
        )
        alone = 1 if self.on_cuda else threads_alone(self._threads)
        self._encoder_alone = (
            self._encoder if alone == 1 else new_session(graph.file, device, alone, content, precision=precision)
        )
        self.min_frames = self._find_min_frames()
        # In int8 the largest value in a call scales all others: alone, words do not depend on what else is spoken. On
        # a CPU batches gain nothing anyway (`CPU_BATCH_FRAMES`).
        self._in_batches = self._takes_lengths and (self.on_cuda or precision != "int8")

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
        if not self._in_batches:
            return 1
        return GPU_BATCH_FRAMES if self.on_cuda else CPU_BATCH_FRAMES

    def bound(self, x: Floats, x_lens: Ints) -> tuple[Any, onnxruntime.InferenceSession]:
        """An I/O binding with the features on the encoder's device and outputs allocated there, and its session."""
        from onnxruntime import OrtValue

        index = gpu_index(self.device)
        place = ("cpu", 0) if index is None else ("cuda", index)
        session = self._encoder_alone
        binding = session.io_binding()
        values: list[NDArray[Any]] = [x, x_lens]
        for tensor, value in zip(self._encoder_inputs, values, strict=False):
            on_device = OrtValue.ortvalue_from_numpy(value.astype(tensor.dtype, copy=False), *place)
            binding.bind_ortvalue_input(tensor.name, on_device)
        for name in self._encoder_outputs:
            binding.bind_output(name, *place)
        return binding, session

    def _infer(self, values: Values, outputs: list[str], *, alone: bool) -> list[NDArray[Any]]:
        return run(self._encoder_alone if alone else self._encoder, outputs, values)
