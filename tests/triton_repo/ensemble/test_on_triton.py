"""The layout `ensemble` on the real tritonserver, beside the same models in this process."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as grpc
from tritonclient.utils import InferenceServerException

from moulin.arrays import Floats
from moulin.bundle.load import load_bundle
from moulin.client import Client
from moulin.demo.files import DEMO_MODEL
from moulin.launch.server import TritonServer
from moulin.launch.server_options import ServerOptions
from moulin.models.open_recognizer import open_recognizer
from moulin.transcript import Transcript
from moulin.triton_repo.ensemble.repository import build_offline_ensemble
from moulin.triton_repo.offline_options import OfflineOptions
from tests.bundles import BUNDLES, OFFLINE
from tests.conftest import Recording
from tests.triton_repo.sherpa_client import first_text, infer, tensors, texts, with_options

pytestmark = pytest.mark.triton

MAX_BATCH = 16
BEAM = {"method": "modified_beam_search", "beam": 3}


@pytest.fixture(scope="module")
def ensembles(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TritonServer]:
    """The demo model as `transducer`, and every bundle under its own name."""
    repository = tmp_path_factory.mktemp("ensembles")
    build_offline_ensemble(load_bundle(DEMO_MODEL), repository, OfflineOptions(max_batch=MAX_BATCH))
    for bundle in OFFLINE:
        options = OfflineOptions(model_name=bundle, max_batch=MAX_BATCH)
        build_offline_ensemble(load_bundle(BUNDLES / bundle), repository, options, link=True)
    with TritonServer(repository, ServerOptions(http_port=0, grpc_port=0, metrics_port=0)) as running:
        running.wait_ready()
        yield running
        assert running.poll() is None, "tritonserver died during the tests"


@pytest.fixture
def client(ensembles: TritonServer) -> Iterator[grpc.InferenceServerClient]:
    with grpc.InferenceServerClient(ensembles.grpc_url) as connected:
        yield connected


@pytest.mark.parametrize("changes", [{}, BEAM], ids=["greedy", "beam"])
@pytest.mark.parametrize("model", [*OFFLINE, "transducer"])
def test_it_hears_what_the_process_hears(
    ensembles: TritonServer, recordings: list[Recording], model: str, changes: dict[str, Any]
) -> None:
    """All of them: text, words, times and confidences; one utterance, a short one and nothing."""
    folder = DEMO_MODEL if model == "transducer" else BUNDLES / model
    waveform = recordings[0].waveform
    pieces = [waveform, recordings[1].waveform[8000:16_123], waveform[:100], waveform[:0]]
    with Client(ensembles.grpc_url, model=model) as client, open_recognizer(folder) as recognizer:
        options = recognizer.options.updated(changes)
        for piece in pieces:
            assert _rounded(client.transcribe(piece, **changes)) == _rounded(
                recognizer.transcribe([piece], [options])[0]
            )
        assert client.transcribe(waveform, **changes).text


def _rounded(transcript: Transcript) -> Any:
    words = [(word.word, word.start_sec, word.end_sec, round(word.confidence, 2)) for word in transcript.words]
    return transcript.text, words, transcript.duration_sec


def test_old_clients(client: Any, recordings: list[Recording]) -> None:
    """One unpadded utterance, and several of different numbers of words padded to ten seconds."""
    result = infer(client, tensors([recordings[0].waveform]))
    assert first_text(result) == recordings[0].text
    (output,) = result.get_response().outputs
    assert (output.name, output.datatype, list(output.shape)) == ("TRANSCRIPTS", "BYTES", [1, 1])
    request = tensors([recording.waveform for recording in recordings], pad_to_10_sec=True)
    assert texts(infer(client, request)) == [recording.text for recording in recordings]


def test_many_at_once_each_get_their_own(ensembles: TritonServer, snippets: list[tuple[Floats, str]]) -> None:
    with grpc.InferenceServerClient(ensembles.grpc_url) as client:

        def ask(number: int) -> list[str]:
            waveforms = [snippets[(number + row) % len(snippets)][0] for row in range(1 + number % 3)]
            cut = [waveform[: 8000 - 10 * (number % 7)] if row else waveform for row, waveform in enumerate(waveforms)]
            return texts(infer(client, tensors(cut), model="conformer-offline"))

        with ThreadPoolExecutor(32) as pool:
            answers = list(pool.map(ask, range(128)))
    for number, answer in enumerate(answers):
        assert answer[0] == snippets[number % len(snippets)][1]
        assert len(answer) == 1 + number % 3


def _calls(client: Any, model: str) -> tuple[int, int]:
    """Requests and executions of a component so far."""
    (stats,) = client.get_inference_statistics(model, as_json=True)["model_stats"]
    return int(stats["inference_stats"]["success"].get("count", 0)), int(stats.get("execution_count", 0))


@pytest.mark.parametrize(("changes", "a_frame"), [({}, 1 / 3), (BEAM, 1.1)], ids=["greedy", "beam"])
def test_the_search_asks_for_batches(
    client: Any, recordings: list[Recording], changes: dict[str, Any], a_frame: float
) -> None:
    """sherpa's scorer asked the joiner once for every frame of every utterance, and had no beam search."""
    options = json.dumps(changes).encode()

    def calls(waveforms: list[Floats]) -> int:
        before = _calls(client, "joiner")[0]
        infer(client, with_options(tensors(waveforms), *[options] * len(waveforms)))
        return _calls(client, "joiner")[0] - before

    waveforms = [recording.waveform for recording in recordings]
    longest = max(waveforms, key=len)
    frames = (len(longest) + 4800) // 640
    assert calls([longest]) <= a_frame * frames
    assert calls(waveforms) <= a_frame * frames


def test_a_bad_request_touches_no_other(ensembles: TritonServer, snippets: list[tuple[Floats, str]]) -> None:
    waveform, text = snippets[0]
    good = tensors([waveform])
    loud = {"WAV": good["WAV"] * 40_000, "WAV_LENS": good["WAV_LENS"]}
    wrong_length = {"WAV": good["WAV"], "WAV_LENS": np.array([[len(waveform) + 1]], np.int32)}
    unknown = with_options(good, b'{"methd": "greedy"}')
    cases = [
        (good, None),
        (loud, "expected floats in [-1, 1]"),
        (wrong_length, r"WAV_LENS of row 0 to be 0 to 8000, the samples in WAV, got 8001"),
        (unknown, "There is no decoding option 'methd'"),
    ]
    with grpc.InferenceServerClient(ensembles.grpc_url) as client:

        def ask(case: tuple[Any, str | None]) -> str | InferenceServerException:
            try:
                return first_text(infer(client, case[0], model="conformer-offline"))
            except InferenceServerException as error:
                return error

        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(ask, cases * 4))
    for (_, expected), answer in zip(cases * 4, answers, strict=True):
        if isinstance(answer, InferenceServerException):
            assert expected is not None
            assert expected in answer.message()
            assert answer.status() == "StatusCode.INVALID_ARGUMENT"
        else:
            assert (expected, answer) == (None, text)


def test_parts_by_themselves(client: Any, recordings: list[Recording]) -> None:
    """Whoever knew sherpa's components finds them, with their tensors."""
    waveform = recordings[0].waveform
    wav = grpc.InferInput("wav", [1, len(waveform)], "FP32")
    wav.set_data_from_numpy(waveform[None])
    wav_lens = grpc.InferInput("wav_lens", [1, 1], "INT32")
    wav_lens.set_data_from_numpy(np.array([[len(waveform)]], np.int32))
    features = client.infer("feature_extractor", [wav, wav_lens])
    x, x_lens = features.as_numpy("x"), features.as_numpy("x_lens")
    assert x.shape == (1, x_lens.item(), 80)
    inputs = [grpc.InferInput("x", list(x.shape), "FP32"), grpc.InferInput("x_lens", [1, 1], "INT64")]
    inputs[0].set_data_from_numpy(x)
    inputs[1].set_data_from_numpy(x_lens)
    encoded = client.infer("encoder", inputs)
    frames = encoded.as_numpy("encoder_out")
    assert frames.shape == (1, encoded.as_numpy("encoder_out_lens").item(), 128)
    inputs[1].set_data_from_numpy(x_lens + 1)
    with pytest.raises(InferenceServerException, match="Expected x_lens of 0 to"):
        client.infer("encoder", inputs)
