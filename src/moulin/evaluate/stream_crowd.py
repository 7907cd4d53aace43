"""Streams at random: they start, stop, vanish and lag, thousands beside each other."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from moulin.arrays import Ints
from moulin.audio.waveform import SAMPLE_RATE
from moulin.decoding.options import DecodingOptions
from moulin.engine.stream_recognizer import StreamRecognizer
from moulin.live_transcript import LiveTranscript
from moulin.streaming.endpoint_rules import EndpointRules
from moulin.streaming.options import StreamOptions
from moulin.streaming.stream import Stream

_SHORT = EndpointRules(0.8, 0.4, 2.0)
OPTIONS: tuple[tuple[float, StreamOptions], ...] = (
    (0.42, StreamOptions()),
    (0.2, StreamOptions(endpoint=False)),
    (0.2, StreamOptions(DecodingOptions(blank_penalty=1.0), rules=_SHORT)),
    (0.1, StreamOptions(DecodingOptions(blank_penalty=-1.0), endpoint=False)),
    (0.05, StreamOptions(DecodingOptions("modified_beam_search"), rules=_SHORT)),
    (0.02, StreamOptions(DecodingOptions("modified_beam_search", beam=2, temperature=1.5, blank_penalty=0.5))),
    (0.01, StreamOptions(DecodingOptions("modified_beam_search", beam=12), rules=_SHORT)),
)
"""Shares of the streams, and their options."""

_PIECE_SAMPLES = 10_240  # at most, for streams that do not lag; half of it on average
_HALF_STEPS = 0.25  # share of the turns in which only half of the ready streams step


@dataclass(frozen=True, slots=True)
class Churn:
    """Options of the random streams, of which `open_at_once` are open beside each other. `seed` decides all chance."""

    streams: int = 100_000
    open_at_once: int = 2_000
    longest_sec: float = 5.0
    """Longest audio of a stream; the shortest is none."""
    vanishing: float = 0.2
    """Share of the streams that is closed before its end."""
    lagging: float = 0.05
    """Share of the sending streams that begins to lag in a turn."""
    longest_lag: int = 6
    """Turns of the longest lag."""
    one_sampled_in: int = 200
    seed: int = 0


@dataclass(slots=True)
class Sample:
    """A stream whose text is compared: its audio, and the steps that were made of it; None for all steps."""

    options: StreamOptions
    samples: NDArray[np.int16]
    finished: bool
    steps: int | None
    text: str


@dataclass(slots=True)
class CrowdCounts:
    """Counts of the streams so far."""

    ended: int = 0
    vanished: int = 0
    steps: int = 0
    chunks: int = 0
    """Streams in all steps, each counted once a step."""
    characters: int = 0
    """Characters of all texts."""
    samples: list[Sample] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    """Samples whose updates did not add up to their text."""


class Crowd:
    """The open streams, each in a place; their state is in arrays over the places."""

    def __init__(
        self, recognizer: StreamRecognizer, audio: NDArray[np.int16], churn: Churn, counts: CrowdCounts
    ) -> None:
        self._recognizer, self._churn, self._counts = recognizer, churn, counts
        self._random = np.random.default_rng(churn.seed)
        self._int16 = audio
        self._float32 = audio.astype(np.float32) / np.float32(32768)
        places = churn.open_at_once
        self._streams: list[Stream | None] = [None] * places
        self._first = np.zeros(places, dtype=np.int64)  # first sample in the audio
        self._length, self._sent = np.zeros_like(self._first), np.zeros_like(self._first)
        self._speaks_again = np.zeros_like(self._first)  # turn
        self._steps = np.zeros_like(self._first)
        self._finishes = np.zeros(places, dtype=bool)  # after the last piece, without vanishing before
        self._finished, self._vanishes = np.zeros_like(self._finishes), np.zeros_like(self._finishes)
        self._open = np.zeros_like(self._finishes)
        self._sampled: dict[int, LiveTranscript] = {}
        self._turn = self._num_opened = 0

    @property
    def _num_gone(self) -> int:
        return self._counts.ended + self._counts.vanished

    @property
    def num_open(self) -> int:
        return int(self._open.sum())

    def close(self) -> None:
        """Close all streams, finished or not."""
        self._vanishes[:] = True
        for place in np.flatnonzero(self._open).tolist():
            self._close(place)

    def go_on(self, *, until_gone: int) -> None:
        """Take turns until `until_gone` streams have gone."""
        while self._num_gone < until_gone:
            self._turn += 1
            self._arrive()
            self._speak()
            self._finish()
            self._vanish()
            self._step()
            self._leave()

    def _arrive(self) -> None:
        """Open streams in free places, in a turn at most about a tenth of all places."""
        free = np.flatnonzero(~self._open)[: self._churn.streams - self._num_opened]
        free = free[: 1 + len(self._open) // 10]
        count, random = len(free), self._random
        full = (random.uniform(0, self._churn.longest_sec, count) * SAMPLE_RATE).astype(np.int64)
        vanishes = random.random(count) < self._churn.vanishing
        # One in five vanishing streams does so after its end, while the rest of its audio is decoded.
        after_end = random.random(count) < 0.2
        self._length[free] = np.where(vanishes & ~after_end, full * random.random(count), full)
        self._first[free] = random.integers(0, len(self._int16) - self._length[free])
        self._vanishes[free], self._finishes[free] = vanishes, ~vanishes | after_end
        self._sent[free] = self._steps[free] = 0
        self._speaks_again[free] = self._turn
        self._finished[free] = False
        chosen = random.choice(len(OPTIONS), count, p=[share for share, _ in OPTIONS])
        for place, option in zip(free.tolist(), chosen.tolist(), strict=True):
            self._streams[place] = self._recognizer.open(OPTIONS[option][1])
            self._open[place] = True
            if self._num_opened % self._churn.one_sampled_in == 0:
                self._sampled[place] = LiveTranscript()
            self._num_opened += 1

    def _speak(self) -> None:
        """Send a piece for each stream that does not lag; one whose lag ends sends several at once."""
        random, length = self._random, int(self._random.integers(1, _PIECE_SAMPLES + 1))
        silent = random.random(len(self._open)) < self._churn.lagging
        lag = random.integers(1, self._churn.longest_lag + 1, len(self._open))
        left = np.where(self._open, self._length - self._sent, 0)
        falls_silent = silent & (left > 0) & (self._speaks_again <= self._turn)
        self._speaks_again[falls_silent] = self._turn + lag[falls_silent]
        speaks = (left > 0) & (self._speaks_again <= self._turn)
        missed = speaks & (self._speaks_again == self._turn) & (self._sent > 0)
        together = np.flatnonzero(speaks & ~missed & (left >= length))
        alone = np.flatnonzero(speaks & (missed | (left < length)))
        # Turns alternate between the two forms of audio that clients send.
        audio: NDArray[Any] = self._float32 if self._turn % 2 else self._int16
        if len(together):
            begins = self._first[together] + self._sent[together]
            self._recognizer.accept_many(self._at(together), sliding_window_view(audio, length)[begins])
            self._sent[together] += length
        pieces = np.minimum(left[alone], np.where(missed[alone], lag[alone] * _PIECE_SAMPLES, length))
        begins = self._first[alone] + self._sent[alone]
        for stream, begin, piece in zip(self._at(alone), begins.tolist(), pieces.tolist(), strict=True):
            self._recognizer.accept(stream, audio[begin : begin + piece])
        self._sent[alone] += pieces

    def _finish(self) -> None:
        now = np.flatnonzero(self._open & self._finishes & ~self._finished & (self._sent == self._length))
        for stream in self._at(now):
            self._recognizer.finish(stream)
        self._finished[now] = True

    def _vanish(self) -> None:
        """Close half of the vanishing streams that have sent all, the others in later turns."""
        about_to = np.flatnonzero(self._open & self._vanishes & (self._sent == self._length))
        for place in about_to[self._random.random(len(about_to)) < 0.5].tolist():
            self._close(place)
            self._counts.vanished += 1

    def _step(self) -> None:
        """Step the ready streams in random order, sometimes only half of them."""
        speakers = np.flatnonzero(self._open & (self._sent > 0)).tolist()
        ready = np.array(
            [place for place in speakers if self._recognizer.is_ready(self._stream(place))], dtype=np.int64
        )
        self._random.shuffle(ready)
        if self._random.random() < _HALF_STEPS:
            ready = ready[len(ready) // 2 :]
        max_batch = self._recognizer.limits.max_batch
        for at in range(0, len(ready), max_batch):
            batch = ready[at : at + max_batch]
            self._recognizer.step(self._at(batch))
            self._steps[batch] += 1
            self._counts.steps += 1
            self._counts.chunks += len(batch)
        for place in self._sampled.keys() & set(ready.tolist()):
            if self._random.random() < 0.5:
                self._sampled[place].apply(self._recognizer.update(self._stream(place)))

    def _leave(self) -> None:
        """Close the streams that have been decoded to their end."""
        for place in np.flatnonzero(self._open & self._finished & ~self._vanishes).tolist():
            if not self._recognizer.is_ready(self._stream(place)):
                self._counts.characters += len(self._recognizer.text(self._stream(place)))
                self._close(place)
                self._counts.ended += 1

    def _close(self, place: int) -> None:
        stream = self._stream(place)
        if place in self._sampled:
            live, text = self._sampled.pop(place), self._recognizer.text(stream)
            live.apply(self._recognizer.update(stream))
            if live.text != text:
                self._counts.faults.append(f"Expected updates to add up to the text {text!r}, got {live.text!r}")
            self._counts.samples.append(
                Sample(
                    options=stream.options,
                    samples=self._int16[self._first[place] :][: self._sent[place]],
                    finished=bool(self._finished[place]),
                    steps=int(self._steps[place]) if self._vanishes[place] else None,
                    text=text,
                )
            )
        self._recognizer.close(stream)
        self._streams[place], self._open[place] = None, False

    def _at(self, places: Ints) -> list[Stream]:
        return [self._stream(place) for place in places.tolist()]

    def _stream(self, place: int) -> Stream:
        stream = self._streams[place]
        assert stream is not None
        return stream
