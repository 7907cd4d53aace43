"""Streaming recognition: pieces of audio in, growing transcripts out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from types import TracebackType

import numpy as np

from moulin.arrays import Floats
from moulin.audio.waveform import SAMPLE_RATE, check_waveform
from moulin.bundle.spec import FRAME_SHIFT_SEC, ModelSpec
from moulin.decoding.found import Hypothesis
from moulin.decoding.search import SEARCHES, SearchState, rows_by_options
from moulin.engine.features import TAIL_PADDING_SEC
from moulin.engine.stream_runner import StreamLimits
from moulin.engine.words import spell_words
from moulin.errors import BundleError, StreamError
from moulin.live_transcript import Segment, StreamUpdate
from moulin.spacing import join_texts
from moulin.streaming.options import StreamOptions
from moulin.streaming.slots import SlotPool
from moulin.streaming.stream import Audio, Stream


class StreamRecognizer(ABC):
    """Recognises many streams with one streaming model.

    Has no threads, queues or clocks: whoever calls `step` decides which streams go together. Different streams may be
    worked on from different threads, one stream only by one at a time.
    """

    gathering_sec = 0.0
    """How long a step is worth waiting for, that more streams take part."""

    def __init__(
        self,
        spec: ModelSpec,
        runner: StreamLimits,
        *,
        options: StreamOptions | None = None,
        tail_padding_sec: float = TAIL_PADDING_SEC,
    ) -> None:
        if spec.streaming is None:
            raise BundleError(f"Expected a streaming model, got the {spec.mode} {spec.family} in {spec.path}")
        self.spec = spec
        self.chunk_sec = spec.streaming.chunk_frames * FRAME_SHIFT_SEC
        """From a stream's step to its next, in real time."""
        self.options = options or StreamOptions()
        self.runner = runner
        self._tail_samples = round(tail_padding_sec * SAMPLE_RATE)
        self._slots = SlotPool(runner.capacity)

    @property
    def num_open(self) -> int:
        """How many streams are open."""
        return self._slots.num_taken

    def open(self, options: StreamOptions | None = None) -> Stream:
        """A new stream. Raises StreamsFull."""
        slot = self._slots.acquire()
        try:
            options = options or self.options
            return Stream(slot, options, self._new_audio(slot), self._new_search(slot, options, 0))
        except BaseException:
            self._slots.release(slot)
            raise

    def accept(self, stream: Stream, samples: Floats) -> None:
        """More audio: float32 [n] (16 kHz, mono, in [-1, 1]), n may be 0.

        Raises AudioError for what is none, and StreamError after `finish`.
        """
        if stream.windows.finished:
            raise StreamError("The stream's audio has been finished", hint="open another stream")
        # A copy: audio waits until its window is whole, and the caller may use the array again.
        stream.windows.accept(np.array(check_waveform(samples)))

    def finish(self, stream: Stream) -> None:
        """No more audio comes: what is there will be decoded to its last frame."""
        stream.windows.finish(self._tail_samples)
        if stream.ended:
            self._close_last_segment(stream)

    def is_ready(self, stream: Stream) -> bool:
        """Whether there is audio enough for a step."""
        return stream.windows.is_ready()

    @abstractmethod
    def step(self, streams: Sequence[Stream], *, alone: bool = False) -> None:
        """Take every one of `streams`, all of them ready and different, one chunk further.

        `alone` says that no other step is under way. Raises EngineError.
        """

    @abstractmethod
    def _new_audio(self, slot: int) -> Audio:
        """Of a stream that begins in `slot`, whatever another has left there."""

    @abstractmethod
    def _new_search(self, slot: int, options: StreamOptions, num_frames: int) -> SearchState:
        """Of the stream in `slot`, of which nothing is to be remembered, and `num_frames` encoder frames were heard."""

    def advance(self, stream: Stream) -> StreamUpdate:
        """All the steps that are possible, and what they changed."""
        while self.is_ready(stream):
            self.step([stream], alone=True)
        return self.update(stream)

    def text(self, stream: Stream) -> str:
        """All that has been said since the beginning."""
        return join_texts(stream.closed_text, self.spec.tokens.text(stream.search.hypothesis().tokens))

    def update(self, stream: Stream) -> StreamUpdate:
        """What is new since the last update."""
        segments = []
        while stream.unreported:
            number = stream.num_closed - len(stream.unreported)
            segments.append(self._segment(stream, number, stream.unreported.popleft(), is_final=True))
        open_hypothesis = stream.search.hypothesis()
        if open_hypothesis.tokens:
            segments.append(self._segment(stream, stream.num_closed, open_hypothesis, is_final=False))
        endpoint, stream.endpoint = stream.endpoint, False
        return StreamUpdate(tuple(segments), endpoint, stream.ended, round(self._duration_sec(stream), 3))

    def close(self, stream: Stream) -> None:
        """Give the stream's slot back; it must not be used again."""
        self._slots.release(stream.slot)

    def warm_up(self) -> None:
        """Run two seconds of noise, alone and in a full batch, so that the first stream finds everything ready."""
        noise = np.random.default_rng(0).normal(0, 0.01, 2 * SAMPLE_RATE).astype(np.float32)
        streams = [self.open() for _ in range(min(self.runner.max_batch, self.runner.capacity))]
        for stream in streams:
            self.accept(stream, noise)
        while self.is_ready(streams[0]):
            self.step(streams)
        self.finish(streams[0])
        while self.is_ready(streams[0]):
            self.step(streams[:1])
        for stream in streams:
            self.close(stream)

    def _search(self, streams: Sequence[Stream], encoder_out: Floats) -> None:
        """One search on the host for each set of options that occurs."""
        lengths = np.full(len(streams), encoder_out.shape[1])
        for options, rows in rows_by_options([stream.options.decoding for stream in streams]).items():
            states = [streams[row].search for row in rows]
            SEARCHES[options.method].advance(self.runner, states, encoder_out[rows], lengths[rows], options)

    def _new_host_search(self, options: StreamOptions, num_frames: int) -> SearchState:
        (search,) = SEARCHES[options.decoding.method].start(self.runner, 1, options.decoding)
        search.num_frames = num_frames
        return search

    def _cut(self, stream: Stream) -> None:
        """Close the open segment where the stream has ended, the speaker has paused, or it is too long."""
        if stream.ended:
            self._close_last_segment(stream)
        elif stream.options.endpoint:
            self._find_endpoint(stream)

    def _find_endpoint(self, stream: Stream) -> None:
        """Close the open segment where the speaker has paused or it is too long."""
        now, rules = stream.search.num_frames, stream.options.rules
        hypothesis = stream.search.hypothesis()
        last_said = hypothesis.frames[-1] + 1 if hypothesis.tokens else stream.segment_start_frame
        frame_sec = self.spec.encoder_frame_sec
        if rules.paused((now - last_said) * frame_sec, anything_said=bool(hypothesis.tokens)):
            self._close_segment(stream, hypothesis, len(hypothesis.tokens))
            if not hypothesis.tokens:
                # After so long a silence what was said before says little about what comes.
                stream.search = self._new_search(stream.slot, stream.options, now)
        elif rules.too_long((now - stream.segment_start_frame) * frame_sec):
            # The last word may be but half said: it goes into the next segment, and the search goes on.
            words = self.spec.tokens.words(hypothesis.tokens)
            count = words[-1].first if len(words) > 1 else len(hypothesis.tokens)
            self._close_segment(stream, hypothesis, count)
        else:
            return
        stream.endpoint = True

    def _close_last_segment(self, stream: Stream) -> None:
        hypothesis = stream.search.hypothesis()
        self._close_segment(stream, hypothesis, len(hypothesis.tokens))

    def _close_segment(self, stream: Stream, best: Hypothesis, count: int) -> None:
        """Close the open segment after the first `count` tokens of its `best` hypothesis; the others begin the next."""
        stream.segment_start_frame = stream.search.num_frames
        stream.search.drop(count)
        if count:
            closed = Hypothesis(best.tokens[:count], best.frames[:count], best.log_probs[:count], best.score)
            stream.closed_text = join_texts(stream.closed_text, self.spec.tokens.text(closed.tokens))
            stream.unreported.append(closed)
            stream.num_closed += 1

    def _segment(self, stream: Stream, number: int, hypothesis: Hypothesis, *, is_final: bool) -> Segment:
        words = spell_words(
            self.spec.tokens,
            hypothesis,
            frame_sec=self.spec.encoder_frame_sec,
            duration_sec=self._duration_sec(stream),
        )
        return Segment(number, self.spec.tokens.text(hypothesis.tokens), words, is_final)

    @staticmethod
    def _duration_sec(stream: Stream) -> float:
        return stream.windows.num_samples / SAMPLE_RATE

    def __enter__(self) -> StreamRecognizer:
        return self

    def __exit__(  # noqa: B027 - it does nothing on purpose
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Nothing to release but memory; here so that it is used like the offline recognizer."""
