"""Offline recognition: waveforms in, transcripts out."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType

from moulin.audio.waveform import SAMPLE_RATE
from moulin.bundle.spec import ModelSpec
from moulin.decoding.network import Floats
from moulin.decoding.options import DecodingOptions
from moulin.engine.encoding import BatchedEncoder
from moulin.engine.features import MAX_AUDIO_SEC, TAIL_PADDING_SEC, FeatureExtractor
from moulin.engine.runner import Runner
from moulin.engine.scoring import Scorer
from moulin.transcript import Transcript


class Recognizer:
    """Transcribes batches of utterances with one offline model. Safe to call from several threads."""

    def __init__(
        self,
        spec: ModelSpec,
        runner: Runner,
        *,
        options: DecodingOptions | None = None,
        tail_padding_sec: float = TAIL_PADDING_SEC,
        max_audio_sec: float = MAX_AUDIO_SEC,
    ) -> None:
        self.spec = spec
        self.options = options or DecodingOptions()
        self.runner = runner
        self._features = FeatureExtractor(
            feature_dim=spec.feature_dim,
            threads=runner.threads,
            max_frames=spec.max_frames,
            tail_padding_sec=tail_padding_sec,
            max_audio_sec=max_audio_sec,
        )
        self._encode = BatchedEncoder(runner, joiner_dim=spec.joiner_dim)
        self._score = Scorer(runner, spec.tokens, frame_sec=spec.encoder_frame_sec)

    def transcribe(
        self, waveforms: Sequence[Floats], options: Sequence[DecodingOptions] | None = None
    ) -> list[Transcript]:
        """Transcribe float32 waveforms [num_samples] (16 kHz, mono, in [-1, 1]), each with its own `options`.

        Raises AudioError where one of them cannot be transcribed (see `check`).
        """
        waveforms = [self.check(waveform) for waveform in waveforms]
        encoder_out, encoder_out_lens = self._encode(self._features(waveforms))
        durations_sec = [len(waveform) / SAMPLE_RATE for waveform in waveforms]
        return self._score(encoder_out, encoder_out_lens, durations_sec, options or [self.options] * len(waveforms))

    def check(self, waveform: Floats, *, what: str = "waveform") -> Floats:
        """`waveform`, which messages call `what`, as `transcribe` can use it.

        Raises AudioError for NaN, a wrong scale or too great a length.
        """
        return self._features.check(waveform, what=what)

    def close(self) -> None:
        """Stop the worker threads."""
        self._features.close()
        self._encode.close()

    def __enter__(self) -> Recognizer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
