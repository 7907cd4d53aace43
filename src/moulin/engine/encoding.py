"""Features to encoder frames, in batches of similar length: the second part of offline recognition."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from moulin.arrays import Floats, Ints
from moulin.audio.fbank import pad_features
from moulin.bundle.spec import MIN_FRAMES
from moulin.engine.batching import micro_batches
from moulin.engine.runner import OfflineEncoder


class BatchedEncoder:
    """Spreads utterances over calls of the encoder, several of them at once. Safe to call from several threads."""

    def __init__(self, runner: OfflineEncoder, *, channels: int) -> None:
        """`channels` are those of a batch without frames."""
        self._runner = runner
        self._channels = channels
        self._workers = ThreadPoolExecutor(runner.num_workers, thread_name_prefix="moulin-encoder")
        self._lock = threading.Lock()
        self._under_way = 0  # batches, those that wait for a worker included

    def __call__(self, features: Sequence[Floats]) -> tuple[Floats, Ints]:
        """Features float32 [T, feature_dim] of N utterances to encoder_out float32 [N, T', channels], padded with
        zeros, and its lengths int64 [N]: 0 for no features. With the channels that the runner gives."""
        batches = micro_batches(
            {position: len(frames) for position, frames in enumerate(features) if len(frames)},
            max_batch_frames=self._runner.max_batch_frames,
            num_workers=self._runner.num_workers,
        )
        with self._lock:
            self._under_way += len(batches)
            alone = self._under_way == 1

        def encode(batch: Sequence[int]) -> tuple[Floats, Ints]:
            x, x_lens = pad_features([features[position] for position in batch], MIN_FRAMES)
            return self._runner.encoder(x, x_lens, alone=alone)

        try:
            outputs = list(self._workers.map(encode, batches))
        finally:
            with self._lock:
                self._under_way -= len(batches)
        encoder_out_lens = np.zeros(len(features), dtype=np.int64)
        longest = max((out.shape[1] for out, _ in outputs), default=0)
        channels = outputs[0][0].shape[-1] if outputs else self._channels
        encoder_out = np.zeros((len(features), longest, channels), dtype=np.float32)
        for batch, (out, lens) in zip(batches, outputs, strict=True):
            encoder_out[batch, : out.shape[1]] = out
            encoder_out_lens[batch] = lens
        return encoder_out, encoder_out_lens

    def close(self) -> None:
        """Stop the worker threads."""
        self._workers.shutdown()
