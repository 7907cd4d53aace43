"""The repositories of docs/quick-starts.md as their publishers laid them out, with small models of the same recipes."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from tests.bundle.sentence_pieces import trained
from tests.bundles import BUNDLES

CHARACTERS = (
    "的一是在不了有和人这中大为上个国我以要他时来用们生到作地于出就分对成会可主发年动同工也能下过子说产种方面把些现理"
)

STATELESS3 = "csukuangfj/icefall-asr-librispeech-pruned-transducer-stateless3-2022-05-13"
STATELESS3_STREAMING = "pkufool/icefall_librispeech_streaming_pruned_transducer_stateless3_giga_0.9_20220625"
STATELESS7 = "csukuangfj/icefall-asr-librispeech-pruned-transducer-stateless7-2022-11-11"
STATELESS7_STREAMING = "Zengwei/icefall-asr-librispeech-pruned-transducer-stateless7-streaming-2022-12-29"
STATELESS5_STREAMING = "luomingshuang/icefall_asr_wenetspeech_pruned_transducer_stateless5_streaming"
WENETSPEECH = "pkufool/icefall-asr-zipformer-wenetspeech-20230615"

OTHER: Mapping[str, bytes] = {"README.md": b"", "exp/cpu_jit.pt": b"PK not for us" * 200}


def chinese(tokens: str) -> str:
    """The same ids for characters."""
    lines = [line.split() for line in tokens.splitlines()]
    return "".join(f"{symbol if int(at) < 3 else CHARACTERS[int(at)]} {at}\n" for symbol, at in lines)


def _read(bundle: str, name: str = "epoch-1.pt") -> bytes:
    return (BUNDLES / bundle / name).read_bytes()


def _characters(bundle: str) -> bytes:
    return chinese(_read(bundle, "tokens.txt").decode()).encode()


def _in_training(bundle: str) -> bytes:
    """The checkpoint as Icefall's `save_checkpoint` writes it: optimizer, scheduler and options beside the model."""
    model = torch.load(io.BytesIO(_read(bundle)), weights_only=True)["model"]
    optimizer = {"state": {0: {"delta": torch.zeros(1000)}}, "param_groups": [{"lr": 0.05, "params": [0]}]}
    options: dict[str, Any] = {
        "exp_dir": Path("pruned_transducer_stateless7_streaming/exp"),
        "bpe_model": "data/lang_bpe_500/bpe.model",
        "nhead": "4,4,4",
        "decode_chunk_len": 32,
        "num_left_chunks": 4,
        "context_size": 2,
        "batch_idx_train": 1000,
    }
    written = io.BytesIO()
    torch.save(
        {
            "model": model,
            "model_avg": {name: value.double() for name, value in model.items()},
            "optimizer": optimizer,
            "scheduler": {"batch": 1000, "epoch": 30},
            "grad_scaler": {"scale": 1024.0},
            "sampler": None,
            **options,
        },
        written,
    )
    return written.getvalue()


def _stateless3() -> dict[str, bytes]:
    onnx = {f"exp/onnx/{name}.onnx": b"of 2022" * 200 for name in ("encoder", "decoder", "joiner")}
    projections = {f"exp/onnx/joiner_{name}_proj.onnx": b"of 2022" * 200 for name in ("encoder", "decoder")}
    return {
        "exp/pretrained-iter-1224000-avg-14.pt": _read("conformer-offline"),
        "exp/pretrained-iter-824000-avg-18.pt": b"another" * 200,
        "data/lang_bpe_500/tokens.txt": _read("conformer-offline", "tokens.txt"),
        **onnx,
        **projections,
    }


def _stateless3_streaming() -> dict[str, bytes]:
    return {
        "exp/pretrained-epoch-25-avg-12.pt": _read("conformer-streaming"),
        "exp/cpu_jit-epoch-25-avg-12.pt": b"not for us" * 200,
        "exp/export.sh": b"",
        "data/lang_bpe_500/bpe.model": trained(37),
    }


def _stateless7() -> dict[str, bytes]:
    return {
        "exp/pretrained.pt": _read("zipformer-offline"),
        "exp/pretrained-epoch-30-avg-9.pt": b"pretrained.pt",  # a link of git
        "exp/epoch-30.pt": b"another" * 200,
        "exp/cpu_jit-torch-1.10.0.pt": b"not for us" * 200,
        "data/lang_bpe_500/tokens.txt": _read("zipformer-offline", "tokens.txt"),
    }


def _stateless7_streaming() -> dict[str, bytes]:
    return {
        "exp/epoch-30.pt": _in_training("zipformer-streaming"),
        "exp/pretrained.pt": b"an average" * 200,
        "data/lang_bpe_500/bpe.model": trained(37),
    }


def _stateless5_streaming() -> dict[str, bytes]:
    return {
        "exp/pretrained_epoch_7_avg_1.pt": _read("conformer-streaming-right2"),
        "exp/cpu_jit_epoch_7_avg_1_torch.1.7.1.pt": b"not for us" * 200,
        "data/lang_char/tokens.txt": _characters("conformer-streaming-right2"),
        "data/lang_char/Linv.pt": b"a graph" * 200,
        "data/lang_char/L.pt": b"a graph" * 200,
    }


def _wenetspeech() -> dict[str, bytes]:
    folder = BUNDLES / "zipformer2-offline"
    onnx = {
        "exp/" + it.name.replace("epoch-1-avg-1", "epoch-12-avg-4"): it.read_bytes() for it in folder.glob("*.onnx")
    }
    return {
        **onnx,
        "exp/pretrained.pt": _read("zipformer2-offline"),
        "exp/epoch-12.pt": b"another" * 200,
        "exp/jit_script.pt": b"not for us" * 200,
        "data/lang_char/tokens.txt": _characters("zipformer2-offline"),
    }


PUBLISHED: Mapping[str, Callable[[], dict[str, bytes]]] = {
    STATELESS3: _stateless3,
    STATELESS3_STREAMING: _stateless3_streaming,
    STATELESS7: _stateless7,
    STATELESS7_STREAMING: _stateless7_streaming,
    STATELESS5_STREAMING: _stateless5_streaming,
    WENETSPEECH: _wenetspeech,
}
"""The files of each repository, by its name."""
