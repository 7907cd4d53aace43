"""What the offline shim does, without Triton: requests with several utterances in, transcripts out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from moulin.decoding.network import Floats
from moulin.decoding.options import DecodingOptions
from moulin.errors import AudioError, EngineError, MoulinError
from moulin.transcript import Transcript


@dataclass(frozen=True)
class OfflineRequest:
    """The tensors of one request: `wav` float32 [B, N], `wav_lens` int32 [B, 1], `options` JSON for each row."""

    wav: Floats
    wav_lens: NDArray[np.int32]
    options: Sequence[bytes] | None = None


class Transcriber(Protocol):
    """The part of `Recognizer` that the service uses."""

    options: DecodingOptions

    def check(self, waveform: Floats, *, what: str = ...) -> Floats: ...

    def transcribe(
        self, waveforms: Sequence[Floats], options: Sequence[DecodingOptions] | None = None
    ) -> list[Transcript]: ...


_Utterance = tuple[Floats, DecodingOptions]


class OfflineService:
    """Answers batches of requests. What is wrong with one request never touches another."""

    def __init__(self, recognizer: Transcriber) -> None:
        self._recognizer = recognizer

    def answer(self, requests: Sequence[OfflineRequest]) -> list[list[Transcript] | MoulinError]:
        """The transcripts of each request, or what is wrong with it."""
        checked = [self._check(request) for request in requests]
        good = [utterances for utterances in checked if not isinstance(utterances, MoulinError)]
        transcripts = iter(self._transcribe(good))
        return [answer if isinstance(answer, MoulinError) else next(transcripts) for answer in checked]

    def _transcribe(self, requests: Sequence[list[_Utterance]]) -> list[list[Transcript] | MoulinError]:
        """All requests in one batch; if that fails, each by itself, so that only the culprit gets the error."""
        everything = [utterance for request in requests for utterance in request]
        try:
            transcripts = iter(
                self._recognizer.transcribe([wav for wav, _ in everything], [options for _, options in everything])
            )
        except Exception as error:
            if len(requests) == 1:
                return [EngineError(f"Recognition failed: {error}")]
            return [answer for request in requests for answer in self._transcribe([request])]
        return [[next(transcripts) for _ in request] for request in requests]

    def _check(self, request: OfflineRequest) -> list[_Utterance] | MoulinError:
        try:
            return self._utterances(request)
        except MoulinError as error:
            return error
        except Exception as error:  # whatever a request makes fail must stay its own failure
            return EngineError(f"The request cannot be read: {type(error).__name__}: {error}")

    def _utterances(self, request: OfflineRequest) -> list[_Utterance]:
        if request.wav.ndim != 2 or request.wav_lens.size != len(request.wav):
            raise AudioError(
                f"Expected WAV [B, N] and WAV_LENS [B, 1], got {list(request.wav.shape)} and "
                f"{list(request.wav_lens.shape)}"
            )
        utterances = []
        for row, (wav, length) in enumerate(zip(request.wav, request.wav_lens.ravel().tolist(), strict=True)):
            if not 0 <= length <= len(wav):
                raise AudioError(
                    f"Expected WAV_LENS of row {row} to be 0 to {len(wav)}, the samples in WAV, got {length}",
                    hint="WAV_LENS counts samples, not bytes or seconds",
                )
            options = self._recognizer.options
            if request.options:
                options = options.updated_from_json(request.options[row])
            utterances.append((self._recognizer.check(wav[:length], what=f"WAV row {row}"), options))
        return utterances
