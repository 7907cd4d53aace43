"""Modified beam search in one kernel: a program an utterance, from its first frame to its last, or a stream's chunk.

At most frames blank wins for every hypothesis that is kept, and no context changes. So a program joins the next frames
with all contexts that it has, in one product of matrices, and keeps of each pair the tokens that are likely enough to
get into the beam. From these few numbers it goes on frame by frame, until a hypothesis has a context that was not
joined, and joins again from there. Each token that a hypothesis adds is written down with the one before it, and read
backwards at the end.

`moulin.decoding.modified_beam_search` holds the definition, and the same with arrays.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from moulin.gpu.kernels.greedy import MAX_BLOCK_V, Found, GoingOn, join, output_layer
from moulin.gpu.kernels.precision import dot_precision
from moulin.gpu.predictor import Predictor

_ROWS = 32
"""Pairs of a context and a frame in a product. With a beam of 4 that is 8 frames, of which 4 or 5 are used: digits-en
has a new context at every sixth frame."""

_LEAST_ROWS = 16  # that tensor cores multiply
_BLOCK_J, _WARPS, _STAGES = 64, 8, 3


class Beams(NamedTuple):
    """Beams of streams, each in a slot, and what the host has decided about those of a batch."""

    scores: Tensor
    """float32 [slots, P], of each place, less `settled`; -inf where it holds no hypothesis."""
    settled: Tensor
    """float64 [slots]"""
    counts: Tensor
    """int32 [slots, P], of tokens."""
    hashes: Tensor
    """int64 [slots, P], which tell tokens apart."""
    contexts: Tensor
    """int32 [slots, P, 2]: what the decoder sees next, as `Predictor` counts."""
    sizes: Tensor
    """int32 [B], of each beam, at most P; 0 for a stream that is to be left alone."""
    decided: Tensor
    """int32 [B], the place of the hypothesis that the search goes on with alone, and in the first place; -1 for all."""
    kept: Tensor
    """int32 [B], how many tokens that hypothesis has now."""

    @classmethod
    def memory(cls, slots: int, places: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """The first five. What is there before a stream's first chunk is never read."""

        def each(*size: int, dtype: torch.dtype = torch.int32) -> Tensor:
            return torch.zeros(slots, *size, dtype=dtype, device=device)

        return (
            each(places, dtype=torch.float32),
            each(dtype=torch.float64),
            each(places),
            each(places, dtype=torch.int64),
            each(places, 2),
        )


class FoundByBeams(NamedTuple):
    """What became of P places of B beams in T' frames, in one piece of memory: the place that each hypothesis goes on
    from, int32 [B, P], `counts` int32 [B, P] of `tokens` int32, `frames` int32 and `log_probs` float32 [B, P, T'] that
    it adds, and its whole score, float32 [B, P]."""

    memory: Tensor
    tokens: Tensor
    frames: Tensor
    log_probs: Tensor
    counts: Tensor
    scores: Tensor
    origins: Tensor

    @classmethod
    def size(cls, batch: int, places: int, frames: int) -> int:
        return batch * places * (3 * frames + 3)

    @classmethod
    def of(cls, memory: Tensor, batch: int, places: int, frames: int) -> FoundByBeams:
        """What lies in int32 [`size`]."""
        many, one = batch * places * frames, batch * places
        tokens, at, log_probs, counts, scores, origins = memory.split([many] * 3 + [one] * 3)
        return cls(
            memory,
            tokens.view(batch, places, frames),
            at.view(batch, places, frames),
            log_probs.view(torch.float32).view(batch, places, frames),
            counts.view(batch, places),
            scores.view(torch.float32).view(batch, places),
            origins.view(batch, places),
        )


def stream_beam_search(
    encoder_out: Tensor, lengths: Tensor, predictor: Predictor, going_on: GoingOn, beams: Beams, *, unk_id: int
) -> FoundByBeams:
    """The next frames of streams, encoder_out [B, T', J], of which `lengths` int32 [B] count. What is found of a stream
    whose beam has no size means nothing. `unk_id` is not emitted; -1 where there is none."""
    batch, frames, _ = encoder_out.shape
    places = beams.scores.shape[1]
    memory = torch.empty(FoundByBeams.size(batch, places, frames), dtype=torch.int32, device=encoder_out.device)
    found = FoundByBeams.of(memory, batch, places, frames)
    _launch(encoder_out, lengths, predictor, found[1:6], places, unk_id, 0.0, 1.0, (found.origins, *going_on, *beams))
    return found


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
    found = Found.empty(batch, frames, encoder_out.device)
    _launch(encoder_out, lengths, predictor, found[1:], beam, unk_id, blank_penalty, 1.0 / temperature, (None,) * 13)
    return found


def _launch(
    encoder_out: Tensor,
    lengths: Tensor,
    predictor: Predictor,
    found: Sequence[Tensor],
    beam: int,
    unk_id: int,
    blank_penalty: float,
    sharpness: float,
    of_streams: Sequence[Tensor | None],
) -> None:
    batch, frames, _ = encoder_out.shape
    device = encoder_out.device
    width, vocab = predictor.weight.shape
    places = triton.next_power_of_2(beam)
    window = max(1, _ROWS // places)
    rows = window * places
    contexts = max(places, _LEAST_ROWS)
    joined = torch.empty(batch * rows, width, dtype=encoder_out.dtype, device=device)
    logits = torch.empty(batch * rows, vocab, device=device) if vocab > MAX_BLOCK_V else None
    likely = torch.empty(batch * rows, places, dtype=torch.int32, device=device)
    likely_log_probs = torch.empty(batch * rows, places, device=device)
    emissions = torch.empty(2, batch, frames, places, dtype=torch.int32, device=device)
    emission_log_probs = torch.empty(batch, frames, places, device=device)
    _beam_kernel[(batch,)](
        encoder_out,
        lengths,
        *predictor.arguments,
        predictor.scratch(batch * contexts),
        joined,
        predictor.weight,
        predictor.bias,
        logits,
        likely,
        likely_log_probs,
        emissions[0],
        emissions[1],
        emission_log_probs,
        *found,
        frames,
        predictor.joiner_dim,
        predictor.vocab_size + 1,
        unk_id,
        blank_penalty,
        sharpness,
        *of_streams,
        predictor.context_size,
        beam,
        places,
        window,
        contexts,
        predictor.depth,
        width,
        vocab,
        min(width, _BLOCK_J),
        min(vocab, MAX_BLOCK_V),
        dot_precision(encoder_out.dtype),
        num_warps=_WARPS,
        num_stages=_STAGES,
    )


@triton.jit(do_not_specialize=["frames", "unk_id", "blank_penalty", "sharpness"])
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
    likely,
    likely_log_probs,
    emitted,
    emitted_before,
    emitted_log_probs,
    tokens,
    token_frames,
    log_probs,
    counts,
    scores,
    frames,
    joiner_dim,
    num_contexts,
    unk_id,
    blank_penalty,
    sharpness,
    origins,
    slots,
    fresh,
    blank_penalties,
    each_sharpness,
    slot_scores,
    slot_settled,
    slot_counts,
    slot_hashes,
    slot_contexts,
    sizes,
    decided,
    kept,
    CONTEXT_SIZE: tl.constexpr,
    BEAM: tl.constexpr,
    PLACES: tl.constexpr,
    WINDOW: tl.constexpr,
    CONTEXTS: tl.constexpr,
    DEPTH: tl.constexpr,
    WIDTH: tl.constexpr,
    VOCAB: tl.constexpr,
    BLOCK_J: tl.constexpr,
    BLOCK_V: tl.constexpr,
    PRECISION: tl.constexpr,
):
    ROWS: tl.constexpr = WINDOW * PLACES
    utterance = tl.program_id(0).to(tl.int64)
    length = tl.load(lengths + utterance)
    encoder_out += utterance * frames * joiner_dim
    if decoded is not None:
        decoded += utterance * CONTEXTS * WIDTH
    joined += utterance * ROWS * WIDTH
    if logits is not None:
        logits += utterance * ROWS * VOCAB
    likely += utterance * ROWS * PLACES
    likely_log_probs += utterance * ROWS * PLACES
    emitted += utterance * frames * PLACES
    emitted_before += utterance * frames * PLACES
    emitted_log_probs += utterance * frames * PLACES

    # Vectors are as long as the beam or its square, so that a warp has them whole, and `gather` costs no barrier.
    place = tl.arange(0, PLACES)
    of_place, rank = tl.arange(0, PLACES * PLACES) // PLACES, tl.arange(0, PLACES * PLACES) % PLACES
    row_place, row_frame = tl.arange(0, ROWS) % PLACES, tl.arange(0, ROWS) // PLACES

    # Of each place: its score less `settled` of the utterance, the tokens that make its context and tell it apart, and
    # where its last token is written down.
    score = tl.where(place == 0, 0.0, float("-inf"))
    settled = tl.zeros((1,), dtype=tl.float64)
    count = tl.zeros((PLACES,), dtype=tl.int32)
    hashes = tl.zeros((PLACES,), dtype=tl.int64)
    a = tl.zeros((PLACES,), dtype=tl.int32)  # before the beginning
    b = tl.full((PLACES,), 1, dtype=tl.int32)  # blank
    emission = -1 - place  # before its first, the place that it comes from
    beam = BEAM
    added = tl.zeros((PLACES,), dtype=tl.int32)
    if slots is not None:
        beam = tl.load(sizes + utterance)
        length = tl.where(beam > 0, length, 0)
        blank_penalty, sharpness = tl.load(blank_penalties + utterance), tl.load(each_sharpness + utterance)
        goes_on = (beam > 0) & (tl.load(fresh + utterance) == 0)
        slot = tl.load(slots + utterance).to(tl.int64)
        decision = tl.load(decided + utterance)
        alone = goes_on & (decision >= 0)
        of_slot = slot * PLACES + place
        heir = slot * PLACES + tl.where(alone, decision, place)
        score = tl.load(slot_scores + of_slot, mask=goes_on & (decision < 0), other=score)
        settled += tl.load(slot_settled + slot, mask=goes_on & (decision < 0), other=0.0)
        count = tl.load(slot_counts + heir, mask=goes_on, other=0)
        count = tl.where(alone, tl.load(kept + utterance), count)
        hashes = tl.load(slot_hashes + heir, mask=goes_on, other=0)
        a = tl.load(slot_contexts + 2 * heir, mask=goes_on, other=0)
        b = tl.load(slot_contexts + 2 * heir + 1, mask=goes_on, other=1)
    t = 0
    while t < length:
        # ------------------------------------------------------------------ the joiner, for a window of frames
        start, until = t, tl.minimum(t + WINDOW, length)
        contexts = a * num_contexts + b
        joined_in = place  # whose rows of the window have each place's context
        if decoded is not None:
            some = tl.arange(0, CONTEXTS) % PLACES
            tl.debug_barrier()
            _decode(
                tl.gather(a, some, 0), tl.gather(b, some, 0), earlier, later, projection, projection_bias, decoded,
                CONTEXTS, DEPTH, WIDTH, BLOCK_J, PRECISION,
            )  # fmt: skip
            tl.debug_barrier()
            decoder_out = decoded + row_place * WIDTH
        else:
            decoder_out = table + tl.gather(contexts, row_place, 0).to(tl.int64) * WIDTH
        inside = t + row_frame < length
        join(encoder_out + (t + row_frame) * joiner_dim, decoder_out, joined, inside, joiner_dim, ROWS, WIDTH)
        _likely(
            joined, weight, bias, logits, likely, likely_log_probs, blank_penalty, sharpness,
            BEAM, PLACES, ROWS, WIDTH, VOCAB, BLOCK_J, BLOCK_V, PRECISION,
        )  # fmt: skip
        tl.debug_barrier()
        while t < until:
            # -------------------------------------------------------------- the best extensions
            at = ((t - start) * PLACES + tl.gather(joined_in, of_place, 0)) * PLACES + rank
            tokens_of, log_probs_of = tl.load(likely + at), tl.load(likely_log_probs + at)
            totals = tl.where(rank < beam, log_probs_of + tl.gather(score, of_place, 0), float("-inf"))
            best = tl.full((PLACES,), float("-inf"), dtype=tl.float32)
            chosen = tl.zeros((PLACES,), dtype=tl.int32)
            for i in tl.static_range(BEAM):
                highest, which = tl.max(totals, axis=0, return_indices=True)
                totals = tl.where(of_place * PLACES + rank == which, float("-inf"), totals)
                best = tl.where((place == i) & (i < beam), highest, best)
                chosen = tl.where(place == i, which, chosen)
            parent = chosen // PLACES
            token = tl.gather(tokens_of, chosen, 0)

            # -------------------------------------------------------------- their places
            alive = best > float("-inf")
            adds = alive & (token != 0) & (token != unk_id)
            hashes, count = tl.gather(hashes, parent, 0), tl.gather(count, parent, 0)
            hashes = tl.where(adds, hashes * 6364136223846793005 + token + 1, hashes)
            count += adds.to(tl.int32)
            if slots is not None:
                added = tl.gather(added, parent, 0) + adds.to(tl.int32)
            last, before = tl.gather(b, parent, 0), tl.gather(emission, parent, 0)
            a = tl.where(adds, last, tl.gather(a, parent, 0))
            b = tl.where(adds, token + 1, last)
            emission = tl.where(adds, t * PLACES + place, before)
            tl.store(emitted + emission, token, mask=adds)
            tl.store(emitted_before + emission, before, mask=adds)
            tl.store(emitted_log_probs + emission, tl.gather(log_probs_of, chosen, 0), mask=adds)
            # The same tokens: all goes to the first of them, which is the best. The same context: joined already.
            top = tl.max(best, axis=0)
            share = tl.exp(best - top)
            shares, first = share, place
            context = a * num_contexts + b
            joined_in = tl.where(context == contexts, place, PLACES)
            for i in tl.static_range(1, PLACES):
                other = place ^ i
                same = (hashes == tl.gather(hashes, other, 0)) & (count == tl.gather(count, other, 0))
                first = tl.where(same, tl.minimum(first, other), first)
                shares += tl.where(same, tl.gather(share, other, 0), 0.0)
                joined_in = tl.where(context == tl.gather(contexts, other, 0), other, joined_in)
            alive = alive & (first == place)
            score = tl.where(alive, tl.log(shares), float("-inf"))
            settled += top
            t += 1
            until = tl.where(tl.max(tl.where(alive, joined_in, 0), axis=0) < PLACES, until, t)
            joined_in %= PLACES  # of places without a hypothesis any will do

    whole = score.to(tl.float64) + settled
    tl.debug_barrier()
    if slots is not None:
        # ------------------------------------------------------------------ all places, backwards
        if length > 0:
            tl.store(slot_scores + of_slot, score)
            tl.store(slot_settled + slot + tl.arange(0, 1), settled)
            tl.store(slot_counts + of_slot, count)
            tl.store(slot_hashes + of_slot, hashes)
            tl.store(slot_contexts + 2 * of_slot, a)
            tl.store(slot_contexts + 2 * of_slot + 1, b)
            out = utterance * PLACES + place
            tl.store(counts + out, added)
            tl.store(scores + out, whole.to(tl.float32))
            at = emission
            for i in range(0, length):
                says = at >= 0
                to = out * frames + added - 1 - i
                tl.store(tokens + to, tl.load(emitted + at, mask=says, other=0), mask=says)
                tl.store(token_frames + to, at // PLACES, mask=says)
                tl.store(log_probs + to, tl.load(emitted_log_probs + at, mask=says, other=0.0), mask=says)
                at = tl.where(says, tl.load(emitted_before + at, mask=says, other=0), at)
            tl.store(origins + out, -1 - at)
    else:
        # ------------------------------------------------------------------ the winner, backwards
        _, winner = tl.max(whole / (count + CONTEXT_SIZE), axis=0, return_indices=True)
        is_winner = place == winner
        remaining = tl.sum(tl.where(is_winner, count, 0), axis=0)
        at = tl.sum(tl.where(is_winner, emission, 0), axis=0)
        tl.store(counts + utterance, remaining)
        tl.store(scores + utterance, tl.sum(tl.where(is_winner, whole, 0.0), axis=0).to(tl.float32))
        while remaining > 0:
            remaining -= 1
            out = utterance * frames + remaining
            tl.store(tokens + out, tl.load(emitted + at))
            tl.store(token_frames + out, at // PLACES)
            tl.store(log_probs + out, tl.load(emitted_log_probs + at))
            at = tl.load(emitted_before + at)


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
def _likely(
    joined, weight, bias, logits, likely, likely_log_probs, blank_penalty, sharpness,
    BEAM: tl.constexpr, PLACES: tl.constexpr, ROWS: tl.constexpr, WIDTH: tl.constexpr, VOCAB: tl.constexpr,
    BLOCK_J: tl.constexpr, BLOCK_V: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """The BEAM likeliest tokens of each row and their log-probs into [ROWS, PLACES], the likeliest first and of equal
    ones the smallest. `logits` [ROWS, VOCAB] are for vocabularies larger than BLOCK_V."""
    row, v = tl.arange(0, ROWS), tl.arange(0, BLOCK_V)
    peak = tl.full((ROWS,), float("-inf"), dtype=tl.float32)
    total = tl.zeros((ROWS,), dtype=tl.float32)
    values = tl.zeros((ROWS, BLOCK_V), dtype=tl.float32)
    for v0 in range(0, VOCAB, BLOCK_V):
        values = output_layer(joined, weight, v0 + v, ROWS, WIDTH, VOCAB, BLOCK_J, BLOCK_V, PRECISION)
        values += tl.load(bias + v0 + v)[None, :]
        values = (values - tl.where(v0 + v == 0, blank_penalty, 0.0)[None, :]) * sharpness
        higher = tl.maximum(peak, tl.max(values, axis=1))
        total = total * tl.exp(peak - higher) + tl.sum(tl.exp(values - higher[:, None]), axis=1)
        peak = higher
        if logits is not None:
            tl.store(logits + row[:, None] * VOCAB + (v0 + v)[None, :], values)
    normalizer = peak + tl.log(total)
    for i in range(BEAM):
        if logits is None:
            highest, token = tl.max(values, axis=1, return_indices=True)
            values = tl.where(v[None, :] == token[:, None], float("-inf"), values)
        else:
            highest = tl.full((ROWS,), float("-inf"), dtype=tl.float32)
            token = tl.zeros((ROWS,), dtype=tl.int32)
            tl.debug_barrier()
            for v0 in range(0, VOCAB, BLOCK_V):
                values = tl.load(logits + row[:, None] * VOCAB + (v0 + v)[None, :])
                value, which = tl.max(values, axis=1, return_indices=True)
                token = tl.where(value > highest, v0 + which, token)
                highest = tl.maximum(highest, value)
            tl.debug_barrier()
            tl.store(logits + row * VOCAB + token, tl.full((ROWS,), float("-inf"), dtype=tl.float32))
        tl.store(likely + row * PLACES + i, token)
        tl.store(likely_log_probs + row * PLACES + i, highest - normalizer)
