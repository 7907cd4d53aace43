"""Comparison of exported files with the checkpoint's own modules."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from moulin.arrays import Floats
from moulin.bundle.onnx_files import OnnxFiles
from moulin.bundle.spec import MIN_FRAMES
from moulin.encoders.acoustic_model import AcousticModel
from moulin.encoders.ctc_model import CtcModel
from moulin.encoders.encoder import StreamingLayout
from moulin.encoders.transducer import Transducer

TOLERANCE = 1e-4
"""The largest difference allowed, relative to the tensor's largest value if that is above one."""

HowFar = Callable[[int, int], None]
"""Called with the number of comparisons that are done, and of all."""


def _untold(_done: int, _of: int) -> None:
    pass


_CHUNKS = 20
_LENGTHS = (MIN_FRAMES, 10, 63, 200, 1000)
"""Lengths in frames: the fewest that give an encoder frame, odd ones, and ten seconds."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """Differences between one file's outputs and the modules': the largest, and the largest relative to its tensor's
    largest value if that is above one. Infinite for different shapes or integers and for values that are not finite."""

    what: str
    largest_error: float
    largest_relative_error: float

    @property
    def holds(self) -> bool:
        """Whether the outputs agree up to rounding."""
        return self.largest_relative_error <= TOLERANCE


def compare(
    transducer: Transducer,
    files: OnnxFiles,
    layout: StreamingLayout | None,
    speech: Sequence[Floats],
    tell: HowFar = _untold,
) -> Iterator[Comparison]:
    """Compare the three files on noise and on `speech`, features float32 [T, feature_dim].

    An offline encoder gets several lengths, each alone and all in one padded batch; a streaming encoder 20 consecutive
    chunks of one stream and of three. `tell` hears how many of an encoder's comparisons are done, which take minutes.
    """
    rng = np.random.default_rng(0)
    features = _features(transducer, speech, rng)
    with torch.inference_mode():
        if layout is None:
            yield _summary("encoder", _offline(transducer, files.encoder, features, tell))
        else:
            yield _summary("encoder", _streaming(transducer, files.encoder, layout, features, tell))
        yield _summary("decoder", _decoder(transducer, files.decoder, rng))
        yield _summary("joiner", _joiner(transducer, files.joiner, rng))


def compare_ctc(
    model: CtcModel,
    file: Path,
    layout: StreamingLayout | None,
    speech: Sequence[Floats],
    tell: HowFar = _untold,
) -> Iterator[Comparison]:
    """`compare` of a CTC model, which is one file."""
    features = _features(model, speech, np.random.default_rng(0))
    with torch.inference_mode():
        if layout is None:
            yield _summary("CTC model", _offline(model, file, features, tell))
        else:
            yield _summary("CTC model", _streaming(model, file, layout, features, tell))


def _features(model: AcousticModel, speech: Sequence[Floats], rng: np.random.Generator) -> list[Floats]:
    """Noise of several lengths, and `speech`."""
    size = model.encoder.feature_dim
    noise = [rng.normal(-6.0, 4.0, (length, size)).astype(np.float32) for length in _LENGTHS]
    return [*noise, *(utterance for utterance in speech if utterance.shape[1] == size)]


Pair = tuple[Tensor, NDArray[Any]]


def _summary(what: str, pairs: Iterator[Pair]) -> Comparison:
    largest = relative = 0.0
    for ours, theirs in pairs:
        error = _error(ours.numpy(), theirs)
        largest = max(largest, error)
        relative = max(relative, error / max(1.0, float(ours.abs().amax()) if ours.numel() else 0.0))
    return Comparison(what, largest, relative)


def _error(ours: NDArray[Any], theirs: NDArray[Any]) -> float:
    if ours.shape != theirs.shape or (ours.dtype.kind == "i" and not np.array_equal(ours, theirs)):
        return float("inf")
    difference = np.abs(ours.astype(np.float64) - theirs)
    # A maximum may drop NaN, so that is checked apart.
    return float(difference.max(initial=0.0)) if np.isfinite(difference).all() else float("inf")


def _offline(model: Transducer | CtcModel, file: Path, features: Sequence[Floats], tell: HowFar) -> Iterator[Pair]:
    run = _session(file)
    batches = [*([utterance] for utterance in features), features]
    for number, batch in enumerate(batches):
        tell(number, len(batches))
        lengths = np.array([len(utterance) for utterance in batch])
        x = np.zeros((len(batch), int(lengths.max()), model.encoder.feature_dim), np.float32)
        for row, utterance in zip(x, batch, strict=True):
            row[: len(utterance)] = utterance
        inputs = torch.from_numpy(x), torch.from_numpy(lengths)
        our_out, our_lengths, *our_log_probs = _encoded(model, *inputs)
        their_out, their_lengths, *their_log_probs = run(x, lengths)
        yield our_lengths, their_lengths
        for ours, theirs in zip((our_out, *our_log_probs), (their_out, *their_log_probs), strict=True):
            for row, length in enumerate(our_lengths.tolist()):
                yield ours[row, :length], theirs[row, :length]


def _encoded(model: Transducer | CtcModel, x: Tensor, x_lens: Tensor) -> tuple[Tensor, ...]:
    """What an exported file gives."""
    if isinstance(model, CtcModel):
        return model.log_probs(x, x_lens)
    return model.encode_with_log_probs(x, x_lens) if model.ctc else model.encode(x, x_lens)


def _streaming(
    model: Transducer | CtcModel, file: Path, layout: StreamingLayout, features: Sequence[Floats], tell: HowFar
) -> Iterator[Pair]:
    run = _session(file)
    joined = np.concatenate(features)
    needed = layout.window_frames + (_CHUNKS - 1) * layout.chunk_frames
    batches = (1, 3)
    for place, batch in enumerate(batches):
        # Every stream begins at another frame.
        streams = np.stack(
            [np.resize(np.roll(joined, -97 * row, axis=0), (needed, joined.shape[1])) for row in range(batch)]
        )
        ours = model.encoder.initial_states(layout, batch)
        theirs = [state.movedim(0, spec.batch_axis).numpy() for state, spec in zip(ours, layout.states, strict=True)]
        for chunk in range(_CHUNKS):
            tell(place * _CHUNKS + chunk, len(batches) * _CHUNKS)
            x = np.ascontiguousarray(streams[:, chunk * layout.chunk_frames :][:, : layout.window_frames])
            encoder_out, ours = model.encoder.streaming_forward(torch.from_numpy(x), ours)
            their_out, *returned = run(x, *theirs)
            if isinstance(model, CtcModel):
                yield model.ctc(encoder_out), their_out
            else:
                yield model.joiner.encoder_proj(encoder_out), their_out
                if model.ctc:
                    yield model.ctc(encoder_out), returned.pop()
            following = iter(returned)
            theirs = [
                state + spec.increment if spec.increment else next(following)
                for state, spec in zip(theirs, layout.states, strict=True)
            ]
            for state, their_state, spec in zip(ours, theirs, layout.states, strict=True):
                yield state.movedim(0, spec.batch_axis), their_state


def _decoder(transducer: Transducer, file: Path, rng: np.random.Generator) -> Iterator[Pair]:
    decoder = transducer.decoder
    y = rng.integers(0, decoder.vocab_size, (7, decoder.context_size))
    y[0, :-1] = -1  # before the utterance's beginning
    yield transducer.predict(torch.from_numpy(y)), _session(file)(y)[0]


def _joiner(transducer: Transducer, file: Path, rng: np.random.Generator) -> Iterator[Pair]:
    heard, said = rng.standard_normal((2, 7, transducer.joiner.joiner_dim), dtype=np.float32)
    yield transducer.joiner(torch.from_numpy(heard), torch.from_numpy(said)), _session(file)(heard, said)[0]


def _session(file: Path) -> Callable[..., list[NDArray[Any]]]:
    """A function that runs `file` on its inputs by position, as sherpa-onnx does."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    names = [tensor.name for tensor in session.get_inputs()]

    def run(*arrays: NDArray[Any]) -> list[NDArray[Any]]:
        outputs: list[NDArray[Any]] = session.run(None, dict(zip(names, arrays, strict=True)))
        return outputs

    return run
