"""The drift of an engine: its difference from ONNX Runtime in fp32 on speech.

A successful build does not show whether half precision overflows to NaN, or loses precision by cancellation.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from moulin.arrays import Floats
from moulin.audio.fbank import Fbank, FbankOptions
from moulin.bundle.spec import ExportedSpec
from moulin.engine.onnxruntime.encoder import OnnxRuntimeEncoder
from moulin.engine.onnxruntime.stream_runner import OnnxRuntimeStreamEncoder
from moulin.errors import EngineError
from moulin.tensorrt_engine.loaded_plan import TensorRtPlan
from moulin.tensorrt_engine.plan_file import PlanPrecision
from moulin.tensorrt_engine.runner import TensorRtEncoder
from moulin.tensorrt_engine.stream_runner import TensorRtStreamEncoder

TOLERANCES: dict[PlanPrecision, float] = {"fp32": 0.01, "fp16": 0.03, "bf16": 0.15}
"""The largest drift explained by rounding: the norm of the difference relative to that of ONNX Runtime's frames.
Rounding digits-en-streaming to fp16 gives 0.1 %, rounding only its weights to bf16 1 % (in ONNX Runtime); the limits
leave a factor of ten or more for deeper models. fp32's allows for TF32, in which TensorRT multiplies."""

_UTTERANCES, _STREAMS, _CHUNKS = 4, 3, 20


def measure_drift(
    spec: ExportedSpec, plan: TensorRtPlan, precision: PlanPrecision, waveforms: Sequence[Floats]
) -> float:
    """The drift of the encoder `plan` of `spec`, on `waveforms` of speech, float32 [n] each, 16 kHz.

    Raises EngineError where the engine gives NaN or infinity, or drifts by more than TOLERANCES allow."""
    fbank = Fbank(FbankOptions(num_mel_bins=spec.feature_dim))
    speech = [fbank(waveform) for waveform in waveforms[:_UTTERANCES]]
    pairs = (_streaming if spec.streaming else _offline)(spec, plan, speech)
    difference = norm = 0.0
    frames = broken = 0
    for found, wanted in pairs:
        finite = np.isfinite(found).all(axis=-1)
        frames, broken = frames + finite.size, broken + int((~finite).sum())
        difference += float(np.square(found[finite] - wanted[finite], dtype=np.float64).sum())
        norm += float(np.square(wanted, dtype=np.float64).sum())
    wider = {"fp16": "build it with --precision bf16 or fp32", "bf16": "build it with --precision fp32"}
    hint = wider.get(precision, "serve the model with --engine onnxruntime, and report it with the recipe's name")
    if broken:
        raise EngineError(
            f"The engine of {spec.name} in {precision} gives NaN or infinity in {broken} of {frames} encoder frames of "
            "speech, where ONNX Runtime gives finite numbers",
            hint=hint,
        )
    drift = float(np.sqrt(difference / norm))
    if drift > TOLERANCES[precision]:
        raise EngineError(
            f"The engine of {spec.name} in {precision} differs from ONNX Runtime by {drift:.2%} on speech, and "
            f"rounding explains at most {TOLERANCES[precision]:.0%}",
            hint=hint,
        )
    return drift


def _offline(spec: ExportedSpec, plan: TensorRtPlan, speech: Sequence[Floats]) -> Iterator[tuple[Floats, Floats]]:
    """Valid encoder frames of engine and ONNX Runtime: of all recordings in one batch, and of one recording as long as
    each profile's best shape."""
    engine = TensorRtEncoder(spec, plan)
    reference = OnnxRuntimeEncoder(
        spec.encoder,
        feature_dim=spec.feature_dim,
        precision=spec.precision,
        rewrite=False,
        ctc_output=spec.ctc_output,
        out=spec.out,
    )
    lengths = np.array([min(len(features), engine.max_frames) for features in speech[: engine.max_batch]])
    batch = np.zeros((len(lengths), lengths.max(), spec.feature_dim), np.float32)
    for row, length in enumerate(lengths):
        batch[row, :length] = speech[row][:length]
    inputs = [(batch, lengths)]
    whole = np.concatenate(speech)
    x = spec.encoder.input("x", 0).name
    for profile in plan.profiles:
        frames = profile[x].best[1]
        repeated = np.resize(whole, (1, frames, spec.feature_dim))
        inputs.append((repeated, np.array([frames])))
    for features, counts in inputs:
        found, out_lens = engine.encoder(features, counts)
        wanted, wanted_lens = reference.encoder(features, counts, alone=True)
        if found.shape != wanted.shape or not np.array_equal(out_lens, wanted_lens):
            raise EngineError(
                f"The engine of {spec.name} gives {list(found.shape)} with lengths {out_lens.tolist()} for "
                f"{list(features.shape)}, and ONNX Runtime {list(wanted.shape)} with {wanted_lens.tolist()}"
            )
        for row, length in enumerate(wanted_lens.tolist()):
            yield found[row, :length], wanted[row, :length]


def _streaming(spec: ExportedSpec, plan: TensorRtPlan, speech: Sequence[Floats]) -> Iterator[tuple[Floats, Floats]]:
    """Encoder frames of engine and ONNX Runtime for several streams, step by step with their states."""
    assert spec.streaming is not None
    window, chunk = spec.streaming.window_frames, spec.streaming.chunk_frames
    engine = TensorRtStreamEncoder(spec, plan, capacity=_STREAMS)
    reference = OnnxRuntimeStreamEncoder(spec, capacity=_STREAMS, rewrite=False)
    whole = np.concatenate(speech)
    slots = np.arange(min(_STREAMS, engine.limits.max_batch))
    for step in range(_CHUNKS):
        first = [(step + _CHUNKS * slot) * chunk for slot in slots.tolist()]
        x = np.stack([np.take(whole, range(start, start + window), axis=0, mode="wrap") for start in first])
        yield engine.encoder(x, slots), reference.encoder(x, slots)
