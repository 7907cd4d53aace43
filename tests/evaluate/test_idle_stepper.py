"""A service over a stepper that does nothing: texts depend on how much audio there was, and on nothing else."""

from __future__ import annotations

import numpy as np

from moulin.bundle.load import load_bundle
from moulin.demo.files import DEMO_STREAMING_MODEL
from moulin.evaluate.idle_stepper import idle_recognizer


def test_texts_do_not_depend_on_pieces_and_grow_with_the_audio() -> None:
    spec = load_bundle(DEMO_STREAMING_MODEL, expect="streaming")
    recognizer, texts = idle_recognizer(spec, 4), {}
    for count in (16_000, 64_000):
        for piece in (16_000, 777):
            stream = recognizer.open()
            for begin in range(0, count, piece):
                recognizer.accept(stream, np.zeros(min(piece, count - begin), np.float32))
                recognizer.advance(stream)
            recognizer.finish(stream)
            assert recognizer.advance(stream).is_final
            texts[count, piece] = recognizer.text(stream)
            recognizer.close(stream)
    assert texts[64_000, 16_000] == texts[64_000, 777]
    assert texts[16_000, 16_000] == texts[16_000, 777] != ""
    assert len(texts[64_000, 777]) > 2 * len(texts[16_000, 777])
