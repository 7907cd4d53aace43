"""Offline recognition: waveforms in, transcripts out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType

import numpy as np

from moulin.audio.fbank import Fbank, FbankOptions, pad_features
from moulin.audio.waveform import SAMPLE_RATE, check_waveform
from moulin.bundle.spec import FRAME_SHIFT_SEC, MIN_FRAMES, ModelSpec
from moulin.decoding.network import Floats, Hypothesis, Ints
from moulin.decoding.options import DecodingOptions
from moulin.decoding.search import SEARCHES, rows_by_options
from moulin.engine.batching import micro_batches
from moulin.engine.runner import Runner
from moulin.engine.words import spell_words
from moulin.errors import AudioError
from moulin.transcript import Transcript

TAIL_PADDING_SEC = 0.3
"""Silence appended to every utterance: a recording that stops with the last sound loses its last word otherwise."""

MAX_AUDIO_SEC = 120.0
"""Self-attention needs memory with the square of the length. A model may take less: see `ModelSpec.max_frames`."""


def model_max_sec(spec: ModelSpec, tail_padding_sec: float = TAIL_PADDING_SEC) -> float:
    """The longest utterance for which an offline model was exported; infinity where any will do."""
    return math.inf if spec.max_frames is None else spec.max_frames * FRAME_SHIFT_SEC - tail_padding_sec


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
        self.max_audio_sec = max_audio_sec
        self._runner = runner
        self._fbank = Fbank(FbankOptions(num_mel_bins=spec.feature_dim))
        self._tail = np.zeros(round(tail_padding_sec * SAMPLE_RATE), dtype=np.float32)
        self._model_max_sec = model_max_sec(spec, tail_padding_sec)
        self._feature_workers = ThreadPoolExecutor(runner.threads, thread_name_prefix="moulin-fbank")
        self._encoder_workers = ThreadPoolExecutor(runner.num_workers, thread_name_prefix="moulin-encoder")

    def transcribe(
        self, waveforms: Sequence[Floats], options: Sequence[DecodingOptions] | None = None
    ) -> list[Transcript]:
        """Transcribe float32 waveforms [num_samples] (16 kHz, mono, in [-1, 1]), each with its own `options`.

        Raises AudioError where one of them cannot be transcribed (see `check`).
        """
        waveforms = [self.check(waveform) for waveform in waveforms]
        features = list(self._feature_workers.map(self._features, waveforms))
        encoder_out, encoder_out_lens = self._encode(features)
        hypotheses = self._search(encoder_out, encoder_out_lens, options or [self.options] * len(waveforms))
        return [self._transcript(*pair) for pair in zip(waveforms, hypotheses, strict=True)]

    def check(self, waveform: Floats, *, what: str = "waveform") -> Floats:
        """`waveform`, which messages call `what`, as `transcribe` can use it.

        Raises AudioError for NaN, a wrong scale or too great a length.
        """
        waveform = check_waveform(waveform, what=what)
        duration_sec = len(waveform) / SAMPLE_RATE
        if duration_sec > self._model_max_sec:
            raise AudioError(
                f"{what}: expected at most {self._model_max_sec:.1f} s of audio at once, for which this model was "
                f"exported, got {duration_sec:.1f} s",
                hint="cut it at silences, as 'moulin transcribe' and the gateway do",
            )
        if duration_sec > self.max_audio_sec:
            raise AudioError(
                f"{what}: expected at most {self.max_audio_sec:g} s of audio at once, got {duration_sec:.1f} s",
                hint="cut it at silences, or raise --max-audio-sec where memory allows",
            )
        return waveform

    @property
    def max_utterance_sec(self) -> float:
        """The longest waveform that `check` lets pass."""
        return min(self._model_max_sec, self.max_audio_sec)

    def close(self) -> None:
        """Stop the worker threads."""
        self._feature_workers.shutdown()
        self._encoder_workers.shutdown()

    def __enter__(self) -> Recognizer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _features(self, waveform: Floats) -> Floats:
        """float32 [T, feature_dim] of the waveform and its tail of silence; nothing has no tail."""
        return self._fbank(np.concatenate([waveform, self._tail]) if len(waveform) else waveform)

    def _encode(self, features: Sequence[Floats]) -> tuple[Floats, Ints]:
        """encoder_out float32 [N, T', joiner_dim], padded with zeros, and its lengths: 0 for no features."""
        batches = micro_batches(
            {position: len(frames) for position, frames in enumerate(features) if len(frames)},
            max_batch_frames=self._runner.max_batch_frames,
            num_workers=self._runner.num_workers,
        )
        alone = len(batches) == 1

        def encode(batch: Sequence[int]) -> tuple[Floats, Ints]:
            x, x_lens = pad_features([features[position] for position in batch], MIN_FRAMES)
            return self._runner.encoder(x, x_lens, alone=alone)

        outputs = list(self._encoder_workers.map(encode, batches))
        encoder_out_lens = np.zeros(len(features), dtype=np.int64)
        longest = max((out.shape[1] for out, _ in outputs), default=0)
        encoder_out = np.zeros((len(features), longest, self.spec.joiner_dim), dtype=np.float32)
        for batch, (out, lens) in zip(batches, outputs, strict=True):
            encoder_out[batch, : out.shape[1]] = out
            encoder_out_lens[batch] = lens
        return encoder_out, encoder_out_lens

    def _search(
        self, encoder_out: Floats, encoder_out_lens: Ints, options: Sequence[DecodingOptions]
    ) -> list[Hypothesis]:
        """One search for each set of options that occurs."""
        hypotheses: dict[int, Hypothesis] = {}
        for chosen, rows in rows_by_options(options).items():
            search = SEARCHES[chosen.method]
            found = search(self._runner, encoder_out[rows], encoder_out_lens[rows], chosen)
            hypotheses.update(zip(rows, found, strict=True))
        return [hypotheses[row] for row in range(len(options))]

    def _transcript(self, waveform: Floats, hypothesis: Hypothesis) -> Transcript:
        duration_sec = len(waveform) / SAMPLE_RATE
        tokens, frame_sec = self.spec.tokens, self.spec.encoder_frame_sec
        return Transcript(
            text=tokens.text(hypothesis.tokens),
            words=spell_words(tokens, hypothesis, frame_sec=frame_sec, duration_sec=duration_sec),
            duration_sec=round(duration_sec, 3),
        )
