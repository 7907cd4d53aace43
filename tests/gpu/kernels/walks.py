"""Kernels that walk through automata and write down what they find."""

from __future__ import annotations

import triton
import triton.language as tl

from moulin.gpu.kernels.automata import advance, advance_words, completed, taken_back


@triton.jit
def walk_kernel(automata, roots, starts, tokens, gains, states, losses, LENGTH: tl.constexpr, PLACES: tl.constexpr):
    """Each program's hypotheses get LENGTH tokens; where one is -1 it is not emitted."""
    row, place = tl.program_id(0), tl.arange(0, PLACES)
    at = tl.zeros((PLACES,), dtype=tl.int32) + tl.load(starts + row)
    for number in range(LENGTH):
        to = (row * LENGTH + number) * PLACES + place
        token = tl.load(tokens + to)
        gained, at = advance(automata, tl.load(roots + row), at, token, token >= 0)
        tl.store(gains + to, gained)
        tl.store(states + to, at)
    tl.store(losses + row * PLACES + place, taken_back(automata, tl.load(roots + row), at))


@triton.jit
def walk_words_kernel(automata, tokens, gains, states, LENGTH: tl.constexpr, PLACES: tl.constexpr):
    """The same in the arena's n-grams of words; last what is gained where the text ends."""
    place = tl.arange(0, PLACES)
    root = tl.load(automata.language_models.places)
    at = tl.zeros((PLACES,), dtype=tl.int32) + tl.load(automata.language_models.places + 1)
    partial = tl.zeros((PLACES,), dtype=tl.int64)
    for number in range(LENGTH):
        token = tl.load(tokens + number * PLACES + place)
        gained, at, partial = advance_words(automata, root, at, partial, token, token >= 0)
        tl.store(gains + number * PLACES + place, gained)
        tl.store(states + number * PLACES + place, at)
    gained, at = completed(automata, root, at, partial, place >= 0)
    tl.store(gains + LENGTH * PLACES + place, gained)
    tl.store(states + LENGTH * PLACES + place, at)
