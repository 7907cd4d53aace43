"""config.pbtxt of the offline model, through Triton's own protobuf."""

from __future__ import annotations

from typing import Any

from tritonclient.grpc import model_config_pb2 as pb

from moulin.triton_repo import contract
from moulin.triton_repo.model_config import add_instances, add_int16, add_parameters, new_config
from moulin.triton_repo.offline_options import OfflineOptions
from moulin.triton_repo.service_parameter import add_service

WARMUP_SAMPLES = 32_000


def offline_config(options: OfflineOptions, *, max_utterance_sec: float) -> Any:
    """The `inference.ModelConfig` message. `max_utterance_sec` is for clients, which cut longer recordings."""
    config = new_config(options.model_name, options.max_batch)
    add_int16(config)

    config.dynamic_batching.max_queue_delay_microseconds = round(options.queue_delay_ms * 1000)
    config.dynamic_batching.default_queue_policy.max_queue_size = options.max_queue

    add_instances(config, options.instances, options.engine.gpu, options.gpus)

    warmup = config.model_warmup.add(name="two seconds of noise", batch_size=1)
    for name, data_type, dims in (
        (contract.WAV, pb.TYPE_FP32, [WARMUP_SAMPLES]),
        (contract.WAV_LENS, pb.TYPE_INT32, [1]),
    ):
        warmup.inputs[name].data_type = data_type
        warmup.inputs[name].dims.extend(dims)
        warmup.inputs[name].input_data_file = name

    add_service(config, options)
    add_parameters(config, {"max_utterance_sec": f"{max_utterance_sec:g}"})
    return config
