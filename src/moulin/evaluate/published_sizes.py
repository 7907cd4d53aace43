"""Models of published sizes with random weights, which is enough to measure speed."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import torch

from moulin.bundle.checkpoint_files import STORED_NAME
from moulin.bundle.parameters import as_parameters
from moulin.bundle.stored import write_stored
from moulin.encoders.conformer import Conformer, ConformerConfig
from moulin.encoders.decoder import Decoder
from moulin.encoders.encoder import Encoder
from moulin.encoders.joiner import Joiner
from moulin.encoders.lstm import Lstm, LstmConfig
from moulin.encoders.recipe import Recipe
from moulin.encoders.transducer import Transducer
from moulin.encoders.zipformer import Zipformer, ZipformerConfig
from moulin.encoders.zipformer2 import Zipformer2, Zipformer2Config
from moulin.errors import OptionsError
from moulin.export.to_onnx import export_onnx
from moulin.onnx_rewrites.variants import write_fp16, write_int8

_VOCABULARY, _INNER, _CONTEXT = 500, 512, 2
"""Sizes that all models share: 500 BPE pieces, and 512 channels in the decoder and joiner."""

_SizeList = tuple[int, ...]


def _conformer(chunk: int, left: int, right: int) -> Conformer:
    """A Conformer that was trained for streaming."""
    encoder = Conformer(ConformerConfig(causal=True))
    encoder.recipe = Recipe(causal=True, chunk_size=chunk, left_context_frames=left, right_context=right)
    return encoder


def _zipformer() -> Zipformer:
    """The first Zipformer of pruned_transducer_stateless7_streaming."""
    layers, hidden, factors = (2, 4, 3, 2, 4), (1024, 1024, 2048, 2048, 1024), (1, 2, 4, 8, 2)
    config = ZipformerConfig(layers, (384,) * 5, (192,) * 5, (8,) * 5, hidden, (31,) * 5, factors)
    encoder = Zipformer(config, causal=True)
    encoder.recipe = Recipe(causal=True, chunk_size=32, left_context_frames=64)
    return encoder


def _lstm() -> Lstm:
    encoder = Lstm(LstmConfig())
    bound = encoder.config.cells**-0.5
    for name, parameter in encoder.named_parameters():
        if ".lstm." in name:
            torch.nn.init.uniform_(parameter, -bound, bound)
    return encoder


def _zipformer2(layers: _SizeList, dims: _SizeList, hidden: _SizeList, *, causal: bool = False) -> Zipformer2:
    heads, kernels = (4, 4, 4, 8, 4, 4), (31, 31, 15, 15, 15, 31)
    factors, query, value = (1, 2, 4, 8, 4, 2), (32,) * 6, (12,) * 6
    return Zipformer2(Zipformer2Config(layers, factors, dims, heads, query, value, hidden, kernels, causal=causal))


SIZES: dict[str, Callable[[], Encoder]] = {
    "conformer-77m": lambda: Conformer(ConformerConfig()),
    "conformer-streaming-77m": lambda: _conformer(16, 64, 0),
    "conformer-streaming-right2-77m": lambda: _conformer(8, 64, 2),
    "zipformer-streaming-70m": _zipformer,
    "lstm-84m": _lstm,
    "zipformer2-23m": lambda: _zipformer2(
        (2, 2, 2, 2, 2, 2), (192, 256, 256, 256, 256, 256), (512, 768, 768, 768, 768, 768)
    ),
    "zipformer2-66m": lambda: _zipformer2(
        (2, 2, 3, 4, 3, 2), (192, 256, 384, 512, 384, 256), (512, 768, 1024, 1536, 1024, 768)
    ),
    "zipformer2-causal-66m": lambda: _zipformer2(
        (2, 2, 3, 4, 3, 2), (192, 256, 384, 512, 384, 256), (512, 768, 1024, 1536, 1024, 768), causal=True
    ),
    "zipformer2-148m": lambda: _zipformer2(
        (2, 2, 4, 5, 4, 2), (192, 256, 512, 768, 512, 256), (512, 768, 1536, 2048, 1536, 768)
    ),
    "zipformer2-290m": lambda: _zipformer2(
        (2, 2, 4, 5, 4, 2), (192, 384, 768, 1024, 768, 384), (512, 1024, 2048, 3072, 2048, 1024)
    ),
}
"""Encoders of pruned_transducer_stateless3 on LibriSpeech (for streams in chunks of 640 ms, and of 320 ms with two
frames of right context), of pruned_transducer_stateless7_streaming (320 ms), of lstm_transducer_stateless2, and of the
recipe `zipformer` in S, M (also for streams), L and XL."""


def random_transducer(size: str) -> Transducer:
    """A transducer of `size`, the same every time. Raises OptionsError."""
    if size not in SIZES:
        raise OptionsError(f"There is no size {size!r}", hint=f"the sizes are {', '.join(SIZES)}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        encoder = SIZES[size]()
        decoder = Decoder(_VOCABULARY, _INNER, _CONTEXT, _INNER // 4)
        joiner = Joiner(encoder.output_dim, _INNER, _INNER, _VOCABULARY)
        return Transducer(encoder, decoder, joiner).eval().requires_grad_(False)


def write_random_model(size: str, folder: Path, *, onnx: bool, fp16: bool = False, int8: bool = False) -> None:
    """A checkpoint of `size` in `folder`, and its ONNX files where they are wanted. Raises OptionsError."""
    transducer = random_transducer(size)
    write_stored(transducer, folder / STORED_NAME)
    _write_tokens(folder, (f"▁t{number}" for number in range(_VOCABULARY - 3)))
    if onnx:
        files = export_onnx(transducer, folder, "")
        if fp16:
            write_fp16(files)
        if int8:
            write_int8(files)


def write_speaking_checkpoint(size: str, folder: Path) -> Transducer:
    """A checkpoint `epoch-1.pt` of `size` in `folder`, whose random tokens differ enough in their chances to follow the
    audio, and are spelt with letters; the model, the same every time. Raises OptionsError."""
    transducer = random_transducer(size)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        torch.nn.init.normal_(transducer.joiner.output_linear.weight, std=0.15)
        torch.nn.init.normal_(transducer.joiner.output_linear.weight[:1], std=0.6)
    letters = (chr(97 + number % 26) + chr(97 + number // 26) for number in range(_VOCABULARY - 3))
    pieces = (("▁" if number % 3 == 0 else "") + pair for number, pair in enumerate(letters))
    _write_tokens(folder, pieces)
    write_checkpoint(transducer, folder)
    return transducer


def write_checkpoint(transducer: Transducer, folder: Path) -> None:
    """A checkpoint `epoch-1.pt` in `folder`, with the options of its recipe."""
    options = as_parameters(transducer.encoder.recipe)
    torch.save({"model": transducer.tensors(), **options}, folder / "epoch-1.pt")


def _write_tokens(folder: Path, pieces: Iterable[str]) -> None:
    symbols = ["<blk>", "<sos/eos>", "<unk>", *pieces]
    lines = [f"{symbol} {number}\n" for number, symbol in enumerate(symbols)]
    (folder / "tokens.txt").write_text("".join(lines), encoding="utf-8")
