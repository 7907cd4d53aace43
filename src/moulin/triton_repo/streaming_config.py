"""config.pbtxt of the streaming model, through Triton's own protobuf."""

from __future__ import annotations

from typing import Any

from moulin.triton_repo.model_config import add_chunk_index, add_instances, add_int16, add_lanes, new_config
from moulin.triton_repo.service_parameter import add_service
from moulin.triton_repo.streaming_options import StreamingOptions

# Requests that Triton may hand over in one call. The shim only queues them, so this is no batch of the encoder, except
# with `linger_ms`: then a call must hold a whole batch.
_MAX_REQUESTS = 64

# Triton makes a sequence beyond its own limit wait without an error. Our limit, which refuses it, is to be reached
# first; Triton also counts refused sequences until they have been idle for long enough.
_MAX_SEQUENCES = 65_536

# Triton forgets idle sequences too, without telling the model, so our limit must be the shorter one. And Triton counts
# from the arrival of the last request, not from its reply: a reply that takes longer costs a client its sequence.
_IDLE_MARGIN_SEC = 60.0


def streaming_config(options: StreamingOptions) -> Any:
    """The `inference.ModelConfig` message."""
    max_requests = max(_MAX_REQUESTS, options.max_batch or 0) if options.linger_ms else _MAX_REQUESTS
    config = new_config(options.model_name, max_requests)
    add_int16(config)
    add_chunk_index(config)
    add_lanes(config)

    # No control inputs: the shim reads flags and sequence id from the request, which spares two tensors a chunk and,
    # for an id that is a string, one that Triton 2.51 fills with random memory.
    sequences = config.sequence_batching
    sequences.max_sequence_idle_microseconds = round((options.idle_timeout_sec + _IDLE_MARGIN_SEC) * 1e6)
    # No queue delay of Triton's, which would hold up lanes: the shim gathers chunks itself.
    sequences.oldest.max_candidate_sequences = max(_MAX_SEQUENCES, 2 * options.max_streams)

    add_instances(config, options.instances, options.engine.gpu, options.gpus)
    add_service(config, options)
    return config
