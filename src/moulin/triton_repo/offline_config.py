"""config.pbtxt of the offline model, through Triton's own protobuf."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tritonclient.grpc import model_config_pb2 as pb

from moulin.bundle.files import Precision
from moulin.decoding.options import DecodingOptions
from moulin.engine.device import gpu_index
from moulin.engine.features import MAX_AUDIO_SEC
from moulin.errors import OptionsError
from moulin.models.engines import Engine
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

WARMUP_SAMPLES = 32_000


@dataclass(frozen=True)
class OfflineOptions:
    """What an operator may choose about the offline service."""

    model_name: str = contract.MODEL_NAME
    engine: Engine | None = None
    """By default the one for the form that the model has on disk."""
    precision: Precision | None = None
    """What the encoder runs in; by default what `precision_for` says."""
    device: str = "cpu"
    cuda_graphs: bool = True
    max_batch: int = 64
    """Utterances in one batch, and the most that one request may hold."""
    instances: int = 1
    """Processes that each hold the model; they share the device's threads."""
    threads: int | None = None
    """CPU threads of all instances together; by default all that the server may use."""
    max_queue: int = 2048
    """Requests that may wait. The next one is refused with UNAVAILABLE at once rather than after a timeout."""
    queue_delay_ms: float = 0.0
    """How long the first request of a batch waits for company. Under load batches form without any wait."""
    max_audio_sec: float = MAX_AUDIO_SEC
    decoding: DecodingOptions = field(default_factory=DecodingOptions)
    plan: Path | None = None
    """The engine, for TensorRT; it comes into the model's folder."""

    def __post_init__(self) -> None:
        check_model_name(self.model_name)
        gpu_index(self.device)
        check_counts(self, ("max_batch", "instances", "max_queue", "threads"))
        if not self.queue_delay_ms >= 0:
            raise OptionsError(f"Expected queue-delay-ms of at least 0, got {self.queue_delay_ms:g}")
        if not self.max_audio_sec > 0:
            raise OptionsError(f"Expected max-audio-sec above 0, got {self.max_audio_sec:g}")

    @property
    def gpu(self) -> int | None:
        """The GPU's number, or None on the CPU."""
        return gpu_index(self.device)


def offline_config(options: OfflineOptions, encoder_file: str, *, max_utterance_sec: float) -> Any:
    """The `inference.ModelConfig` message. `encoder_file` is relative to the version folder.

    `max_utterance_sec` is for clients, which cut what is longer.
    """
    config = new_config(options.model_name, options.max_batch)
    add_int16(config)

    config.dynamic_batching.max_queue_delay_microseconds = round(options.queue_delay_ms * 1000)
    config.dynamic_batching.default_queue_policy.max_queue_size = options.max_queue

    add_instances(config, options.instances, options.gpu)

    warmup = config.model_warmup.add(name="two seconds of noise", batch_size=1)
    for name, data_type, dims in (
        (contract.WAV, pb.TYPE_FP32, [WARMUP_SAMPLES]),
        (contract.WAV_LENS, pb.TYPE_INT32, [1]),
    ):
        warmup.inputs[name].data_type = data_type
        warmup.inputs[name].dims.extend(dims)
        warmup.inputs[name].input_data_file = name

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
            "max_audio_sec": f"{options.max_audio_sec:g}",
            "max_utterance_sec": f"{max_utterance_sec:g}",
            **{name: str(value) for name, value in options.decoding.to_dict().items()},
        },
    )
    if options.plan is not None:
        add_parameters(config, {"plan": PLAN_NAME})
    return config
