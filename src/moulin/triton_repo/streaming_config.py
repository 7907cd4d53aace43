"""config.pbtxt of the streaming model, through Triton's own protobuf."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from moulin.bundle.files import Precision
from moulin.engine.device import gpu_index
from moulin.engine.onnxruntime.stream_runner import MAX_STREAMS
from moulin.errors import OptionsError
from moulin.models.engines import Engine
from moulin.streaming.options import StreamOptions
from moulin.triton_repo import contract
from moulin.triton_repo.model_config import (
    PLAN_NAME,
    add_instances,
    add_int16,
    add_parameters,
    check_counts,
    check_model_name,
    new_config,
)
from moulin.triton_repo.streaming_service import IDLE_TIMEOUT_SEC

# How many requests Triton may hand over in one call. They are only queued there, so this is no batch of the encoder,
# but for a call that lingers: it must hold a whole one.
_MAX_REQUESTS = 64

# Triton makes a sequence beyond its own limit wait without a word. Ours is to be reached first, and says so; Triton
# also counts those that were refused, until they have been idle for long enough.
_MAX_SEQUENCES = 65_536

# Triton forgets idle sequences too, without telling the model. Ours is to be first here as well. And Triton counts from
# the arrival of the last request, not from its reply: what takes longer than this costs a client its sequence.
_IDLE_MARGIN_SEC = 60.0


@dataclass(frozen=True)
class StreamingOptions:
    """What an operator may choose about the streaming service."""

    model_name: str = contract.MODEL_NAME
    engine: Engine | None = None
    """By default the one for the form that the model has on disk."""
    precision: Precision | None = None
    """What the encoder runs in; by default what `precision_for` says."""
    device: str = "cpu"
    cuda_graphs: bool = True
    max_streams: int = MAX_STREAMS
    """Streams that may be open at once. The next one is refused with UNAVAILABLE."""
    max_batch: int | None = None
    """Streams in one encoder step; by default what suits the device."""
    instances: int = 1
    """Processes that each hold the model and their share of the streams and of the device's threads."""
    threads: int | None = None
    """CPU threads of all instances together; by default all that the server may use."""
    queue_delay_ms: float = 10.0
    """How long Triton may keep a chunk to hand it over together with others."""
    linger_ms: float = 0.0
    """How long a call of ours may wait for its replies, to give them back together; Triton brings no other chunks to
    the instance meanwhile. Worth it where a step takes all streams that wait, on a GPU."""
    idle_timeout_sec: float = IDLE_TIMEOUT_SEC
    """A stream without a request for so long is closed."""
    max_step_ms: float | None = None
    """No stream is started while a chunk takes longer, from its arrival at the scheduler on; None starts all."""
    stream: StreamOptions = field(default_factory=StreamOptions)
    plan: Path | None = None
    """The engine, for TensorRT; it comes into the model's folder."""

    def __post_init__(self) -> None:
        check_model_name(self.model_name)
        gpu_index(self.device)
        check_counts(self, ("max_streams", "max_batch", "instances", "threads"))
        if not 0 <= self.queue_delay_ms < 1e6:
            raise OptionsError(f"Expected queue-delay-ms of at least 0, got {self.queue_delay_ms:g}")
        if not 0 <= self.linger_ms < 1e6:
            raise OptionsError(f"Expected linger-ms of at least 0, got {self.linger_ms:g}")
        if self.max_step_ms is not None and not 0 < self.max_step_ms < 1e6:
            raise OptionsError(f"Expected max-step-ms above 0 and below 1e6, got {self.max_step_ms:g}")
        if not 0 < self.idle_timeout_sec < 1e6:
            raise OptionsError(f"Expected idle-timeout-sec above 0 and below 1e6, got {self.idle_timeout_sec:g}")

    @property
    def gpu(self) -> int | None:
        """The GPU's number, or None on the CPU."""
        return gpu_index(self.device)


def streaming_config(options: StreamingOptions, encoder_file: str) -> Any:
    """The `inference.ModelConfig` message. `encoder_file` is relative to the version folder."""
    max_requests = max(_MAX_REQUESTS, options.max_batch or 0) if options.linger_ms else _MAX_REQUESTS
    config = new_config(options.model_name, max_requests)
    add_int16(config)

    # No control inputs: a request tells its flags and its sequence's id itself, which spares two tensors a chunk and,
    # for an id that is a string, one that Triton 2.51 fills with whatever lies in memory.
    sequences = config.sequence_batching
    sequences.max_sequence_idle_microseconds = round((options.idle_timeout_sec + _IDLE_MARGIN_SEC) * 1e6)
    if options.queue_delay_ms:
        # Handed over one by one, chunks cost Triton and us a tenth more CPU than a few at a time.
        sequences.oldest.max_queue_delay_microseconds = round(options.queue_delay_ms * 1000)
        sequences.oldest.preferred_batch_size.append(max_requests)
    sequences.oldest.max_candidate_sequences = max(_MAX_SEQUENCES, 2 * options.max_streams)

    add_instances(config, options.instances, options.gpu)
    add_parameters(
        config,
        {
            "encoder": encoder_file,
            "engine": options.engine or "",
            "precision": options.precision or "",
            "device": options.device,
            "cuda_graphs": str(int(options.cuda_graphs)),
            "instances": str(options.instances),
            "threads": str(options.threads or ""),
            "max_streams": str(options.max_streams),
            "max_batch": str(options.max_batch or ""),
            "linger_ms": f"{options.linger_ms:g}",
            "max_step_ms": "" if options.max_step_ms is None else f"{options.max_step_ms:g}",
            "idle_timeout_sec": f"{options.idle_timeout_sec:g}",
            "options": json.dumps(options.stream.to_dict()),
        },
    )
    if options.plan is not None:
        add_parameters(config, {"plan": PLAN_NAME})
    return config
