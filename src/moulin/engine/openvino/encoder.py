"""The offline encoder on OpenVINO."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moulin.arrays import Floats, Ints
from moulin.audio.fbank import PADDING_VALUE
from moulin.bundle.onnx_graph import OnnxGraph
from moulin.bundle.precision import Precision
from moulin.engine.batching import CPU_BATCH_FRAMES
from moulin.engine.exported_encoder import ExportedEncoder, Values, threads_alone
from moulin.engine.openvino.compiled import CompiledModel
from moulin.engine.openvino.parity import check_parity
from moulin.engine.openvino.rewritten import rewritten_for_openvino
from moulin.errors import OptionsError

_LENGTH_STEP = 64
"""OpenVINO prepares its kernels for each new shape, which takes half as long as digits-en's encoder itself, and the
lengths of recordings hardly repeat. So they are padded to multiples of this many frames."""


class OpenVinoEncoder(ExportedEncoder):
    """A compiled encoder: concurrent calls get one thread each. On more than one core it is compiled again for a call
    that is `alone`, with a thread a core."""

    def __init__(
        self,
        graph: OnnxGraph,
        *,
        feature_dim: int,
        precision: Precision,
        threads: int | None = None,
        workers: int | None = None,
        max_frames: int | None = None,
        ctc_output: str | None = None,
        out: str = "encoder_out",
    ) -> None:
        """`precision` is that of the arithmetic on a file in fp32, fp32 or bf16, or int8 for a file in int8, whose
        weights are multiplied in bfloat16. `max_frames` is the model's limit. `threads`, `workers`, `ctc_output` and
        `out` are those of `OnnxRuntimeEncoder`.

        Raises EngineError where OpenVINO or the model does not work, or does not give on speech what ONNX Runtime does.
        """
        if threads is not None and threads < 1:
            raise OptionsError(f"Expected at least 1 thread, got {threads}")
        super().__init__(graph, feature_dim=feature_dim, ctc_output=ctc_output, out=out)
        self._max_frames = max_frames
        self.threads = threads or len(os.sched_getaffinity(0))
        self.num_workers = workers or self.threads
        content = rewritten_for_openvino(graph)
        self._many = CompiledModel(
            content, graph.file, precision=precision, threads=self.num_workers, streams=self.num_workers
        )
        alone = threads_alone(self.threads)
        self._alone = (
            self._many if alone == 1 else CompiledModel(content, graph.file, precision=precision, threads=alone)
        )
        self.min_frames = self._find_min_frames()
        check_parity(graph, self._many, precision, feature_dim=feature_dim)

    @property
    def max_batch_frames(self) -> int:
        return CPU_BATCH_FRAMES if self._takes_lengths else 1

    def encoder(self, x: Floats, x_lens: Ints, *, alone: bool = False) -> tuple[Floats, Ints]:
        frames = x.shape[1]
        missing = -frames % _LENGTH_STEP if self._takes_lengths else 0
        if self._max_frames is not None:
            missing = min(missing, max(0, self._max_frames - frames))
        if missing:
            x = np.pad(x, ((0, 0), (0, missing), (0, 0)), constant_values=PADDING_VALUE)
        return super().encoder(x, x_lens, alone=alone)

    def _infer(self, values: Values, outputs: list[str], *, alone: bool) -> list[NDArray[Any]]:
        return (self._alone if alone else self._many)(values, outputs)
