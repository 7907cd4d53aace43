"""Greedy search in one kernel: one program for each utterance, or for each stream's chunk, does all of its frames.

The decoder's output changes only when a token is emitted. So a program joins the next FRAMES frames with the output
that it has, in one product of matrices, keeps what comes up to and including the first token emitted, and goes on
behind that frame (label looping, arXiv 2406.06220, with a window; `moulin.decoding.greedy` does the same on the CPU).
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from moulin.gpu.kernels.contexts import hidden, history, number_type
from moulin.gpu.kernels.precision import dot_precision
from moulin.gpu.kernels.searches import FoundTensors, SearchOptions, StreamSearches
from moulin.gpu.predictor import MAX_BLOCK_V, Predictor

_FRAMES = 16


def greedy(
    encoder_out: Tensor,
    lengths: Tensor,
    options: SearchOptions,
    predictor: Predictor,
    found: FoundTensors,
    streams: StreamSearches | None = None,
) -> None:
    """Greedy search of the rows of encoder_out [B, T', J] whose beam is 0, of `lengths` int32 [B] frames, into the
    first place of `found`. `moulin.decoding.reference` defines the result.

    With `streams` the frames are the next ones of streams, whose searches go on; see `Found` for the scores.
    """
    batch, frames, _ = encoder_out.shape
    width, vocab = predictor.weight.shape
    joined = torch.empty(batch * _FRAMES, width, dtype=encoder_out.dtype, device=encoder_out.device)
    _greedy_kernel[(batch,)](
        encoder_out,
        lengths,
        options,
        predictor.tensors,
        predictor.scratch(batch),
        joined,
        found,
        streams,
        frames,
        predictor.joiner_dim,
        predictor.vocab_size + 1,
        predictor.histories,
        predictor.unk_id,
        predictor.context_size,
        number_type(predictor.context_dtype),
        1 if streams is None else streams.memory.scores.shape[1],
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


@triton.jit
def project(
    a, b, predictor, out, num_contexts,
    CONTEXT_SIZE: tl.constexpr, DEPTH: tl.constexpr, WIDTH: tl.constexpr, BLOCK_J: tl.constexpr,
):  # fmt: skip
    """The decoder's projected output for one context, into `out` [WIDTH]."""
    d = tl.arange(0, DEPTH)
    decoded = hidden(a, b, predictor.contributions, num_contexts, d, DEPTH, CONTEXT_SIZE)
    for j0 in range(0, WIDTH, BLOCK_J):
        j = j0 + tl.arange(0, BLOCK_J)
        weight = tl.load(predictor.projection + d[:, None] * WIDTH + j[None, :]).to(tl.float32)
        y = tl.sum(weight * decoded[:, None], axis=0) + tl.load(predictor.projection_bias + j)
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


@triton.jit(do_not_specialize=["frames", "histories", "unk_id"])
def _greedy_kernel(
    encoder_out,
    lengths,
    row_options,
    predictor,
    scratch,
    joined,
    found,
    streams,
    frames,
    joiner_dim,
    num_contexts,
    histories,
    unk_id,
    CONTEXT_SIZE: tl.constexpr,
    CONTEXT: tl.constexpr,
    PLACES: tl.constexpr,
    DEPTH: tl.constexpr,
    WIDTH: tl.constexpr,
    VOCAB: tl.constexpr,
    FRAMES: tl.constexpr,
    BLOCK_J: tl.constexpr,
    BLOCK_V: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """`scratch` [B, WIDTH] and `joined` [B, FRAMES, WIDTH] are for the decoder's and the joiner's outputs."""
    row = tl.program_id(0).to(tl.int64)
    is_greedy = tl.load(row_options.beams + row) == 0
    length = tl.where(is_greedy, tl.load(lengths + row), 0)
    blank_penalty, sharpness = tl.load(row_options.blank_penalties + row), tl.load(row_options.sharpness + row)
    joined += row * FRAMES * WIDTH
    encoder_out += row * frames * joiner_dim
    tokens = found.tokens + row * frames
    token_frames = found.frames + row * frames
    log_probs = found.log_probs + row * frames
    step = tl.arange(0, FRAMES)
    frame, count, score = 0, 0, 0.0
    a, b = tl.cast(0, CONTEXT), tl.cast(1, tl.int32)  # before the beginning, then blank
    if streams is not None:
        slot = tl.load(streams.slots + row).to(tl.int64)
        contexts = streams.memory.contexts + slot * (2 * PLACES)
        goes_on = is_greedy & (tl.load(streams.fresh + row) == 0)
        scored = goes_on & (tl.load(streams.decided + row) < 0)
        before = tl.load(streams.memory.settled + slot, mask=scored, other=0.0)
        a = tl.load(contexts, mask=goes_on, other=0)
        b = tl.load(contexts + 1, mask=goes_on, other=1).to(tl.int32)
    if scratch is not None:
        scratch += row * WIDTH
        project(a, b, predictor, scratch, num_contexts, CONTEXT_SIZE, DEPTH, WIDTH, 16)
        tl.debug_barrier()
    while frame < length:
        t = frame + step
        inside = t < length
        decoder_out = predictor.table + (a * num_contexts + b).to(tl.int64) * WIDTH
        if scratch is not None:
            decoder_out = scratch
        join(encoder_out + t * joiner_dim, decoder_out + step * 0, joined, inside, joiner_dim, FRAMES, WIDTH)
        peak = tl.full((FRAMES,), float("-inf"), dtype=tl.float32)
        total = tl.zeros((FRAMES,), dtype=tl.float32)
        best = tl.zeros((FRAMES,), dtype=tl.int32)
        for v0 in range(0, VOCAB, BLOCK_V):
            v = v0 + tl.arange(0, BLOCK_V)
            logits = output_layer(joined, predictor.weight, v, FRAMES, WIDTH, VOCAB, BLOCK_J, BLOCK_V, PRECISION)
            logits += tl.load(predictor.bias + v)[None, :]
            logits = (logits - tl.where(v == 0, blank_penalty, 0.0)[None, :]) * sharpness
            highest, at = tl.max(logits, axis=1, return_indices=True)
            best = tl.where(highest > peak, at + v0, best)
            higher = tl.maximum(peak, highest)
            total = total * tl.exp(peak - higher) + tl.sum(tl.exp(logits - higher[:, None]), axis=1)
            peak = higher
        log_prob = -tl.log(total)  # of the best token
        best = tl.where(total == total, best, 0)  # threads may disagree about where the largest of several NaN is

        emits = inside & (best != 0) & (best != unk_id)
        first = tl.min(tl.where(emits, step, FRAMES), axis=0)
        score += tl.sum(tl.where(inside & (step <= first), log_prob, 0.0), axis=0)
        if first < FRAMES:
            token = tl.sum(tl.where(step == first, best, 0), axis=0)
            tl.store(tokens + count, token)
            tl.store(token_frames + count, frame + first)
            tl.store(log_probs + count, tl.sum(tl.where(step == first, log_prob, 0.0), axis=0))
            count += 1
            a = history(a, b, num_contexts, histories, CONTEXT_SIZE)
            b = token + 1
            if scratch is not None:
                tl.debug_barrier()
                project(a, b, predictor, scratch, num_contexts, CONTEXT_SIZE, DEPTH, WIDTH, 16)
                tl.debug_barrier()
        frame += tl.minimum(first + 1, FRAMES)
    whole = score
    if streams is not None:
        scored_until = before + score
        whole = scored_until.to(tl.float32)
        tl.store(streams.memory.settled + slot, scored_until, mask=is_greedy)
        tl.store(contexts, a, mask=is_greedy)
        tl.store(contexts + 1, b, mask=is_greedy)
    tl.store(found.counts + row, count, mask=is_greedy)
    tl.store(found.scores + row, whole, mask=is_greedy)
    tl.store(found.origins + row, 0, mask=is_greedy)
