"""The decoder's contexts as numbers, for decoders that see any number of tokens.

A context of N tokens is a pair (a, b). A token's digit is the token plus 1, or 0 for "before the beginning"; `b` is the
newest token's digit, and `a` has those of the tokens before it, as a number in base C (the vocabulary and 1): the one
before the newest is its last digit. So `a` is 0 for a decoder that sees one token, and the other token's digit for one
that sees two. a C + b is the context's number, and its row in the predictor's table.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl


def number_type(dtype: torch.dtype) -> tl.dtype:
    """`Predictor.context_dtype` for a kernel."""
    return tl.int64 if dtype == torch.int64 else tl.int32


@triton.jit
def history(a, b, num_contexts, histories, CONTEXT_SIZE: tl.constexpr):
    """`a` of the context behind (a, b) and one more token; the oldest token is forgotten. `histories` is C^(N - 1)."""
    if CONTEXT_SIZE == 1:
        return a * 0
    if CONTEXT_SIZE == 2:
        return b.to(a.dtype)
    return (a * num_contexts + b) % histories


@triton.jit
def hidden(a, b, contributions, num_contexts, d, DEPTH: tl.constexpr, CONTEXT_SIZE: tl.constexpr):
    """The decoder's channels `d` after its ReLU, float32, for contexts (a, b) that `d` is broadcast with."""
    summed = tl.load(contributions + b * DEPTH + d).to(tl.float32)
    for place in tl.static_range(1, CONTEXT_SIZE):
        digit = (a % num_contexts).to(tl.int32)
        a = a // num_contexts
        summed += tl.load(contributions + (place * num_contexts + digit) * DEPTH + d).to(tl.float32)
    return tl.maximum(summed, 0.0)
