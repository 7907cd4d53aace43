"""Checkpoints of sizes that no bundle has: built here, saved in Icefall's format, and read back by inference alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from moulin.bundle.transducer import load_transducer
from moulin.encoders.conformer import Conformer, ConformerConfig
from moulin.encoders.decoder import Decoder
from moulin.encoders.encoder import Encoder
from moulin.encoders.joiner import Joiner
from moulin.encoders.lstm import Lstm, LstmConfig
from moulin.encoders.subsampling import SubsamplingConfig
from moulin.encoders.transducer import Transducer
from moulin.encoders.zipformer import Zipformer, ZipformerConfig
from moulin.encoders.zipformer2 import Zipformer2, Zipformer2Config
from moulin.errors import BundleError, OptionsError
from moulin.export.parity import compare
from moulin.export.to_onnx import export_onnx

ZIPFORMER2 = {
    "num_layers": (2, 1, 1, 1),
    "downsampling_factors": (1, 2, 4, 2),
    "encoder_dims": (24, 40, 56, 32),
    "num_heads": (2, 4, 2, 4),
    "query_head_dims": (6, 4, 8, 4),
    "value_head_dims": (4, 6, 4, 2),
    "feedforward_dims": (32, 48, 64, 40),
    "conv_kernels": (5, 7, 9, 5),
    "pos_dim": 12,
}


def zipformer2(**others: Any) -> Encoder:
    return Zipformer2(Zipformer2Config(**{**ZIPFORMER2, **others}))


ENCODERS: dict[str, Callable[[], Encoder]] = {
    "zipformer2": zipformer2,
    "zipformer2 causal": lambda: zipformer2(causal=True),
    "zipformer2 one stack": lambda: Zipformer2(
        Zipformer2Config((1,), (1,), (36,), (3,), (4,), (4,), (40,), (3,), pos_dim=8)
    ),
    "zipformer": lambda: Zipformer(
        ZipformerConfig(
            (1, 1, 2, 1), (24, 24, 40, 40), (16, 16, 24, 24), (2, 4, 2, 2), (32, 48, 40, 32), (5, 7, 3, 5), (1, 2, 4, 2)
        )
    ),
    "conformer": lambda: Conformer(ConformerConfig(3, 36, 6, 52, 9)),
    "conformer 40 bands": lambda: Conformer(ConformerConfig(1, 20, 2, 30, 5, SubsamplingConfig(40, (4, 6, 10)))),
    "lstm": lambda: Lstm(LstmConfig(2, 28, 44, 60)),
    "lstm without projection": lambda: Lstm(LstmConfig(1, 32, 32, 40)),
}


@pytest.fixture(autouse=True)
def _the_same_numbers_every_time() -> None:
    """New modules begin with random parameters."""
    torch.manual_seed(0)


def transducer(encoder: Encoder, *, context_size: int = 2) -> Transducer:
    """With every parameter at random: zeros and ones would hide what is not used."""
    whole = Transducer(encoder, Decoder(29, 18, context_size, 3), Joiner(encoder.output_dim, 18, 22, 29)).eval()
    generator = torch.Generator().manual_seed(1)
    for name, parameter in whole.named_parameters():
        spread = 0.03 if parameter.ndim > 1 else 0.02
        parameter.data += spread * torch.randn(parameter.shape, generator=generator)
        assert parameter.isfinite().all(), name
    return whole.requires_grad_(False)


def save(whole: Transducer, file: Path) -> Path:
    """As Icefall does, with what only training needs."""
    training = {"simple_am_proj.weight": torch.ones(29, 3), "simple_lm_proj.bias": torch.ones(29)}
    torch.save({"model": {**whole.tensors(), **training}, "epoch": 3, "sampler": None}, file)
    return file


@pytest.mark.parametrize("name", ENCODERS)
def test_sizes_are_read_from_the_tensors(name: str, tmp_path: Path) -> None:
    made = transducer(ENCODERS[name]())
    read = load_transducer([save(made, tmp_path / "epoch-3.pt")])
    assert type(read.encoder) is type(made.encoder)
    assert read.encoder.config == made.encoder.config
    assert (read.decoder.context_size, read.joiner.joiner_dim) == (2, 22)
    x, x_lens = torch.randn(2, 83, made.encoder.feature_dim), torch.tensor([83, 61])
    torch.testing.assert_close(read.encode(x, x_lens), made.encode(x, x_lens), rtol=0, atol=0)
    y = torch.tensor([[-1, 4], [5, 6]])
    torch.testing.assert_close(read.predict(y), made.predict(y), rtol=0, atol=0)


@pytest.mark.slow
@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("name", ENCODERS)
def test_they_export(name: str, streaming: bool, tmp_path: Path) -> None:
    made = transducer(ENCODERS[name]())
    if streaming and isinstance(made.encoder, Zipformer2) and not made.encoder.config.causal:
        with pytest.raises(ValueError, match="causal"):
            made.encoder.streaming_layout()
        return
    layout = made.encoder.streaming_layout() if streaming else None
    if not streaming and isinstance(made.encoder, Lstm):
        with pytest.raises(OptionsError, match="for streaming only"):
            export_onnx(made, tmp_path, "e")
        return
    found = list(compare(made, export_onnx(made, tmp_path, "e", layout), layout, []))
    assert all(comparison.holds for comparison in found), found


@pytest.mark.parametrize("context_size", [1, 3])
def test_other_contexts(context_size: int, tmp_path: Path) -> None:
    made = transducer(ENCODERS["lstm"](), context_size=context_size)
    assert load_transducer([save(made, tmp_path / "epoch-1.pt")]).decoder.context_size == context_size


def test_what_is_no_transducer(tmp_path: Path) -> None:
    tensors = transducer(ENCODERS["conformer"]()).tensors()

    def load(**changed: torch.Tensor | None) -> None:
        model = {name: tensor for name, tensor in {**tensors, **changed}.items() if tensor is not None}
        torch.save({"model": model}, tmp_path / "epoch-1.pt")
        load_transducer([tmp_path / "epoch-1.pt"])

    load()
    with pytest.raises(BundleError, match=r"'joiner\.output_linear\.bias'|'output_linear\.bias' is missing"):
        load(**{"joiner.output_linear.bias": None})
    with pytest.raises(BundleError, match=r"no 'joiner\.\*', so it is not a transducer"):
        load(**{name: None for name in tensors if name.startswith("joiner.")})
    with pytest.raises(BundleError, match="not those of a Conformer, Zipformer, Zipformer2 or LSTM"):
        load(**{name: None for name in tensors if name.startswith("encoder.")})
    with pytest.raises(BundleError, match="the encoder's channels to be 40 as in the joiner, got 36"):
        load(**{"joiner.encoder_proj.weight": torch.ones(22, 40)})


def test_use_averaged_model_wants_two(tmp_path: Path) -> None:
    file = save(transducer(ENCODERS["lstm"]()), tmp_path / "epoch-1.pt")
    with pytest.raises(OptionsError, match="Expected two checkpoints"):
        load_transducer([file], use_averaged_model=True)
    with pytest.raises(OptionsError, match="at least one checkpoint"):
        load_transducer([])
