from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from moulin.bundle.load import load_bundle
from tests.bundle.sentence_pieces import pieces_of, trained
from tests.bundles import BUNDLES, OFFLINE
from tests.icefall import CASES, with_parameters

from .command import moulin, moulin_here

CAUSAL = BUNDLES / "zipformer2-streaming" / "epoch-1.pt"


def test_a_causal_model_in_both_forms(tmp_path: Path) -> None:
    offline = moulin("export", CAUSAL, "--to", tmp_path / "offline").expect(0)
    assert offline.out == f"{tmp_path / 'offline'}\n"
    assert "encoder: largest error" in offline.err
    assert offline.err.endswith(f"Serve it: moulin serve {offline.out}")
    streaming = moulin_here(
        "export", CAUSAL, "--to", tmp_path / "streaming", "--streaming", "--chunk-size", 16, "--left-context-frames", 64
    ).expect(0)
    assert "streaming zipformer2" in streaming.err
    names = {file.name for file in (tmp_path / "streaming").iterdir()}
    assert names == {
        "tokens.txt",
        *(f"{part}-epoch-1-avg-1-chunk-16-left-64.onnx" for part in ("encoder", "decoder", "joiner")),
    }
    assert load_bundle(tmp_path / "offline").mode == "offline"
    assert load_bundle(tmp_path / "streaming").streaming == load_bundle(CAUSAL.parent).streaming


def test_fp16_and_int8(tmp_path: Path) -> None:
    moulin_here(
        "export",
        BUNDLES / "conformer-offline",
        "--to",
        tmp_path,
        "--fp16",
        "--int8",
        "--tokens",
        BUNDLES / "conformer-offline" / "tokens.txt",
    ).expect(0)
    for precision in ("fp32", "fp16", "int8"):
        done = moulin("inspect", tmp_path, "--precision", precision, "--json").expect(0)
        assert json.loads(done.out)["precision"] == precision
        clip = Path(__file__).parents[2] / "src" / "moulin" / "demo" / "audio"
        (audio, *_) = sorted(clip.glob("*.flac"))
        moulin(
            "transcribe",
            audio,
            "--model",
            next(tmp_path.glob("encoder*.onnx" if precision == "fp32" else f"encoder*.{precision}.onnx")),
        ).expect(0)


def test_the_average_of_two(tmp_path: Path) -> None:
    source = BUNDLES / "lstm-streaming"
    content = torch.load(source / "epoch-1.pt", weights_only=True)
    for epoch in (1, 2):
        torch.save(content, tmp_path / f"epoch-{epoch}.pt")
    done = moulin_here(
        "export",
        tmp_path / "epoch-1.pt",
        tmp_path / "epoch-2.pt",
        "--to",
        tmp_path / "out",
        "--streaming",
        "--tokens",
        source / "tokens.txt",
    ).expect(0)
    assert (tmp_path / "out" / "encoder-epoch-2-avg-2-chunk-2.onnx").is_file(), done.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere.pt", "--to", "out"], "There is no checkpoint at nowhere.pt"),
        ([BUNDLES / "conformer-offline" / "tokens.txt", "--to", "out"], "is no checkpoint"),
        ([BUNDLES / OFFLINE[0] / "epoch-1.pt", "--to", "out", "--tokens", "none.txt"], "There is no none.txt"),
        ([BUNDLES / OFFLINE[0] / "epoch-1.pt", "--to", "out", "--chunk-size", 16], "are for --streaming"),
        ([BUNDLES / "zipformer2-offline" / "epoch-1.pt", "--to", "out", "--streaming"], "be exported for streams"),
        ([BUNDLES / "lstm-streaming", "--to", "out"], "is exported for streaming only"),
        ([CAUSAL, "--to", "out", "--use-averaged-model"], "Expected two checkpoints"),
    ],
)
def test_what_cannot_be_exported(
    arguments: list[object], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = moulin_here("export", *arguments).expect(1)
    assert message in done.err
    assert len([line for line in done.err.splitlines() if line.startswith("moulin")]) == 1
    assert done.out == ""
    assert not list(tmp_path.glob("out/*.onnx"))


def test_tokens_of_another_model(tmp_path: Path) -> None:
    (tmp_path / "tokens.txt").write_text("<blk> 0\n<sos/eos> 1\n<unk> 2\na 3\n")
    done = moulin_here("export", CAUSAL, "--to", tmp_path / "out", "--tokens", tmp_path / "tokens.txt").expect(1)
    assert "37" in done.err
    assert "4" in done.err


def test_help_has_an_example() -> None:
    assert "Example: moulin export" in moulin("export", "--help").expect(0).out


@pytest.mark.parametrize(
    ("bundle", "flags", "streaming"),
    [
        ("zipformer2-offline-pos8", ["--num-heads", 4], []),
        ("zipformer2-offline-pos8", ["--pos-head-dim", "8,8"], []),
        ("zipformer2-streaming-context1", ["--num-heads", "4,2,4"], ["--streaming"]),
        ("conformer-streaming-right2", [], ["--streaming", "--right-context", 2]),
    ],
)
def test_what_a_checkpoint_does_not_tell_is_said_by_flags(
    bundle: str, flags: list[object], streaming: list[object], tmp_path: Path
) -> None:
    """Without them a line says what is taken for granted, and the files are others."""
    checkpoint = BUNDLES / bundle / "epoch-1.pt"
    if flags:
        bare = moulin_here("export", checkpoint, "--to", tmp_path / "bare", *streaming).expect(0)
        warnings = [line for line in bare.err.splitlines() if line.startswith("warning: ")]
        assert len(warnings) == 1
        assert "--num-heads or --pos-head-dim" in warnings[0]
    told = moulin_here("export", checkpoint, "--to", tmp_path / "told", *flags, *streaming).expect(0)
    assert "warning" not in told.err
    assert "Comparing the ONNX files with moulin's own PyTorch modules, on noise and on two recordings" in told.err
    ours, icefalls = load_bundle(tmp_path / "told"), load_bundle(checkpoint.parent)
    assert ours.streaming == icefalls.streaming
    if "--right-context" in streaming:
        assert ours.files.encoder.name == "encoder-epoch-1-avg-1-chunk-32-left-64-right-2.onnx"


def test_training_parameters_say_it_themselves(tmp_path: Path) -> None:
    case = next(case for case in CASES if case.bundle == "zipformer2-offline-pos8")
    file = with_parameters(case, tmp_path / "epoch-1.pt")
    (tmp_path / "tokens.txt").write_bytes(case.checkpoint.with_name("tokens.txt").read_bytes())
    assert "warning" not in moulin_here("export", file, "--to", tmp_path / "out").expect(0).err
    facts = json.loads(moulin_here("inspect", file, "--json").expect(0).out)["facts"]
    assert facts["num_heads"] == {"value": [4, 4], "source": "parameters"}
    assert facts["pos_head_dim"] == {"value": [8, 8], "source": "parameters"}
    shown = moulin_here("inspect", file).expect(0)
    assert shown.err == ""
    assert any(line.split() == ["pos", "head", "dim", "8,8", "(parameters)"] for line in shown.out.splitlines())
    refused = moulin_here("inspect", file, "--num-heads", 8).expect(1)
    assert "--num-heads says 8, the checkpoint's own parameters say 4" in refused.err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (
            ["--num-heads", "4,x"],
            "Expected --num-heads to be a positive number, or several joined by commas, got '4,x'",
        ),
        (["--pos-head-dim", 0], "Expected --pos-head-dim to be a positive number"),
        (["--num-heads", "4,2"], "num_heads to be one number or 3, one for each stack, got 4,2"),
        (["--num-heads", 3], "num_heads says 3 for stack 0"),
        (["--right-context", 2, "--streaming"], "--right-context is for a Conformer"),
        (["--right-context", 2], "are for --streaming"),
        (["--no-causal"], "causal says False, and its tensors have causal convolutions"),
    ],
)
def test_flags_that_cannot_be(flags: list[object], message: str, tmp_path: Path) -> None:
    done = moulin_here("export", CAUSAL, "--to", tmp_path / "out", *flags).expect(1)
    assert message in done.err


@pytest.mark.parametrize("bundle", [*OFFLINE, "lstm-streaming", "zipformer2-streaming"])
def test_inspect_a_checkpoint(bundle: str) -> None:
    done = moulin_here("inspect", BUNDLES / bundle / "epoch-1.pt", "--json").expect(0)
    facts = json.loads(done.out)
    assert facts["family"] == bundle.partition("-")[0]
    assert (facts["vocab_size"], facts["decoder_dim"], facts["joiner_dim"]) == (37, 40, 56)
    assert facts["parameters"] > 100_000


def test_a_checkpoint_with_a_bpe_model(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "model.pt").symlink_to(BUNDLES / "lstm-streaming" / "epoch-1.pt")
    (source / "bpe.model").write_bytes(trained(37))
    to = tmp_path / "to"
    moulin_here("export", source, "--to", to, "--streaming").expect(0)
    assert (to / "bpe.model").read_bytes() == trained(37)
    assert list(load_bundle(to).tokens.symbols) == pieces_of(trained(37))
    assert (to / "tokens.txt").is_file()
