"""The component `scorer`: encoder_out, encoder_out_lens, wav, WAV_LENS, OPTIONS to TRANSCRIPTS, RESULT.

Of a transducer with a CTC head blank_log_probs too; where the head itself is decoded, its log-probabilities are
encoder_out. `wav` is for the times of words alone, and may be left out. It is not called WAV, by which clients know a
model that transcribes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from moulin.arrays import Floats, Ints
from moulin.audio.loudness import loudness
from moulin.audio.waveform import SAMPLE_RATE
from moulin.bundle.spec import ModelSpec
from moulin.decoding.blank_skip import with_blank
from moulin.decoding.found import Hypothesis
from moulin.decoding.options import DecodingOptions
from moulin.decoding.row_options import RowOptions
from moulin.engine.asked_for import Abilities, graphs_asked_for
from moulin.engine.host_pipeline import Search
from moulin.engine.precision_error import precision_error
from moulin.engine.spelling import spell
from moulin.engine.together import answer_together
from moulin.engine.word_times import Sound
from moulin.errors import MoulinError, OptionsError
from moulin.onnx_rewrites.ctc_head import BLANK_OUTPUT
from moulin.transcript import Transcript
from moulin.triton_repo import contract
from moulin.triton_repo.ensemble.part import Tensors
from moulin.triton_repo.json_text import json_text
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

    spec: ModelSpec
    search: Search
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
                graphs_asked_for(self.spec, chosen, Abilities(fast_beam_search=True))
        except OptionsError as error:
            return error
        if BLANK_OUTPUT in request:
            encoder_out = with_blank(encoder_out, request[BLANK_OUTPUT])
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
        frame = round(self.spec.encoder_frame_sec * SAMPLE_RATE)
        rows = zip(waveforms, lengths.tolist(), strict=True)
        return [Sound(loudness(waveform[:length], frame).tobytes()) for waveform, length in rows]

    def _score(self, requests: Sequence[_Request]) -> list[list[Transcript] | MoulinError]:
        longest = max(request.encoder_out.shape[1] for request in requests)
        encoder_out = np.concatenate(
            [
                np.pad(request.encoder_out, ((0, 0), (0, longest - request.encoder_out.shape[1]), (0, 0)))
                for request in requests
            ]
        )
        lengths = np.concatenate([request.lengths for request in requests])
        options = RowOptions.of([options for request in requests for options in request.options])
        found = self.search(encoder_out, lengths, options)
        hypotheses = iter(found.hypotheses(options.wants_others))
        return [self._spelled(request, [next(hypotheses) for _ in request.options]) for request in requests]

    def _spelled(self, request: _Request, found: Sequence[Hypothesis]) -> list[Transcript] | MoulinError:
        if not all(math.isfinite(hypothesis.score) for hypothesis in found):
            return precision_error(self.spec, "Expected numbers from the encoder")
        rows = zip(found, request.durations_sec, request.sounds, request.options, strict=True)
        return [
            spell(
                self.spec.tokens,
                hypothesis,
                frame_sec=self.spec.encoder_frame_sec,
                duration_sec=duration_sec,
                sound=sound,
                nbest=chosen.nbest,
            )
            for hypothesis, duration_sec, sound, chosen in rows
        ]


def _tensors(answer: list[Transcript] | MoulinError) -> Tensors | MoulinError:
    if isinstance(answer, MoulinError):
        return answer
    texts = [transcript.text.encode() for transcript in answer]
    results = [json_text(transcript.to_dict()) for transcript in answer]
    return {
        name: np.array([[text] for text in rows], dtype=np.object_)
        for name, rows in ((contract.TRANSCRIPTS, texts), (contract.RESULT, results))
    }
