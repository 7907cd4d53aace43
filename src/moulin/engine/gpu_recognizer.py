"""Offline recognition with everything on the GPU: waveforms in, transcripts out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import TracebackType

import numpy as np
import torch

from moulin.audio.waveform import SAMPLE_RATE, check_waveform
from moulin.bundle.spec import FRAME_SHIFT_SEC, CheckpointSpec
from moulin.bundle.transducer import load_transducer
from moulin.decoding.network import Floats, Hypothesis
from moulin.decoding.options import DecodingOptions
from moulin.decoding.search import rows_by_options
from moulin.engine.features import MAX_AUDIO_SEC, TAIL_PADDING_SEC, check_duration
from moulin.engine.scoring import spell
from moulin.engine.torch_prediction import torch_device
from moulin.errors import EngineError, first_line
from moulin.gpu.open_encoder import gpu_encoder
from moulin.gpu.pipeline import GpuPipeline
from moulin.gpu.predictor import Predictor
from moulin.transcript import Transcript

WARM_UP_SEC = 20.0
"""Graphs of single utterances up to here are captured before the first one comes; others when they are first needed."""


class GpuRecognizer:
    """What `Recognizer` does, for checkpoints, on a GPU from waveform to hypothesis. Safe to call from several threads."""

    def __init__(
        self,
        spec: CheckpointSpec,
        *,
        device: str = "cuda",
        dtype: torch.dtype = torch.float16,
        cuda_graphs: bool = True,
        options: DecodingOptions | None = None,
        tail_padding_sec: float = TAIL_PADDING_SEC,
        max_audio_sec: float = MAX_AUDIO_SEC,
    ) -> None:
        """Raises BundleError for the checkpoint, and EngineError where the device does not work or the model has a form
        that the GPU engine does not know."""
        self.spec, self.max_audio_sec = spec, max_audio_sec
        self.options = options or DecodingOptions()
        on = torch_device(device)
        transducer = load_transducer([spec.checkpoint])
        max_frames = round((max_audio_sec + tail_padding_sec) / FRAME_SHIFT_SEC) + 1
        encoder = gpu_encoder(transducer, device=on, dtype=dtype, max_frames=max_frames)
        unknown = [token for token in spec.tokens.skipped_ids if token != 0]
        try:
            predictor = Predictor.of(transducer.decoder, transducer.joiner, device=on, dtype=dtype)
        except ValueError as error:
            raise EngineError(f"{spec.checkpoint}: {error}", hint="serve it with --no-gpu-search") from error
        self._pipeline = GpuPipeline(
            encoder,
            predictor,
            device=on,
            unk_id=unknown[0] if unknown else -1,
            tail_samples=round(tail_padding_sec * SAMPLE_RATE),
            cuda_graphs=cuda_graphs,
        )

    def warm_up(self, longest_sec: float = WARM_UP_SEC) -> None:
        """Compile kernels and capture graphs, that no utterance waits for it."""
        self._pipeline.warm_up(min(longest_sec, self.max_audio_sec))

    def transcribe(
        self, waveforms: Sequence[Floats], options: Sequence[DecodingOptions] | None = None
    ) -> list[Transcript]:
        """Transcribe waveforms [num_samples] (16 kHz, mono; float32 in [-1, 1] or int16), each with its own `options`.

        Raises AudioError where one of them cannot be transcribed (see `check`).
        """
        waveforms = [self.check(waveform) for waveform in waveforms]
        nothing = Hypothesis((), (), (), 0.0)
        transcripts = [self._spell(nothing, 0)] * len(waveforms)
        chosen = options or [self.options] * len(waveforms)
        for each, rows in rows_by_options(chosen).items():
            for dtype in (np.float32, np.int16):
                some = [row for row in rows if waveforms[row].dtype == dtype and len(waveforms[row])]

                def result(position: int, hypothesis: Hypothesis, some: list[int] = some) -> None:
                    row = some[position]
                    transcripts[row] = self._spell(hypothesis, len(waveforms[row]))

                if some:
                    self._run([waveforms[row] for row in some], each, result)
        return transcripts

    def check(self, waveform: Floats, *, what: str = "waveform") -> Floats:
        """`waveform`, which messages call `what`, as `transcribe` can use it: int16 stays what it is.

        Raises AudioError for NaN, a wrong scale or too great a length.
        """
        waveform = np.asarray(waveform)
        if waveform.ndim != 1 or waveform.dtype != np.int16:
            waveform = check_waveform(waveform, what=what)
        check_duration(len(waveform) / SAMPLE_RATE, self.max_audio_sec, what=what)
        return waveform

    def close(self) -> None:
        """Stop the worker threads."""
        self._pipeline.close()

    def __enter__(self) -> GpuRecognizer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _run(
        self, waveforms: Sequence[Floats], options: DecodingOptions, result: Callable[[int, Hypothesis], None]
    ) -> None:
        try:
            self._pipeline(waveforms, options, result)
        except RuntimeError as error:  # want of memory, say
            raise EngineError(f"The GPU failed: {first_line(error)}") from error

    def _spell(self, hypothesis: Hypothesis, num_samples: int) -> Transcript:
        return spell(
            self.spec.tokens,
            hypothesis,
            frame_sec=self.spec.encoder_frame_sec,
            duration_sec=num_samples / SAMPLE_RATE,
        )
