from __future__ import annotations

import kaldi_native_fbank as knf
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moulin.arrays import Floats
from moulin.audio.fbank import Fbank, FbankOptions, kaldi_options
from moulin.streaming.window_layout import WindowLayout
from tests.streaming.windows import OPTIONS, Windows

TAIL_SAMPLES = 4800
WINDOW_FRAMES, CHUNK_FRAMES = 45, 32  # a Zipformer2 with chunks of 320 ms
SHAPES = {"conformer": (75, 64), "lstm": (9, 4), "zipformer": (39, 32), "zipformer2": (45, 32)}


def noise(num_samples: int, seed: int = 0) -> Floats:
    samples: Floats = 0.1 * np.random.default_rng(seed).standard_normal(num_samples, dtype=np.float32)
    return samples


def slices(audio: Floats, count: int, window_frames: int, chunk_frames: int) -> list[Floats]:
    """Windows cut from the features of the whole recording, with so much silence behind it that none sees its end."""
    silence = np.zeros(((count + 1) * chunk_frames + window_frames) * 160, np.float32)
    features = Fbank(OPTIONS)(np.concatenate([audio, silence]))
    return [features[number * chunk_frames :][:window_frames] for number in range(count)]


def equal_bit_for_bit(got: list[Floats], wanted: list[Floats]) -> None:
    assert len(got) == len(wanted)
    for number, (ours, theirs) in enumerate(zip(got, wanted, strict=True)):
        assert ours.dtype == np.float32
        assert ours.shape == theirs.shape, f"window {number}"
        assert ours.tobytes() == theirs.tobytes(), f"window {number}"


# --------------------------------------------------------------------------------------------- any split of the audio


@settings(max_examples=60, deadline=None)
@given(
    pieces=st.lists(st.integers(0, 3000) | st.sampled_from([0, 1, 79, 80, 159, 160, 161]), max_size=12),
    takes_between=st.lists(st.booleans(), min_size=12, max_size=12),
    window_frames=st.integers(1, 40),
    data=st.data(),
)
def test_windows_are_slices_of_the_features_of_the_whole(
    pieces: list[int], takes_between: list[bool], window_frames: int, data: st.DataObject
) -> None:
    """Bit for bit, for every split, whether windows are taken as they become ready or all at the end."""
    chunk_frames = data.draw(st.integers(1, window_frames), label="chunk_frames")
    tail_samples = data.draw(st.sampled_from([0, 1, 160, TAIL_SAMPLES]), label="tail_samples")
    audio = noise(sum(pieces))
    windows = Windows(window_frames, chunk_frames)
    got: list[Floats] = []
    done = 0
    for piece, takes in zip(pieces, takes_between, strict=False):
        windows.accept(audio[done : done + piece])
        done += piece
        if takes:
            got += windows.taken()
    windows.finish(tail_samples)
    got += windows.taken()
    assert windows.inbox.num_samples[1] == len(audio)
    equal_bit_for_bit(got, slices(audio, len(got), window_frames, chunk_frames))


@pytest.mark.parametrize("size", [1, 7, 160, 5119, 5120, 5121, 100_000])
def test_pieces_of_every_size(size: int) -> None:
    audio = noise(20_001)
    windows = Windows(WINDOW_FRAMES, CHUNK_FRAMES)
    got: list[Floats] = []
    for first in range(0, len(audio), size):
        windows.accept(audio[first : first + size])
        got += windows.taken()
    windows.finish(TAIL_SAMPLES)
    got += windows.taken()
    equal_bit_for_bit(got, slices(audio, 5, WINDOW_FRAMES, CHUNK_FRAMES))


def test_the_first_frames_are_those_of_offline_features() -> None:
    """Features as the models were trained, with high_freq 7600 Hz and without snip_edges, also in streaming."""
    audio = noise(16_000)
    windows = Windows(WINDOW_FRAMES, CHUNK_FRAMES)
    windows.accept(audio)
    window = windows.take()
    np.testing.assert_array_equal(window, Fbank()(audio)[:WINDOW_FRAMES])
    to_8000_hz = Fbank(FbankOptions(high_freq=0.0))(audio)
    snipping_options = kaldi_options(OPTIONS)
    snipping_options.frame_opts.snip_edges = True
    extractor = knf.OnlineFbank(snipping_options)
    extractor.accept_waveform(16_000, audio.data)
    snipped = np.stack([extractor.get_frame(frame) for frame in range(WINDOW_FRAMES)])
    for other in (to_8000_hz, snipped):
        assert np.abs(window - other[:WINDOW_FRAMES]).max() > 0.5


def test_other_sizes_come_from_the_options() -> None:
    options = FbankOptions(num_mel_bins=23, sample_rate=8000, high_freq=-200.0)
    audio = noise(8000)
    windows = Windows(20, 15, options)
    for first in range(0, 8000, 333):
        windows.accept(audio[first : first + 333])
    features = Fbank(options)(audio)
    # The last two frames of a recording see its end mirrored, so they are in no window before the end is known.
    equal_bit_for_bit(list(windows.taken()), [features[first : first + 20] for first in range(0, 98 - 19, 15)])


# ---------------------------------------------------------------------------------------------------- when it is ready


@pytest.mark.parametrize("family", SHAPES)
def test_a_window_is_ready_with_the_last_sample_that_it_sees(family: str) -> None:
    """Frame t is centred on sample 160 t + 80 and sees 200 samples to either side."""
    window_frames, chunk_frames = SHAPES[family]
    windows = Windows(window_frames, chunk_frames)
    for number in range(3):
        last_frame = number * chunk_frames + window_frames - 1
        missing = 160 * last_frame + 80 + 200 - windows.inbox.num_samples[1]
        windows.accept(noise(missing - 1))
        assert not windows.is_ready()
        windows.accept(noise(1))
        assert windows.is_ready()
        windows.take()
        assert not windows.is_ready()


def test_nothing_is_never_ready() -> None:
    windows = Windows(9, 4)
    windows.accept(noise(0))
    assert not windows.is_ready()
    windows.finish(TAIL_SAMPLES)
    assert not windows.is_ready()


# --------------------------------------------------------------------------------------------------- how many there are


@pytest.mark.parametrize(
    ("num_samples", "tail_samples", "count"),
    [
        (0, 0, 0),
        (0, TAIL_SAMPLES, 0),
        (1, 0, 0),  # no frame yet: a frame for each 160 samples, rounded to the nearest
        (79, 0, 0),
        (80, 0, 1),
        (279, 0, 1),
        (280, 0, 1),
        (1, TAIL_SAMPLES, 1),
        (79, TAIL_SAMPLES, 1),
        (80, TAIL_SAMPLES, 1),
        (279, TAIL_SAMPLES, 1),
        (280, TAIL_SAMPLES, 1),
        # The edges of chunks: 32 frames are in the first, and a frame begins 80 samples before its middle.
        (32 * 160 + 79, 0, 1),
        (32 * 160 + 80, 0, 2),
        (64 * 160 + 79, 0, 2),
        (64 * 160 + 80, 0, 3),
        # With a tail of 30 frames, of which the last window looks 13 ahead: 15 + 30 = 32 + 13.
        (15 * 160 + 79, TAIL_SAMPLES, 1),
        (15 * 160 + 80, TAIL_SAMPLES, 2),
        (47 * 160 + 79, TAIL_SAMPLES, 2),
        (47 * 160 + 80, TAIL_SAMPLES, 3),
    ],
)
def test_windows_after_the_end(num_samples: int, tail_samples: int, count: int) -> None:
    windows = Windows(WINDOW_FRAMES, CHUNK_FRAMES)
    audio = noise(num_samples)
    windows.accept(audio)
    windows.finish(tail_samples)
    equal_bit_for_bit(list(windows.taken()), slices(audio, count, WINDOW_FRAMES, CHUNK_FRAMES))


@given(
    num_samples=st.integers(0, 200_000),
    tail_samples=st.integers(0, 10_000),
    window_frames=st.integers(1, 120),
    data=st.data(),
)
def test_every_frame_is_in_a_chunk_and_the_tail_is_seen(
    num_samples: int, tail_samples: int, window_frames: int, data: st.DataObject
) -> None:
    """All frames are in windows, with no window too many, also for models that look ahead further than the tail."""
    chunk_frames = data.draw(st.integers(1, window_frames), label="chunk_frames")
    layout = WindowLayout.of(OPTIONS, window_frames, chunk_frames)
    fbank = Fbank(OPTIONS)
    frames, with_tail = fbank.num_frames(num_samples), fbank.num_frames(num_samples + tail_samples)
    wanted = 0
    while num_samples and (
        wanted * chunk_frames < frames or wanted * chunk_frames + window_frames - chunk_frames < with_tail
    ):
        wanted += 1
    assert layout.all_windows(num_samples, tail_samples) == wanted


@given(num_samples=st.integers(0, 60_000), family=st.sampled_from(sorted(SHAPES)))
def test_there_are_never_fewer_windows_than_have_been_ready(num_samples: int, family: str) -> None:
    window_frames, chunk_frames = SHAPES[family]
    ready = max(0, (num_samples - 280 - (window_frames - 1) * 160) // (chunk_frames * 160) + 1)
    layout = WindowLayout.of(OPTIONS, window_frames, chunk_frames)
    assert layout.whole_windows(num_samples) == ready
    assert layout.all_windows(num_samples, 0) >= ready


# ------------------------------------------------------------------------------------------------------------- memory


def test_what_waits_for_room_is_let_go_when_it_has_been_taken() -> None:
    """An hour at once does not affect other streams, and nothing of it is kept."""
    windows = Windows(WINDOW_FRAMES, CHUNK_FRAMES)
    piece = noise(4001)
    for _ in range(600):
        windows.accept(piece)
    inbox = windows.inbox
    waiting = sum(map(len, inbox._waiting[1]))
    assert waiting == 600 * len(piece) - inbox.rings.shape[1]
    for number, _ in enumerate(windows.taken(), start=1):
        if number % 50 == 0:
            assert sum(map(len, inbox._waiting.get(1, []))) <= max(0, waiting - (number - 1) * inbox.layout.chunk)
    assert number == (600 * len(piece) - 280 - 44 * 160) // (32 * 160) + 1
    assert not inbox._waiting


# ------------------------------------------------------------------------------------------------------------ discard


@pytest.mark.parametrize("finishes", [False, True])
@pytest.mark.parametrize("takes", [0, 2])
def test_discard(takes: int, finishes: bool) -> None:
    windows = Windows(WINDOW_FRAMES, CHUNK_FRAMES)
    windows.accept(noise(50_000))
    if finishes:
        windows.finish(TAIL_SAMPLES)
    for _ in range(takes):
        windows.take()
    windows.inbox.discard(1)
    assert windows.inbox.finished(np.array([1])).all()
    assert not windows.is_ready()
