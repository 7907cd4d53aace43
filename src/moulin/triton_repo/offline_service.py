"""The offline service without Triton: requests with several utterances in, transcripts out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from moulin.arrays import Floats
from moulin.decoding.options import DecodingOptions
from moulin.engine.together import answer_together
from moulin.errors import AudioError, EngineError, MoulinError, OptionsError, first_line
from moulin.quoting import cut
from moulin.transcript import Transcript


@dataclass(frozen=True)
class OfflineRequest:
    """The tensors of one request: `wav` float32 [B, N] or `wav_int16` int16 [B, N], `wav_lens` int32 [B, 1], `options`
    JSON for each row."""

    wav: Floats | None
    wav_lens: NDArray[np.int32] | None
    options: Sequence[bytes] | None = None
    wav_int16: NDArray[np.int16] | None = None

    @property
    def samples(self) -> Floats | NDArray[np.int16]:
        """The samples, float32 or int16 [B, N]. Raises AudioError where neither or both are given."""
        given = [samples for samples in (self.wav, self.wav_int16) if samples is not None]
        if len(given) != 1:
            raise AudioError(f"Expected either WAV or WAV_INT16, got {'both' if given else 'neither'}")
        return given[0]

    @property
    def lengths(self) -> NDArray[np.int32]:
        """`wav_lens`. Raises AudioError where it is missing, which Triton does not check beside optional inputs."""
        if self.wav_lens is None:
            raise AudioError("Expected WAV_LENS, how many samples of each row are audio, got none")
        return self.wav_lens

    @property
    def is_mostly_padding(self) -> bool:
        """Whether less than a quarter of the samples are audio."""
        return 4 * int(self.lengths.clip(0).sum(dtype=np.int64)) < self.samples.size


class Check(Protocol):
    """A check of a waveform: `FeatureExtractor.check`, or `check_form` of a recognizer."""

    def __call__(self, waveform: Floats, *, what: str = ...) -> Floats: ...


def read_waveforms(wav: Floats | NDArray[np.int16], wav_lens: NDArray[np.int32], check: Check) -> list[Floats]:
    """The rows of WAV [B, N], each as long as WAV_LENS [B, 1] says. Raises AudioError."""
    if wav.ndim != 2 or wav_lens.size != len(wav):
        raise AudioError(f"Expected WAV [B, N] and WAV_LENS [B, 1], got {list(wav.shape)} and {list(wav_lens.shape)}")
    waveforms = []
    for row, (samples, length) in enumerate(zip(wav, wav_lens.ravel().tolist(), strict=True)):
        if not 0 <= length <= len(samples):
            raise AudioError(
                f"Expected WAV_LENS of row {row} to be 0 to {len(samples)}, the samples in WAV, got {length}",
                hint="WAV_LENS counts samples, not bytes or seconds",
            )
        waveforms.append(check(samples[:length], what=f"WAV row {row}"))
    return waveforms


def read_options(options: Sequence[bytes] | None, count: int, usual: DecodingOptions) -> list[DecodingOptions]:
    """The options of `count` rows: those in OPTIONS, else the `usual` ones. Raises OptionsError."""
    if options and len(options) != count:
        raise OptionsError(f"Expected OPTIONS [{count}, 1], one for each row of WAV, got {len(options)}")
    return [usual.updated_from_json(row) for row in options] if options else [usual] * count


class Transcriber(Protocol):
    """The part of `Recognizer` that the service uses."""

    options: DecodingOptions

    def check_form(self, waveform: Floats, *, what: str = ...) -> Floats: ...

    def transcribe_each(
        self, waveforms: Sequence[Floats], options: Sequence[DecodingOptions], names: Sequence[str]
    ) -> list[Transcript | MoulinError]: ...


Utterance = tuple[Floats, DecodingOptions, str]
"""Waveform, options, and the name in messages."""


class OfflineService:
    """Answers batches of requests. What is wrong with one request never touches another."""

    def __init__(self, recognizer: Transcriber) -> None:
        self._recognizer = recognizer

    def answer(self, requests: Sequence[OfflineRequest]) -> list[list[Transcript] | MoulinError]:
        """The transcripts of each request, or its error; all requests in one batch."""
        checked = [self.check(request) for request in requests]
        good = [utterances for utterances in checked if not isinstance(utterances, MoulinError)]
        answers = iter(answer_together(good, self._transcribe))
        return [answer if isinstance(answer, MoulinError) else next(answers) for answer in checked]

    def answer_one(self, utterances: list[Utterance]) -> list[Transcript] | MoulinError:
        """The transcripts of one request that has passed `check`, or its error."""
        (answer,) = answer_together([utterances], self._transcribe)
        return answer

    def _transcribe(self, requests: Sequence[list[Utterance]]) -> list[list[Transcript] | MoulinError]:
        """Transcribe all requests in one batch."""
        everything = [utterance for request in requests for utterance in request]
        waveforms, options, names = zip(*everything, strict=True) if everything else ((), (), ())
        answers = iter(self._recognizer.transcribe_each(waveforms, options, names))
        return [_together([next(answers) for _ in request]) for request in requests]

    def check(self, request: OfflineRequest) -> list[Utterance] | MoulinError:
        """The utterances of a request, which may share memory with its tensors, or what is wrong with it."""
        try:
            return self._utterances(request)
        except MoulinError as error:
            return error
        except Exception as error:  # whatever a request makes fail must stay its own failure
            return unreadable(error)

    def _utterances(self, request: OfflineRequest) -> list[Utterance]:
        waveforms = read_waveforms(request.samples, request.lengths, self._recognizer.check_form)
        options = read_options(request.options, len(waveforms), self._recognizer.options)
        return [(*pair, f"WAV row {row}") for row, pair in enumerate(zip(waveforms, options, strict=True))]


def unreadable(error: Exception) -> EngineError:
    """The error of a request that cannot be read because of an unexpected `error`."""
    return EngineError(f"The request cannot be read: {type(error).__name__}: {cut(first_line(error), 200)}")


def _together(answers: Sequence[Transcript | MoulinError]) -> list[Transcript] | MoulinError:
    """The transcripts of one request, or its first error."""
    transcripts = []
    for answer in answers:
        if isinstance(answer, MoulinError):
            return answer
        transcripts.append(answer)
    return transcripts
