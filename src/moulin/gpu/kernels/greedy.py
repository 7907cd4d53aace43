"""Greedy search in one kernel: a program an utterance, from its first frame to its last, or a program a stream's chunk.

The decoder's output changes only when a token is emitted. So a program joins the next FRAMES frames with the output
that it has, in one product of matrices, keeps what comes up to and including the first token emitted, and goes on
behind that frame (label looping, arXiv 2406.06220, with a window; `moulin.decoding.greedy` does the same on the CPU).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from moulin.gpu.kernels.precision import dot_precision
from moulin.gpu.predictor import Predictor

MAX_BLOCK_V = 512
"""Tokens whose logits a program has in registers at once."""

_FRAMES = 16


class Found(NamedTuple):
    """Hypotheses of B utterances of at most T' frames, in one piece of memory: `counts` int32 [B] of `tokens` int32,
    `frames` int32 and `log_probs` float32 [B, T'] mean something; `scores` float32 [B]."""

    memory: Tensor
    tokens: Tensor
    frames: Tensor
    log_probs: Tensor
    counts: Tensor
    scores: Tensor

    @classmethod
    def empty(cls, batch: int, frames: int, device: torch.device) -> Found:
        return cls.of(torch.empty(cls.size(batch, frames), dtype=torch.int32, device=device), batch, frames)

    @classmethod
    def size(cls, batch: int, frames: int) -> int:
        return batch * (3 * frames + 2)

    @classmethod
    def of(cls, memory: Tensor, batch: int, frames: int) -> Found:
        """What lies in int32 [`size`]."""
        tokens, at, log_probs, counts, scores = memory.split([batch * frames] * 3 + [batch] * 2)
        return cls(
            memory,
            tokens.view(batch, frames),
            at.view(batch, frames),
            log_probs.view(torch.float32).view(batch, frames),
            counts,
            scores.view(torch.float32),
        )


class GoingOn(NamedTuple):
    """Searches that go on where they stopped, each in a slot, and each with options of its own."""

    slots: Tensor
    """int32 [B]"""
    fresh: Tensor
    """int32 [B], not 0 where nothing has been said before, whatever the slot holds."""
    blank_penalties: Tensor
    """float32 [B]"""
    sharpness: Tensor
    """float32 [B], one by the temperature."""


def greedy(
    encoder_out: Tensor,
    lengths: Tensor,
    predictor: Predictor,
    *,
    unk_id: int,
    blank_penalty: float = 0.0,
    temperature: float = 1.0,
    going_on: GoingOn | None = None,
    contexts: Tensor | None = None,
) -> Found:
    """The search of encoder_out [B, T', J], utterances of `lengths` int32 [B] frames. `unk_id` is not emitted; -1 where
    there is none. The definition is `moulin.decoding.greedy.greedy_search_reference`.

    With `going_on` the frames are the next ones of streams, which have their own penalties and temperatures; frames and
    scores found are those of this call. `contexts` int32 [slots, 2] are what the decoder sees next, as `Predictor`
    counts.
    """
    batch, frames, _ = encoder_out.shape
    found = Found.empty(batch, frames, encoder_out.device)
    width, vocab = predictor.weight.shape
    joined = torch.empty(batch * _FRAMES, width, dtype=encoder_out.dtype, device=encoder_out.device)
    _greedy_kernel[(batch,)](
        encoder_out,
        lengths,
        *predictor.arguments,
        predictor.scratch(batch),
        joined,
        predictor.weight,
        predictor.bias,
        found.tokens,
        found.frames,
        found.log_probs,
        found.counts,
        found.scores,
        frames,
        predictor.joiner_dim,
        predictor.vocab_size + 1,
        unk_id,
        blank_penalty,
        1.0 / temperature,
        contexts,
        *(going_on or (None,) * 4),
        predictor.depth,
        width,
        vocab,
        _FRAMES,
        min(width, 32),
        min(vocab, MAX_BLOCK_V),
        dot_precision(encoder_out.dtype),
        num_warps=8,
        num_stages=4,
    )
    return found


@triton.jit
def project(
    a, b, earlier, later, projection, projection_bias, out,
    DEPTH: tl.constexpr, WIDTH: tl.constexpr, BLOCK_J: tl.constexpr,
):  # fmt: skip
    """The decoder's projected output for one context, into `out` [WIDTH]."""
    d = tl.arange(0, DEPTH)
    hidden = tl.load(earlier + a * DEPTH + d).to(tl.float32) + tl.load(later + b * DEPTH + d).to(tl.float32)
    hidden = tl.maximum(hidden, 0.0)
    for j0 in range(0, WIDTH, BLOCK_J):
        j = j0 + tl.arange(0, BLOCK_J)
        weight = tl.load(projection + d[:, None] * WIDTH + j[None, :]).to(tl.float32)
        y = tl.sum(weight * hidden[:, None], axis=0) + tl.load(projection_bias + j)
        tl.store(out + j, y.to(out.dtype.element_ty))


@triton.jit
def join(frames, decoder_out, joined, exists, joiner_dim, ROWS: tl.constexpr, WIDTH: tl.constexpr):
    """tanh of the sums of encoder frames and decoder outputs, which start at the addresses `frames` and `decoder_out`
    [ROWS], into `joined` [ROWS, WIDTH]: so the product that follows reads its operands ahead, as any product does."""
    j = tl.arange(0, WIDTH)
    x = tl.load(frames[:, None] + j[None, :], mask=exists[:, None] & (j < joiner_dim)[None, :], other=0.0)
    y = tl.load(decoder_out[:, None] + j[None, :])
    x = 2.0 * (x.to(tl.float32) + y.to(tl.float32))
    tanh = 2.0 * tl.sigmoid(x) - 1.0
    tl.debug_barrier()  # the product before may still be reading
    tl.store(joined + tl.arange(0, ROWS)[:, None] * WIDTH + j[None, :], tanh.to(joined.dtype.element_ty))
    tl.debug_barrier()


@triton.jit
def output_layer(
    joined, weight, v,
    ROWS: tl.constexpr, WIDTH: tl.constexpr, VOCAB: tl.constexpr, BLOCK_J: tl.constexpr, BLOCK_V: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """`joined` [ROWS, WIDTH] times the columns `v` of `weight`, float32."""
    rows, j = tl.arange(0, ROWS), tl.arange(0, BLOCK_J)
    logits = tl.zeros((ROWS, BLOCK_V), dtype=tl.float32)
    for j0 in range(0, WIDTH, BLOCK_J):
        x = tl.load(joined + rows[:, None] * WIDTH + (j0 + j)[None, :])
        w = tl.load(weight + (j0 + j)[:, None] * VOCAB + v[None, :])
        logits = tl.dot(x, w, logits, input_precision=PRECISION)
    return logits


@triton.jit(do_not_specialize=["frames", "unk_id", "blank_penalty", "sharpness"])
def _greedy_kernel(
    encoder_out,
    lengths,
    table,
    earlier,
    later,
    projection,
    projection_bias,
    scratch,
    joined,
    weight,
    bias,
    tokens,
    token_frames,
    log_probs,
    counts,
    scores,
    frames,
    joiner_dim,
    contexts,
    unk_id,
    blank_penalty,
    sharpness,
    contexts_of_slots,
    slots,
    fresh,
    blank_penalties,
    each_sharpness,
    DEPTH: tl.constexpr,
    WIDTH: tl.constexpr,
    VOCAB: tl.constexpr,
    FRAMES: tl.constexpr,
    BLOCK_J: tl.constexpr,
    BLOCK_V: tl.constexpr,
    PRECISION: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    length = tl.load(lengths + row)
    joined += row * FRAMES * WIDTH
    encoder_out += row * frames * joiner_dim
    tokens += row * frames
    token_frames += row * frames
    log_probs += row * frames
    step = tl.arange(0, FRAMES)
    frame, count, score = 0, 0, 0.0
    a, b = 0, 1  # before the beginning, then blank
    if slots is not None:
        contexts_of_slots += tl.load(slots + row).to(tl.int64) * 2
        goes_on = tl.load(fresh + row) == 0
        a = tl.load(contexts_of_slots, mask=goes_on, other=0)
        b = tl.load(contexts_of_slots + 1, mask=goes_on, other=1)
        blank_penalty = tl.load(blank_penalties + row)
        sharpness = tl.load(each_sharpness + row)
    if scratch is not None:
        scratch += row * WIDTH
        project(a, b, earlier, later, projection, projection_bias, scratch, DEPTH, WIDTH, 16)
        tl.debug_barrier()
    while frame < length:
        t = frame + step
        inside = t < length
        decoder_out = table + (a * contexts + b).to(tl.int64) * WIDTH
        if scratch is not None:
            decoder_out = scratch
        join(encoder_out + t * joiner_dim, decoder_out + step * 0, joined, inside, joiner_dim, FRAMES, WIDTH)
        peak = tl.full((FRAMES,), float("-inf"), dtype=tl.float32)
        total = tl.zeros((FRAMES,), dtype=tl.float32)
        best = tl.zeros((FRAMES,), dtype=tl.int32)
        for v0 in range(0, VOCAB, BLOCK_V):
            v = v0 + tl.arange(0, BLOCK_V)
            logits = output_layer(joined, weight, v, FRAMES, WIDTH, VOCAB, BLOCK_J, BLOCK_V, PRECISION)
            logits += tl.load(bias + v)[None, :]
            logits = (logits - tl.where(v == 0, blank_penalty, 0.0)[None, :]) * sharpness
            highest, at = tl.max(logits, axis=1, return_indices=True)
            best = tl.where(highest > peak, at + v0, best)
            higher = tl.maximum(peak, highest)
            total = total * tl.exp(peak - higher) + tl.sum(tl.exp(logits - higher[:, None]), axis=1)
            peak = higher
        log_prob = -tl.log(total)  # of the best token

        emits = inside & (best != 0) & (best != unk_id)
        first = tl.min(tl.where(emits, step, FRAMES), axis=0)
        score += tl.sum(tl.where(inside & (step <= first), log_prob, 0.0), axis=0)
        if first < FRAMES:
            token = tl.sum(tl.where(step == first, best, 0), axis=0)
            tl.store(tokens + count, token)
            tl.store(token_frames + count, frame + first)
            tl.store(log_probs + count, tl.sum(tl.where(step == first, log_prob, 0.0), axis=0))
            count += 1
            a = b
            b = token + 1
            if scratch is not None:
                tl.debug_barrier()
                project(a, b, earlier, later, projection, projection_bias, scratch, DEPTH, WIDTH, 16)
                tl.debug_barrier()
        frame += tl.minimum(first + 1, FRAMES)
    if slots is not None:
        tl.store(contexts_of_slots, a)
        tl.store(contexts_of_slots + 1, b)
    tl.store(counts + row, count)
    tl.store(scores + row, score)
