"""A text of few words, in which some follow others more often."""

from __future__ import annotations

import random


def toy_text(seed: int = 0, sentences: int = 300, words: int = 12) -> list[list[str]]:
    chosen = random.Random(seed)
    found = []
    for _ in range(sentences):
        at, sentence = chosen.randrange(words), []
        for _ in range(chosen.randint(1, 9)):
            at = (2 * at + chosen.choice((0, 0, 1, 3))) % words
            sentence.append(f"W{at}")
        found.append(sentence)
    return found
