"""The streaming service on the real tritonserver, asked the way sherpa's clients ask and in every wrong way."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import re
import threading
import time
import urllib.request
from collections.abc import Awaitable, Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as grpc
import tritonclient.grpc.aio as grpc_aio
import tritonclient.http as http
from tritonclient.utils import InferenceServerException

from moulin.arrays import Floats
from moulin.audio.decode import read_audio
from moulin.bundle.load import load_bundle
from moulin.demo.files import DEMO_STREAMING_MODEL
from moulin.engine.step_scheduler import LATENCIES_SEC
from moulin.engine.stream_recognizer import StreamRecognizer
from moulin.evaluate.manifest import demo_clips
from moulin.evaluate.wer import WordErrors, count_word_errors, digits_spelled_alike
from moulin.launch.server import TritonServer
from moulin.launch.server_options import ServerOptions
from moulin.launch.shared_memory import SHM_DIR
from moulin.live_transcript import LiveTranscript, StreamUpdate
from moulin.models.engine_choice import EngineChoice
from moulin.models.open_stream_recognizer import open_stream_recognizer
from moulin.transcript import Transcript
from moulin.triton_repo.contract import STREAMING_MODEL_NAME
from moulin.triton_repo.repository import build_streaming_repository
from moulin.triton_repo.streaming_options import StreamingOptions
from tests.bundles import BUNDLES
from tests.conftest import IDLE_TIMEOUT_SEC, MAX_STREAMS, TINY_STREAMING_MODEL, Recording

from .damaged_requests import Damaged, with_nan
from .sherpa_client import (
    FIRST_SEQUENCE_ID,
    Tensors,
    first_text,
    infer,
    inputs,
    send_streaming,
    streaming_text,
    tensors,
    with_options,
)

pytestmark = pytest.mark.triton

VOICE = read_audio(demo_clips()[0].audio)
SPEECH = VOICE[8000:16000]
N = len(SPEECH)
NOTHING = np.zeros(0, np.float32)
SLOW = with_options(tensors([np.tile(SPEECH, 1100)]), b'{"method": "modified_beam_search", "beam": 32}')
"""Nine minutes, searched as thoroughly as can be: the tiny model has to work on them for a while, too."""
PATIENCE_SEC = 300.0


@pytest.fixture
def client(server: TritonServer) -> Iterator[grpc.InferenceServerClient]:
    with grpc.InferenceServerClient(server.grpc_url) as connected:
        yield connected


@pytest.fixture(scope="module")
def tiny() -> StreamRecognizer:
    """The tiny model of the server, in this process."""
    return open_stream_recognizer(BUNDLES / "lstm-streaming", EngineChoice(threads=1))


def _alone(recognizer: StreamRecognizer, waveform: Floats, *, finish: bool = True) -> str:
    stream = recognizer.open()
    recognizer.accept(stream, waveform)
    if finish:
        recognizer.finish(stream)
    recognizer.advance(stream)
    recognizer.close(stream)
    return recognizer.text(stream)


def _ask(client: Any, stream_id: int | str, request: Floats | Tensors, flags: str = "", **arguments: Any) -> Any:
    """One request; `flags` holds "s" for sequence_start and "e" for sequence_end."""
    return infer(
        client,
        tensors([request]) if isinstance(request, np.ndarray) else request,
        **{"model": TINY_STREAMING_MODEL, **arguments},
        sequence_id=stream_id,
        sequence_start="s" in flags,
        sequence_end="e" in flags,
    )


def _error(call: Callable[[], object]) -> tuple[str, str]:
    """The status and the message of what `call` must raise."""
    with pytest.raises(InferenceServerException) as caught:
        call()
    assert "Traceback" not in caught.value.message()
    return caught.value.status().removeprefix("StatusCode."), caught.value.message()


def _eventually(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_SEC
    while not condition():
        assert time.monotonic() < deadline, "it never came to be"
        time.sleep(0.1)


def _all_at_once(server: TritonServer, calls: Callable[[Any], list[Awaitable[Any]]]) -> list[Any]:
    """What the calls return that `calls` makes for an asyncio client."""

    async def gather() -> list[Any]:
        async with grpc_aio.InferenceServerClient(server.grpc_url) as aio:
            return await asyncio.gather(*calls(aio))

    return asyncio.run(gather())


def _assert_nothing_leaked(client: Any) -> None:
    """As many streams can be opened as may be; where some are still open, they are soon closed for being idle."""

    def all_open() -> bool:
        try:
            for number in range(MAX_STREAMS):
                _ask(client, 900 + number, NOTHING, "s")
        except InferenceServerException as error:
            if error.status() != "StatusCode.UNAVAILABLE":
                raise
            return False
        finally:
            for number in range(MAX_STREAMS):
                with contextlib.suppress(InferenceServerException):
                    _ask(client, 900 + number, NOTHING, "e")
        return True

    _eventually(all_open)


# ---------------------------------------------------------------------------------------------------- old clients


@pytest.fixture(scope="module")
def spoken(server: TritonServer, recordings: list[Recording]) -> list[list[str]]:
    """What Triton-ASR-Client gets for each recording, chunk by chunk, from five tasks at once."""

    async def task(aio: Any, number: int) -> list[tuple[int, list[str]]]:
        return [
            (
                index,
                await send_streaming(
                    aio, recordings[index].waveform, FIRST_SEQUENCE_ID + number, model=STREAMING_MODEL_NAME
                ),
            )
            for index in range(number, len(recordings), 5)
        ]

    heard = _all_at_once(server, lambda aio: [task(aio, number) for number in range(5)])
    return [texts for _, texts in sorted(pair for pairs in heard for pair in pairs)]


def test_old_clients_hear_what_the_engine_hears(spoken: list[list[str]], heard_live: list[Transcript]) -> None:
    """Chunks of 0.85 and 0.64 s, the last one padded, ids that are used again for one utterance after the other."""
    assert [texts[-1] for texts in spoken] == [transcript.text for transcript in heard_live]


def test_text_grows_with_the_audio(spoken: list[list[str]]) -> None:
    for texts in spoken:
        assert len(set(texts)) > 3
        assert all(later.startswith(earlier) for earlier, later in pairwise(texts))


def test_word_error_rate(recordings: list[Recording], spoken: list[list[str]]) -> None:
    """18 errors of 140 words, 12.86 %, are sherpa-onnx's own figure for this model."""
    total = WordErrors()
    for recording, texts in zip(recordings, spoken, strict=True):
        total += count_word_errors(recording.said, texts[-1], normalize=digits_spelled_alike)
    assert total.words == 140
    assert total.errors <= 18


def test_the_last_word_is_not_cut(client: Any, recordings: list[Recording], heard_live: list[Transcript]) -> None:
    """The recordings are cut off within it: without the silence that the end adds, it is not heard."""
    for recording, heard in zip(recordings[:7], heard_live, strict=False):
        cut = recording.waveform[: round((heard.words[-1].start_sec + 0.24) * 16000)]
        before = streaming_text(_ask(client, 4, cut, "s", model=STREAMING_MODEL_NAME))
        after = streaming_text(_ask(client, 4, NOTHING, "e", model=STREAMING_MODEL_NAME))
        assert (before, after) == (" ".join(heard.text.split()[:-1]), heard.text)


def test_speech_as_fast_as_it_is_spoken(
    server: TritonServer, recordings: list[Recording], heard_live: list[Transcript]
) -> None:
    shortest = sorted(range(len(recordings)), key=lambda index: len(recordings[index].waveform))[:3]

    def calls(aio: Any) -> list[Awaitable[list[str]]]:
        return [
            send_streaming(
                aio,
                recordings[index].waveform,
                FIRST_SEQUENCE_ID + index,
                model=STREAMING_MODEL_NAME,
                simulate_streaming=True,
            )
            for index in shortest
        ]

    assert [texts[-1] for texts in _all_at_once(server, calls)] == [heard_live[index].text for index in shortest]


def test_the_reply_is_one_text_of_one_dimension(client: Any) -> None:
    for flags, shape in (("s", [1]), ("", [1]), ("e", [1])):
        (output,) = _ask(client, 10086, SPEECH, flags).get_response().outputs
        assert (output.name, output.datatype, list(output.shape)) == ("TRANSCRIPTS", "BYTES", shape)


@pytest.mark.parametrize("num_samples", [0, 1, 159, 4000, 7000])
def test_a_first_chunk_shorter_than_a_window(
    client: Any, recordings: list[Recording], heard_live: list[Transcript], num_samples: int
) -> None:
    """sherpa's extractor raised "Invalid first chunk size"."""
    waveform = recordings[1].waveform
    first = _ask(client, 5, waveform[:num_samples], "s", model=STREAMING_MODEL_NAME)
    assert streaming_text(first) == ""
    last = _ask(client, 5, waveform[num_samples:], "e", model=STREAMING_MODEL_NAME)
    assert streaming_text(last) == heard_live[1].text


@pytest.mark.parametrize("num_samples", [0, 1, 400, 4000, 20_000])
def test_one_request_may_be_the_whole_stream(client: Any, tiny: StreamRecognizer, num_samples: int) -> None:
    waveform = np.tile(SPEECH, 3)[:num_samples]
    assert streaming_text(_ask(client, 6, waveform, "se")) == _alone(tiny, waveform)


def test_an_id_is_free_as_soon_as_its_end_is_sent(server: TritonServer, tiny: StreamRecognizer) -> None:
    """Without waiting for the reply to it: Triton may then hand over the start before the end is worked off."""
    waveforms = [VOICE[4000 * number : 4000 * number + 16000] for number in range(4)]

    async def whole(aio: Any, number: int) -> str:
        await asyncio.sleep(0.002 * number)  # in this order
        return streaming_text(await _ask(aio, 77, waveforms[number], "se"))

    texts = _all_at_once(server, lambda aio: [whole(aio, number) for number in range(4)])
    assert texts == [_alone(tiny, waveform) for waveform in waveforms]


# ----------------------------------------------------------------------------------------------------- many at once


def test_streams_of_any_pieces_at_once_are_heard_as_alone(server: TritonServer, recordings: list[Recording]) -> None:
    rng = random.Random(3)
    waveforms = []
    for number in range(40):
        waveform = recordings[number % 14].waveform
        first = rng.randrange(len(waveform) - 30_000)
        waveforms.append(waveform[first : first + rng.randrange(18_000, 30_000)])
    with open_stream_recognizer(DEMO_STREAMING_MODEL) as recognizer:
        expected = [_alone(recognizer, waveform) for waveform in waveforms]
    assert len(set(expected)) > 30

    async def speak(aio: Any, number: int) -> str:
        waveform, position = waveforms[number], 0
        while True:
            size = rng.choice([0, 1, 160, 1000, 5120, 10_240, 20_000])
            flags = ("s" if not position else "") + ("e" if position + size >= len(waveform) else "")
            if not position and not size:
                size = 1
            piece = waveform[position : position + size]
            text = streaming_text(await _ask(aio, 1000 + number, piece, flags, model=STREAMING_MODEL_NAME))
            position += size
            if "e" in flags:
                return text

    assert _all_at_once(server, lambda aio: [speak(aio, number) for number in range(40)]) == expected


def test_pipelined_requests_of_a_stream_stay_in_order(server: TritonServer, tiny: StreamRecognizer) -> None:
    """All sent at once on one connection. Triton passes on one request of a sequence at a time."""
    pieces = np.split(SPEECH, 16)
    answers: dict[int, Any] = {}
    done = threading.Semaphore(0)

    def keep(number: int) -> Callable[..., None]:
        def callback(result: Any, error: Any) -> None:
            answers[number] = error or streaming_text(result)
            done.release()

        return callback

    with grpc.InferenceServerClient(server.grpc_url) as client:
        client.start_stream(lambda result, error: keep(int(result.get_response().id))(result, error))
        for number, piece in enumerate(pieces):
            client.async_stream_infer(
                TINY_STREAMING_MODEL,
                inputs(tensors([piece])),
                request_id=str(number),
                sequence_id=12,
                sequence_start=number == 0,
                sequence_end=number == 15,
                outputs=[grpc.InferRequestedOutput("TRANSCRIPTS")],
            )
        for _ in pieces:
            assert done.acquire(timeout=PATIENCE_SEC)
        client.stop_stream()
    assert [answers[number] for number in range(15)] == [
        _alone(tiny, SPEECH[: 500 * number], finish=False) for number in range(1, 16)
    ]
    assert answers[15] == _alone(tiny, SPEECH)


def test_the_offline_model_answers_while_streams_are_open(
    server: TritonServer, recordings: list[Recording], heard_live: list[Transcript]
) -> None:
    async def offline(aio: Any, index: int) -> str:
        await asyncio.sleep(0.05 * index)
        return first_text(await infer(aio, tensors([recordings[index].waveform])))

    async def live(aio: Any, index: int) -> str:
        return (await send_streaming(aio, recordings[index].waveform, 1 + index, model=STREAMING_MODEL_NAME))[-1]

    texts = _all_at_once(server, lambda aio: [call(aio, index) for index in range(4) for call in (offline, live)])
    assert texts[::2] == [recording.text for recording in recordings[:4]]
    assert texts[1::2] == [transcript.text for transcript in heard_live[:4]]


# ------------------------------------------------------------------------------------------------ RESULT and OPTIONS

RESULT = [grpc.InferRequestedOutput("RESULT")]
BOTH = [grpc.InferRequestedOutput("TRANSCRIPTS"), *RESULT]


def _update(result: Any) -> StreamUpdate:
    (text,) = result.as_numpy("RESULT")
    return StreamUpdate.from_dict(json.loads(text))


def test_result_says_the_same_as_the_text_with_words_and_times(client: Any, recordings: list[Recording]) -> None:
    """Tokens and times are those of the engine in this process: features, search and times are the same."""
    waveform = recordings[2].waveform
    transcript, expected = LiveTranscript(), LiveTranscript()
    with open_stream_recognizer(DEMO_STREAMING_MODEL) as recognizer:
        stream = recognizer.open()
        for start in range(0, len(waveform), 5000):
            last = start + 5000 >= len(waveform)
            flags = ("s" if not start else "") + ("e" if last else "")
            piece = waveform[start : start + 5000]
            result = _ask(client, 31, piece, flags, model=STREAMING_MODEL_NAME, outputs=BOTH)
            update = _update(result)
            recognizer.accept(stream, piece)
            if last:
                recognizer.finish(stream)
            transcript.apply(update)
            expected.apply(recognizer.advance(stream))
            assert transcript.text == streaming_text(result) == expected.text
            assert update.is_final == last
            assert update.duration_sec == round(min(start + 5000, len(waveform)) / 16000, 3)
    ours, theirs = transcript.transcript(), expected.transcript()
    assert len(ours.words) == len(ours.text.split()) > 5
    assert [(word.word, word.start_sec, word.end_sec) for word in ours.words] == [
        (word.word, word.start_sec, word.end_sec) for word in theirs.words
    ]
    assert [word.confidence for word in ours.words] == pytest.approx(
        [word.confidence for word in theirs.words], abs=1e-3
    )
    assert all(segment.is_final for segment in transcript.final)
    assert transcript.open is None


def test_a_pause_ends_a_segment(client: Any, recordings: list[Recording]) -> None:
    """The endpoint is said once, the segment is final, and what follows is the next one; the text has both."""
    first, second, silence = recordings[0].waveform, recordings[1].waveform, np.zeros(2 * 16000, np.float32)
    arguments: dict[str, Any] = {"model": STREAMING_MODEL_NAME, "outputs": BOTH}
    updates = [
        _update(_ask(client, 32, first, "s", **arguments)),
        _update(_ask(client, 32, silence, **arguments)),
        _update(_ask(client, 32, NOTHING, **arguments)),
    ]
    assert [update.endpoint for update in updates] == [False, True, False]
    assert not any(segment.is_final for segment in updates[0].segments)
    (closed,) = updates[1].segments
    assert (closed.number, closed.is_final) == (0, True)
    assert updates[2].segments == ()
    last = _ask(client, 32, second, "e", **arguments)
    update = _update(last)
    (segment,) = update.segments
    assert (segment.number, segment.is_final, update.is_final) == (1, True, True)
    assert segment.start_sec > closed.end_sec
    assert streaming_text(last) == f"{closed.text} {segment.text}"


def test_updates_that_nobody_asked_for_come_with_the_next(client: Any, recordings: list[Recording]) -> None:
    silence = np.zeros(2 * 16000, np.float32)
    _ask(client, 33, recordings[0].waveform, "s", model=STREAMING_MODEL_NAME)
    _ask(client, 33, silence, model=STREAMING_MODEL_NAME)
    update = _update(_ask(client, 33, NOTHING, "e", model=STREAMING_MODEL_NAME, outputs=BOTH))
    assert (update.endpoint, [segment.number for segment in update.segments]) == (True, [0])


def test_outputs_come_as_they_are_named(client: Any) -> None:
    everything = _ask(client, 34, SPEECH, "s", outputs=None)
    assert {output.name for output in everything.get_response().outputs} == {"TRANSCRIPTS", "RESULT"}
    only = _ask(client, 34, SPEECH, outputs=RESULT)
    assert [(output.name, list(output.shape)) for output in only.get_response().outputs] == [("RESULT", [1])]
    assert _ask(client, 34, SPEECH, "e").as_numpy("RESULT") is None


def test_result_says_whose_it_is(client: Any) -> None:
    named = _ask(client, 35, SPEECH, "s", outputs=RESULT, request_id="chunk 7")
    assert json.loads(named.as_numpy("RESULT")[0])["request_id"] == "chunk 7"
    assert "request_id" not in json.loads(_ask(client, 35, SPEECH, "e", outputs=RESULT).as_numpy("RESULT")[0])


def test_options_of_each_stream(client: Any, recordings: list[Recording], heard_live: list[Transcript]) -> None:
    """A large blank penalty of the wrong sign leaves nothing; beam search hears about the same; and no endpoint."""
    quiet = with_options(tensors([recordings[0].waveform]), b'{"blank_penalty": -100}')
    assert streaming_text(_ask(client, 35, quiet, "se", model=STREAMING_MODEL_NAME)) == ""
    beam = with_options(tensors([recordings[0].waveform]), b'{"method": "modified_beam_search", "beam": 4}')
    text = streaming_text(_ask(client, 35, beam, "se", model=STREAMING_MODEL_NAME))
    assert count_word_errors(heard_live[0].text, text).rate < 0.2
    pause = np.append(recordings[0].waveform, np.zeros(2 * 16000, np.float32))
    endless = with_options(tensors([pause]), b'{"endpoint": false}')
    assert not _update(_ask(client, 35, endless, "se", model=STREAMING_MODEL_NAME, outputs=BOTH)).endpoint


# ------------------------------------------------------------------------------------------------- what is refused


_damaged = Damaged(SPEECH)
_wav, _lens, _without = _damaged.wav, _damaged.lens, _damaged.without


# What moulin finds; the message has the bad value and what was expected.
OURS: dict[str, tuple[Tensors, str]] = {
    "nan": (_wav(with_nan), r"WAV: expected finite samples, got nan at sample 7 of 8000"),
    "infinity": (_wav(lambda wav: np.full_like(wav, -np.inf)), r"expected finite samples, got -inf"),
    "16-bit scale": (_wav(lambda wav: wav * 32768), r"floats in \[-1, 1\], got a peak .*divide .* by 32768"),
    "lens above N": (_lens(N + 1), rf"WAV_LENS of 0 to {N}, the samples in WAV, got {N + 1}"),
    "lens negative": (_lens(-1), r"got -1 .*hint: WAV_LENS counts samples"),
    "no lens": (_without("WAV_LENS"), r"Expected WAV_LENS, got none"),
    "no wav": (_without("WAV"), r"Expected either WAV or WAV_INT16, got neither"),
    "options not JSON": (with_options(tensors([SPEECH]), b"{beam: 4}"), r"options are not JSON|cannot change"),
    "options unknown": (with_options(tensors([SPEECH]), b'{"beams": 4}'), r"no .*option 'beams'|cannot change"),
    "options changed": (with_options(tensors([SPEECH]), b'{"beam": 5}'), r"options of a stream cannot change"),
}

# What Triton finds, thanks to config.pbtxt: the stream's end included, if the request would have been that.
TRITONS: dict[str, tuple[Tensors, str]] = {
    "FP64": (_wav(lambda wav: wav.astype(np.float64)), r"'WAV' data-type is 'FP64', but model '.*' expects 'FP32'"),
    "lens INT64": ({**_lens(N), "WAV_LENS": np.array([[N]], np.int64)}, r"'INT64', but model '.*' expects 'INT32'"),
    "rank 1": (_wav(lambda wav: wav[0]), r"batch size does not match|batch-size must be|batch-size 1"),
    "rank 3": (_wav(lambda wav: wav[None]), r"unexpected shape for input 'WAV'.*Expected \[-1,-1\], got \[1,1,8000\]"),
    "batch of 2": (tensors([SPEECH, SPEECH]), r"must specify batch-size 1 due to requirements of sequence batcher"),
}


@pytest.mark.parametrize("case", [*OURS, *TRITONS])
def test_a_bad_request_is_as_if_it_had_not_been_sent(client: Any, tiny: StreamRecognizer, case: str) -> None:
    request, message = {**OURS, **TRITONS}[case]
    _ask(client, 40, SPEECH, "s")
    for _ in range(2):
        status, found = _error(lambda: _ask(client, 40, request))
        assert status == "INVALID_ARGUMENT"
        assert re.search(message, found), found
    assert streaming_text(_ask(client, 40, SPEECH, "e")) == _alone(tiny, np.tile(SPEECH, 2))


@pytest.mark.parametrize("case", OURS)
def test_a_bad_last_request_frees_the_stream(client: Any, case: str) -> None:
    for number in range(MAX_STREAMS + 1):
        _ask(client, 50 + number, SPEECH, "s")
        assert _error(lambda: _ask(client, 50 + number, OURS[case][0], "e"))[0] == "INVALID_ARGUMENT"  # noqa: B023


@pytest.mark.parametrize("case", [*(case for case in OURS if case != "options changed"), *TRITONS])
def test_a_bad_first_request_opens_nothing(client: Any, case: str) -> None:
    request, message = {**OURS, **TRITONS}[case]
    for number in range(MAX_STREAMS + 1):
        status, found = _error(lambda: _ask(client, 60 + number, request, "s"))  # noqa: B023
        assert status == "INVALID_ARGUMENT"
        assert re.search(message, found), found
    _assert_nothing_leaked(client)


def test_a_lost_start_says_so(client: Any) -> None:
    assert _error(lambda: _ask(client, 70, SPEECH)) == (
        "INVALID_ARGUMENT",
        f"inference request for sequence 70 to model '{TINY_STREAMING_MODEL}' must specify the START flag on the first "
        "request of the sequence",
    )
    _ask(client, 70, SPEECH, "se")
    assert "must specify the START flag" in _error(lambda: _ask(client, 70, SPEECH))[1], "nor after the end"


@pytest.mark.parametrize("sequence_id", [0, None])
def test_an_id_is_needed(client: Any, sequence_id: int | None) -> None:
    sequence = {} if sequence_id is None else {"sequence_id": 0, "sequence_start": True, "sequence_end": True}
    status, message = _error(lambda: infer(client, tensors([SPEECH]), model=TINY_STREAMING_MODEL, **sequence))
    assert status == "INVALID_ARGUMENT"
    assert "must specify a non-zero or non-empty correlation ID" in message


def test_ids_may_be_text_and_large_numbers(client: Any, tiny: StreamRecognizer) -> None:
    """Triton 2.51's own tensor for the id has only the first eight bytes of a text, and anything behind a short one."""
    ids: list[int | str] = ["session-1", "session-2", "5", 5, 2**63 - 1, "ü"]
    waveforms = [VOICE[4000 * number : 4000 * number + 16000] for number in range(len(ids))]
    expected = [_alone(tiny, waveform) for waveform in waveforms]
    assert len(set(expected)) == len(ids)
    for stream_id, waveform in zip(ids, waveforms, strict=True):
        _ask(client, stream_id, waveform[:9000], "s")
    assert [
        streaming_text(_ask(client, stream_id, waveform[9000:], "e"))
        for stream_id, waveform in zip(ids, waveforms, strict=True)
    ] == expected


def test_a_second_start_leaves_the_first_stream_alone(client: Any, tiny: StreamRecognizer) -> None:
    _ask(client, 71, SPEECH, "s")
    status, message = _error(lambda: _ask(client, 71, SPEECH, "s"))
    assert status == "INVALID_ARGUMENT"
    assert "Stream 71 is open: it was started before and has not ended (hint: use another sequence_id" in message
    assert streaming_text(_ask(client, 71, SPEECH, "e")) == _alone(tiny, np.tile(SPEECH, 2))


def test_a_client_that_was_killed_can_be_run_again(client: Any, tiny: StreamRecognizer) -> None:
    """With the same ids, after three seconds; Triton lets the second start of an id through."""
    for number in range(4):
        _ask(client, 71 + number, VOICE[: 4800 + number], "s")
    time.sleep(3.1)
    for number in range(4):
        _ask(client, 71 + number, SPEECH, "s")
    assert [streaming_text(_ask(client, 71 + number, SPEECH, "e")) for number in range(4)] == [
        _alone(tiny, np.tile(SPEECH, 2))
    ] * 4


def test_a_full_server_says_so_and_has_room_again_at_once(client: Any, tiny: StreamRecognizer) -> None:
    _assert_nothing_leaked(client)
    for number in range(MAX_STREAMS):
        _ask(client, 80 + number, NOTHING, "s")
    for _ in range(3):
        status, message = _error(lambda: _ask(client, 99, SPEECH, "s"))
        assert status == "UNAVAILABLE"
        assert f"All {MAX_STREAMS} streams are in use" in message
        assert "--max-streams" in message
        assert "Stream 99 is not open" in _error(lambda: _ask(client, 99, SPEECH, "e"))[1]
    for number in range(MAX_STREAMS):
        _ask(client, 80 + number, NOTHING, "e")
        assert streaming_text(_ask(client, 99, SPEECH, "se")) == _alone(tiny, SPEECH)


def test_a_stream_that_nobody_uses_is_closed(client: Any) -> None:
    _ask(client, 72, SPEECH, "s")
    found: list[tuple[str, str]] = []

    def closed() -> bool:
        """Asking more often than the timeout would keep it open."""
        time.sleep(IDLE_TIMEOUT_SEC + 1)
        try:
            _ask(client, 72, NOTHING)
        except InferenceServerException as error:
            found.append((error.status(), error.message()))
        return bool(found)

    _eventually(closed)
    ((status, message),) = found
    assert status == "StatusCode.INVALID_ARGUMENT"
    assert "Stream 72 is not open" in message
    assert f"when {IDLE_TIMEOUT_SEC:g} s pass without a request" in message
    _ask(client, 72, SPEECH, "se")


def test_clients_that_lose_their_start_or_go_away_leak_nothing(server: TritonServer, client: Any) -> None:
    """sherpa's scorer kept such streams for ever and raised KeyError for the others."""

    async def misbehave(aio: Any, number: int) -> None:
        rng = random.Random(number)
        for _ in range(rng.randrange(1, 6)):
            flags = rng.choice(["s", "s", "", "", "e", "se"])
            request = rng.choice([tensors([SPEECH]), tensors([NOTHING]), OURS["nan"][0], OURS["lens negative"][0]])
            try:
                await _ask(aio, rng.choice([number, number % 5 + 1]), request, flags)
            except InferenceServerException as error:
                statuses.add(error.status())

    statuses: set[str] = set()
    _all_at_once(server, lambda aio: [misbehave(aio, 200 + number) for number in range(100)])
    # Triton itself cancels a start that another start of the same sequence overtakes.
    assert statuses - {"StatusCode.CANCELLED"} == {"StatusCode.INVALID_ARGUMENT", "StatusCode.UNAVAILABLE"}
    _assert_nothing_leaked(client)


def test_a_client_that_vanishes_with_a_request_under_way_frees_its_slot(server: TritonServer, client: Any) -> None:
    """Not by being idle: its stream would only be that when all of its audio has been decoded."""
    _assert_nothing_leaked(client)
    _wait_for_metrics(server, client)
    timed_out = _metric(server, "moulin_streams_timed_out_total")
    leaver = grpc.InferenceServerClient(server.grpc_url)
    calls = [
        leaver.async_infer(
            TINY_STREAMING_MODEL,
            inputs(SLOW),
            lambda **_: None,
            sequence_id=300 + number,
            sequence_start=True,
            sequence_end=False,
        )
        for number in range(2)
    ]
    _eventually(lambda: _metric(server, "moulin_streams") == 2)
    for call in calls:
        call.cancel()
    leaver.close()
    _eventually(lambda: _metric(server, "moulin_streams") == 0)
    _wait_for_metrics(server, client)
    assert _metric(server, "moulin_streams_timed_out_total") == timed_out


# -------------------------------------------------------------------------------------------------------- around it


def test_streams_over_http(server: TritonServer, tiny: StreamRecognizer) -> None:
    with http.InferenceServerClient(server.http_url) as client:

        def ask(stream_id: int | str, request: Tensors, flags: str) -> Any:
            return client.infer(
                TINY_STREAMING_MODEL,
                inputs(request, http),
                sequence_id=stream_id,
                sequence_start="s" in flags,
                sequence_end="e" in flags,
            )

        for stream_id in (500, "five hundred"):
            ask(stream_id, tensors([SPEECH[:3000]]), "s")
            result = ask(stream_id, tensors([SPEECH[3000:]]), "e")
            assert streaming_text(result) == _alone(tiny, SPEECH)
            assert _update(result).is_final
        assert _error(lambda: ask(501, tensors([SPEECH]), ""))[0] == "400"
        for case in ("nan", "options not JSON"):
            status, message = _error(lambda: ask(501, OURS[case][0], "s"))  # noqa: B023
            assert status == "400"
            assert re.search(OURS[case][1], message)
        for number in range(MAX_STREAMS):
            ask(510 + number, tensors([NOTHING]), "s")
        status, message = _error(lambda: ask(520, tensors([SPEECH]), "s"))
        assert (status, "streams are in use" in message) == ("503", True)
        for number in range(MAX_STREAMS):
            ask(510 + number, tensors([NOTHING]), "e")


def test_tritons_statistics_count_every_chunk(client: Any) -> None:
    """Triton-ASR-Client prints them at the end of its run."""

    def counts() -> tuple[int, int]:
        everything = client.get_inference_statistics(model_name="", as_json=True)["model_stats"]
        (found,) = [entry for entry in everything if entry["name"] == TINY_STREAMING_MODEL]
        assert found["batch_stats"]
        return int(found["inference_count"]), int(found["inference_stats"]["success"]["count"])

    before = counts()
    for number in range(10):
        _ask(client, 600, SPEECH, ("s" if number == 0 else "") + ("e" if number == 9 else ""))
    _eventually(lambda: counts() == (before[0] + 10, before[1] + 10))


def _metric(server: TritonServer, name: str, model: str = TINY_STREAMING_MODEL) -> float:
    with urllib.request.urlopen(server.metrics_url, timeout=PATIENCE_SEC) as response:
        text = response.read().decode()
    values = re.findall(rf'^{name}{{.*model="{model}".*}} (\S+)$', text, re.MULTILINE)
    assert values, f"no {name} of {model} in:\n{text}"
    return sum(map(float, values))


def _wait_for_metrics(server: TritonServer, client: Any) -> None:
    """They are published now and then. When this returns, they are those of some time after the call."""
    for _ in range(2):  # the first publication may have begun before
        before = _metric(server, "moulin_chunks_total")
        _ask(client, 700, NOTHING, "se")
        _eventually(lambda: _metric(server, "moulin_chunks_total") > before)  # noqa: B023


def test_our_metrics_are_among_tritons(server: TritonServer, client: Any) -> None:
    names = ("moulin_streams_opened_total", "moulin_chunks_total", "moulin_audio_seconds_total")
    _wait_for_metrics(server, client)
    before = [_metric(server, name) for name in names]
    _ask(client, 601, SPEECH, "s")
    _eventually(lambda: _metric(server, "moulin_streams") >= 1)
    _ask(client, 601, SPEECH, "e")
    _eventually(lambda: _metric(server, "moulin_audio_seconds_total") >= before[2] + 1)
    assert [_metric(server, name) - value for name, value in zip(names, before, strict=True)] == [1.0, 2.0, 1.0]
    assert _metric(server, "moulin_streams_limit") == MAX_STREAMS
    assert _metric(server, "moulin_streams_limit", STREAMING_MODEL_NAME) == 1024


def test_the_latency_of_steps_is_a_histogram(server: TritonServer, client: Any) -> None:
    _wait_for_metrics(server, client)
    before = _metric(server, "moulin_step_latency_seconds_count")
    for kind in ("s", "", "e"):
        _ask(client, 602, SPEECH, kind)
    _eventually(lambda: _metric(server, "moulin_step_latency_seconds_count") > before)
    with urllib.request.urlopen(server.metrics_url, timeout=PATIENCE_SEC) as response:
        text = response.read().decode()
    found = re.findall(r"^moulin_step_latency_seconds_bucket{([^}]*)} (\S+)$", text, re.MULTILINE)
    of_model = [(labels, float(value)) for labels, value in found if f'model="{TINY_STREAMING_MODEL}"' in labels]
    buckets = {float(re.search(r'le="([^"]+)"', labels)[1]): value for labels, value in of_model}  # type: ignore[index]
    in_order = [buckets[bound] for bound in sorted(buckets)]
    assert sorted(buckets) == [*LATENCIES_SEC, float("inf")]
    assert in_order == sorted(in_order)
    assert in_order[-1] == _metric(server, "moulin_step_latency_seconds_count")
    assert _metric(server, "moulin_step_latency_seconds_sum") > 0


def test_a_server_with_open_streams_stops(tmp_path: Path) -> None:
    """By itself, after its exit timeout (Triton waits for sequences to end), and leaves nothing behind."""
    build_streaming_repository(load_bundle(BUNDLES / "lstm-streaming"), tmp_path, StreamingOptions(), link=True)
    before = set(SHM_DIR.glob(f"moulin-*-{os.getpid()}-*"))
    options = ServerOptions(http_port=0, grpc_port=0, metrics_port=0, exit_timeout_sec=1)
    with TritonServer(tmp_path, options) as server:
        server.wait_ready()
        with grpc.InferenceServerClient(server.grpc_url) as client:
            for number in range(1, 4):
                _ask(client, number, SPEECH, "s", model="transducer")
    assert server.poll() in (0, 1)
    assert not _processes_of(tmp_path)
    assert set(SHM_DIR.glob(f"moulin-*-{os.getpid()}-*")) <= before


def _processes_of(repository: Path) -> list[str]:
    found = []
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            arguments = process.read_bytes().decode(errors="replace")
        except OSError:
            continue
        if str(repository) in arguments and "triton" in arguments.split("\0")[0]:
            found.append(arguments)
    return found
