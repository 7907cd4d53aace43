"""config.pbtxt, parsed back by Triton's own protobuf: the numbers are written out here by hand."""

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
from moulin.decoding.options import DecodingOptions
from moulin.errors import OptionsError
from moulin.models.engine_choice import EngineChoice
from moulin.models.language_model_files import LanguageModelFiles
from moulin.triton_repo.offline_options import OfflineOptions
from moulin.triton_repo.repository import build_offline_repository
from tests.bundles import BUNDLES

NGRAMS = Path(__file__).parent.parent / "data" / "ngrams" / "any.arpa"

DEFAULTS: dict[str, Any] = {
    "name": "transducer",
    "backend": "python",
    "max_batch_size": 64,
    "input": [
        {"name": "WAV", "data_type": "TYPE_FP32", "dims": ["-1"], "allow_ragged_batch": True, "optional": True},
        {"name": "WAV_LENS", "data_type": "TYPE_INT32", "dims": ["1"]},
        {"name": "OPTIONS", "data_type": "TYPE_STRING", "dims": ["1"], "optional": True},
        {"name": "WAV_INT16", "data_type": "TYPE_INT16", "dims": ["-1"], "allow_ragged_batch": True, "optional": True},
    ],
    "output": [
        {"name": "TRANSCRIPTS", "data_type": "TYPE_STRING", "dims": ["1"]},
        {"name": "RESULT", "data_type": "TYPE_STRING", "dims": ["1"]},
    ],
    "instance_group": [{"kind": "KIND_CPU", "count": 1}],
    "dynamic_batching": {"default_queue_policy": {"max_queue_size": 2048}},
    "model_warmup": [
        {
            "name": "two seconds of noise",
            "batch_size": 1,
            "inputs": {
                "WAV": {"data_type": "TYPE_FP32", "dims": ["32000"], "input_data_file": "WAV"},
                "WAV_LENS": {"data_type": "TYPE_INT32", "dims": ["1"], "input_data_file": "WAV_LENS"},
            },
        }
    ],
    "parameters": {
        "max_utterance_sec": {"string_value": "39.78"},
        "hotwords": {"string_value": "true"},
        "alternatives": {"string_value": "true"},
        "bundle": {"string_value": "zipformer2-offline"},
        "created": {"string_value": "1767225600"},
        "engine": {"string_value": "onnxruntime"},
        "precision": {"string_value": "fp32"},
    },
}

SERVICE: dict[str, Any] = {
    "model_name": "transducer",
    "encoder": "bundle/encoder-epoch-1-avg-1.onnx",
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
    "max_batch": 64,
    "max_audio_sec": 120.0,
    "max_queue": 2048,
    "queue_delay_ms": 0.0,
    "hotwords": None,
    "lm": {"lm": None, "lodr": None},
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
}


def _built(to: Path, options: OfflineOptions, **choice: Any) -> dict[str, Any]:
    spec = load_bundle(BUNDLES / "zipformer2-offline", **choice)
    model_dir = build_offline_repository(spec, to, options, link=True)
    assert model_dir == to / options.model_name
    config = text_format.Parse((model_dir / "config.pbtxt").read_text(), pb.ModelConfig())
    fields: dict[str, Any] = json_format.MessageToDict(config, preserving_proto_field_name=True)
    return fields


def _without_service(fields: dict[str, Any]) -> tuple[dict[str, Any], Any]:
    """The fields, and what the parameter of the operator's options says."""
    service = fields["parameters"].pop("service")
    return fields, json.loads(service["string_value"])


def test_every_field_of_the_default(tmp_path: Path) -> None:
    assert _without_service(_built(tmp_path, OfflineOptions())) == (DEFAULTS, SERVICE)


def _plan(folder: Path) -> Path:
    """Stands for an engine and what it was built with."""
    plan = folder / "encoder-fp16-0123.plan"
    plan.write_bytes(b"plan")
    plan.with_suffix(".json").write_text("{}")
    return plan


def test_every_option_arrives(tmp_path: Path) -> None:
    engine = EngineChoice(
        kind="onnxruntime",
        device="cuda:1",
        cuda_graphs=False,
        precision="int8",
        threads=5,
        head="transducer",
        workers=2,
        plan=_plan(tmp_path),
    )
    options = OfflineOptions(
        model_name="english-v2",
        engine=engine,
        max_batch=7,
        instances=3,
        max_queue=11,
        queue_delay_ms=2.5,
        max_audio_sec=33.5,
        hotwords="a b, c :2",
        lm=LanguageModelFiles(NGRAMS, NGRAMS),
        decoding=DecodingOptions(
            method="modified_beam_search",
            beam=6,
            max_contexts=5,
            max_states=64,
            temperature=1.5,
            blank_penalty=-0.25,
            hotwords=(Hotword("d"), Hotword("e", 2.5)),
            hotwords_score=3.5,
            hotwords_method="refuse",
            nbest=7,
            lm_scale=0.5,
            lodr_scale=0.25,
        ),
        encoder="filled in when it is built",
        gpus=(1, 0),
    )
    # Every option must differ from its default, or the test would not notice that one is ignored.
    for option in dataclasses.fields(OfflineOptions):
        assert getattr(options, option.name) != getattr(OfflineOptions(), option.name), option.name
    for option in dataclasses.fields(EngineChoice):
        assert getattr(engine, option.name) != getattr(EngineChoice(), option.name), option.name
    fields, service = _without_service(_built(tmp_path, options, precision="int8"))
    assert fields == {
        **DEFAULTS,
        "name": "english-v2",
        "max_batch_size": 7,
        "instance_group": [{"kind": "KIND_GPU", "count": 3, "gpus": [1, 0]}],
        "dynamic_batching": {
            "max_queue_delay_microseconds": "2500",
            "default_queue_policy": {"max_queue_size": 11},
        },
        "parameters": {
            **DEFAULTS["parameters"],
            "max_utterance_sec": {"string_value": "33.5"},
            "precision": {"string_value": "int8"},
        },
    }
    assert service == {
        "model_name": "english-v2",
        "encoder": "bundle/encoder-epoch-1-avg-1.int8.onnx",
        "engine": {
            "kind": "onnxruntime",
            "device": "cuda:1",
            "cuda_graphs": False,
            "precision": "int8",
            "threads": 5,
            "head": "transducer",
            "workers": 2,
            "plan": "encoder.plan",
        },
        "instances": 3,
        "gpus": [1, 0],
        "max_batch": 7,
        "max_audio_sec": 33.5,
        "max_queue": 11,
        "queue_delay_ms": 2.5,
        "hotwords": "hotwords.txt",
        "lm": {"lm": "lm.arpa", "lodr": "lodr.arpa"},
        "decoding": {
            "method": "modified_beam_search",
            "beam": 6,
            "max_contexts": 5,
            "max_states": 64,
            "temperature": 1.5,
            "blank_penalty": -0.25,
            "blank_skip": None,
            "hotwords": [
                {"phrase": "d", "score": None, "optional": False},
                {"phrase": "e", "score": 2.5, "optional": False},
            ],
            "hotwords_score": 3.5,
            "hotwords_method": "refuse",
            "nbest": 7,
            "lm_scale": 0.5,
            "lodr_scale": 0.25,
        },
    }
    version = tmp_path / "english-v2" / "1"
    assert ((version / "encoder.plan").read_bytes(), (version / "encoder.json").read_text()) == (b"plan", "{}")


@pytest.mark.parametrize(("device", "gpu"), [("cpu", None), ("cuda", 0), ("cuda:0", 0), ("cuda:12", 12)])
def test_gpu_of_a_device(device: str, gpu: int | None) -> None:
    assert OfflineOptions(engine=EngineChoice(device=device)).engine.gpu == gpu


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"model_name": ""}, "model name of letters, digits"),
        ({"model_name": "../other"}, r"got '\.\./other'"),
        ({"model_name": ".hidden"}, "model name"),
        ({"model_name": "a b"}, "model name"),
        ({"max_batch": 0}, "max-batch of 1 to 1e6, got 0"),
        ({"instances": -1}, "instances of 1 to 1024, got -1"),
        ({"max_queue": 0}, "max-queue of at least 1, got 0"),
        ({"queue_delay_ms": -1.0}, "queue-delay-ms of at least 0, got -1"),
        ({"max_audio_sec": 0.0}, "max-audio-sec above 0, got 0"),
        ({"max_audio_sec": float("nan")}, "max-audio-sec above 0, got nan"),
    ],
)
def test_options_that_make_no_sense(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionsError, match=message):
        OfflineOptions(**wrong)
