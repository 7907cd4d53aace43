"""CTC heads, offline and in streams, against sherpa-onnx, which decodes Icefall's CTC exports greedily."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import sherpa_onnx
import torch

from moulin.arrays import Floats
from moulin.audio.decode import read_audio
from moulin.bundle.load_model import load_model
from moulin.decoding.options import METHODS, DecodingOptions, Method
from moulin.errors import BundleError, OptionsError
from moulin.evaluate.manifest import demo_clips
from moulin.models.engine_choice import EngineChoice
from moulin.models.open_recognizer import open_recognizer
from moulin.models.open_stream_recognizer import open_stream_recognizer
from moulin.streaming.options import StreamOptions
from tests.bundles import BUNDLES
from tests.cli.command import MOULIN, Serving, moulin_here
from tests.engine.blank_bias import OFFLINE, STREAMING, raised_export
from tests.engine.test_blank_skip import found_by
from tests.engine.test_blank_skip_in_streams import Recording, hear

CTC = EngineChoice(head="ctc")
STREAMING_NAME = "ctc-epoch-1-avg-1-chunk-16-left-64.onnx"


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders with Icefall's CTC exports and nothing of a transducer, as such models are published."""
    to = tmp_path_factory.mktemp("alone")
    for bundle, name, folder in ((OFFLINE, "model.onnx", "offline"), (STREAMING, STREAMING_NAME, "live")):
        (to / folder).mkdir()
        for file in (name, "tokens.txt"):
            shutil.copyfile(bundle / file, to / folder / file)
    return to


@pytest.fixture(scope="module")
def exports(tmp_path_factory: pytest.TempPathFactory) -> dict[Path, Path]:
    """moulin's exports, with both heads in one encoder."""
    to = tmp_path_factory.mktemp("exports")
    return {bundle: raised_export(bundle, 0.0, to / bundle.name) for bundle in (OFFLINE, STREAMING)}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Checkpoints as Icefall's training with --use-transducer 0 --use-ctc 1 writes them: their tensors are of no
    transducer, though their parameters say sizes of one. And moulin's exports of them."""
    to = tmp_path_factory.mktemp("trained")
    for bundle, name in ((OFFLINE, "offline"), (STREAMING, "live")):
        content = torch.load(bundle / "epoch-1.pt", weights_only=True)
        kept = {key: it for key, it in content["model"].items() if key.startswith(("encoder", "ctc_output."))}
        said: dict[str, Any] = {"use_transducer": False, "use_ctc": True, "decoder_dim": 512, "joiner_dim": 512}
        if bundle == STREAMING:
            said |= {"chunk_size": "16", "left_context_frames": "64", "causal": True}
        (to / name).mkdir()
        torch.save({"model": kept, **said}, to / name / "epoch-1.pt")
        shutil.copyfile(bundle / "tokens.txt", to / name / "tokens.txt")
        streaming = ["--streaming"] if bundle == STREAMING else []
        written = moulin_here(
            "export", to / name / "epoch-1.pt", "--to", to / f"{name}-onnx", *streaming, "--int8", "--fp16"
        )
        assert "CTC model: largest error" in written.expect(0).err
    return to


def offline_peer() -> Any:
    return sherpa_onnx.OfflineRecognizer.from_zipformer_ctc(
        model=str(OFFLINE / "model.onnx"), tokens=str(OFFLINE / "tokens.txt"), num_threads=1
    )


FORMS = ["alone", "beside the transducer", "both in one encoder", "checkpoint", "trained alone", "its export"]


def model_of(
    form: str, bundle: Path, alone: Path, exports: dict[Path, Path], trained: Path
) -> tuple[Path, EngineChoice]:
    name = "offline" if bundle == OFFLINE else "live"
    match form:
        case "trained alone":
            return trained / name / "epoch-1.pt", EngineChoice()
        case "its export":
            return trained / f"{name}-onnx", EngineChoice()
        case "alone":
            return alone / name, EngineChoice()
        case "beside the transducer":
            return bundle, CTC
        case "checkpoint":
            return bundle / "epoch-1.pt", CTC
    return exports[bundle], CTC


@pytest.mark.parametrize("form", FORMS)
def test_greedy_offline_is_sherpa_onnxs(
    form: str, alone: Path, exports: dict[Path, Path], trained: Path, clips: list[Floats], noises: list[Floats]
) -> None:
    model, engine = model_of(form, OFFLINE, alone, exports, trained)
    waveforms = [clips[0], clips[3][:50_001], *noises]
    theirs = offline_peer()
    with open_recognizer(model, engine, tail_padding_sec=0.0) as ours:
        assert ours.spec.head == "ctc"
        symbols = ours.spec.tokens.symbols
        total = 0
        for waveform, found in zip(
            waveforms, found_by(ours, waveforms, [DecodingOptions()] * len(waveforms)), strict=True
        ):
            stream = theirs.create_stream()
            stream.accept_waveform(16_000, waveform)
            theirs.decode_stream(stream)
            heard = [
                (token, time)
                for token, time in zip(stream.result.tokens, stream.result.timestamps, strict=True)
                if token != "<unk>"  # moulin emits no unknown word
            ]
            assert [symbols[token].replace("▁", " ") for token in found.tokens] == [token for token, _ in heard]
            np.testing.assert_allclose([frame * 0.04 for frame in found.frames], [time for _, time in heard], atol=1e-5)
            total += len(found.tokens)
        assert total >= 15


@pytest.mark.parametrize("form", FORMS)
def test_greedy_in_streams_is_sherpa_onnxs(
    form: str,
    alone: Path,
    exports: dict[Path, Path],
    trained: Path,
    clips: list[Floats],
    noises: list[Floats],
    tmp_path: Path,
) -> None:
    model, engine = model_of(form, STREAMING, alone, exports, trained)
    if form == "checkpoint":
        model = with_chunk(tmp_path)
    recordings = [Recording(waveform) for waveform in (clips[0][8_000:60_000], noises[0], noises[2])]
    recognizer = open_stream_recognizer(model, engine, max_streams=3)
    symbols = recognizer.spec.tokens.symbols
    wanted = [heard_by_peer(recording) for recording in recordings]
    for piece in (100_000, 5_120, 777):
        found = hear(recognizer, recordings, [StreamOptions(endpoint=False)] * 3, piece)
        for (tokens, frames), (their_tokens, their_times) in zip(found, wanted, strict=True):
            assert [symbols[token].replace("▁", " ") for token in tokens] == their_tokens
            np.testing.assert_allclose([frame * 0.04 for frame in frames], their_times, atol=1e-5)
    assert sum(len(tokens) for tokens, _ in wanted) > 10


def with_chunk(to: Path) -> Path:
    content = torch.load(STREAMING / "epoch-1.pt", weights_only=True)
    torch.save({**content, "chunk_size": "16", "left_context_frames": "64", "causal": True}, to / "epoch-1.pt")
    shutil.copyfile(STREAMING / "tokens.txt", to / "tokens.txt")
    return to / "epoch-1.pt"


def heard_by_peer(recording: Recording, model: Path = STREAMING / STREAMING_NAME) -> tuple[list[str], list[float]]:
    recognizer = sherpa_onnx.OnlineRecognizer.from_zipformer2_ctc(
        model=str(model), tokens=str(STREAMING / "tokens.txt"), num_threads=1
    )
    stream = recognizer.create_stream()
    needed = ((len(recording.windows) - 1) * 32 + 45 + 1) * 160
    stream.accept_waveform(16_000, np.pad(recording.waveform, (0, max(0, needed - len(recording.waveform)))))
    stream.input_finished()
    steps = 0
    while recognizer.is_ready(stream):
        recognizer.decode_stream(stream)
        steps += 1
    assert steps == len(recording.windows)
    heard = zip(recognizer.tokens(stream), recognizer.timestamps(stream), strict=True)
    kept = [(token, time) for token, time in heard if token != "<unk>"]
    return [token for token, _ in kept], [time for _, time in kept]


@pytest.mark.parametrize("method", METHODS)
def test_forms_of_a_model_agree(
    method: Method,
    alone: Path,
    exports: dict[Path, Path],
    trained: Path,
    clips: list[Floats],
    noises: list[Floats],
) -> None:
    options = [DecodingOptions(method, beam=4)] * 3
    waveforms = [clips[0], *noises[:2]]
    heard = []
    for form in FORMS:
        model, engine = model_of(form, OFFLINE, alone, exports, trained)
        with open_recognizer(model, engine) as ours:
            found = found_by(ours, waveforms, options)
            heard.append([(each.tokens, each.frames) for each in found])
            assert [each.tokens for each in found] == [
                found_by(ours, [waveform], options[:1])[0].tokens for waveform in waveforms
            ]
    assert all(each == heard[0] for each in heard)


def test_the_head_that_is_not_there_is_refused() -> None:
    for model in (BUNDLES / "zipformer2-offline", BUNDLES / "zipformer2-offline" / "epoch-1.pt"):
        with pytest.raises(BundleError, match="has no CTC head"):
            load_model(model, head="ctc")
    with pytest.raises(BundleError, match=r"Expected a streaming model, got the offline CTC model"):
        load_model(OFFLINE / "model.onnx", head="ctc", expect="streaming")


def test_a_folder_with_both_exports_is_a_transducer_unless_the_head_is_asked_for() -> None:
    assert load_model(OFFLINE).head == "transducer"
    assert load_model(OFFLINE, head="transducer").head == "transducer"
    assert load_model(OFFLINE, head="ctc").file.name == "model.onnx"
    assert load_model(STREAMING, head="ctc").file.name == STREAMING_NAME


def test_a_ctc_model_alone_is_no_transducer(alone: Path) -> None:
    assert load_model(alone / "offline").head == "ctc"
    assert load_model(alone / "live").head == "ctc"
    with pytest.raises(BundleError, match=r"Expected a transducer in .* got the CTC model model.onnx"):
        load_model(alone / "offline", head="transducer")
    with pytest.raises(OptionsError, match="the CTC head itself is decoded"):
        open_recognizer(alone / "offline", options=DecodingOptions(blank_skip=0.9))


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"model_type": "EncDecCTCModelBPE"}, "is a NeMo export"),
        ({"model_type": "sense_voice_ctc"}, "SenseVoice"),
        ({"model_type": "wenet_ctc"}, "is a WeNet model"),
        ({"model_type": "telespeech_ctc"}, "CTC model of another kind than Icefall's"),
        ({"model_type": "tdnn_ctc"}, "CTC model of another kind than Icefall's"),
        ({"model_type": "zipformer2_ctc", "feature": "whisper"}, "Whisper's log-mel features"),
        ({"model_type": "zipformer2_ctc", "normalize_samples": "0"}, "scaled to 16-bit integers"),
    ],
)
def test_other_ctc_models_are_refused_by_what_they_are(
    metadata: dict[str, str], message: str, alone: Path, tmp_path: Path
) -> None:
    """Files of many kinds of models are called model.onnx."""
    model = onnx.load(alone / "offline" / "model.onnx")
    del model.metadata_props[:]
    for key, value in metadata.items():
        model.metadata_props.add(key=key, value=value)
    onnx.save(model, tmp_path / "model.int8.onnx")
    shutil.copyfile(alone / "offline" / "tokens.txt", tmp_path / "tokens.txt")
    with pytest.raises(BundleError, match=message) as caught:
        load_model(tmp_path)
    assert caught.value.hint


def test_its_files_are_those_of_icefalls_export(trained: Path) -> None:
    """Names, order, metadata; and sherpa-onnx loads them."""
    pairs = [(trained / "offline-onnx" / "model.onnx", OFFLINE / "model.onnx")]
    pairs.append((trained / "live-onnx" / STREAMING_NAME, STREAMING / STREAMING_NAME))
    for ours, theirs in (map(onnx.load, pair) for pair in pairs):
        for part in ("input", "output"):
            names = [[tensor.name for tensor in getattr(model.graph, part)] for model in (ours, theirs)]
            assert names[0] == names[1]
        said = [{it.key: it.value for it in model.metadata_props} for model in (ours, theirs)]
        assert said[0] == said[1]
    variants = {file.name for file in (trained / "offline-onnx").iterdir()}
    assert variants == {"model.onnx", "model.int8.onnx", "model.fp16.onnx", "tokens.txt"}
    peer = sherpa_onnx.OfflineRecognizer.from_zipformer_ctc(
        model=str(pairs[0][0]), tokens=str(OFFLINE / "tokens.txt"), num_threads=1
    )
    stream = peer.create_stream()
    stream.accept_waveform(16_000, read_audio(demo_clips()[0].audio))
    peer.decode_stream(stream)
    assert stream.result.tokens


def test_commands_with_a_checkpoint_of_a_ctc_model(trained: Path, tmp_path: Path) -> None:
    clip, checkpoint = demo_clips()[0].audio, trained / "offline" / "epoch-1.pt"
    facts = json.loads(moulin_here("inspect", checkpoint, "--json").expect(0).out)
    assert (facts["heads"], facts["mode"], facts["vocab_size"]) == (["ctc"], "checkpoint", 47)
    assert "joiner_dim" not in facts
    wanted = moulin_here("transcribe", clip, "--model", OFFLINE, "--head", "ctc").expect(0).out
    assert moulin_here("transcribe", clip, "--model", checkpoint).expect(0).out == wanted
    live = moulin_here("stream", clip, "--model", trained / "live" / "epoch-1.pt").expect(0).out
    assert live == moulin_here("stream", clip, "--model", STREAMING, "--head", "ctc").expect(0).out
    average = ["--to", tmp_path, "--safetensors"]
    moulin_here("export", checkpoint, trained / "offline" / "epoch-1.pt", *average).expect(0)
    assert moulin_here("transcribe", clip, "--model", tmp_path / "model.safetensors").expect(0).out == wanted
    for refused, message in (
        (["transcribe", clip, "--model", checkpoint, "--head", "transducer"], "has a CTC head alone"),
        (["transcribe", clip, "--model", checkpoint, "--blank-skip", 0.9], "the CTC head itself is decoded"),
    ):
        assert message in moulin_here(*refused).expect(1).err


@pytest.mark.triton
@pytest.mark.parametrize("name", ["offline", "live"])
def test_a_checkpoint_of_a_ctc_model_through_triton(name: str, trained: Path, tmp_path: Path) -> None:
    clip, streaming = demo_clips()[0].audio, name == "live"
    words = [MOULIN, "serve", str(trained / name / "epoch-1.pt"), *(["--streaming"] if streaming else [])]
    free = ["--http-port=0", "--grpc-port=0", "--metrics-port=0", "--no-gateway"]
    serving = Serving.start([*words, *free], tmp_path)
    try:
        serving.wait_ready()
        verb, bundle = ("stream", STREAMING) if streaming else ("transcribe", OFFLINE)
        found = moulin_here(verb, clip, "--url", serving.grpc_url).expect(0).out
        assert found == moulin_here(verb, clip, "--model", bundle, "--head", "ctc").expect(0).out
    finally:
        serving.kill()


def test_what_is_neither_model_is_refused(tmp_path: Path) -> None:
    whole = torch.load(OFFLINE / "epoch-1.pt", weights_only=True)["model"]
    shutil.copyfile(OFFLINE / "tokens.txt", tmp_path / "tokens.txt")
    for left_out, message in (
        (("decoder.", "joiner.", "ctc_output."), r"it has no 'decoder\.\*'"),
        (("joiner.",), r"it has no 'joiner\.\*'"),
        (("decoder.",), r"it has no 'decoder\.\*'"),
    ):
        torch.save({"model": {k: v for k, v in whole.items() if not k.startswith(left_out)}}, tmp_path / "epoch-1.pt")
        with pytest.raises(BundleError, match=message):
            load_model(tmp_path / "epoch-1.pt")


def test_commands(alone: Path) -> None:
    """Text by `moulin transcribe` and `moulin stream`, and what `moulin inspect` says."""
    clip = demo_clips()[0].audio
    facts = json.loads(moulin_here("inspect", alone / "live", "--json").expect(0).out)
    assert (facts["heads"], facts["mode"], facts["chunk_ms"]) == (["ctc"], "streaming", 320)
    facts = json.loads(moulin_here("inspect", alone / "offline", "--json").expect(0).out)
    assert (facts["heads"], facts["mode"], facts["files"]["model"]) == (["ctc"], "offline", "model.onnx")
    with open_recognizer(alone / "offline") as ours:
        wanted = ours.transcribe([read_audio(clip)])[0].text
    for model, head in ((alone / "offline", []), (OFFLINE, ["--head", "ctc"])):
        assert moulin_here("transcribe", clip, "--model", model, *head).expect(0).out.strip() == wanted
    live = moulin_here("stream", clip, "--model", alone / "live").expect(0).out
    assert live == moulin_here("stream", clip, "--model", STREAMING, "--head", "ctc").expect(0).out
    refused = moulin_here("transcribe", clip, "--model", OFFLINE, "--blank-skip", 0.9).expect(1)
    assert "needs a CTC head" in refused.err
