"""Kaldi log-mel filter-bank features as Icefall trains on them, computed by kaldi-native-fbank.

Frames of 25 ms, one every 10 ms: DC removal, pre-emphasis 0.97, Povey window, 512-point power spectrum, mel filters,
natural logarithm with a floor of log(1.19e-7) (the epsilon of float32). No dither.

Two settings are easy to get wrong, which costs accuracy without an error, and are wrong in sherpa's Triton recipes
(the second only in the streaming ones):

* `high_freq` is -400, which Kaldi reads as 400 Hz below the Nyquist frequency (7600 Hz). Icefall's recipes compute
  features with lhotse's `Fbank`, which has that default; kaldifeat's and kaldi-native-fbank's default is 0
  (8000 Hz), which shifts every filter.
* `snip_edges` is False (lhotse's default too): frame t is centred on sample 160 t + 80, the audio is mirrored for
  frames that extend beyond an end, and N samples give (N + 80) // 160 frames. The libraries' default is True: frames
  start 120 samples (7.5 ms) later and the last ones are missing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moulin.audio.waveform import check_waveform
from moulin.errors import AudioError, EngineError, OptionsError
from moulin.extras import install_hint

# log(1e-10), the value that lhotse pads a batch's features with in training.
PADDING_VALUE = -23.025850929940457


@dataclass(frozen=True)
class FbankOptions:
    """Parameters of a model's features; the defaults are Icefall's. Raises OptionsError for impossible values."""

    num_mel_bins: int = 80
    sample_rate: int = 16000
    low_freq: float = 20.0  # Hz
    high_freq: float = -400.0  # Hz; 0 or negative: counted from the Nyquist frequency
    frame_length_ms: float = 25.0
    frame_shift_ms: float = 10.0

    def __post_init__(self) -> None:
        nyquist = self.sample_rate / 2
        if not 0 <= self.low_freq < self.top_freq <= nyquist:
            raise OptionsError(
                f"expected 0 <= low_freq < high_freq <= {nyquist:g} Hz,"
                f" got low_freq {self.low_freq:g} and high_freq {self.high_freq:g}"
            )
        if self.num_mel_bins < 3:
            raise OptionsError(f"expected num_mel_bins of at least 3, got {self.num_mel_bins}")
        if not 0 < self.frame_shift_ms <= self.frame_length_ms:
            raise OptionsError(
                "expected 0 < frame_shift_ms <= frame_length_ms,"
                f" got {self.frame_shift_ms:g} and {self.frame_length_ms:g}"
            )

    @property
    def top_freq(self) -> float:
        """`high_freq` counted from 0 Hz."""
        return self.high_freq if self.high_freq > 0 else self.sample_rate / 2 + self.high_freq

    @property
    def frame_length_samples(self) -> int:
        return int(self.sample_rate * self.frame_length_ms / 1000)

    @property
    def frame_shift_samples(self) -> int:
        return int(self.sample_rate * self.frame_shift_ms / 1000)


def kaldi_options(options: FbankOptions) -> Any:
    """`options` as a `kaldi_native_fbank.FbankOptions`, for use with the library's own extractor.

    Raises EngineError when kaldi-native-fbank is not installed.
    """
    try:
        import kaldi_native_fbank as knf
    except ModuleNotFoundError as error:
        raise EngineError(
            "kaldi-native-fbank, which computes the features, is not installed",
            hint=install_hint("engine"),
        ) from error
    kaldi = knf.FbankOptions()
    kaldi.frame_opts.samp_freq = options.sample_rate
    kaldi.frame_opts.frame_length_ms = options.frame_length_ms
    kaldi.frame_opts.frame_shift_ms = options.frame_shift_ms
    kaldi.frame_opts.dither = 0.0  # the same audio always gives the same text
    kaldi.frame_opts.snip_edges = False
    kaldi.mel_opts.num_bins = options.num_mel_bins
    kaldi.mel_opts.low_freq = options.low_freq
    kaldi.mel_opts.high_freq = options.high_freq
    return kaldi


class Fbank:
    """Features of whole utterances.

    One object serves any number of threads: a call shares no state with others, and kaldi-native-fbank computes without
    the interpreter lock.
    """

    def __init__(self, options: FbankOptions | None = None) -> None:
        self.options = options or FbankOptions()
        self._kaldi_options = kaldi_options(self.options)
        try:
            self._new_extractor()
        except ValueError as error:  # a filter so narrow that it contains no FFT bin
            raise OptionsError(
                f"{self.options} cannot be computed: {error}", hint="choose fewer num_mel_bins"
            ) from error

    def __call__(self, waveform: NDArray[np.float32]) -> NDArray[np.float32]:
        """Features of samples [N] in [-1, 1] at `options.sample_rate`: float32 [num_frames(N), num_mel_bins].

        Raises AudioError where `check_waveform` does.
        """
        samples = check_waveform(waveform)
        num_frames = self.num_frames(samples.size)
        extractor = self._new_extractor()
        # The binding reads a sequence of floats item by item. A memoryview gives its items three times as fast as an
        # array, which saves a quarter of the whole call and half of the time that the interpreter lock is held.
        extractor.accept_waveform(self.options.sample_rate, samples.data)
        extractor.input_finished()
        # np.stack([extractor.get_frame(i) ...]) at half the cost: the library has no call that returns all frames.
        features = bytearray().join(map(extractor.get_frame, range(num_frames)))
        return np.frombuffer(features, np.float32).reshape(num_frames, self.options.num_mel_bins)

    def _new_extractor(self) -> Any:
        import kaldi_native_fbank as knf

        return knf.OnlineFbank(self._kaldi_options)

    def num_frames(self, num_samples: int) -> int:
        """Frames of `num_samples` samples: one for each frame shift, rounded to the nearest."""
        shift = self.options.frame_shift_samples
        return (num_samples + shift // 2) // shift


def pad_features(
    features: Sequence[NDArray[np.float32]], min_frames: int = 0
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """A batch of utterances [T_i, D], padded with PADDING_VALUE: float32 [B, T, D] and lengths int64 [B].

    T is the longest T_i, but at least `min_frames`; an utterance shorter than `min_frames` has length `min_frames`,
    because encoders subsample and fail on fewer frames than one output frame needs.

    Raises AudioError for an empty batch and for features of different sizes D.
    """
    if not features:
        raise AudioError("expected the features of at least one utterance, got an empty batch")
    size = features[0].shape[-1]
    for index, utterance in enumerate(features):
        if utterance.ndim != 2 or utterance.shape[1] != size:
            raise AudioError(
                f"expected features with shape [T, {size}], got {list(utterance.shape)} in utterance {index}"
            )
    lengths = np.maximum([len(utterance) for utterance in features], min_frames).astype(np.int64)
    batch = np.empty((len(features), int(lengths.max()), size), np.float32)
    for row, utterance in zip(batch, features, strict=True):
        row[: len(utterance)] = utterance
        row[len(utterance) :] = PADDING_VALUE
    return batch, lengths
