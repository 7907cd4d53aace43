"""Models of other kinds whose files are called as a transducer's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from moulin.bundle.load import load_bundle
from moulin.errors import BundleError

from .conftest import CopyBundle
from .damage import set_metadata

FLOAT, INT32, INT64 = TensorProto.FLOAT, TensorProto.INT32, TensorProto.INT64

# As sherpa-onnx's scripts/nemo write them for an encoder of NeMo's.
NEMO_METADATA = {
    "vocab_size": "1024",
    "normalize_type": "per_feature",
    "pred_rnn_layers": "2",
    "pred_hidden": "640",
    "subsampling_factor": "8",
    "model_type": "EncDecRNNTBPEModel",
    "version": "2",
    "model_author": "NeMo",
}


def write_graph(
    file: Path, inputs: Mapping[str, Sequence[int | str]], outputs: Sequence[str], metadata: Mapping[str, str]
) -> None:
    """A graph with these outside names, and nothing that computes."""
    graph = helper.make_graph(
        [helper.make_node("Identity", [next(iter(inputs))], [output]) for output in outputs],
        "g",
        [helper.make_tensor_value_info(name, FLOAT, shape) for name, shape in inputs.items()],
        [helper.make_tensor_value_info(output, FLOAT, ["N", "D", "T"]) for output in outputs],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    helper.set_model_props(model, dict(metadata))
    onnx.save(model, file)


def write_nemo(folder: Path, variant: str = ".int8", metadata: Mapping[str, str] = NEMO_METADATA) -> None:
    """The four files of a NeMo transducer as sherpa-onnx publishes them."""
    write_graph(
        folder / f"encoder{variant}.onnx",
        {"audio_signal": ["N", 80, "T"], "length": ["N"]},
        ["outputs", "encoded_lengths"],
        metadata,
    )
    write_graph(
        folder / f"decoder{variant}.onnx",
        {"targets": ["N", "U"], "target_length": ["N"], "states.1": [2, "N", 640], "onnx::Slice_3": [2, "N", 640]},
        ["outputs", "prednet_lengths", "states", "162"],
        {},
    )
    write_graph(
        folder / f"joiner{variant}.onnx",
        {"encoder_outputs": ["N", 512, "T"], "decoder_outputs": ["N", 640, "U"]},
        ["output"],
        {},
    )
    (folder / "tokens.txt").write_text("".join(f"t{token} {token}\n" for token in range(1024)) + "<blk> 1024\n")


@pytest.mark.parametrize("variant", [".int8", ""])
def test_a_nemo_export_is_refused_by_name(variant: str, tmp_path: Path) -> None:
    write_nemo(tmp_path, variant)
    with pytest.raises(BundleError) as caught:
        load_bundle(tmp_path)
    assert caught.value.message.startswith(f"{tmp_path}/encoder{variant}.onnx is a NeMo export (EncDecRNNTBPEModel)")
    assert str(caught.value.hint).startswith("sherpa-onnx runs it")


def test_a_nemo_export_without_metadata(tmp_path: Path) -> None:
    write_nemo(tmp_path, metadata={})
    with pytest.raises(BundleError, match=r"is a NeMo export \(audio_signal\)"):
        load_bundle(tmp_path)


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"model_type": "EncDecHybridRNNTCTCBPEModel"}, "is a NeMo export"),
        ({"model_type": "conv-emformer"}, "is a ConvEmformer of Icefall"),
        ({"model_type": "whisper-tiny.en"}, "is a Whisper model"),
        ({"model_type": "paraformer"}, "is a Paraformer"),
        ({"model_type": "moonshine"}, "is a Moonshine model"),
        ({"model_type": "wenet_ctc"}, "is a CTC model"),
        ({"model_type": "zipformer2_ctc"}, "is a CTC model"),
        ({"model_type": "fire-red-asr"}, "is a FireRedASR model"),
        ({"subsampling_factor": "8"}, "makes one frame of another number of features than Icefall's 4"),
        ({"normalize_type": "per_feature"}, "expects features normalised over the recording"),
        ({"feature": "whisper"}, "was trained on Whisper's log-mel features"),
        ({"normalize_samples": "0"}, "expects samples scaled to 16-bit integers"),
    ],
)
def test_metadata_of_other_kinds(metadata: dict[str, str], message: str, copy_bundle: CopyBundle) -> None:
    folder = copy_bundle("conformer-offline")
    set_metadata(load_bundle(folder).encoder.file, **metadata)
    with pytest.raises(BundleError, match=message) as caught:
        load_bundle(folder)
    assert caught.value.hint


@pytest.mark.parametrize(
    "metadata", [{"subsampling_factor": "4"}, {"normalize_samples": "1"}, {"normalize_type": "NA"}, {"feature": ""}]
)
def test_metadata_that_say_what_icefall_does(metadata: dict[str, str], copy_bundle: CopyBundle) -> None:
    folder = copy_bundle("conformer-offline")
    set_metadata(load_bundle(folder).encoder.file, **metadata)
    load_bundle(folder)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"mel": ["N", 80, 3000]}, "is a Whisper model"),
        ({"chunk": ["N", "T", 80], "att_cache": [1, 4, 16, 128], "cnn_cache": [1, 1, 512, 7]}, "is a WeNet model"),
        ({"feats": ["N", "T", 80], "feats_length": ["N"]}, "is an ESPnet model"),
        ({"input_ids": ["N", "T"]}, "is a text or translation model"),
    ],
)
def test_inputs_of_other_kinds(inputs: dict[str, list[int | str]], message: str, copy_bundle: CopyBundle) -> None:
    folder = copy_bundle("conformer-offline")
    write_graph(load_bundle(folder).encoder.file, inputs, ["out"], {})
    with pytest.raises(BundleError, match=message):
        load_bundle(folder)


def test_a_decoder_with_states(copy_bundle: CopyBundle) -> None:
    folder = copy_bundle("conformer-offline")
    write_graph(
        load_bundle(folder).decoder.file, {"y": ["N", 1], "h": [1, "N", 64], "c": [1, "N", 64]}, ["decoder_out"], {}
    )
    with pytest.raises(BundleError, match=r"is no stateless decoder: expected the tokens y alone, got y, h, c"):
        load_bundle(folder)


def test_an_attention_model_says_what_it_is(tmp_path: Path) -> None:
    """An encoder and a decoder without a joiner: by its metadata, else as what such a pair mostly is."""
    (tmp_path / "tokens.txt").write_text("<blk> 0\n")
    write_graph(tmp_path / "encoder.onnx", {"x": ["N", "T", 80]}, ["out"], {"model_type": "paraformer"})
    write_graph(tmp_path / "decoder.onnx", {"y": ["N", "T"]}, ["out"], {})
    with pytest.raises(BundleError, match="is a Paraformer"):
        load_bundle(tmp_path)
    write_graph(tmp_path / "encoder.onnx", {"x": ["N", "T", 80]}, ["out"], {})
    with pytest.raises(BundleError, match=r"has no joiner\*.onnx .hint: an encoder and a decoder without a joiner"):
        load_bundle(tmp_path)


@pytest.mark.parametrize("name", ["zipformer2-offline", "conformer-streaming"])
@pytest.mark.parametrize(("one", "other"), [("encoder", "decoder"), ("decoder", "joiner"), ("joiner", "encoder")])
def test_files_with_each_others_names(name: str, one: str, other: str, copy_bundle: CopyBundle) -> None:
    folder = copy_bundle(name)
    for first in folder.glob(f"{one}*.onnx"):
        second = first.with_name(first.name.replace(one, other))
        aside = first.rename(folder / "aside")
        second.rename(first)
        aside.rename(second)
    with pytest.raises(BundleError, match="but has the tensors of the") as caught:
        load_bundle(folder)
    assert "rename them" in str(caught.value.hint)
