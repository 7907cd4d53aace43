"""The component `scorer`: encoder_out, encoder_out_lens, wav, WAV_LENS, OPTIONS to TRANSCRIPTS, RESULT.

`wav` is for the times of words alone, and may be left out. It is not called WAV, by which clients know a model that
transcribes.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from moulin.arrays import Floats, Ints
from moulin.audio.loudness import loudness
from moulin.audio.waveform import SAMPLE_RATE
from moulin.bundle.tokens import TokenTable
from moulin.decoding.network import PredictionNetwork
from moulin.decoding.options import DecodingOptions
from moulin.decoding.row_options import RowOptions
from moulin.decoding.search import search
from moulin.engine.asked_for import check_no_bias
from moulin.engine.lm_scales import check_scales
from moulin.engine.nbest import check_nbest
from moulin.engine.no_hotwords import no_hotwords
from moulin.engine.spelling import spell
from moulin.engine.together import answer_together
from moulin.engine.word_times import Sound
from moulin.errors import MoulinError, OptionsError
from moulin.transcript import Transcript
from moulin.triton_repo import contract
from moulin.triton_repo.ensemble.part import Tensors
from moulin.triton_repo.offline_service import read_options


@dataclass(frozen=True)
class _Request:
    encoder_out: Floats
    lengths: Ints
    durations_sec: list[float]
    sounds: list[Sound]
    options: list[DecodingOptions]


@dataclass(frozen=True)
class ScorerPart:
    """Searches the utterances of all requests together. Padding, and utterances without samples, are never decoded."""

    network: PredictionNetwork
    tokens: TokenTable
    frame_sec: float
    """Seconds from one encoder frame to the next."""
    options: DecodingOptions
    """Options for requests without their own."""

    def answer(self, requests: Sequence[Tensors]) -> list[Tensors | MoulinError]:
        checked = [self._read(request) for request in requests]
        good = [request for request in checked if not isinstance(request, MoulinError)]
        answers = iter(answer_together(good, self._score))
        return [answer if isinstance(answer, MoulinError) else _tensors(next(answers)) for answer in checked]

    def close(self) -> None:
        pass

    def _read(self, request: Tensors) -> _Request | MoulinError:
        encoder_out = request["encoder_out"]
        samples = request[contract.WAV_LENS].ravel()
        lengths = request["encoder_out_lens"].ravel()
        if not (len(samples) == len(lengths) == len(encoder_out) and all(lengths <= encoder_out.shape[1])):
            return OptionsError(
                f"Expected encoder_out_lens of at most {encoder_out.shape[1]} and WAV_LENS for {len(encoder_out)} "
                f"rows, got {lengths.tolist()} and {samples.tolist()}"
            )
        given = request.get(contract.OPTIONS)
        try:
            options = read_options(None if given is None else given.ravel().tolist(), len(samples), self.options)
            for chosen in options:
                check_no_bias(chosen)
                check_nbest(chosen)
                check_scales(chosen, None)
        except OptionsError as error:
            return error
        if any(chosen.hotwords for chosen in options):
            return no_hotwords()
        return _Request(
            encoder_out.astype(np.float32, copy=False),
            np.where(samples > 0, lengths, 0).astype(np.int64),
            [samples / SAMPLE_RATE for samples in samples.tolist()],
            self._sounds(request, samples),
            options,
        )

    def _sounds(self, request: Tensors, lengths: Ints) -> list[Sound]:
        if (waveforms := request.get("wav")) is None:
            return [Sound()] * len(lengths)
        frame = round(self.frame_sec * SAMPLE_RATE)
        rows = zip(waveforms, lengths.tolist(), strict=True)
        return [Sound(loudness(waveform[:length], frame).tobytes()) for waveform, length in rows]

    def _score(self, requests: Sequence[_Request]) -> list[list[Transcript]]:
        longest = max(request.encoder_out.shape[1] for request in requests)
        encoder_out = np.concatenate(
            [
                np.pad(request.encoder_out, ((0, 0), (0, longest - request.encoder_out.shape[1]), (0, 0)))
                for request in requests
            ]
        )
        lengths = np.concatenate([request.lengths for request in requests])
        options = RowOptions.of([options for request in requests for options in request.options])
        found = search(self.network, encoder_out, lengths, options)
        hypotheses = iter(found.hypotheses(options.wants_others))
        return [
            [
                spell(
                    self.tokens,
                    next(hypotheses),
                    frame_sec=self.frame_sec,
                    duration_sec=duration_sec,
                    sound=sound,
                    nbest=chosen.nbest,
                )
                for duration_sec, sound, chosen in zip(
                    request.durations_sec, request.sounds, request.options, strict=True
                )
            ]
            for request in requests
        ]


def _tensors(answer: list[Transcript] | MoulinError) -> Tensors | MoulinError:
    if isinstance(answer, MoulinError):
        return answer
    texts = [transcript.text for transcript in answer]
    results = [json.dumps(transcript.to_dict(), ensure_ascii=False) for transcript in answer]
    return {
        name: np.array([[text.encode()] for text in rows], dtype=np.object_)
        for name, rows in ((contract.TRANSCRIPTS, texts), (contract.RESULT, results))
    }
