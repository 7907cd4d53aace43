"""Streaming recognition: pieces of audio in, growing transcripts out."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from functools import partial
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from moulin.arrays import Bools, Floats, Ints
from moulin.audio.loudness import LoudnessTracks
from moulin.audio.waveform import SAMPLE_RATE, check_waveform, check_waveforms
from moulin.bundle.spec import ModelSpec
from moulin.decoding.found import Found, Hypothesis
from moulin.decoding.hotword_graphs import HotwordGraphs
from moulin.decoding.hypotheses import OpenHypotheses
from moulin.decoding.language_model import Fusion
from moulin.decoding.options import MAX_BEAM, DecodingOptions
from moulin.decoding.row_graphs import NO_GRAPHS, Graphs
from moulin.decoding.row_options import RowOptions
from moulin.decoding.search import Continuation
from moulin.engine.asked_for import Abilities, graphs_asked_for
from moulin.engine.features import TAIL_PADDING_SEC
from moulin.engine.precision_error import precision_error
from moulin.engine.spelling import alternatives, spell_words
from moulin.engine.stepper import StepLimits, Stepper
from moulin.engine.word_times import REACH_BACK, Sound
from moulin.errors import BundleError, EngineError, StreamError
from moulin.live_transcript import Segment, StreamUpdate
from moulin.spacing import join_texts
from moulin.streaming.endpoint import Cut, EndpointTable
from moulin.streaming.options import StreamOptions
from moulin.streaming.slots import SlotPool
from moulin.streaming.stream import ClosedSegment, Stream
from moulin.streaming.turns import Turns
from moulin.transcript import Alternative, Word

_NEVER = np.iinfo(np.int64).max


class StreamRecognizer:
    """Recognises many streams with one streaming model.

    Has no threads, queues or clocks: the caller of `step` decides which streams go together. Different streams may be
    used from different threads, one stream only by one at a time; but during a stream's step also audio may come for it
    (`accept_runs`, `finish`), its news be read, its options change and its segment be closed (`finalize`).

    A step works on arrays by slot, for all of its streams at once; only streams that pause or end are handled singly.
    """

    def __init__(
        self,
        spec: ModelSpec,
        stepper: Stepper,
        *,
        options: StreamOptions | None = None,
        tail_padding_sec: float = TAIL_PADDING_SEC,
        hotwords: HotwordGraphs | None = None,
        fast_beam_search: bool = False,
        fusion: Fusion | None = None,
    ) -> None:
        """`fast_beam_search` says whether the stepper has that search, which otherwise is refused. `hotwords` are the
        automata of a stepper that uses them; None refuses hotwords. `fusion` is the language model that it uses, if
        any. Raises BundleError for an offline model."""
        if spec.streaming is None:
            raise BundleError(f"Expected a streaming model, got the {spec.mode} {spec.family} in {spec.path}")
        self.spec = spec
        self.chunk_sec = spec.streaming.chunk_sec
        """Seconds of audio from a stream's step to its next."""
        self.options = options or StreamOptions()
        self.stepper, self._can = stepper, Abilities(hotwords, fast_beam_search, fusion)
        self._chunk_encoder_frames = spec.streaming.chunk_encoder_frames
        self._tail_samples = round(tail_padding_sec * SAMPLE_RATE)
        capacity = stepper.limits.capacity
        self._slots = SlotPool(capacity)
        self._inbox = stepper.inbox
        self._loudness = LoudnessTracks(capacity, round(spec.encoder_frame_sec * SAMPLE_RATE))
        self._said = OpenHypotheses(capacity, MAX_BEAM, None if spec.head == "ctc" else spec.context_size)
        self._endpoints = EndpointTable(capacity)
        self._options = RowOptions.defaults(capacity)
        self._segment_starts = np.zeros(capacity, dtype=np.int64)  # in encoder frames
        self._fresh = np.zeros(capacity, dtype=np.bool_)  # the next step begins a search
        self._broken = np.zeros(capacity, dtype=np.bool_)  # the encoder gave NaN or infinity
        self._changed = np.zeros(capacity, dtype=np.bool_)  # since `news`
        self._finalized_at = np.full(capacity, _NEVER)  # windows after which the open segment is to be closed
        self._new_options: dict[int, tuple[StreamOptions, Graphs]] = {}  # for the next step
        self._open: list[Stream | None] = [None] * capacity
        self._lock = threading.RLock()  # for what may happen during a step

    # ------------------------------------------------------------------------------------------------ a stream's life

    @property
    def limits(self) -> StepLimits:
        return self.stepper.limits

    @property
    def num_open(self) -> int:
        """The number of open streams."""
        return self._slots.num_taken

    def open(self, options: StreamOptions | None = None) -> Stream:
        """A new stream. Raises StreamsFull, and OptionsError for a `blank_skip` or hotwords that the model cannot
        fulfil."""
        graphs = self._graphs((options or self.options).decoding)
        stream = Stream(self._slots.acquire(), options or self.options)
        slot, chosen = stream.slot, stream.options
        self._inbox.open(slot)
        self._loudness.open(slot)
        self._endpoints.set(slot, chosen.rules if chosen.endpoint else None)
        self._use(slot, chosen.decoding, graphs)
        self._segment_starts[slot] = 0
        self._broken[slot] = self._changed[slot] = False
        self._finalized_at[slot] = _NEVER
        self._begin_search(slot)
        self._open[slot] = stream
        return stream

    def _use(self, slot: int, options: DecodingOptions, graphs: Graphs) -> None:
        """Search `slot` with these options from its next step on."""
        self._options.set(slot, options, graphs)
        if self.spec.head != "ctc":
            self._said.by_score[slot] = options.method == "fast_beam_search"

    def _graphs(self, options: DecodingOptions) -> Graphs:
        return graphs_asked_for(self.spec, options, self._can)

    def accept(self, stream: Stream, samples: Floats) -> None:
        """Append audio: float32 [n] (16 kHz, mono, in [-1, 1]), n may be 0. It is copied.

        Raises AudioError for samples that `check_waveform` refuses, and StreamError after `finish`.
        """
        if self.finished(stream):
            raise StreamError("The stream's audio has been finished", hint="open another stream")
        samples = check_waveform(samples)
        self._inbox.accept(stream.slot, samples)
        self._loudness.accept(stream.slot, samples)

    def accept_many(self, streams: Sequence[Stream], samples: ArrayLike) -> None:
        """`accept` for many streams, all different: float32 or int16 [N, n], a row each."""
        slots = _slots(streams)
        if self._inbox.finished(slots).any():
            raise StreamError("A stream's audio has been finished", hint="open another stream")
        rows = check_waveforms(samples)
        self._inbox.accept_many(slots, rows)
        self._loudness.accept_many(slots, rows)

    def accept_runs(self, slots: Ints, samples: NDArray[np.int16], lengths: Ints) -> None:
        """Append audio of the streams in `slots` [N], all different and unfinished: int16 [n], `lengths` [N] for each,
        in their order."""
        with self._lock:
            self._inbox.accept_runs(slots, samples, lengths)
            self._loudness.accept_runs(slots, samples, lengths)

    def finish(self, stream: Stream) -> None:
        """End the stream's audio, which further steps decode to its last frame."""
        with self._lock:
            self._inbox.finish(stream.slot, self._tail_samples)
            if self.ended(stream):
                self._close_segment(stream)
                self._changed[stream.slot] = True

    def finalize(self, stream: Stream) -> None:
        """Close the open segment when the audio so far has been decoded as far as it goes; the stream goes on."""
        with self._lock:
            windows = self._inbox.layout.whole_windows(int(self._inbox.num_samples[stream.slot]))
            if self.finished(stream):
                return
            if self._inbox.num_taken[stream.slot] >= windows:
                self._finalize(stream)
            else:
                self._finalized_at[stream.slot] = windows

    def change_options(self, stream: Stream, options: StreamOptions) -> None:
        """Change the options, from the stream's next step on. Where those of the search differ, the open segment ends
        there, and a search begins anew. Raises OptionsError as `open` does."""
        graphs = self._graphs(options.decoding)
        with self._lock:
            self._new_options[stream.slot] = options, graphs

    def discard(self, stream: Stream) -> None:
        """Decode no more of the stream, whatever audio is waiting. May be called during a step."""
        self._inbox.discard(stream.slot)

    def close(self, stream: Stream) -> None:
        """Give the stream's slot back; it must not be used again."""
        self._options.graphs[stream.slot] = None
        self._new_options.pop(stream.slot, None)
        self._open[stream.slot] = None
        self._slots.release(stream.slot)

    def is_ready(self, stream: Stream) -> bool:
        """Whether there is enough audio for a step."""
        return self._inbox.is_ready(stream.slot)

    def are_ready(self, slots: Ints) -> Bools:
        """Whether there is enough audio for a step of the stream in each of `slots`, bool [N]."""
        return self._inbox.are_ready(slots)

    def decoded_samples(self, slots: Ints) -> Ints:
        """[N]: the samples of the stream in each of `slots` that have been decoded as far as they go."""
        return self._inbox.decoded(slots)

    def received_samples(self, slots: Ints) -> Ints:
        """[N]: the samples of the stream in each of `slots` so far."""
        return self._inbox.num_samples[slots]

    def finished(self, stream: Stream) -> bool:
        """Whether the stream's audio has ended."""
        return self._inbox.is_finished(stream.slot)

    def ended(self, stream: Stream) -> bool:
        """Whether the stream's audio has ended and all of it has been decoded."""
        return self._inbox.has_ended(stream.slot)

    def duration_sec(self, stream: Stream) -> float:
        """The duration of the stream's audio so far."""
        return float(self._inbox.num_samples[stream.slot] / SAMPLE_RATE)

    # ----------------------------------------------------------------------------------------------------------- steps

    def step(self, streams: Sequence[Stream]) -> None:
        """Take every one of `streams`, all of them ready and different, one chunk further. Raises EngineError."""
        self.step_slots(_slots(streams))

    def step_slots(self, slots: Ints) -> None:
        """`step` of the streams in `slots` [N]."""
        with self._lock:
            self._take_new_options(slots)
            numbers = self._inbox.num_taken[slots]
            turns = Turns(
                Continuation(slots, self._fresh[slots], self._said.decided[slots], self._said.kept[slots]),
                numbers,
                self._inbox.heard(slots),
                self._options.take(slots),
            )
        found = self.stepper.step(turns)
        with self._lock:
            self._inbox.take(slots)
            self._note(slots, found, numbers.astype(np.int64) * self._chunk_encoder_frames)
            cuts, ended = self._cuts(slots), self._inbox.ended(slots)
            finalized = self._inbox.num_taken[slots] >= self._finalized_at[slots]
            rows = np.flatnonzero(ended | cuts.astype(np.bool_) | finalized)
            self._changed[slots[rows]] = True
            for row in rows.tolist():
                stream = self._at(int(slots[row]))
                if ended[row]:
                    self._close_segment(stream)
                elif cuts[row]:
                    self._end_segment(stream, cuts[row])
                if finalized[row]:
                    self._finalize(stream)

    def advance(self, stream: Stream) -> StreamUpdate:
        """Make all steps that are possible. Returns what they changed."""
        while self.is_ready(stream):
            self.step([stream])
        return self.update(stream)

    def warm_up(self) -> None:
        """Run two seconds of noise, in a full batch and alone, so that the first stream finds everything ready.

        Raises EngineError where the precision is not enough for this model.
        """
        noise = np.random.default_rng(0).normal(0, 0.01, 2 * SAMPLE_RATE).astype(np.float32)
        streams = [self.open() for _ in range(min(self.limits.max_batch, self.limits.capacity))]
        for stream in streams:
            self.accept(stream, noise)
        while self.is_ready(streams[0]):
            self.step(streams)
        self.finish(streams[0])
        while self.is_ready(streams[0]):
            self.step(streams[:1])
        for stream in streams:
            self.close(stream)
        if self._broken.any():
            raise self._precision_error("streams")

    def _note(self, slots: Ints, found: Found, first_frames: Ints) -> None:
        """Store what a step has `found` in frames from `first_frames` [N] on."""
        self._fresh[slots] = False
        self._said.decided[slots] = -1
        self._changed[slots] |= self._said.advance(slots, found, first_frames)
        broken = ~np.isfinite(found.scores.max(axis=1))
        self._broken[slots] |= broken
        self._changed[slots] |= broken

    def _take_new_options(self, slots: Ints) -> None:
        """Use the options that have changed since the last step of these streams."""
        if not self._new_options:
            return
        for slot in [slot for slot in slots.tolist() if slot in self._new_options]:
            stream, (options, graphs) = self._at(slot), self._new_options.pop(slot)
            if options.decoding != stream.options.decoding:
                if self._close_segment(stream):
                    self._changed[slot] = True
                self._begin_search(slot)
                self._use(slot, options.decoding, graphs)
            self._endpoints.set(slot, options.rules if options.endpoint else None)
            stream.options = options

    # -------------------------------------------------------------------------------------------------------- segments

    def _cuts(self, slots: Ints) -> NDArray[np.int8]:
        """The `Cut` of each of the open segments of `slots` [N], int8 [N]."""
        now, starts = self._encoder_frames(slots), self._segment_starts[slots]
        last_frames = self._said.last_frames(slots)
        anything_said = last_frames >= 0
        last_said = np.where(anything_said, last_frames + 1, starts)
        frame_sec = self.spec.encoder_frame_sec
        return self._endpoints.cuts(slots, (now - last_said) * frame_sec, (now - starts) * frame_sec, anything_said)

    def _end_segment(self, stream: Stream, cut: int) -> None:
        """Close the open segment where the speaker has paused, or it is too long."""
        stream.endpoint = True
        if cut == Cut.PAUSED:
            if not self._close_segment(stream, paused=True):
                # Nothing but silence: the words before it say little about the next ones.
                self._begin_search(stream.slot)
            return
        # The last word may be unfinished: it goes into the next segment, and the search goes on.
        words = self.spec.tokens.words(self._said.hypothesis(stream.slot).tokens)
        self._close_segment(stream, words[-1].first if len(words) > 1 else None, said_all=False)

    def _finalize(self, stream: Stream) -> None:
        """Close the open segment because its client asked for it."""
        self._finalized_at[stream.slot] = _NEVER
        self._changed[stream.slot] = stream.endpoint = True
        self._close_segment(stream)

    def _close_segment(
        self, stream: Stream, count: int | None = None, *, paused: bool = False, said_all: bool = True
    ) -> bool:
        """Close the open segment after its first `count` tokens, by default all; the others begin the next. Where what
        was to be said has been said, phrases that are not complete lose their bonuses. Returns whether the segment has
        any tokens."""
        graphs: Graphs = tuple(self._options.graphs[stream.slot])
        if said_all and graphs != NO_GRAPHS:
            self._said.take_back(stream.slot, graphs, int(self._options.beams[stream.slot]))
        best = self._said.hypothesis(stream.slot)
        count = len(best.tokens) if count is None else count
        now = self._searched_frames(stream)
        self._segment_starts[stream.slot] = now
        if count:
            closed = _beginning(best, count)
            words = self._words(stream, best)[: len(self.spec.tokens.words(closed.tokens))]
            stream.closed_text = join_texts(stream.closed_text, self.spec.tokens.text(closed.tokens))
            others = self._alternatives(stream, best.tokens[count:])
            stream.unreported.append(ClosedSegment(closed, words, paused, others))
            stream.num_closed += 1
            stream.said_until_sec = words[-1].end_sec if words else stream.said_until_sec
        self._said.drop(stream.slot, count)
        self._loudness.forget_before(stream.slot, min([now, *best.frames[count:]]) - REACH_BACK)
        return bool(count)

    def _alternatives(self, stream: Stream, behind: tuple[int, ...]) -> tuple[Alternative, ...]:
        """The alternatives of a segment that is closed before the tokens `behind`: of the hypotheses that end in them,
        for the next segment begins with them."""
        wanted = stream.options.decoding.nbest
        if wanted == 1:
            return ()
        ranked = self._said.ranked(stream.slot, int(self._options.beams[stream.slot]))
        ends = [(one, len(one.tokens) - len(behind)) for one in ranked]
        closed = [_beginning(one, end) for one, end in ends if end > 0 and one.tokens[end:] == behind]
        return alternatives(self.spec.tokens, closed, wanted, partial(self._words, stream))

    def _begin_search(self, slot: int) -> None:
        self._fresh[slot] = True
        self._said.clear(slot)

    def _searched_frames(self, stream: Stream) -> int:
        """Encoder frames searched so far."""
        return int(self._inbox.num_taken[stream.slot]) * self._chunk_encoder_frames

    def _encoder_frames(self, slots: Ints) -> Ints:
        """`_searched_frames` of many streams, [N]."""
        return self._inbox.num_taken[slots].astype(np.int64) * self._chunk_encoder_frames

    # --------------------------------------------------------------------------------------------------------- results

    def text(self, stream: Stream) -> str:
        """The text from the stream's beginning. Raises EngineError where the encoder gave NaN or infinity."""
        self._check_precision(stream)
        greedy = self._options.beams[stream.slot] == 0
        closed, count = stream.num_closed, self._said.count(stream.slot)
        if greedy and stream.spelt[:2] == (closed, count):  # greedy search takes nothing back
            return stream.spelt[2]
        text = join_texts(stream.closed_text, self.spec.tokens.text(self._said.hypothesis(stream.slot).tokens))
        stream.spelt = closed, count, text
        return text

    def update(self, stream: Stream) -> StreamUpdate:
        """The changes since the last update. Raises EngineError as `text` does."""
        self._check_precision(stream)
        text, segments = self.spec.tokens.text, []
        while stream.unreported:
            number, closed = stream.num_closed - len(stream.unreported), stream.unreported.popleft()
            said = text(closed.hypothesis.tokens)
            segments.append(
                Segment(
                    number,
                    said,
                    closed.words,
                    is_final=True,
                    ends_in_pause=closed.ends_in_pause,
                    alternatives=closed.alternatives,
                )
            )
        best = self._said.hypothesis(stream.slot)
        if best.tokens:
            words = self._words(stream, best)
            segments.append(Segment(stream.num_closed, text(best.tokens), words, is_final=False))
        endpoint, stream.endpoint = stream.endpoint, False
        return StreamUpdate(tuple(segments), endpoint, self.ended(stream), round(self.duration_sec(stream), 3))

    def news(self, slots: Ints) -> tuple[Ints, list[tuple[int, StreamUpdate | EngineError]]]:
        """`decoded_samples` of `slots` [N], and for each whose words, segments or end have changed since the last call
        the slot, and its update or the stream's failure."""
        with self._lock:
            changed = slots[self._changed[slots]]
            self._changed[changed] = False
            updates = [(slot, self._update_or_error(self._at(slot))) for slot in changed.tolist()]
            return self.decoded_samples(slots), updates

    def _update_or_error(self, stream: Stream) -> StreamUpdate | EngineError:
        try:
            return self.update(stream)
        except EngineError as error:
            return error

    def _at(self, slot: int) -> Stream:
        stream = self._open[slot]
        assert stream is not None
        return stream

    def _words(self, stream: Stream, said: Hypothesis) -> tuple[Word, ...]:
        """The words of the open segment. Only frames that have been searched count, so that times do not depend on how
        much audio has been sent ahead."""
        ended, frame_sec = self.ended(stream), self.spec.encoder_frame_sec
        searched = None if ended else self._searched_frames(stream)
        sound = Sound(
            self._loudness.until(stream.slot, searched),
            self._loudness.first_frame(stream.slot),
            is_whole=ended,
            not_before=round(stream.said_until_sec / frame_sec),
        )
        return spell_words(
            self.spec.tokens, said, frame_sec=frame_sec, duration_sec=self.duration_sec(stream), sound=sound
        )

    def _check_precision(self, stream: Stream) -> None:
        if self._broken[stream.slot]:
            raise self._precision_error("a stream")

    def _precision_error(self, what: str) -> EngineError:
        return precision_error(self.spec, f"Expected numbers from {self.spec.file} for {what}")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Do nothing, for there is only memory to release: `with` works as for the offline recognizer."""


def _beginning(whole: Hypothesis, count: int) -> Hypothesis:
    """The first `count` tokens of `whole`, with its score."""
    return Hypothesis(whole.tokens[:count], whole.frames[:count], whole.log_probs[:count], whole.score)


def _slots(streams: Sequence[Stream]) -> Ints:
    return np.array([stream.slot for stream in streams], dtype=np.int64)
