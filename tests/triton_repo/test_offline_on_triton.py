"""The offline service on the real tritonserver, asked the way sherpa's clients ask."""

from __future__ import annotations

import asyncio
import json
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as grpc
import tritonclient.grpc.aio as grpc_aio
import tritonclient.http as http
from tritonclient.utils import InferenceServerException

from moulin.arrays import Floats
from moulin.client import Client
from moulin.evaluate.wer import WordErrors, count_word_errors, digits_spelled_alike
from moulin.launch.server import TritonServer
from moulin.launch.stubs import running_stubs
from moulin.transcript import Transcript
from tests.conftest import MAX_BATCH, TINY_MODEL, Recording

from .sherpa_client import first_text, infer, inputs, tensors, texts, with_options

pytestmark = pytest.mark.triton


@pytest.fixture
def client(server: TritonServer) -> Iterator[grpc.InferenceServerClient]:
    with grpc.InferenceServerClient(server.grpc_url) as connected:
        yield connected


def test_one_unpadded_utterance(client: Any, recordings: list[Recording]) -> None:
    """sherpa's first clients: [1, N] and the words of the first row."""
    for recording in recordings[:3]:
        result = infer(client, tensors([recording.waveform]))
        assert first_text(result) == recording.text
        assert texts(result) == [recording.text]


def test_the_reply_is_a_column_of_bytes(client: Any, recordings: list[Recording]) -> None:
    result = infer(client, tensors([recording.waveform for recording in recordings[:3]]))
    (output,) = result.get_response().outputs
    assert (output.name, output.datatype, list(output.shape)) == ("TRANSCRIPTS", "BYTES", [3, 1])


def test_several_utterances_padded_by_up_to_ten_seconds(client: Any, recordings: list[Recording]) -> None:
    """Triton-ASR-Client; the rows have different numbers of words."""
    for start in range(0, len(recordings), 5):
        group = recordings[start : start + 5]
        request = tensors([recording.waveform for recording in group], pad_to_10_sec=True)
        result = infer(client, request, request_id=str(10086 + start))
        assert texts(result) == [recording.text for recording in group]
    assert len({len(recording.text.split()) for recording in recordings}) > 1


def test_live_streams_get_the_cpu_first(server: TritonServer) -> None:
    assert server.pid is not None
    nice = {name: os.getpriority(os.PRIO_PROCESS, pid) for pid, name in running_stubs(server.pid).items()}
    assert nice["transducer_0_0"] > nice["transducer_streaming_0_0"]


def test_the_threads_that_say_that_it_lives_do_too(server: TritonServer) -> None:
    """Triton gives up on a process whose own threads get no CPU for a second."""
    assert server.pid is not None
    (pid,) = (pid for pid, name in running_stubs(server.pid).items() if name == "transducer_0_0")
    threads = [int(thread.name) for thread in Path(f"/proc/{pid}/task").iterdir()]
    usual = os.getpriority(os.PRIO_PROCESS, server.pid)
    assert {os.getpriority(os.PRIO_PROCESS, thread) - usual for thread in threads} == {0, 10}


@pytest.mark.parametrize("padding_sec", [0.1, 1, 10, 60])
def test_padding_is_not_decoded(client: Any, recordings: list[Recording], padding_sec: float) -> None:
    """Not even where the padding is speech."""
    spoken = np.concatenate([recordings[0].waveform] * 9)[: len(recordings[0].waveform) + round(16000 * padding_sec)]
    request = {"WAV": spoken[None], "WAV_LENS": np.array([[len(recordings[0].waveform)]], np.int32)}
    assert first_text(infer(client, request)) == recordings[0].text


def test_the_server_hears_what_the_engine_hears(server: TritonServer, recordings: list[Recording]) -> None:
    """Over HTTP: features, search and text are those of the process, so the word error rate is too."""
    total = WordErrors()
    with http.InferenceServerClient(server.http_url) as client:
        for recording in recordings:
            result = client.infer("transducer", inputs(tensors([recording.waveform]), http))
            assert texts(result) == [recording.text]
            total += count_word_errors(recording.said, texts(result)[0], normalize=digits_spelled_alike)
    assert f"{total.rate:.2%}" == "6.43%"


def test_samples_in_16_bits(server: TritonServer, recordings: list[Recording]) -> None:
    with Client(server.grpc_url, int16=True) as client:
        assert client.transcribe(recordings[0].waveform) == recordings[0].heard
        assert [t.text for t in client.transcribe_batch([r.waveform for r in recordings[:3]])] == [
            recording.text for recording in recordings[:3]
        ]


def test_tensors_as_json_over_http(server: TritonServer, snippets: list[tuple[Floats, str]]) -> None:
    """What curl sends: no binary extension."""
    waveform, text = snippets[0]
    with http.InferenceServerClient(server.http_url) as client:
        request = []
        for name, tensor in tensors([waveform]).items():
            item = http.InferInput(name, list(tensor.shape), {"WAV": "FP32", "WAV_LENS": "INT32"}[name])
            item.set_data_from_numpy(tensor, binary_data=False)
            request.append(item)
        outputs = [http.InferRequestedOutput("TRANSCRIPTS", binary_data=False)]
        # tritonclient makes str of JSON strings, which Triton-ASR-Client would join with b" " in vain.
        assert client.infer(TINY_MODEL, request, outputs=outputs).as_numpy("TRANSCRIPTS").tolist() == [[text]]


@pytest.mark.parametrize("model", [TINY_MODEL, "transducer"])
@pytest.mark.parametrize("num_samples", [1, 160, 400, 1600, 4000])
def test_audio_that_is_too_short_for_a_word(client: Any, model: str, num_samples: int) -> None:
    noise = np.random.default_rng(0).normal(0, 1e-4, num_samples).astype(np.float32)
    (text,) = texts(infer(client, tensors([noise]), model=model))
    assert model != "transducer" or text == ""


@pytest.mark.parametrize("num_samples", [0, 1, 16000])
def test_no_audio_at_all(client: Any, num_samples: int) -> None:
    request = {"WAV": np.ones((1, num_samples), np.float32), "WAV_LENS": np.zeros((1, 1), np.int32)}
    assert texts(infer(client, request)) == [""]


def test_an_empty_row_among_others(client: Any, recordings: list[Recording]) -> None:
    waveforms = [recordings[0].waveform, np.zeros(0, np.float32), recordings[1].waveform]
    assert texts(infer(client, tensors(waveforms))) == [recordings[0].text, "", recordings[1].text]


def test_result_comes_where_it_is_named(client: Any, recordings: list[Recording]) -> None:
    request = tensors([recording.waveform for recording in recordings[:2]])
    both = infer(client, request, outputs=[grpc.InferRequestedOutput(name) for name in ("RESULT", "TRANSCRIPTS")])
    results = [Transcript.from_dict(json.loads(row)) for row in both.as_numpy("RESULT").ravel()]
    assert [result.text for result in results] == texts(both) == [recording.text for recording in recordings[:2]]
    for result, recording in zip(results, recordings, strict=False):
        assert result.duration_sec == recording.heard.duration_sec
        assert [(word.word, word.start_sec) for word in result.words] == [
            (word.word, word.start_sec) for word in recording.heard.words
        ]
    assert infer(client, request).as_numpy("RESULT") is None


def test_result_says_whose_it_is(client: Any, recordings: list[Recording]) -> None:
    """A reply's id is that of the request to which Triton took it to belong; RESULT's is that of the model's."""
    request, wanted = tensors([recordings[0].waveform] * 2), [grpc.InferRequestedOutput("RESULT")]
    named = infer(client, request, outputs=wanted, request_id="ü 7").as_numpy("RESULT").ravel()
    assert [json.loads(row)["request_id"] for row in named] == ["ü 7"] * 2
    unnamed = infer(client, request, outputs=wanted).as_numpy("RESULT").ravel()
    assert all("request_id" not in json.loads(row) for row in unnamed)


def test_both_models_answer_under_their_names(client: Any, recordings: list[Recording]) -> None:
    index = client.get_model_repository_index(as_json=True)["models"]
    states = {model["name"]: model["state"] for model in index}
    assert states["transducer"] == states[TINY_MODEL] == "READY"
    request = tensors([recordings[0].waveform])
    assert texts(infer(client, request, model="transducer")) == [recordings[0].text]
    assert texts(infer(client, request, model=TINY_MODEL)) != [recordings[0].text]


def test_no_gpu_is_needed(client: Any) -> None:
    for model in ("transducer", TINY_MODEL):
        (group,) = client.get_model_config(model, as_json=True)["config"]["instance_group"]
        assert group["kind"] == "KIND_CPU"
        assert "gpus" not in group


def test_options_of_each_row(client: Any, snippets: list[tuple[Floats, str]]) -> None:
    """A row may have its own; silence is all that is left under a large blank penalty of the wrong sign."""
    waveform, text = snippets[0]
    request = with_options(
        tensors([waveform] * 4),
        b"",
        b'{"blank_penalty": -100}',
        b'{"method": "greedy"}',
        b'{"method": "modified_beam_search", "beam": 1, "blank_penalty": -100.0}',
    )
    assert texts(infer(client, request, model=TINY_MODEL)) == [text, "", text, ""]


def test_beam_search_over_the_wire(client: Any, recordings: list[Recording]) -> None:
    request = with_options(tensors([recordings[0].waveform]), b'{"method": "modified_beam_search", "beam": 4}')
    (text,) = texts(infer(client, request))
    assert count_word_errors(recordings[0].text, text).rate < 0.2


def test_512_requests_at_once_each_get_their_own_transcript(
    server: TritonServer, client: Any, snippets: list[tuple[Floats, str]]
) -> None:
    before = _statistics(client, TINY_MODEL)

    async def ask_all() -> list[str]:
        async with grpc_aio.InferenceServerClient(server.grpc_url) as aio:

            async def ask(waveform: Floats) -> str:
                result = await aio.infer(TINY_MODEL, inputs(tensors([waveform], pad_to_10_sec=False), grpc_aio))
                return first_text(result)

            return await asyncio.gather(*(ask(snippets[n % len(snippets)][0]) for n in range(512)))

    answers = asyncio.run(ask_all())
    assert answers == [snippets[n % len(snippets)][1] for n in range(512)]

    # Triton's own statistics, which Triton-ASR-Client prints at the end, show that they were batched.
    deadline = time.monotonic() + 20  # they are a moment behind the replies
    after = _statistics(client, TINY_MODEL)
    while int(after["inference_count"]) - int(before["inference_count"]) < 512 and time.monotonic() < deadline:
        time.sleep(0.05)
        after = _statistics(client, TINY_MODEL)
    assert int(after["inference_count"]) - int(before["inference_count"]) == 512
    assert int(after["execution_count"]) - int(before["execution_count"]) < 512
    assert max(int(entry["batch_size"]) for entry in after["batch_stats"]) > 1
    assert int(after["inference_stats"]["success"]["count"]) >= 512


def test_requests_of_several_rows_and_lengths_share_batches(
    server: TritonServer, recordings: list[Recording], snippets: list[tuple[Floats, str]]
) -> None:
    """Ragged batching: no client has to know what the others send."""

    async def ask_all() -> list[list[str]]:
        async with grpc_aio.InferenceServerClient(server.grpc_url) as aio:

            async def ask(rows: int) -> list[str]:
                waveforms = [snippets[row][0] for row in range(rows)]
                waveforms.append(recordings[rows].waveform[:8000])
                return texts(await aio.infer(TINY_MODEL, inputs(tensors(waveforms, pad_to_10_sec=rows % 2 == 0))))

            return await asyncio.gather(*(ask(rows) for rows in (1, 2, 3, 4, 5) * 4))

    for rows, answer in zip((1, 2, 3, 4, 5) * 4, asyncio.run(ask_all()), strict=True):
        assert answer[:rows] == [text for _, text in snippets[:rows]]


def test_a_bad_request_touches_no_other_of_its_batch(client: Any, recordings: list[Recording]) -> None:
    """Queued behind a long request, good and bad ones form one batch."""
    long = tensors([recordings[11].waveform] * MAX_BATCH)
    bad = [
        {**tensors([recordings[0].waveform]), "WAV_LENS": np.array([[-1]], np.int32)},
        {**tensors([recordings[0].waveform]), "WAV": np.full((1, len(recordings[0].waveform)), np.nan, np.float32)},
        with_options(tensors([recordings[0].waveform]), b"{"),
        with_options(tensors([recordings[0].waveform]), b"[" * 100_000),
        with_options(tensors([recordings[0].waveform]), b'{"temperature": 1' + b"0" * 400 + b"}"),
    ]
    good = recordings[:4]
    answers: dict[int, Any] = {}
    done = threading.Semaphore(0)

    def send(number: int, request: Any) -> None:
        def keep(result: Any, error: Any) -> None:
            answers[number] = error or result
            done.release()

        client.async_infer("transducer", inputs(request), keep, outputs=[grpc.InferRequestedOutput("TRANSCRIPTS")])

    send(-1, long)
    for number in range(len(bad)):
        send(number, bad[number])
        if number < len(good):
            send(100 + number, tensors([good[number].waveform]))
    for _ in range(1 + len(bad) + len(good)):
        assert done.acquire(timeout=60)
    assert [texts(answers[100 + number]) for number in range(len(good))] == [[recording.text] for recording in good]
    assert texts(answers[-1]) == [recordings[11].text] * MAX_BATCH
    for number in range(len(bad)):
        assert isinstance(answers[number], InferenceServerException), answers[number]


def test_a_client_that_gives_up_leaves_the_server_serving(
    server: TritonServer, client: Any, recordings: list[Recording]
) -> None:
    request = tensors([recordings[11].waveform] * MAX_BATCH)
    with pytest.raises(InferenceServerException, match="Deadline Exceeded"):
        infer(client, request, client_timeout=0.01)

    leaver = grpc.InferenceServerClient(server.grpc_url)
    call = leaver.async_infer("transducer", inputs(request), lambda **_: None)
    call.cancel()
    leaver.close()
    assert first_text(infer(client, tensors([recordings[0].waveform]))) == recordings[0].text


def _statistics(client: Any, model: str) -> dict[str, Any]:
    """As Triton-ASR-Client asks for them: of all models, as JSON."""
    everything = client.get_inference_statistics(model_name="", as_json=True)["model_stats"]
    found: dict[str, Any] = next(entry for entry in everything if entry["name"] == model)
    return found
