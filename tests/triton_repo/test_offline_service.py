"""`OfflineService` without Triton and without a model."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from moulin.arrays import Floats
from moulin.audio.waveform import check_waveform
from moulin.decoding.options import DecodingOptions
from moulin.errors import AudioError, EngineError, MoulinError, OptionsError
from moulin.transcript import Transcript
from moulin.triton_repo.offline_service import OfflineRequest, OfflineService


class FakeTranscriber:
    """Hears the length of each waveform, refuses those that hold 0.25, and fails on batches that hold 0.5."""

    def __init__(self) -> None:
        self.options = DecodingOptions()
        self.batches: list[list[int]] = []

    def check_form(self, waveform: Floats, *, what: str = "waveform") -> Floats:
        return check_waveform(waveform, what=what)

    def transcribe_each(
        self, waveforms: Sequence[Floats], options: Sequence[DecodingOptions], names: Sequence[str]
    ) -> list[Transcript | MoulinError]:
        self.batches.append([len(waveform) for waveform in waveforms])
        if any(0.5 in waveform for waveform in waveforms):
            raise RuntimeError("out of memory")
        return [
            AudioError(f"{name}: a quarter")
            if 0.25 in waveform
            else Transcript(f"{len(waveform)} {chosen.method} {chosen.beam}", (), len(waveform) / 16000)
            for waveform, chosen, name in zip(waveforms, options, names, strict=True)
        ]


def request(
    *lengths: int, width: int = 10, value: float = 0.0, options: Sequence[bytes] | None = None
) -> OfflineRequest:
    return OfflineRequest(
        np.full((len(lengths), width), value, np.float32), np.array(lengths, np.int32).reshape(-1, 1), options
    )


def test_samples_in_16_bits() -> None:
    samples, lens = np.zeros((1, 10), np.int16), np.array([[7]], np.int32)
    neither, both = OfflineRequest(None, lens), OfflineRequest(np.zeros((1, 10), np.float32), lens, None, samples)
    answers = OfflineService(FakeTranscriber()).answer([OfflineRequest(None, lens, None, samples), neither, both])
    assert heard(answers[0]) == ["7 greedy 4"]
    assert [str(answer) for answer in answers[1:]] == [
        "Expected either WAV or WAV_INT16, got neither",
        "Expected either WAV or WAV_INT16, got both",
    ]


def test_what_the_batch_finds_wrong_is_one_requests_own() -> None:
    transcriber = FakeTranscriber()
    wav = np.zeros((2, 10), np.float32)
    wav[1, 3] = 0.25
    bad = OfflineRequest(wav, np.array([[4], [5]], np.int32))
    first, refused, last = OfflineService(transcriber).answer([request(1), bad, request(2, 3)])
    assert len(transcriber.batches) == 1  # nobody waits for a second
    assert isinstance(refused, AudioError)
    assert str(refused) == "WAV row 1: a quarter"
    assert heard(first) + heard(last) == ["1 greedy 4", "2 greedy 4", "3 greedy 4"]


def heard(answer: list[Transcript] | MoulinError) -> list[str]:
    assert not isinstance(answer, MoulinError), answer
    return [transcript.text for transcript in answer]


def test_requests_become_one_batch_and_each_gets_its_own() -> None:
    transcriber = FakeTranscriber()
    answers = OfflineService(transcriber).answer([request(1, 2, 3), request(4), request(5, 10)])
    assert transcriber.batches == [[1, 2, 3, 4, 5, 10]]
    assert [heard(answer) for answer in answers] == [
        ["1 greedy 4", "2 greedy 4", "3 greedy 4"],
        ["4 greedy 4"],
        ["5 greedy 4", "10 greedy 4"],
    ]


def test_options_of_each_row_on_top_of_the_services() -> None:
    transcriber = FakeTranscriber()
    transcriber.options = DecodingOptions(method="modified_beam_search", beam=7)
    (answer,) = OfflineService(transcriber).answer(
        [request(1, 2, 3, options=[b"", b'{"beam": 2}', b'{"method": "greedy"}'])]
    )
    assert heard(answer) == ["1 modified_beam_search 7", "2 modified_beam_search 2", "3 greedy 7"]


BAD: dict[str, tuple[OfflineRequest, type[MoulinError]]] = {
    "length above": (request(1, 11), AudioError),
    "length below": (request(-1), AudioError),
    "nan": (request(3, value=float("nan")), AudioError),
    "scale": (request(3, value=20000.0), AudioError),
    "rank": (OfflineRequest(np.zeros(10, np.float32), np.array([[3]], np.int32)), AudioError),
    "rows": (OfflineRequest(np.zeros((2, 10), np.float32), np.array([[3]], np.int32)), AudioError),
    "json": (request(3, options=[b"{"]), OptionsError),
    "option": (request(3, options=[b'{"bean": 3}']), OptionsError),
    "second row": (request(3, 3, options=[b"", b'{"beam": "x"}']), OptionsError),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_request_never_reaches_the_batch(case: str) -> None:
    bad, kind = BAD[case]
    transcriber = FakeTranscriber()
    first, second, third = OfflineService(transcriber).answer([request(1), bad, request(2)])
    assert isinstance(second, kind)
    assert (heard(first), heard(third)) == (["1 greedy 4"], ["2 greedy 4"])
    assert transcriber.batches == [[1, 2]]


@pytest.mark.parametrize("options", [b"[" * 100_000, b'{"temperature": 1' + b"0" * 400 + b"}"], ids=["deep", "huge"])
def test_options_that_break_the_parser_break_only_their_request(options: bytes) -> None:
    good, bad = OfflineService(FakeTranscriber()).answer([request(1), request(2, options=[options])])
    assert heard(good) == ["1 greedy 4"]
    assert isinstance(bad, EngineError | OptionsError)


def test_samples_behind_the_length_are_not_looked_at() -> None:
    wav = np.array([[0, 0, np.nan]], np.float32)
    (answer,) = OfflineService(FakeTranscriber()).answer([OfflineRequest(wav, np.array([[2]], np.int32))])
    assert heard(answer) == ["2 greedy 4"]


def test_a_failing_batch_is_tried_one_by_one() -> None:
    transcriber = FakeTranscriber()
    answers = OfflineService(transcriber).answer([request(1), request(2, value=0.5), request(3, 4)])
    assert (heard(answers[0]), heard(answers[2])) == (["1 greedy 4"], ["3 greedy 4", "4 greedy 4"])
    assert isinstance(answers[1], EngineError)
    assert "out of memory" in answers[1].message
    assert transcriber.batches == [[1, 2, 3, 4], [1], [2], [3, 4]]


@pytest.mark.parametrize("requests", [[], [request(-1)], [request(-1), request(11)]])
def test_nothing_to_transcribe(requests: list[OfflineRequest]) -> None:
    answers = OfflineService(FakeTranscriber()).answer(requests)
    assert len(answers) == len(requests)
    assert all(isinstance(answer, AudioError) for answer in answers)


def test_errors_name_the_row_and_keep_their_hint() -> None:
    wav = np.zeros((3, 10), np.float32)
    wav[2] = 1000
    lengths = np.array([[10], [0], [10]], np.int32)
    (answer,) = OfflineService(FakeTranscriber()).answer([OfflineRequest(wav, lengths)])
    assert isinstance(answer, AudioError)
    assert answer.message.startswith("WAV row 2: ")
    assert answer.hint == "divide 16-bit samples by 32768"
