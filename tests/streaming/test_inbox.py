"""`Inbox`: windows in its rings against windows of the whole audio."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from moulin.arrays import Floats
from moulin.audio.fbank import FbankOptions
from moulin.audio.waveform import as_floats
from moulin.streaming.inbox import Inbox, ring_samples
from moulin.streaming.window_layout import WindowLayout

OPTIONS = FbankOptions()
LAYOUT = WindowLayout.of(OPTIONS, 45, 32)
RING = ring_samples(LAYOUT)


def new_inbox(slots: int = 3) -> Inbox:
    """An inbox whose rings are full of other streams' samples."""
    inbox = Inbox(np.full((slots, RING), 99, np.float32), LAYOUT)
    for slot in range(slots):
        inbox.open(slot)
    return inbox


def window(inbox: Inbox, slot: int) -> Floats:
    """The samples of the next window, as the card reads them, without those before the stream's first."""
    begin = int(inbox.num_taken[slot]) * LAYOUT.chunk - LAYOUT.overhang
    heard = int(inbox.heard(np.array([slot]))[0])
    at = np.arange(max(begin, 0), begin + heard)
    samples = np.zeros(LAYOUT.samples - (at[0] - begin if len(at) else 0), np.float32)
    samples[: len(at)] = inbox.rings[slot, at % RING]
    return samples


def speech(count: int, seed: int = 0) -> Floats:
    return np.random.default_rng(seed).normal(0, 0.1, count).astype(np.float32)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.sampled_from([0, 1, 77, 1600, 5120, 7320, 10_000, 60_000]), max_size=6),
    st.booleans(),
    st.booleans(),
    st.integers(0, 9000),
)
def test_windows_are_those_of_the_whole_audio(pieces: list[int], at_once: bool, many: bool, tail: int) -> None:
    """Windows are equal, whether taken as they come or all in the end, when most of the audio has waited for room."""
    audio = speech(sum(pieces))
    inbox, sent = new_inbox(), 0
    slots = np.array([1])
    taken, done = 0, False

    def take() -> int:
        count = 0
        while inbox.is_ready(1):
            assert taken + count < (LAYOUT.all_windows(sent, tail) if done else LAYOUT.whole_windows(sent))
            begin = (taken + count) * LAYOUT.chunk - LAYOUT.overhang
            wanted = np.concatenate([audio[max(begin, 0) :], np.zeros(LAYOUT.samples, np.float32)])
            got = window(inbox, 1)
            np.testing.assert_array_equal(got, wanted[: len(got)])
            inbox.take(slots)
            count += 1
        assert taken + count == (LAYOUT.all_windows(sent, tail) if done else LAYOUT.whole_windows(sent))
        return count

    at = 0
    for piece in pieces:
        samples = audio[at : at + piece]
        at += piece
        if many:
            inbox.accept_many(slots, samples[None])
        else:
            inbox.accept(1, samples)
        sent += piece
        if not at_once:
            taken += take()
    assert inbox.num_samples[1] == sent
    inbox.finish(1, tail)
    done = True
    assert inbox.finished(slots).all()
    taken += take()
    assert inbox.ended(np.arange(3)).tolist() == [False, True, False]
    assert (inbox.rings[[0, 2]] == 99).all()
    assert not inbox._waiting


def test_the_caller_may_use_the_array_again() -> None:
    inbox = new_inbox()
    samples = speech(40_000)
    kept = samples.copy()
    inbox.accept(0, samples)
    samples[:] = 5
    for _ in range(4):
        got = window(inbox, 0)
        begin = max(int(inbox.num_taken[0]) * LAYOUT.chunk - LAYOUT.overhang, 0)
        np.testing.assert_array_equal(got, kept[begin : begin + len(got)])
        inbox.take(np.array([0]))


def test_integers_are_scaled() -> None:
    inbox = new_inbox(40)
    samples = np.random.default_rng(0).integers(-32768, 32768, (40, 500)).astype(np.int16)
    inbox.accept_many(np.arange(39, -1, -1), samples)
    np.testing.assert_array_equal(inbox.rings[::-1, :500], samples / np.float32(32768))


def test_rows_that_end_where_their_rings_begin_anew() -> None:
    """Such a row beside one that does not, and one without room."""
    inbox, audio = new_inbox(4), np.stack([speech(RING + 9000, seed) for seed in range(4)])
    slots, heads = np.array([3, 0, 1, 2]), [RING - 3000, RING - 3000, 100, RING]
    for slot, head, samples in zip(slots.tolist(), heads, audio, strict=True):
        inbox.accept(slot, samples[:head])
        if head > 100:
            inbox.take(np.array([slot]))
            inbox.take(np.array([slot]))
    inbox.take(np.array([2]))
    more = np.stack([samples[head : head + 9000] for samples, head in zip(audio, heads, strict=True)])
    inbox.accept_many(slots, more)
    assert inbox._waiting == {}
    for slot, head, samples in zip(slots.tolist(), heads, audio, strict=True):
        begin = max(0, int(inbox.num_taken[slot]) * LAYOUT.chunk - LAYOUT.overhang)
        at = np.arange(begin, head + 9000)
        np.testing.assert_array_equal(inbox.rings[slot, at % RING], samples[begin : head + 9000])


def test_a_new_stream_in_the_slot_of_one_that_was_discarded() -> None:
    inbox = new_inbox()
    inbox.accept(0, speech(90_000))
    inbox.discard(0)
    inbox.finish(0, 4800)
    assert not inbox.is_ready(0)
    assert inbox.ended(np.array([0])).all()
    inbox.open(0)
    assert not inbox.finished(np.array([0])).any()
    assert not inbox.is_ready(0)
    assert inbox.num_samples[0] == 0
    inbox.accept(0, speech(8000, seed=1))
    np.testing.assert_array_equal(window(inbox, 0), speech(8000, seed=1)[: LAYOUT.samples - LAYOUT.overhang])


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.lists(st.sampled_from([0, 1, 77, 1600, 5120, 7320, 10_000, 40_000]), min_size=3, max_size=3), max_size=8
    ),
    st.booleans(),
    st.integers(0, 3),
)
def test_runs_of_many_streams_are_accepted_as_one_by_one(rounds: list[list[int]], int16: bool, seed: int) -> None:
    """Streams with audio of different lengths, some of which waits for room, while windows are taken."""
    together, alone = new_inbox(), new_inbox()
    rng = np.random.default_rng(seed)
    for counts in rounds:
        slots, lengths = rng.permutation(3), np.array(counts)
        samples = rng.integers(-20000, 20000, sum(counts)).astype(np.int16)
        floats = as_floats(samples)
        together.accept_runs(slots, samples if int16 else floats, lengths)
        ends = np.cumsum(lengths)
        for slot, end, count in zip(slots.tolist(), ends.tolist(), counts, strict=True):
            alone.accept(slot, floats[end - count : end])
        everyone = np.arange(3)
        ready = together.are_ready(everyone)
        assert ready.tolist() == [alone.is_ready(slot) for slot in range(3)]
        for slot in np.flatnonzero(ready).tolist():
            np.testing.assert_array_equal(window(together, slot), window(alone, slot))
        together.take(np.flatnonzero(ready))
        alone.take(np.flatnonzero(ready))
        np.testing.assert_array_equal(together.num_samples, alone.num_samples)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 40_000), st.integers(0, 6), st.booleans())
def test_decoded_samples_are_those_that_complete_no_further_window(count: int, steps: int, ends: bool) -> None:
    inbox, slot = new_inbox(), np.array([1])
    inbox.accept(1, speech(count))
    if ends:
        inbox.finish(1, 4800)
    for _ in range(steps):
        if inbox.is_ready(1):
            inbox.take(slot)
    (decoded,) = inbox.decoded(slot).tolist()
    assert inbox.are_ready(slot).tolist() == [inbox.is_ready(1)]
    if inbox.ended(slot)[0] or not (ends or inbox.is_ready(1)):
        assert decoded == count
    elif count:
        assert decoded < count
        taken = int(inbox.num_taken[1])
        assert LAYOUT.whole_windows(decoded) <= taken
        assert ends or LAYOUT.whole_windows(decoded + 1) == taken + 1
