"""Offline recognition: waveforms in, transcripts out."""

from __future__ import annotations

from collections.abc import Sequence

from moulin.arrays import Floats
from moulin.audio.waveform import SAMPLE_RATE
from moulin.bundle.spec import ModelSpec
from moulin.decoding.options import DecodingOptions
from moulin.engine.encoding import BatchedEncoder
from moulin.engine.features import TAIL_PADDING_SEC, FeatureExtractor
from moulin.engine.limits import MAX_AUDIO_SEC
from moulin.engine.offline_recognizer import OfflineRecognizer
from moulin.engine.runner import Runner
from moulin.engine.scoring import Scorer
from moulin.transcript import Transcript


class Recognizer(OfflineRecognizer):
    """Features on the CPU, the networks by a `Runner`, the search on the CPU."""

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
        waveforms = [self.check(waveform) for waveform in waveforms]
        encoder_out, encoder_out_lens = self._encode(self._features(waveforms))
        durations_sec = [len(waveform) / SAMPLE_RATE for waveform in waveforms]
        return self._score(encoder_out, encoder_out_lens, durations_sec, options or [self.options] * len(waveforms))

    def check(self, waveform: Floats, *, what: str = "waveform") -> Floats:
        return self._features.check(waveform, what=what)

    @property
    def max_utterance_sec(self) -> float:
        return self._features.max_utterance_sec

    def close(self) -> None:
        self._features.close()
        self._encode.close()
