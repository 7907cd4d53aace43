from __future__ import annotations

import random

import numpy as np
import pytest

from moulin.client import replay as replay_module
from moulin.client.replay import Replay, ReplayMemory

END, FINALIZE = 2, 16
AUDIO = np.arange(1, 20_001, dtype=np.int16)


def kept(replay: Replay) -> list[int]:
    """The samples, which follow each other from `begin` on."""
    at, samples = replay.begin, []
    for part in replay:
        assert part.begin == at
        samples += part.samples.tolist()
        at = part.end
    return samples


@pytest.mark.parametrize("seed", range(20))
def test_what_is_not_final_is_kept_to_the_sample(seed: int) -> None:
    rng, memory, sent, final = random.Random(seed), ReplayMemory(), 0, 0
    replay = Replay(memory, None)
    while sent < len(AUDIO):
        count = rng.choice((0, 1, 320, 1600, 5000))
        replay.add(AUDIO[sent : sent + count], rng.choice((0, 0, FINALIZE)))
        sent = min(sent + count, len(AUDIO))
        final = max(final, rng.randint(0, sent))
        replay.forget_before(final)
        assert replay.is_whole
        assert kept(replay) == AUDIO[final:sent].tolist()
        assert memory.used == 2 * (sent - final)
    replay.close()
    assert (memory.used, memory.unmovable) == (0, 0)


def test_options_and_events_keep_their_places() -> None:
    replay = Replay(ReplayMemory(), {"beam": 2, "endpoint": False})
    replay.add(AUDIO[:100])
    replay.add(AUDIO[100:200], options={"beam": 4})
    replay.add(AUDIO[200:300], FINALIZE)
    replay.add(AUDIO[300:400], END, options={"beam": 8})
    replay.forget_before(150)
    assert replay.options == {"beam": 4, "endpoint": False}
    assert [(part.begin, part.event, part.options) for part in replay if part.event or part.options] == [
        (300, FINALIZE, None),
        (300, 0, {"beam": 8}),
        (400, END, None),
    ]
    replay.forget_before(400)
    assert replay.options == {"beam": 8, "endpoint": False}
    assert [(part.begin, part.event) for part in replay] == [(400, END)]


def test_more_than_may_be_kept_cannot_be_said_again_until_it_is_final(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replay_module, "KEPT_SAMPLES", 1000)
    memory = ReplayMemory()
    replay = Replay(memory, None)
    for begin in range(0, 1200, 300):
        replay.add(AUDIO[begin : begin + 300])
    assert not replay.is_whole
    assert (memory.used, memory.unmovable) == (1800, 1)
    whole = []
    for final in (200, 400):
        replay.forget_before(final)
        whole.append(replay.is_whole)
    assert whole == [False, True]
    assert kept(replay) == AUDIO[400:1200].tolist()
    assert memory.unmovable == 0


def test_the_memory_of_all_streams_is_bounded() -> None:
    memory = ReplayMemory(1000)
    first, second = Replay(memory, None), Replay(memory, None)
    first.add(AUDIO[:400])
    second.add(AUDIO[:200])
    assert (first.is_whole, second.is_whole, memory.used, memory.unmovable) == (True, False, 800, 1)
    first.close()
    second.add(AUDIO[200:300])
    second.forget_before(200)
    assert second.is_whole
    assert kept(second) == AUDIO[200:300].tolist()
    second.close()
    assert (memory.used, memory.unmovable) == (0, 0)


def test_what_the_server_has_refused_is_not_said_again() -> None:
    replay, refused = Replay(ReplayMemory(), None), {"nonsense": 1}
    replay.add(AUDIO[:100])
    replay.add(AUDIO[100:200], options=refused)
    replay.take_back(refused, 0)
    assert kept(replay) == AUDIO[:200].tolist()
    assert all(part.options is None for part in replay)
