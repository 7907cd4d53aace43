"""Offline recognition with everything on the GPU: waveforms in, transcripts out."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from moulin.arrays import Floats
from moulin.audio.waveform import MAX_PEAK, SAMPLE_RATE, check_waveform
from moulin.bundle.spec import FRAME_SHIFT_SEC, CheckpointSpec
from moulin.bundle.transducer import load_transducer
from moulin.decoding.network import Hypothesis
from moulin.decoding.options import DecodingOptions
from moulin.decoding.search import rows_by_options
from moulin.engine.features import TAIL_PADDING_SEC, check_duration
from moulin.engine.gpu.model import open_predictor, precision_error, unk_id
from moulin.engine.limits import MAX_AUDIO_SEC
from moulin.engine.offline_recognizer import OfflineRecognizer
from moulin.engine.scoring import spell
from moulin.engine.torch.prediction import DTYPES, torch_device
from moulin.errors import AudioError, EngineError, MoulinError, first_line
from moulin.gpu.open_encoder import gpu_encoder
from moulin.gpu.pipeline import GpuPipeline, Result
from moulin.transcript import Transcript

WARM_UP_SEC = 20.0
"""Graphs of single utterances up to here are captured before the first one comes; others when they are first needed."""


class GpuRecognizer(OfflineRecognizer):
    """Features, networks and search of a checkpoint on a GPU, by `moulin.gpu`."""

    def __init__(
        self,
        spec: CheckpointSpec,
        *,
        device: str = "cuda",
        cuda_graphs: bool = True,
        options: DecodingOptions | None = None,
        tail_padding_sec: float = TAIL_PADDING_SEC,
        max_audio_sec: float = MAX_AUDIO_SEC,
    ) -> None:
        """In the spec's precision, fp16 or bf16.

        Raises BundleError for the checkpoint, and EngineError where the device does not work or the model has a form
        that the GPU engine does not know.
        """
        self.spec, self._max_audio_sec = spec, max_audio_sec
        self.options = options or DecodingOptions()
        on, dtype = torch_device(device), DTYPES[spec.precision]
        transducer = load_transducer([spec.checkpoint])
        max_frames = round((max_audio_sec + tail_padding_sec) / FRAME_SHIFT_SEC) + 1
        encoder = gpu_encoder(transducer, device=on, dtype=dtype, max_frames=max_frames)
        predictor = open_predictor(spec, transducer, device=on, dtype=dtype)
        self._pipeline = GpuPipeline(
            encoder,
            predictor,
            device=on,
            unk_id=unk_id(spec),
            tail_samples=round(tail_padding_sec * SAMPLE_RATE),
            cuda_graphs=cuda_graphs,
        )

    def warm_up(self, longest_sec: float = WARM_UP_SEC) -> None:
        """Compile kernels and capture graphs, that no utterance waits for it.

        Raises EngineError where the precision is not enough for this checkpoint.
        """
        self._pipeline.warm_up(min(longest_sec, self._max_audio_sec))
        noise = np.random.default_rng(0).normal(0, 0.1, SAMPLE_RATE).astype(np.float32)
        self.transcribe([noise])

    def transcribe(
        self, waveforms: Sequence[Floats], options: Sequence[DecodingOptions] | None = None
    ) -> list[Transcript]:
        """See the base class; int16 waveforms stay what they are, which halves what is copied."""
        waveforms = [self.check_form(waveform) for waveform in waveforms]
        chosen = options or [self.options] * len(waveforms)
        transcripts = []
        for answer in self.transcribe_each(waveforms, chosen, ["waveform"] * len(waveforms)):
            if isinstance(answer, MoulinError):
                raise answer
            transcripts.append(answer)
        return transcripts

    def transcribe_each(
        self, waveforms: Sequence[Floats], options: Sequence[DecodingOptions], names: Sequence[str]
    ) -> list[Transcript | MoulinError]:
        nothing = self._spell(Hypothesis((), (), (), 0.0), 0)
        answers: list[Transcript | MoulinError] = [nothing] * len(waveforms)
        for each, rows in rows_by_options(options).items():
            for dtype in (np.float32, np.int16):
                some = [row for row in rows if waveforms[row].dtype == dtype and len(waveforms[row])]

                def result(position: int, hypothesis: Hypothesis, peak: float, some: list[int] = some) -> None:
                    row = some[position]
                    wrong = self._wrong(waveforms[row], hypothesis, peak, names[row])
                    answers[row] = wrong or self._spell(hypothesis, len(waveforms[row]))

                if some:
                    self._run([waveforms[row] for row in some], each, result)
        return answers

    def check_form(self, waveform: Floats, *, what: str = "waveform") -> Floats:
        """`check` without a look at the samples, of which the GPU tells the peak."""
        waveform = np.asarray(waveform)
        if waveform.ndim != 1 or waveform.dtype != np.float32:
            return self.check(waveform, what=what)
        check_duration(len(waveform) / SAMPLE_RATE, self._max_audio_sec, what=what)
        return waveform

    def check(self, waveform: Floats, *, what: str = "waveform") -> Floats:
        waveform = np.asarray(waveform)
        if waveform.ndim != 1 or waveform.dtype != np.int16:
            waveform = check_waveform(waveform, what=what)
        check_duration(len(waveform) / SAMPLE_RATE, self._max_audio_sec, what=what)
        return waveform

    @property
    def max_utterance_sec(self) -> float:
        return self._max_audio_sec

    def close(self) -> None:
        self._pipeline.close()

    def _wrong(self, waveform: Floats, hypothesis: Hypothesis, peak: float, what: str) -> MoulinError | None:
        """Why there is no transcript of `waveform`, if there is none."""
        if not peak <= MAX_PEAK:
            try:
                check_waveform(waveform, what=what)
            except AudioError as error:
                return error
        if not math.isfinite(hypothesis.score):
            return precision_error(self.spec, f"{what}: expected numbers from {self.spec.file}")
        return None

    def _run(self, waveforms: Sequence[Floats], options: DecodingOptions, result: Result) -> None:
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
