"""Modified beam search of whole utterances in one kernel: a program a few utterances, from first frame to last.

A program has 16 rows, the least that tensor cores multiply, and fills them with the hypotheses of as many utterances:
four of a beam of 4. At each frame it joins all rows in one product, takes the best extensions one by one, and merges
those with the same tokens, which it tells by a hash and a count. What each place of the beam came from and appended is
written down, and read backwards at the end.

`moulin.decoding.modified_beam_search` holds the definition, and the same with arrays.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from moulin.gpu.kernels.greedy import Found, join, output_layer
from moulin.gpu.kernels.precision import dot_precision
from moulin.gpu.predictor import Predictor

_ROWS = 16
_BLOCK_J, _WARPS, _STAGES = 64, 8, 3


def beam_search(
    encoder_out: Tensor,
    lengths: Tensor,
    predictor: Predictor,
    *,
    beam: int,
    unk_id: int,
    blank_penalty: float = 0.0,
    temperature: float = 1.0,
) -> Found:
    """The search of encoder_out [B, T', J], utterances of `lengths` int32 [B] frames. `unk_id` is not emitted; -1 where
    there is none. The definition is `moulin.decoding.modified_beam_search.modified_beam_search_reference`."""
    batch, frames, _ = encoder_out.shape
    device = encoder_out.device
    found = Found.empty(batch, frames, device)
    width, vocab = predictor.weight.shape
    places = triton.next_power_of_2(beam)
    utterances = max(1, _ROWS // places)
    programs, rows = triton.cdiv(batch, utterances), utterances * places
    history = torch.empty(2, batch, frames, places, dtype=torch.int32, device=device)
    history_log_probs = torch.empty(batch, frames, places, device=device)
    earlier, later, projection, projection_bias = predictor.hidden or (None,) * 4
    decoded = None
    if predictor.hidden is not None:
        decoded = torch.empty(programs * rows, width, dtype=encoder_out.dtype, device=device)
    joined = torch.empty(programs * rows, width, dtype=encoder_out.dtype, device=device)
    block_v = min(vocab, 512)
    logits = torch.empty(programs * rows, vocab, device=device) if vocab > block_v else None
    _beam_kernel[(programs,)](
        encoder_out,
        lengths,
        predictor.table,
        earlier,
        later,
        projection,
        projection_bias,
        decoded,
        joined,
        predictor.weight,
        predictor.bias,
        logits,
        history[0],
        history[1],
        history_log_probs,
        found.tokens,
        found.frames,
        found.log_probs,
        found.counts,
        found.scores,
        batch,
        frames,
        predictor.joiner_dim,
        predictor.vocab_size + 1,
        unk_id,
        blank_penalty,
        1.0 / temperature,
        predictor.context_size,
        beam,
        places,
        utterances,
        1 if predictor.hidden is None else predictor.hidden[0].shape[1],
        width,
        vocab,
        min(width, _BLOCK_J),
        block_v,
        dot_precision(encoder_out.dtype),
        num_warps=_WARPS,
        num_stages=_STAGES,
    )
    return found


@triton.jit(do_not_specialize=["batch", "frames", "unk_id", "blank_penalty", "sharpness"])
def _beam_kernel(
    encoder_out,
    lengths,
    table,
    earlier,
    later,
    projection,
    projection_bias,
    decoded,
    joined,
    weight,
    bias,
    logits,
    parents,
    appended,
    appended_log_probs,
    tokens,
    token_frames,
    log_probs,
    counts,
    scores,
    batch,
    frames,
    joiner_dim,
    contexts,
    unk_id,
    blank_penalty,
    sharpness,
    CONTEXT_SIZE: tl.constexpr,
    BEAM: tl.constexpr,
    PLACES: tl.constexpr,
    UTTERANCES: tl.constexpr,
    DEPTH: tl.constexpr,
    WIDTH: tl.constexpr,
    VOCAB: tl.constexpr,
    BLOCK_J: tl.constexpr,
    BLOCK_V: tl.constexpr,
    PRECISION: tl.constexpr,
):
    ROWS: tl.constexpr = UTTERANCES * PLACES
    program = tl.program_id(0)
    place = tl.arange(0, PLACES)
    utterance = program * UTTERANCES + tl.arange(0, UTTERANCES)
    length = tl.load(lengths + utterance, mask=utterance < batch, other=0)
    row = tl.arange(0, ROWS)
    row_utterance = program * UTTERANCES + row // PLACES
    row_length = tl.load(lengths + row_utterance, mask=row_utterance < batch, other=0)
    row_frames = encoder_out + row_utterance.to(tl.int64) * frames * joiner_dim
    if decoded is not None:
        decoded += (program * ROWS).to(tl.int64) * WIDTH
    joined += (program * ROWS).to(tl.int64) * WIDTH
    if logits is not None:
        logits += (program * ROWS).to(tl.int64) * VOCAB

    # Of each place: its score less `settled` of the utterance, and the tokens that make its context and tell it apart.
    score = tl.where(place == 0, 0.0, float("-inf"))[None, :] + tl.zeros((UTTERANCES, PLACES), dtype=tl.float32)
    settled = tl.zeros((UTTERANCES,), dtype=tl.float64)
    count = tl.zeros((UTTERANCES, PLACES), dtype=tl.int32)
    hashes = tl.zeros((UTTERANCES, PLACES), dtype=tl.int64)
    a = tl.zeros((UTTERANCES, PLACES), dtype=tl.int32)  # before the beginning
    b = tl.full((UTTERANCES, PLACES), 1, dtype=tl.int32)  # blank
    longest = tl.max(length, axis=0)
    for t in range(0, longest):
        # ------------------------------------------------------------------ the joiner
        row_a, row_b = tl.reshape(a, (ROWS,)), tl.reshape(b, (ROWS,))
        if decoded is not None:
            tl.debug_barrier()
            _decode(
                row_a, row_b, earlier, later, projection, projection_bias, decoded,
                ROWS, DEPTH, WIDTH, BLOCK_J, PRECISION,
            )  # fmt: skip
            tl.debug_barrier()
            decoder_out = decoded + row * WIDTH
        else:
            decoder_out = table + (row_a * contexts + row_b).to(tl.int64) * WIDTH
        join(row_frames + t * joiner_dim, decoder_out, joined, t < row_length, joiner_dim, ROWS, WIDTH)
        peak = tl.full((ROWS,), float("-inf"), dtype=tl.float32)
        total = tl.zeros((ROWS,), dtype=tl.float32)
        values = tl.zeros((ROWS, BLOCK_V), dtype=tl.float32)
        for v0 in range(0, VOCAB, BLOCK_V):
            v = v0 + tl.arange(0, BLOCK_V)
            values = output_layer(joined, weight, v, ROWS, WIDTH, VOCAB, BLOCK_J, BLOCK_V, PRECISION)
            values += tl.load(bias + v)[None, :]
            values = (values - tl.where(v == 0, blank_penalty, 0.0)[None, :]) * sharpness
            higher = tl.maximum(peak, tl.max(values, axis=1))
            total = total * tl.exp(peak - higher) + tl.sum(tl.exp(values - higher[:, None]), axis=1)
            peak = higher
            if logits is not None:
                tl.store(logits + row[:, None] * VOCAB + v[None, :], values)
        if logits is not None:
            tl.debug_barrier()

        # ------------------------------------------------------------------ the best extensions
        shift = tl.reshape(score, (ROWS,)) - (peak + tl.log(total))
        best = tl.full((UTTERANCES, PLACES), float("-inf"), dtype=tl.float32)
        chosen = tl.zeros((UTTERANCES, PLACES), dtype=tl.int32)  # place * VOCAB + token
        v = tl.arange(0, BLOCK_V)
        ranks = _ranks(values + shift[:, None], row % PLACES, v, VOCAB)
        last = tl.full((UTTERANCES,), 0x7FFFFFFFFFFFFFFF, dtype=tl.int64)
        for i in range(BEAM):
            highest = tl.full((UTTERANCES,), -0x8000000000000000, dtype=tl.int64)
            for v0 in range(0, VOCAB, BLOCK_V):
                if logits is not None:
                    values = tl.load(logits + row[:, None] * VOCAB + (v0 + v)[None, :])
                    ranks = _ranks(values + shift[:, None], row % PLACES, v0 + v, VOCAB)
                by_utterance = tl.reshape(ranks, (UTTERANCES, PLACES * BLOCK_V))
                below = tl.where(by_utterance < last[:, None], by_utterance, -0x8000000000000000)
                highest = tl.maximum(highest, tl.max(below, axis=1))
            ordered = (highest >> 32).to(tl.int32)
            value = tl.where(ordered < 0, ordered ^ 0x7FFFFFFF, ordered).to(tl.float32, bitcast=True)
            at = 0x7FFFFFFF - (highest & 0x7FFFFFFF).to(tl.int32)
            best = tl.where((place == i)[None, :], value[:, None], best)
            chosen = tl.where((place == i)[None, :], at[:, None], chosen)
            last = highest
        parent, token = chosen // VOCAB, chosen % VOCAB

        # ------------------------------------------------------------------ their places
        alive = best > float("-inf")
        adds = alive & (token != 0) & (token != unk_id)
        from_parent = parent[:, :, None] == place[None, None, :]
        was = tl.sum(tl.where(from_parent & (score > float("-inf"))[:, None, :], score[:, None, :], 0.0), axis=2)
        new_hashes = tl.sum(tl.where(from_parent, hashes[:, None, :], 0), axis=2)
        new_hashes = tl.where(adds, new_hashes * 6364136223846793005 + token + 1, new_hashes)
        new_count = tl.sum(tl.where(from_parent, count[:, None, :], 0), axis=2) + adds.to(tl.int32)
        new_a = tl.sum(tl.where(from_parent, a[:, None, :], 0), axis=2)
        new_b = tl.sum(tl.where(from_parent, b[:, None, :], 0), axis=2)
        new_a = tl.where(adds, new_b, new_a)
        new_b = tl.where(adds, token + 1, new_b)
        # The same tokens: all goes to the first of them, which is the best.
        same = (new_hashes[:, :, None] == new_hashes[:, None, :]) & (new_count[:, :, None] == new_count[:, None, :])
        first = tl.min(tl.where(same, place[None, None, :], PLACES), axis=2)
        top = tl.max(best, axis=1)
        shares = tl.sum(tl.where(same, tl.exp(best - top[:, None])[:, None, :], 0.0), axis=2)
        new_score = tl.where((first == place[None, :]) & alive, tl.log(shares), float("-inf"))

        active = t < length
        keep = active[:, None]
        history = (utterance.to(tl.int64) * frames + t)[:, None] * PLACES + place[None, :]
        tl.store(parents + history, parent, mask=keep)
        tl.store(appended + history, tl.where(adds, token, 0), mask=keep)
        tl.store(appended_log_probs + history, best - was, mask=keep)
        score = tl.where(keep, new_score, score)
        settled = tl.where(active, settled + top, settled)
        hashes = tl.where(keep, new_hashes, hashes)
        count = tl.where(keep, new_count, count)
        a, b = tl.where(keep, new_a, a), tl.where(keep, new_b, b)

    # ---------------------------------------------------------------------- the winner, backwards
    whole = score.to(tl.float64) + settled[:, None]
    _, winner = tl.max(whole / (count + CONTEXT_SIZE), axis=1, return_indices=True)
    is_winner = winner[:, None] == place[None, :]
    remaining = tl.sum(tl.where(is_winner, count, 0), axis=1)
    real = utterance < batch
    tl.store(counts + utterance, remaining, mask=real)
    tl.store(scores + utterance, tl.sum(tl.where(is_winner, whole, 0.0), axis=1).to(tl.float32), mask=real)
    tl.debug_barrier()
    out = utterance.to(tl.int64) * frames
    for back in range(0, longest):
        t = longest - 1 - back
        active = t < length
        at = (out + t) * PLACES + winner
        token = tl.load(appended + at, mask=active, other=0)
        says = token != 0
        remaining -= says.to(tl.int32)
        tl.store(tokens + out + remaining, token, mask=says)
        tl.store(token_frames + out + remaining, tl.zeros_like(token) + t, mask=says)
        tl.store(log_probs + out + remaining, tl.load(appended_log_probs + at, mask=says, other=0.0), mask=says)
        winner = tl.where(active, tl.load(parents + at, mask=active, other=0), winner)


@triton.jit
def _decode(
    a, b, earlier, later, projection, projection_bias, out,
    ROWS: tl.constexpr, DEPTH: tl.constexpr, WIDTH: tl.constexpr, BLOCK_J: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """The decoder's projected outputs for the contexts of all rows, into `out` [ROWS, WIDTH]."""
    row = tl.arange(0, ROWS)
    for j0 in range(0, WIDTH, BLOCK_J):
        j = j0 + tl.arange(0, BLOCK_J)
        y = tl.zeros((ROWS, BLOCK_J), dtype=tl.float32)
        for d0 in range(0, DEPTH, 16):
            d = d0 + tl.arange(0, 16)
            hidden = tl.load(earlier + a[:, None] * DEPTH + d[None, :]).to(tl.float32)
            hidden = tl.maximum(hidden + tl.load(later + b[:, None] * DEPTH + d[None, :]).to(tl.float32), 0.0)
            w = tl.load(projection + d[:, None] * WIDTH + j[None, :])
            y = tl.dot(hidden.to(w.dtype), w, y, input_precision=PRECISION)
        y += tl.load(projection_bias + j)[None, :]
        tl.store(out + row[:, None] * WIDTH + j[None, :], y.to(out.dtype.element_ty))


@triton.jit
def _ranks(totals, places, v, VOCAB: tl.constexpr):
    """An int64 for each of `totals` [ROWS, V], the higher the better, and of equal ones the further to the front: the
    bits of the float32, so that they compare as integers, above what is left of the position's complement."""
    bits = totals.to(tl.int32, bitcast=True)
    ordered = tl.where(bits < 0, bits ^ 0x7FFFFFFF, bits).to(tl.int64)
    at = (places * VOCAB)[:, None] + v[None, :]
    return (ordered << 32) | (0x7FFFFFFF - at).to(tl.int64)
