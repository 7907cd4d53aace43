"""Offline recognition on the GPU engine: features, encoder and searches on the card."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from moulin.arrays import Floats
from moulin.audio.waveform import MAX_PEAK, SAMPLE_RATE, check_waveform
from moulin.bundle.spec import ModelSpec
from moulin.decoding.context_graph import ContextGraph
from moulin.decoding.found import Hypothesis
from moulin.decoding.language_model import Fusion
from moulin.decoding.row_options import RowOptions
from moulin.encoders.transducer import Transducer
from moulin.engine.features import TAIL_PADDING_SEC, check_duration
from moulin.engine.gpu.kernels import complete_on, most_frames, utterance_kernels
from moulin.engine.gpu.model import open_predictor
from moulin.engine.limits import MAX_AUDIO_SEC
from moulin.engine.pipeline import Answer
from moulin.engine.precision_error import precision_error
from moulin.engine.torch.prediction import DTYPES, torch_device
from moulin.errors import AudioError, EngineError, MoulinError, first_line
from moulin.gpu.arena import AutomatonArena
from moulin.gpu.open_encoder import gpu_encoder
from moulin.gpu.pipeline import GpuPipeline, Result

WARM_UP_SEC = 20.0
"""Graphs of single utterances of up to this length are captured by `warm_up`, others when they are first needed."""

_NOTHING = Hypothesis((), (), (), 0.0)


class GpuEnginePipeline:
    """A `Pipeline` of a checkpoint, by `moulin.gpu`."""

    def __init__(
        self,
        spec: ModelSpec,
        transducer: Transducer,
        *,
        device: str = "cuda",
        cuda_graphs: bool = True,
        tail_padding_sec: float = TAIL_PADDING_SEC,
        max_audio_sec: float = MAX_AUDIO_SEC,
        hotwords: ContextGraph | None = None,
        fusion: Fusion | None = None,
    ) -> None:
        """`transducer` is the loaded one of `spec`, in whose precision it runs, fp16 or bf16. `hotwords` are the
        server's own, and `fusion` its language model.

        Raises EngineError where the device does not work or the model has a form that the GPU engine does not know.
        """
        self._spec, self._max_audio_sec = spec, max_audio_sec
        on, dtype = torch_device(device), DTYPES[spec.precision]
        limits = {"max_audio_sec": max_audio_sec, "tail_padding_sec": tail_padding_sec}
        complete_on(on, utterance_kernels(spec, transducer, **limits))
        encoder = gpu_encoder(transducer, device=on, dtype=dtype, max_frames=most_frames(**limits))
        predictor = open_predictor(spec, transducer, device=on, dtype=dtype)
        self._pipeline = GpuPipeline(
            encoder,
            predictor,
            device=on,
            tail_samples=round(tail_padding_sec * SAMPLE_RATE),
            cuda_graphs=cuda_graphs,
            arena=AutomatonArena(on, server=hotwords, fusion=fusion),
        )

    def warm_up(self, longest_sec: float = WARM_UP_SEC) -> None:
        """Compile kernels and capture graphs, so that no utterance waits for them.

        Raises EngineError where the precision is not enough for this checkpoint.
        """
        self._pipeline.warm_up(min(longest_sec, self._max_audio_sec))
        noise = np.random.default_rng(0).normal(0, 0.1, SAMPLE_RATE).astype(np.float32)
        self([noise], RowOptions.defaults(1), ["noise"], _raise)

    def __call__(self, waveforms: Sequence[Floats], options: RowOptions, names: Sequence[str], answer: Answer) -> None:
        """See `Pipeline`; int16 waveforms are copied to the card as they are, half as many bytes as float32."""
        empty = [position for position, waveform in enumerate(waveforms) if not len(waveform)]
        answer(empty, [_NOTHING] * len(empty))
        for dtype in (np.float32, np.int16):
            some = [row for row, waveform in enumerate(waveforms) if waveform.dtype == dtype and len(waveform)]

            def result(
                positions: Sequence[int],
                hypotheses: Sequence[Hypothesis],
                peaks: Sequence[float],
                some: list[int] = some,
            ) -> None:
                rows = [some[position] for position in positions]
                found = zip(rows, hypotheses, peaks, strict=True)
                answer(rows, [self._wrong(waveforms[row], one, peak, names[row]) or one for row, one, peak in found])

            if some:
                self._run([waveforms[row] for row in some], options.take(np.array(some)), result)

    def check_form(self, waveform: Floats, *, what: str) -> Floats:
        """`check` of all but the samples, whose peak the GPU returns."""
        waveform = np.asarray(waveform)
        if waveform.ndim != 1 or waveform.dtype != np.float32:
            return self.check(waveform, what=what)
        check_duration(len(waveform) / SAMPLE_RATE, self._max_audio_sec, what=what)
        return waveform

    def check(self, waveform: Floats, *, what: str) -> Floats:
        waveform = np.asarray(waveform)
        if waveform.ndim != 1 or waveform.dtype != np.int16:
            waveform = check_waveform(waveform, what=what)
        check_duration(len(waveform) / SAMPLE_RATE, self._max_audio_sec, what=what)
        return waveform

    @property
    def num_workers(self) -> int:
        return 1

    @property
    def max_utterance_sec(self) -> float:
        return self._max_audio_sec

    def capture_all(self) -> None:
        """See `GpuPipeline.capture_all`."""
        self._pipeline.capture_all()

    def close(self) -> None:
        self._pipeline.close()

    def _wrong(self, waveform: Floats, hypothesis: Hypothesis, peak: float, what: str) -> MoulinError | None:
        """The error of `waveform`, if it has no transcript."""
        if not peak <= MAX_PEAK:
            try:
                check_waveform(waveform, what=what)
            except AudioError as error:
                return error
        if not math.isfinite(hypothesis.score):
            return precision_error(self._spec, f"{what}: expected numbers from {self._spec.file}")
        return None

    def _run(self, waveforms: Sequence[Floats], options: RowOptions, result: Result) -> None:
        try:
            self._pipeline(waveforms, options, result)
        except RuntimeError as error:  # too little memory, for example
            raise EngineError(f"The GPU failed: {first_line(error)}") from error


def _raise(_positions: Sequence[int], found: Sequence[Hypothesis | MoulinError]) -> None:
    for one in found:
        if isinstance(one, MoulinError):
            raise one
