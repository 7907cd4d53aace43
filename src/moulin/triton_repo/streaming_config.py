"""config.pbtxt of the streaming model, through Triton's own protobuf."""

from __future__ import annotations

from typing import Any

from moulin.triton_repo.model_config import add_instances, add_int16, new_config
from moulin.triton_repo.service_parameter import add_service
from moulin.triton_repo.streaming_options import StreamingOptions

# How many requests Triton may hand over in one call. They are only queued there, so this is no batch of the encoder,
# but for a call that lingers: it must hold a whole one.
_MAX_REQUESTS = 64

# Triton makes a sequence beyond its own limit wait without a word. Ours is to be reached first, and says so; Triton
# also counts those that were refused, until they have been idle for long enough.
_MAX_SEQUENCES = 65_536

# Triton forgets idle sequences too, without telling the model. Ours is to be first here as well. And Triton counts from
# the arrival of the last request, not from its reply: what takes longer than this costs a client its sequence.
_IDLE_MARGIN_SEC = 60.0


def streaming_config(options: StreamingOptions) -> Any:
    """The `inference.ModelConfig` message."""
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

    add_instances(config, options.instances, options.engine.gpu)
    add_service(config, options)
    return config
