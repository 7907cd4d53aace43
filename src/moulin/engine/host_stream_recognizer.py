"""Streaming recognition on any `StreamRunner`: audio and searches are on the host, a stream an object."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import numpy as np

from moulin.arrays import Floats
from moulin.audio.fbank import FbankOptions
from moulin.bundle.spec import ModelSpec
from moulin.decoding.search import SearchState
from moulin.engine.features import TAIL_PADDING_SEC
from moulin.engine.stream_recognizer import StreamRecognizer
from moulin.engine.stream_runner import StreamRunner
from moulin.streaming.options import StreamOptions
from moulin.streaming.stream import Stream
from moulin.streaming.windows import FeatureWindows


class HostStreamRecognizer(StreamRecognizer):
    """Only the encoder's states are where the runner keeps them."""

    runner: StreamRunner

    def __init__(
        self,
        spec: ModelSpec,
        runner: StreamRunner,
        *,
        options: StreamOptions | None = None,
        tail_padding_sec: float = TAIL_PADDING_SEC,
    ) -> None:
        """Raises BundleError for a model that is none of streams."""
        super().__init__(spec, runner, options=options, tail_padding_sec=tail_padding_sec)
        assert spec.streaming is not None
        self._chunking = spec.streaming
        self._fbank = FbankOptions(num_mel_bins=spec.feature_dim)

    def step(self, streams: Sequence[Stream], *, alone: bool = False) -> None:
        windows = self._windows(streams)
        slots = np.array([stream.slot for stream in streams])
        encoder_out = self.runner.encoder(windows, slots, alone=alone)
        self._search(streams, encoder_out)
        for stream in streams:
            self._cut(stream)

    def _new_audio(self, slot: int) -> FeatureWindows:
        self.runner.reset(slot)
        return FeatureWindows(self._fbank, self._chunking.window_frames, self._chunking.chunk_frames)

    def _new_search(self, slot: int, options: StreamOptions, num_frames: int) -> SearchState:  # noqa: ARG002
        return self._new_host_search(options, num_frames)

    def _windows(self, streams: Sequence[Stream]) -> Floats:
        """The next window of each of `streams`."""
        each = [cast("FeatureWindows", stream.windows) for stream in streams]
        frames = [windows.take_frames() for windows in each]
        ends = np.cumsum([len(new) for new in frames])
        features = np.split(self.runner.fbank(np.concatenate(frames)), ends[:-1])
        return np.stack([windows.complete(new) for windows, new in zip(each, features, strict=True)])
