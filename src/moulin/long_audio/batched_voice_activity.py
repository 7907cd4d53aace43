"""Speech probabilities of many recordings at once: Silero VAD in PyTorch, on a card or the CPU.

`VoiceActivity` is the definition; this is the same network with the weights of its ONNX file. A frame depends on all
frames before it through the state of an LSTM, which does not forget: begun 20 s before a segment of a recording instead
of at its beginning, it gave probabilities that were off by 0.28. So recordings go in step, each from its beginning, and
the speed grows with their number.

All calls of the network have one shape, whatever recordings there are: a recording's probabilities, and so its cuts, do
not depend on its neighbours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import conv1d, pad

from moulin.arrays import Floats
from moulin.long_audio.voice_activity import CONTEXT_SAMPLES, FRAME_SAMPLES, LEVEL_SHARE, MODEL

_CARD_ROWS, _CPU_ROWS = 64, 8
"""Recordings in step."""

_FRAMES_AT_ONCE = 2048
_STEPS_AT_ONCE = 1024
_LEVEL_BLOCK = 128
_HIDDEN = 128
_ORDER = [0, 2, 3, 1]
"""PyTorch's order of an LSTM's gates (input, forget, cell, output) in ONNX's (input, output, forget, cell)."""


class BatchedVoiceActivity:
    """Voice activity of whole recordings. Safe to call from several threads."""

    def __init__(self, device: str = "cpu") -> None:
        """`device` as PyTorch names it."""
        self._device = torch.device(device)
        self._rows = _CPU_ROWS if self._device.type == "cpu" else _CARD_ROWS
        self._network = _Network(self._device)

    def __call__(self, recordings: Sequence[NDArray[np.int16] | Floats]) -> list[Floats]:
        """Probabilities [N] of each recording [N * FRAME_SAMPLES or less], 16 kHz, mono, int16 or float32."""
        with torch.inference_mode():
            found = [np.empty(-(-len(one) // FRAME_SAMPLES), np.float32) for one in recordings]
            # Of like lengths together: a row that has ended is computed on until the last one has.
            order = sorted(range(len(recordings)), key=lambda number: len(recordings[number]), reverse=True)
            for begin in range(0, len(order), self._rows):
                self._in_step({number: recordings[number] for number in order[begin : begin + self._rows]}, found)
            return found

    def _in_step(self, recordings: Mapping[int, NDArray[np.int16] | Floats], found: list[Floats]) -> None:
        """Fill in the probabilities of some recordings, by number."""
        features = [self._features(recording) for recording in recordings.values()]
        state: tuple[torch.Tensor, torch.Tensor] | None = None
        for begin in range(0, max(map(len, features)), _STEPS_AT_ONCE):
            batch = torch.zeros(_STEPS_AT_ONCE, self._rows, _HIDDEN, device=self._device)
            for row, one in enumerate(features):
                part = one[begin : begin + _STEPS_AT_ONCE]
                batch[: len(part), row] = part
            probabilities, state = self._network.recurrent(batch, state)
            on_host = probabilities.cpu().numpy()
            for row, number in enumerate(recordings):
                filled = found[number][begin : begin + _STEPS_AT_ONCE]
                filled[:] = on_host[: len(filled), row]

    def _features(self, recording: NDArray[np.int16] | Floats) -> torch.Tensor:
        """What the network makes of each frame by itself, [N, 128]."""
        if not len(recording):
            return torch.zeros(0, _HIDDEN, device=self._device)
        # A copy, for PyTorch takes no memory that it may not write to.
        samples = torch.from_numpy(np.array(recording)).to(self._device).float()
        if recording.dtype == np.int16:
            samples = samples / 32768
        frames = pad(samples, (0, -len(samples) % FRAME_SAMPLES)).view(-1, FRAME_SAMPLES)
        frames = frames - _levels(frames)
        before = pad(frames[:-1, -CONTEXT_SAMPLES:], (0, 0, 1, 0))
        inputs = torch.cat([before, frames], dim=1)
        parts = [
            self._network.convolved(_filled(inputs[begin : begin + _FRAMES_AT_ONCE]))
            for begin in range(0, len(inputs), _FRAMES_AT_ONCE)
        ]
        return torch.cat(parts)[: len(frames)]


def _filled(frames: torch.Tensor) -> torch.Tensor:
    """As many frames as all calls have; those that were missing are silence."""
    return pad(frames, (0, 0, 0, _FRAMES_AT_ONCE - len(frames)))


def _levels(frames: torch.Tensor) -> torch.Tensor:
    """The running mean of [N, FRAME_SAMPLES], in a straight line from frame to frame, as of `VoiceActivity`."""
    means = frames.mean(dim=1).double().cpu().numpy()
    levels = np.empty(len(means) + 1)
    levels[0] = means[0] if len(means) else 0.0
    keep = 1 - LEVEL_SHARE
    powers = keep ** np.arange(_LEVEL_BLOCK + 1)
    lower = np.tril(keep ** np.subtract.outer(np.arange(_LEVEL_BLOCK), np.arange(_LEVEL_BLOCK)).clip(0)) * LEVEL_SHARE
    for begin in range(0, len(means), _LEVEL_BLOCK):
        block = means[begin : begin + _LEVEL_BLOCK]
        count = len(block)
        levels[begin + 1 : begin + 1 + count] = powers[1 : count + 1] * levels[begin] + lower[:count, :count] @ block
    ends = torch.from_numpy(levels.astype(np.float32)).to(frames.device)
    slope = torch.arange(FRAME_SAMPLES, device=frames.device) / FRAME_SAMPLES
    return ends[:-1, None] + (ends[1:] - ends[:-1])[:, None] * slope


class _Network:
    """Silero's network, of the weights in the ONNX file."""

    def __init__(self, device: torch.device) -> None:
        weights, lstm = _weights(MODEL)
        of = {name: torch.from_numpy(value).to(device) for name, value in weights.items()}
        self._basis = of["stft.forward_basis_buffer"]
        self._encoder = [
            (of[f"encoder.{n}.weight"], of[f"encoder.{n}.bias"], stride) for n, stride in enumerate(_STRIDES)
        ]
        self._output = of["output.weight"].view(-1), of["output.bias"]
        self._lstm = torch.nn.LSTM(_HIDDEN, _HIDDEN).to(device).requires_grad_(False)
        into, over, biases = (_reordered(part) for part in (lstm[0][0], lstm[1][0], lstm[2].reshape(2, -1).T))
        self._lstm.load_state_dict(
            {"weight_ih_l0": into, "weight_hh_l0": over, "bias_ih_l0": biases[:, 0], "bias_hh_l0": biases[:, 1]}
        )

    def convolved(self, frames: torch.Tensor) -> torch.Tensor:
        """Frames with their contexts [N, 576] to [N, 128]."""
        spectrum = conv1d(pad(frames[:, None], (0, CONTEXT_SAMPLES), mode="reflect"), self._basis, stride=128)
        half = spectrum.shape[1] // 2
        x = (spectrum[:, :half].square() + spectrum[:, half:].square()).sqrt()
        for weight, bias, stride in self._encoder:
            x = conv1d(x, weight, bias, stride=stride, padding=1).relu()
        return x.squeeze(2)

    def recurrent(
        self, features: torch.Tensor, state: tuple[torch.Tensor, torch.Tensor] | None
    ) -> tuple[torch.Tensor, tuple[torch.Tensor, torch.Tensor]]:
        """Features [T, B, 128] to probabilities [T, B] and the state behind them; None is that of the beginning."""
        hidden, state = self._lstm(features, state)
        weight, bias = self._output
        return (hidden.relu() @ weight + bias).sigmoid(), state


_STRIDES = (1, 2, 2, 1)


def _reordered(gates: NDArray[np.float32]) -> torch.Tensor:
    return torch.from_numpy(gates.reshape(4, -1, gates.shape[-1])[_ORDER].reshape(gates.shape).copy())


def _weights(file: Path) -> tuple[dict[str, NDArray[np.float32]], list[NDArray[np.float32]]]:
    """The parameters by name, and those of the LSTM: W, R, B as ONNX orders them."""
    import onnx
    import onnx.numpy_helper

    graph: Any = onnx.load(str(file)).graph
    arrays = {one.name: onnx.numpy_helper.to_array(one).copy() for one in graph.initializer}
    (lstm,) = (node for node in graph.node if node.op_type == "LSTM")
    return arrays, [arrays[name] for name in lstm.input[1:4]]
