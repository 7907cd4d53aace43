"""A service over a stepper that does nothing: texts depend on how much audio there was, and on nothing else."""

from __future__ import annotations

import numpy as np

from moulin.bundle.load import load_bundle
from moulin.demo.files import DEMO_STREAMING_MODEL
from moulin.evaluate.idle_stepper import idle_recognizer


def test_a_token_every_second_step() -> None:
    spec = load_bundle(DEMO_STREAMING_MODEL, expect="streaming")
    recognizer, texts = idle_recognizer(spec, 4), []
    for piece in (16_000, 777):
        stream = recognizer.open()
        for begin in range(0, 64_000, piece):
            recognizer.accept(stream, np.zeros(min(piece, 64_000 - begin), np.float32))
            recognizer.advance(stream)
        recognizer.finish(stream)
        last = recognizer.advance(stream)
        assert last.is_final
        texts.append(recognizer.text(stream))
        steps = int(recognizer.stepper.inbox.num_taken[stream.slot])
        recognizer.close(stream)
    assert texts[0] == texts[1]
    assert len(texts[0].split()) in range(steps // 2 - 1, steps // 2 + 2)
