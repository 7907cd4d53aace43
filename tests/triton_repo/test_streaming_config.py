"""The streaming model's config.pbtxt, parsed back by Triton's own protobuf: the numbers are written out by hand."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import json_format, text_format
from tritonclient.grpc import model_config_pb2 as pb

from moulin.bundle.load import load_bundle
from moulin.decoding.hotwords import Hotword
from moulin.errors import OptionsError
from moulin.models.engine_choice import EngineChoice
from moulin.models.language_model_files import LanguageModelFiles
from moulin.options import from_json
from moulin.streaming.options import StreamOptions
from moulin.triton_repo.repository import build_streaming_repository
from moulin.triton_repo.streaming_options import StreamingOptions
from tests.bundles import BUNDLES

NGRAMS = Path(__file__).parent.parent / "data" / "ngrams" / "any.arpa"

STREAM: dict[str, Any] = {
    "decoding": {
        "method": "greedy",
        "beam": 4,
        "max_contexts": 4,
        "max_states": 32,
        "temperature": 1.0,
        "blank_penalty": 0.0,
        "blank_skip": None,
        "hotwords": [],
        "hotwords_score": 1.5,
        "hotwords_method": "modified_beam_search",
        "nbest": 1,
        "lm_scale": None,
        "lodr_scale": None,
    },
    "endpoint": True,
    "rules": {
        "rule1_min_trailing_silence_sec": 2.4,
        "rule2_min_trailing_silence_sec": 1.2,
        "rule3_min_utterance_length_sec": 20.0,
    },
}


def _of_lane(name: str, kind: str, size: str = "-1") -> dict[str, Any]:
    return {
        "name": name,
        "data_type": f"TYPE_{kind}",
        "dims": [size],
        "optional": True,
        "allow_ragged_batch": True,
    }


DEFAULTS: dict[str, Any] = {
    "name": "transducer",
    "backend": "python",
    "max_batch_size": 64,
    "input": [
        {"name": "WAV", "data_type": "TYPE_FP32", "dims": ["-1"], "allow_ragged_batch": True, "optional": True},
        {"name": "WAV_LENS", "data_type": "TYPE_INT32", "dims": ["1"], "optional": True},
        {"name": "OPTIONS", "data_type": "TYPE_STRING", "dims": ["1"], "optional": True},
        {"name": "WAV_INT16", "data_type": "TYPE_INT16", "dims": ["-1"], "optional": True, "allow_ragged_batch": True},
        {"name": "CHUNK_INDEX", "data_type": "TYPE_UINT64", "dims": ["1"], "optional": True},
        _of_lane("BUNDLE", "UINT64", "1"),
        _of_lane("STREAMS", "UINT64"),
        _of_lane("EVENTS", "UINT8"),
        _of_lane("STREAM_OPTIONS", "STRING"),
        _of_lane("CHUNK_LENS", "INT32"),
        _of_lane("CHUNKS", "INT16"),
    ],
    "output": [
        {"name": "TRANSCRIPTS", "data_type": "TYPE_STRING", "dims": ["1"]},
        {"name": "RESULT", "data_type": "TYPE_STRING", "dims": ["1"]},
        {"name": "UPDATE_STREAMS", "data_type": "TYPE_UINT64", "dims": ["-1"]},
        {"name": "UPDATE_KINDS", "data_type": "TYPE_UINT8", "dims": ["-1"]},
        {"name": "UPDATE_LENS", "data_type": "TYPE_INT32", "dims": ["-1"]},
        {"name": "UPDATES", "data_type": "TYPE_UINT8", "dims": ["-1"]},
        {"name": "DECODED_STREAMS", "data_type": "TYPE_UINT64", "dims": ["-1"]},
        {"name": "DECODED", "data_type": "TYPE_UINT64", "dims": ["-1"]},
        {"name": "LANE", "data_type": "TYPE_UINT8", "dims": ["-1"]},
    ],
    "instance_group": [{"kind": "KIND_CPU", "count": 1}],
    "sequence_batching": {
        "max_sequence_idle_microseconds": "75000000",
        "oldest": {"max_candidate_sequences": 65536},
    },
}

SERVICE: dict[str, Any] = {
    "model_name": "transducer",
    "encoder": "bundle/encoder-epoch-1-avg-1-chunk-16-left-64.onnx",
    "engine": {
        "kind": "onnxruntime",
        "device": "cpu",
        "cuda_graphs": True,
        "precision": "fp32",
        "threads": None,
        "head": None,
        "workers": None,
        "plan": None,
    },
    "instances": 1,
    "gpus": [],
    "max_streams": 1024,
    "max_batch": None,
    "linger_ms": 0.0,
    "max_step_ms": None,
    "queue_delay_ms": 5.0,
    "idle_timeout_sec": 15.0,
    "takeover_sec": 3.0,
    "lane_timeout_sec": 3.0,
    "hotwords": None,
    "lm": {"lm": None, "lodr": None},
    "stream": STREAM,
}


def _built(to: Path, options: StreamingOptions) -> dict[str, Any]:
    spec = load_bundle(BUNDLES / "zipformer2-streaming")
    model_dir = build_streaming_repository(spec, to, options, link=True)
    assert model_dir == to / options.model_name
    config = text_format.Parse((model_dir / "config.pbtxt").read_text(), pb.ModelConfig())
    fields: dict[str, Any] = json_format.MessageToDict(config, preserving_proto_field_name=True)
    return fields


def _without_service(fields: dict[str, Any]) -> tuple[dict[str, Any], Any]:
    """The fields, and what the parameter of the operator's options says."""
    parameters = fields.pop("parameters")
    assert parameters.keys() == {"service", "hotwords", "alternatives", "bundle", "created", "engine", "precision"}
    assert parameters["hotwords"]["string_value"] == parameters["alternatives"]["string_value"] == "true"
    return fields, json.loads(parameters["service"]["string_value"])


def test_every_field_of_the_default(tmp_path: Path) -> None:
    assert _without_service(_built(tmp_path, StreamingOptions())) == (DEFAULTS, SERVICE)


def _plan(folder: Path) -> Path:
    """Stands for an engine and what it was built with."""
    plan = folder / "encoder-fp16-0123.plan"
    plan.write_bytes(b"plan")
    plan.with_suffix(".json").write_text("{}")
    return plan


def test_every_option_arrives(tmp_path: Path) -> None:
    stream = {
        "method": "modified_beam_search",
        "beam": 6,
        "max_contexts": 5,
        "max_states": 64,
        "temperature": 1.5,
        "blank_penalty": -0.25,
        "endpoint": False,
        "rule1_min_trailing_silence_sec": 3.5,
        "rule2_min_trailing_silence_sec": 0.75,
        "rule3_min_utterance_length_sec": 30.0,
        "hotwords": (Hotword("d"), Hotword("e", 2.5)),
        "hotwords_score": 3.5,
        "hotwords_method": "refuse",
        "nbest": 7,
        "lm_scale": 0.5,
        "lodr_scale": 0.25,
    }
    engine = EngineChoice(
        kind="onnxruntime",
        device="cuda:1",
        cuda_graphs=False,
        precision="fp32",
        threads=5,
        head="transducer",
        workers=2,
        plan=_plan(tmp_path),
    )
    options = StreamingOptions(
        model_name="english-live",
        engine=engine,
        max_streams=100,
        max_batch=7,
        instances=3,
        queue_delay_ms=0.0,
        idle_timeout_sec=2.5,
        takeover_sec=1.5,
        lane_timeout_sec=4.5,
        linger_ms=50.0,
        max_step_ms=320.0,
        hotwords="a b, c :2",
        lm=LanguageModelFiles(NGRAMS, NGRAMS),
        stream=StreamOptions().updated(stream),
        encoder="filled in when it is built",
        gpus=(1, 0),
    )
    # Every option must differ from its default, or the test would not notice that one is ignored.
    for option in dataclasses.fields(StreamingOptions):
        assert getattr(options, option.name) != getattr(StreamingOptions(), option.name), option.name
    for option in dataclasses.fields(EngineChoice):
        assert getattr(engine, option.name) != getattr(EngineChoice(), option.name), option.name
    assert stream.keys() | {"blank_skip"} == StreamOptions().to_dict().keys()  # which needs a CTC head
    assert all(value != StreamOptions().to_dict()[name] for name, value in stream.items())
    fields, service = _without_service(_built(tmp_path, options))
    assert fields == {
        **DEFAULTS,
        "name": "english-live",
        "instance_group": [{"kind": "KIND_GPU", "count": 3, "gpus": [1, 0]}],
        "sequence_batching": {
            "max_sequence_idle_microseconds": "62500000",
            "oldest": {"max_candidate_sequences": 65536},
        },
    }
    assert service == {
        "model_name": "english-live",
        "encoder": SERVICE["encoder"],
        "engine": {
            "kind": "onnxruntime",
            "device": "cuda:1",
            "cuda_graphs": False,
            "precision": "fp32",
            "threads": 5,
            "head": "transducer",
            "workers": 2,
            "plan": "encoder.plan",
        },
        "instances": 3,
        "gpus": [1, 0],
        "max_streams": 100,
        "max_batch": 7,
        "linger_ms": 50.0,
        "max_step_ms": 320.0,
        "queue_delay_ms": 0.0,
        "idle_timeout_sec": 2.5,
        "takeover_sec": 1.5,
        "lane_timeout_sec": 4.5,
        "hotwords": "hotwords.txt",
        "lm": {"lm": "lm.arpa", "lodr": "lodr.arpa"},
        "stream": {
            "decoding": {
                **{name: stream.get(name) for name in STREAM["decoding"]},
                "hotwords": [
                    {"phrase": "d", "score": None, "optional": False},
                    {"phrase": "e", "score": 2.5, "optional": False},
                ],
            },
            "endpoint": False,
            "rules": {name: stream[name] for name in STREAM["rules"]},
        },
    }
    version = tmp_path / "english-live" / "1"
    assert ((version / "encoder.plan").read_bytes(), (version / "encoder.json").read_text()) == (b"plan", "{}")


@pytest.mark.parametrize("idle_timeout_sec", [0.001, 0.1, 15, 3600, 123_456.7, 999_999])
def test_triton_forgets_a_sequence_after_we_do(tmp_path: Path, idle_timeout_sec: float) -> None:
    config, service = _without_service(_built(tmp_path, StreamingOptions(idle_timeout_sec=idle_timeout_sec)))
    ours = service["idle_timeout_sec"]
    assert ours == idle_timeout_sec
    assert int(config["sequence_batching"]["max_sequence_idle_microseconds"]) > ours * 1e6


@pytest.mark.parametrize("max_streams", [1, 1024, 65_535, 65_536, 100_000])
def test_our_limit_is_reached_before_tritons(tmp_path: Path, max_streams: int) -> None:
    """Beyond its own, Triton lets a new sequence wait in silence."""
    config, service = _without_service(_built(tmp_path, StreamingOptions(max_streams=max_streams)))
    assert service["max_streams"] == max_streams
    assert config["sequence_batching"]["oldest"]["max_candidate_sequences"] > max_streams


def test_options_of_streams_come_back_as_they_were(tmp_path: Path) -> None:
    stream = StreamOptions().updated({"rule1_min_trailing_silence_sec": 1e9, "blank_penalty": 1 / 3})
    config = _built(tmp_path, StreamingOptions(stream=stream))
    assert from_json(StreamingOptions, config["parameters"]["service"]["string_value"]).stream == stream


@pytest.mark.parametrize(("device", "gpu"), [("cpu", None), ("cuda", 0), ("cuda:12", 12)])
def test_gpu_of_a_device(device: str, gpu: int | None) -> None:
    assert StreamingOptions(engine=EngineChoice(device=device)).engine.gpu == gpu


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"model_name": ""}, "model name of letters, digits"),
        ({"model_name": "../other"}, r"got '\.\./other'"),
        ({"max_streams": 0}, "max-streams of 1 to 1e6, got 0"),
        ({"max_batch": 0}, "max-batch of 1 to 1e6, got 0"),
        ({"instances": -1}, "instances of 1 to 1024, got -1"),
        ({"linger_ms": -1.0}, "linger-ms of at least 0 and below 1e6, got -1"),
        ({"linger_ms": float("nan")}, "linger-ms of at least 0 and below 1e6, got nan"),
        ({"idle_timeout_sec": 0.0}, "idle-timeout-sec above 0 .*got 0"),
        ({"idle_timeout_sec": -1.0}, "idle-timeout-sec above 0 .*got -1"),
        ({"idle_timeout_sec": float("nan")}, "idle-timeout-sec above 0 .*got nan"),
        ({"idle_timeout_sec": float("inf")}, "idle-timeout-sec above 0 .*got inf"),
        ({"idle_timeout_sec": 1e6}, r"below 1e6, got 1e\+06"),
    ],
)
def test_a_wrong_option_is_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionsError, match=message):
        StreamingOptions(**wrong)
