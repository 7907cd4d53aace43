"""Which utterances go through the encoder together."""

from __future__ import annotations

from collections.abc import Mapping


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
