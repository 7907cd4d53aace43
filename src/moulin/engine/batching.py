"""Batches of the encoder: the usual limits on their size, and the choice of utterances for each."""

from __future__ import annotations

from collections.abc import Mapping

# Feature frames in an offline batch, padding included. On a CPU a batch gains nothing over single utterances (8 to
# 10 ms for 100 frames of digits-en in any batch), and costs padding, cache misses and idle threads at the end. A GPU
# gains up to its memory.
CPU_BATCH_FRAMES = 400
GPU_BATCH_FRAMES = 64_000

# Streams in a step. A larger batch no longer fits the caches of a CPU core: on two cores digits-en costs 4.2 ms a
# stream in batches of one, 2.0 of 8, 1.9 of 16 and 2.4 of 32.
CPU_BATCH_STREAMS = 16
GPU_BATCH_STREAMS = 512


def micro_batches(num_frames: Mapping[int, int], *, max_batch_frames: int, num_workers: int) -> list[list[int]]:
    """Split utterances (position to length) into batches of similar length, the longest first; a batch is a list of
    positions.

    No batch holds more than `max_batch_frames` frames with padding, except an utterance that alone is longer, and
    none holds much more than its share where that would leave one of `num_workers` without work.
    """
    share = -(-sum(num_frames.values()) // num_workers)
    limit = min(max_batch_frames, share)
    batches: list[list[int]] = []
    for position in sorted(num_frames, key=num_frames.__getitem__, reverse=True):
        if batches:
            longest = num_frames[batches[-1][0]]
            if (len(batches[-1]) + 1) * longest <= limit:
                batches[-1].append(position)
                continue
        batches.append([position])
    return batches
