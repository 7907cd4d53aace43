"""Streaming recognition with everything on a GPU: what the host does for a step does not grow with its streams.

What is known of the streams is in arrays by slot (`moulin.streaming.inbox`, `open_hypotheses`, and those below), which
a step reads and changes for all of its streams at once. One by one go only streams of which there is something to say
to their callers (a pause, their end) and those whose beams are wider than the engine's, which are searched on the host.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from moulin.arrays import Floats, Ints
from moulin.audio.waveform import check_waveform, check_waveforms
from moulin.bundle.spec import CheckpointSpec
from moulin.decoding.found import Hypothesis
from moulin.decoding.search import SearchState
from moulin.engine.features import TAIL_PADDING_SEC
from moulin.engine.gpu.model import precision_error
from moulin.engine.stream_recognizer import StreamRecognizer
from moulin.engine.stream_runner import StreamStepper
from moulin.errors import EngineError, StreamError
from moulin.live_transcript import StreamUpdate
from moulin.streaming.endpoint import EndpointTable
from moulin.streaming.inbox import Inbox
from moulin.streaming.open_hypotheses import OpenHypotheses
from moulin.streaming.options import StreamOptions
from moulin.streaming.stream import Stream
from moulin.streaming.turns import Said, Turns


@dataclass(frozen=True, slots=True)
class _SlotAudio:
    """What an `Inbox` has of one stream."""

    inbox: Inbox
    slot: int

    @property
    def num_samples(self) -> int:
        return int(self.inbox.num_samples[self.slot])

    @property
    def finished(self) -> bool:
        return bool(self.inbox.finished(np.array([self.slot]))[0])

    def accept(self, samples: Floats) -> None:
        self.inbox.accept(self.slot, samples)

    def finish(self, tail_samples: int) -> None:
        self.inbox.finish(self.slot, tail_samples)

    def is_ready(self) -> bool:
        return self.inbox.is_ready(self.slot)

    def discard(self) -> None:
        self.inbox.discard(self.slot)


@dataclass(slots=True)
class _SlotSearch:
    """Where greedy search stands in one stream: what it said is here, its context on the card."""

    hypotheses: OpenHypotheses
    inbox: Inbox
    slot: int
    chunk_encoder_frames: int

    @property
    def num_frames(self) -> int:
        return int(self.inbox.num_taken[self.slot]) * self.chunk_encoder_frames

    def hypothesis(self) -> Hypothesis:
        return self.hypotheses.hypothesis(self.slot)

    def drop(self, count: int) -> None:
        self.hypotheses.drop(self.slot, count)


class GpuStreamRecognizer(StreamRecognizer):
    """On a `StreamStepper`."""

    runner: StreamStepper
    gathering_sec = 0.01

    def __init__(
        self,
        spec: CheckpointSpec,
        runner: StreamStepper,
        *,
        options: StreamOptions | None = None,
        tail_padding_sec: float = TAIL_PADDING_SEC,
    ) -> None:
        """Raises BundleError for a model that is none of streams."""
        super().__init__(spec, runner, options=options, tail_padding_sec=tail_padding_sec)
        capacity = runner.capacity
        self._inbox = Inbox(runner.inbox, runner.windows)
        self._said = OpenHypotheses(capacity, runner.beam_places, runner.context_size)
        self._endpoints = EndpointTable(capacity)
        self._segment_starts = np.zeros(capacity, dtype=np.int64)  # in encoder frames
        self._fresh = np.zeros(capacity, dtype=np.bool_)  # nothing said yet that the next token depends on
        self._blank_penalties = np.zeros(capacity, dtype=np.float32)
        self._sharpness = np.ones(capacity, dtype=np.float32)
        self._beams = np.zeros(capacity, dtype=np.int32)  # 0 for greedy search
        self._on_host = np.zeros(capacity, dtype=np.bool_)  # whose search is
        self._broken = np.zeros(capacity, dtype=np.bool_)  # of which the encoder made no numbers
        self._texts: list[tuple[int, int, str]] = [(0, 0, "")] * capacity

    def accept(self, stream: Stream, samples: Floats) -> None:
        if stream.windows.finished:
            raise StreamError("The stream's audio has been finished", hint="open another stream")
        self._inbox.accept(stream.slot, check_waveform(samples))

    def accept_many(self, streams: Sequence[Stream], samples: ArrayLike) -> None:
        """More audio of many streams, all different: float32 or int16 [N, n], a row each. As `accept`."""
        slots = _slots(streams)
        if self._inbox.finished(slots).any():
            raise StreamError("A stream's audio has been finished", hint="open another stream")
        self._inbox.accept_many(slots, check_waveforms(samples))

    def step(self, streams: Sequence[Stream], *, alone: bool = False) -> None:  # noqa: ARG002
        slots = _slots(streams)
        on_host = np.flatnonzero(self._on_host[slots])
        turns = Turns(
            slots,
            self._inbox.num_taken[slots],
            self._inbox.heard(slots),
            self._fresh[slots],
            self._blank_penalties[slots],
            self._sharpness[slots],
            self._beams[slots],
            self._said.decided[slots],
            self._said.kept[slots],
        )
        said = self.runner.step(turns, on_host)
        self._inbox.take(slots)
        self._fresh[slots] = False
        self._said.decided[slots] = -1
        self._note(turns, said)
        if len(on_host):
            self._search([streams[row] for row in on_host], said.encoder_out)
        for row in np.flatnonzero(self._inbox.ended(slots) | self._on_host[slots] | self._at_endpoint(slots)):
            self._cut(streams[row])

    def text(self, stream: Stream) -> str:
        """As the base class, but after greedy search spelt again only where something was said since."""
        self._check_precision(stream)
        if self._on_host[stream.slot] or self._beams[stream.slot]:
            return super().text(stream)
        closed, count = stream.num_closed, self._said.count(stream.slot)
        closed_then, count_then, text = self._texts[stream.slot]
        if (closed, count) != (closed_then, count_then):
            text = super().text(stream)
            self._texts[stream.slot] = closed, count, text
        return text

    def update(self, stream: Stream) -> StreamUpdate:
        self._check_precision(stream)
        return super().update(stream)

    def warm_up(self) -> None:
        """Raises EngineError where the precision is not enough for this checkpoint."""
        super().warm_up()
        if self._broken.any():
            raise self._precision_error("streams")

    def _new_audio(self, slot: int) -> _SlotAudio:
        self._inbox.open(slot)
        self._segment_starts[slot] = 0
        self._broken[slot] = False
        return _SlotAudio(self._inbox, slot)

    def _new_search(self, slot: int, options: StreamOptions, num_frames: int) -> SearchState:
        decoding = options.decoding
        self._endpoints.set(slot, options.rules if options.endpoint else None)
        beam = 0 if decoding.method == "greedy" else decoding.beam
        self._on_host[slot] = beam > self.runner.beam_places
        self._beams[slot] = 0 if self._on_host[slot] else beam
        self._fresh[slot] = True
        self._blank_penalties[slot] = decoding.blank_penalty
        self._sharpness[slot] = 1.0 / decoding.temperature
        self._said.clear(slot)
        self._texts[slot] = 0, 0, ""
        if self._on_host[slot]:
            return self._new_host_search(options, num_frames)
        return _SlotSearch(self._said, self._inbox, slot, self.runner.chunk_encoder_frames)

    def _note(self, turns: Turns, said: Said) -> None:
        """What was said in a step."""
        slots, beams = turns.slots, said.by_beams
        first_frames = turns.numbers * self.runner.chunk_encoder_frames
        by_beam = turns.beams > 0
        greedy = ~by_beam
        self._said.append(
            slots[greedy],
            said.counts[greedy],
            said.tokens[greedy],
            (said.frames + first_frames[:, None])[greedy],
            said.log_probs[greedy],
            said.scores[greedy],
        )
        scores = said.scores
        if by_beam.any():
            self._said.advance(
                slots[by_beam],
                beams.origins,
                beams.counts,
                beams.tokens,
                beams.frames + first_frames[by_beam, None, None],
                beams.log_probs,
                beams.scores,
            )
            scores[by_beam] = beams.scores.max(axis=1)
        self._broken[slots] |= ~np.isfinite(scores)

    def _close_segment(self, stream: Stream, best: Hypothesis, count: int) -> None:
        super()._close_segment(stream, best, count)
        self._segment_starts[stream.slot] = stream.segment_start_frame

    def _at_endpoint(self, slots: Ints) -> NDArray[np.bool_]:
        """What `_find_endpoint` will find an endpoint in."""
        now = self._inbox.num_taken[slots].astype(np.int64) * self.runner.chunk_encoder_frames
        starts, last_frames = self._segment_starts[slots], self._said.last_frames(slots)
        anything_said = last_frames >= 0
        last_said = np.where(anything_said, last_frames + 1, starts)
        frame_sec = self.spec.encoder_frame_sec
        return self._endpoints.hold(slots, (now - last_said) * frame_sec, (now - starts) * frame_sec, anything_said)

    def _check_precision(self, stream: Stream) -> None:
        if self._broken[stream.slot]:
            raise self._precision_error("a stream")

    def _precision_error(self, what: str) -> EngineError:
        return precision_error(self.spec, f"Expected numbers from {self.spec.file} for {what}")


def _slots(streams: Sequence[Stream]) -> Ints:
    return np.array([stream.slot for stream in streams], dtype=np.int64)
