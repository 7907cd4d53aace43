"""Small RNN language models in the form of Icefall's `rnn_lm`, trained here and exported as its export-onnx.py does:
embedding, LSTM, linear; with states (x, h0, c0 to log_softmax, next_h0, next_c0), and of whole texts (x, x_lens to nll)
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import Tensor, nn

SOS = EOS = 1


class RnnLm(nn.Module):
    def __init__(self, vocab_size: int, *, embedding: int = 12, hidden: int = 14, layers: int = 2) -> None:
        super().__init__()
        self.vocab_size = vocab_size
        self.input_embedding = nn.Embedding(vocab_size, embedding)
        self.rnn = nn.LSTM(embedding, hidden, layers, batch_first=True)
        self.output_linear = nn.Linear(hidden, vocab_size)

    def log_probs(self, x: Tensor) -> Tensor:
        """[N, L] to [N, L, vocab_size]."""
        logits: Tensor = self.output_linear(self.rnn(self.input_embedding(x))[0])
        return logits.log_softmax(-1)

    def score(self, tokens: Sequence[int], *, ended: bool) -> float:
        """The log-probability of a text, computed here at once and without states."""
        with torch.no_grad():
            log_probs = self.log_probs(torch.tensor([[SOS, *tokens]]))[0].double()
        said = [*tokens, EOS] if ended else [*tokens]
        return float(sum(log_probs[at, token] for at, token in enumerate(said)))


class _WithStates(nn.Module):
    def __init__(self, model: RnnLm) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor, h0: Tensor, c0: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        out, (h, c) = self.model.rnn(self.model.input_embedding(x), (h0, c0))
        return self.model.output_linear(out)[:, 0].log_softmax(-1), h, c


class _OfTexts(nn.Module):
    def __init__(self, model: RnnLm) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor, x_lens: Tensor) -> Tensor:
        rows = torch.arange(x.size(0))
        begun = torch.cat([torch.full_like(x_lens[:, None], SOS), x], 1)
        ended = torch.cat([x, torch.zeros_like(x_lens[:, None])], 1)
        ended[rows, x_lens] = EOS
        nll = -self.model.log_probs(begun).gather(2, ended[:, :, None])[:, :, 0]
        inside = torch.arange(begun.size(1))[None] <= x_lens[:, None]
        return torch.where(inside, nll, torch.zeros_like(nll)).sum(1)


def trained(texts: Sequence[Sequence[int]], vocab_size: int, *, steps: int = 60) -> RnnLm:
    """A model of `texts` of tokens, all of one length."""
    torch.manual_seed(0)
    model = RnnLm(vocab_size)
    optimizer = torch.optim.Adam(model.parameters(), 0.02)
    x = torch.tensor([[SOS, *text] for text in texts])
    y = torch.tensor([[*text, EOS] for text in texts])
    for _ in range(steps):
        optimizer.zero_grad()
        loss = nn.functional.nll_loss(model.log_probs(x).flatten(0, 1), y.flatten())
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return model.eval()


def export_with_states(model: RnnLm, file: Path, **other_metadata: str) -> Path:
    layers, hidden = model.rnn.num_layers, model.rnn.hidden_size
    state = torch.zeros(layers, 1, hidden)
    sizes = {"num_layers": str(layers), "hidden_size": str(hidden), "embedding_dim": str(model.rnn.input_size)}
    inputs = {"x": torch.zeros(1, 3, dtype=torch.int64), "h0": state, "c0": state}
    batch = {"h0": {1: "N"}, "c0": {1: "N"}, "next_h0": {1: "N"}, "next_c0": {1: "N"}}
    axes = {"x": {0: "N", 1: "L"}, "log_softmax": {0: "N"}, **batch}
    return _export(_WithStates(model), inputs, axes, 3, file, {**_metadata(model), **sizes, **other_metadata})


def export_of_texts(model: RnnLm, file: Path) -> Path:
    inputs = {"x": torch.zeros(1, 3, dtype=torch.int64), "x_lens": torch.tensor([3])}
    axes = {"x": {0: "N", 1: "L"}, "x_lens": {0: "N"}, "nll": {0: "N"}}
    return _export(_OfTexts(model), inputs, axes, 1, file, _metadata(model))


def _metadata(model: RnnLm) -> dict[str, str]:
    of_file = {"model_type": "rnnlm", "version": "1", "sos_id": str(SOS), "eos_id": str(EOS)}
    return {**of_file, "vocab_size": str(model.vocab_size)}


def _export(
    module: nn.Module,
    inputs: Mapping[str, Tensor],
    axes: Mapping[str, Mapping[int, str]],
    outputs: int,
    file: Path,
    metadata: Mapping[str, str],
) -> Path:
    names: Any = {name: dict(of_name) for name, of_name in axes.items()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module,
            tuple(inputs.values()),
            file,
            opset_version=13,
            input_names=list(inputs),
            output_names=[name for name in axes if name not in inputs][:outputs],
            dynamic_axes=names,
            dynamo=False,
        )
    model = onnx.load(file)
    for key, value in metadata.items():
        model.metadata_props.add(key=key, value=value)
    onnx.save(model, file)
    return file
