"""Modified beam search in one kernel: one program for each utterance, or each stream's chunk, does all of its frames.

At most frames blank wins for every hypothesis that is kept, and no context changes. So a program joins the next frames
with all contexts that it has, in one product of matrices, and keeps of each pair the tokens that are likely enough to
get into the beam. From these few numbers it goes on frame by frame, until a hypothesis has a context that was not
joined, and joins again from there. Each token that a hypothesis adds is stored with the place of the one before it, and
the chains are read backwards at the end.

`moulin.decoding.reference` holds the definition, `moulin.decoding.modified_beam_search` the same with arrays.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from moulin.gpu.kernels.automata import AutomatonTables, advance, advance_words, completed, taken_back
from moulin.gpu.kernels.contexts import hidden, history, number_type
from moulin.gpu.kernels.greedy import join, output_layer
from moulin.gpu.kernels.precision import dot_precision
from moulin.gpu.kernels.searches import FoundTensors, SearchOptions, StreamSearches
from moulin.gpu.predictor import MAX_BLOCK_V, Predictor

_ROWS = 32
"""Pairs of a context and a frame in a product. With a beam of 4 that is 8 frames, of which 4 or 5 are used: digits-en
has a new context at every sixth frame."""

_LEAST_ROWS = 16  # that tensor cores multiply
_BLOCK_J, _WARPS, _STAGES = 64, 8, 3


class _Scratch(NamedTuple):
    """Memory that a launch works in, for B rows of T frames, R pairs of a context and a frame, and P places."""

    decoded: Tensor | None
    """[B max(P, 16), J]: the decoder's outputs where there is no table of them."""
    joined: Tensor
    """[B R, J]"""
    logits: Tensor | None
    """float32 [B R, V], for vocabularies larger than MAX_BLOCK_V."""
    likely: Tensor
    """int32 [B R, P]: the likeliest tokens of each pair, and their log-probabilities next."""
    likely_log_probs: Tensor
    emitted: Tensor
    """int32 [B, T, P]: the token that each place emitted at each frame."""
    emitted_before: Tensor
    """int32 [B, T, P]: where the one before it is, as frame * P + place; or -1 - the place that it began in."""
    emitted_log_probs: Tensor
    """float32 [B, T, P]"""


def beam_search(
    encoder_out: Tensor,
    lengths: Tensor,
    options: SearchOptions,
    predictor: Predictor,
    found: FoundTensors,
    automata: AutomatonTables | None = None,
    *,
    beam: int,
) -> None:
    """Modified beam search of the rows of encoder_out [B, T', J] whose beam is not 0, whole utterances of `lengths`
    int32 [B] frames: the best hypothesis of each into the first place of `found`; where that has as many places as
    `beam`, rounded up to a power of two, all of them, in no order. `beam` is the largest; each size of it is compiled
    when it is first needed.

    `automata` are those of the rows' hotwords and language model; without, no row has any, and nothing is computed for
    them. `moulin.decoding.reference` defines the result."""
    _launch(encoder_out, lengths, options, predictor, found, None, automata, beam)


def stream_beam_search(
    encoder_out: Tensor,
    lengths: Tensor,
    options: SearchOptions,
    predictor: Predictor,
    found: FoundTensors,
    streams: StreamSearches,
    automata: AutomatonTables | None = None,
) -> None:
    """`beam_search` for the next frames of streams: all hypotheses, each in its place of `found`, which has as many
    places as the streams' memory."""
    _launch(encoder_out, lengths, options, predictor, found, streams, automata, streams.memory.scores.shape[1])


def _launch(
    encoder_out: Tensor,
    lengths: Tensor,
    options: SearchOptions,
    predictor: Predictor,
    found: FoundTensors,
    streams: StreamSearches | None,
    automata: AutomatonTables | None,
    beam: int,
) -> None:
    batch, frames, _ = encoder_out.shape
    device = encoder_out.device
    models = None if automata is None else automata.language_models
    width, vocab = predictor.weight.shape
    places = triton.next_power_of_2(beam)
    window = max(1, _ROWS // places)
    rows = window * places
    contexts = max(places, _LEAST_ROWS)
    emissions = batch, frames, places
    scratch = _Scratch(
        predictor.scratch(batch * contexts),
        torch.empty(batch * rows, width, dtype=encoder_out.dtype, device=device),
        torch.empty(batch * rows, vocab, device=device) if vocab > MAX_BLOCK_V else None,
        torch.empty(batch * rows, places, dtype=torch.int32, device=device),
        torch.empty(batch * rows, places, device=device),
        torch.empty(emissions, dtype=torch.int32, device=device),
        torch.empty(emissions, dtype=torch.int32, device=device),
        torch.empty(emissions, device=device),
    )
    _beam_kernel[(batch,)](
        encoder_out,
        lengths,
        options,
        predictor.tensors,
        scratch,
        found,
        streams,
        automata,
        frames,
        predictor.joiner_dim,
        predictor.vocab_size + 1,
        predictor.histories,
        predictor.unk_id,
        predictor.context_size,
        number_type(predictor.context_dtype),
        beam,
        places,
        streams is not None or found.memory.shape[0] > 1,
        automata is not None,
        models is not None,
        models is not None and models.words is not None,
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


@triton.jit(do_not_specialize=["frames", "histories", "unk_id"])
def _beam_kernel(
    encoder_out,
    lengths,
    row_options,
    predictor,
    scratch,
    found,
    streams,
    automata,
    frames,
    joiner_dim,
    num_contexts,
    histories,
    unk_id,
    CONTEXT_SIZE: tl.constexpr,
    CONTEXT: tl.constexpr,
    BEAM: tl.constexpr,
    PLACES: tl.constexpr,
    ALL_PLACES: tl.constexpr,
    AUTOMATA: tl.constexpr,
    NGRAMS: tl.constexpr,
    WORDS: tl.constexpr,
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
    row = tl.program_id(0).to(tl.int64)
    beam = tl.load(row_options.beams + row)
    length = tl.where(beam > 0, tl.load(lengths + row), 0)
    # Loaded where they are used: a program has no register to spare.
    penalty_at, sharpness_at = row_options.blank_penalties + row, row_options.sharpness + row
    encoder_out += row * frames * joiner_dim
    decoded, logits = scratch.decoded, scratch.logits
    if decoded is not None:
        decoded += row * CONTEXTS * WIDTH
    if logits is not None:
        logits += row * ROWS * VOCAB
    joined = scratch.joined + row * ROWS * WIDTH
    likely = scratch.likely + row * ROWS * PLACES
    likely_log_probs = scratch.likely_log_probs + row * ROWS * PLACES
    emitted = scratch.emitted + row * frames * PLACES
    emitted_before = scratch.emitted_before + row * frames * PLACES
    emitted_log_probs = scratch.emitted_log_probs + row * frames * PLACES

    # Vectors are as long as the beam or its square, so that a warp has them whole, and `gather` costs no barrier.
    place = tl.arange(0, PLACES)
    of_place, rank = tl.arange(0, PLACES * PLACES) // PLACES, tl.arange(0, PLACES * PLACES) % PLACES
    row_place, row_frame = tl.arange(0, ROWS) % PLACES, tl.arange(0, ROWS) // PLACES

    # Of each place: its score less `settled` of the row, the tokens that make its context and tell it apart, and
    # where its last token is written down.
    score = tl.where(place == 0, 0.0, float("-inf"))
    settled = tl.zeros((1,), dtype=tl.float64)
    count = tl.zeros((PLACES,), dtype=tl.int32)
    hashes = tl.zeros((PLACES,), dtype=tl.int64)
    a = tl.zeros((PLACES,), dtype=CONTEXT)  # before the beginning
    b = tl.full((PLACES,), 1, dtype=tl.int32)  # blank
    emission = -1 - place  # before its first, the place that it comes from
    added = tl.zeros((PLACES,), dtype=tl.int32)
    if AUTOMATA:
        server_root, request_root = tl.load(row_options.server_roots + row), tl.load(row_options.request_roots + row)
        biased = (server_root > 0) | (request_root > 0)
        in_server, in_request = tl.zeros((PLACES,), dtype=tl.int32), tl.zeros((PLACES,), dtype=tl.int32)
        if NGRAMS:
            models = automata.language_models
            lm_scale, lodr_scale = tl.load(row_options.lm_scales + row), tl.load(row_options.lodr_scales + row)
            lm_root, lodr_root = tl.load(models.places), tl.load(models.places + 2)
            in_lm = tl.zeros((PLACES,), dtype=tl.int32) + tl.load(models.places + 1)
            in_lodr = tl.zeros((PLACES,), dtype=tl.int32) + tl.load(models.places + 3)
            partial = tl.zeros((PLACES,), dtype=tl.int64)  # words that may still grow
    if streams is not None:
        memory = streams.memory
        goes_on = (beam > 0) & (tl.load(streams.fresh + row) == 0)
        slot = tl.load(streams.slots + row).to(tl.int64)
        decided = tl.load(streams.decided + row)
        alone = goes_on & (decided >= 0)
        of_slot = slot * PLACES + place
        heir = slot * PLACES + tl.where(alone, decided, place)
        score = tl.load(memory.scores + of_slot, mask=goes_on & (decided < 0), other=score)
        settled += tl.load(memory.settled + slot, mask=goes_on & (decided < 0), other=0.0)
        count = tl.load(memory.counts + heir, mask=goes_on, other=0)
        count = tl.where(alone, tl.load(streams.kept + row), count)
        hashes = tl.load(memory.hashes + heir, mask=goes_on, other=0)
        a = tl.load(memory.contexts + 2 * heir, mask=goes_on, other=0)
        b = tl.load(memory.contexts + 2 * heir + 1, mask=goes_on, other=1).to(tl.int32)
        if AUTOMATA:
            # Behind a decision phrases begin anew, and a history goes on.
            all_go_on = goes_on & (decided < 0)
            in_server = tl.load(memory.context_states + 2 * of_slot, mask=all_go_on, other=0)
            in_request = tl.load(memory.context_states + 2 * of_slot + 1, mask=all_go_on, other=0)
            if NGRAMS:
                in_lm = tl.where(goes_on, tl.load(memory.lm_states + 2 * heir, mask=goes_on, other=0), in_lm)
                in_lodr = tl.where(goes_on, tl.load(memory.lm_states + 2 * heir + 1, mask=goes_on, other=0), in_lodr)
                if WORDS:
                    partial = tl.load(memory.partial_words + heir, mask=goes_on, other=0)
                    pauses = alone & (count == 0)  # the last word has ended
                    of_last, in_lm = completed(automata, lm_root, in_lm, partial, pauses)
                    partial = tl.where(pauses, 0, partial)
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
                tl.gather(a, some, 0), tl.gather(b, some, 0), predictor, decoded, num_contexts,
                CONTEXT_SIZE, CONTEXTS, DEPTH, WIDTH, BLOCK_J, PRECISION,
            )  # fmt: skip
            tl.debug_barrier()
            decoder_out = decoded + row_place * WIDTH
        else:
            decoder_out = predictor.table + tl.gather(contexts, row_place, 0).to(tl.int64) * WIDTH
        inside = t + row_frame < length
        join(encoder_out + (t + row_frame) * joiner_dim, decoder_out, joined, inside, joiner_dim, ROWS, WIDTH)
        _likely(
            joined, predictor, logits, likely, likely_log_probs, penalty_at, sharpness_at,
            BEAM, PLACES, ROWS, WIDTH, VOCAB, BLOCK_J, BLOCK_V, PRECISION,
        )  # fmt: skip
        tl.debug_barrier()
        while t < until:
            # -------------------------------------------------------------- the best extensions
            at = ((t - start) * PLACES + tl.gather(joined_in, of_place, 0)) * PLACES + rank
            tokens_of = tl.load(likely + at)
            log_probs_of = tl.load(likely_log_probs + at, mask=rank < BEAM, other=float("-inf"))  # else not written
            totals = log_probs_of + tl.gather(score, of_place, 0)
            # Threads may disagree about where the largest of several NaN is: such a row ends without a hypothesis.
            totals = tl.where((rank < BEAM) & (totals == totals), totals, float("-inf"))
            best = tl.full((PLACES,), float("-inf"), dtype=tl.float32)
            chosen = tl.zeros((PLACES,), dtype=tl.int32)
            for i in tl.static_range(BEAM):
                highest, which = tl.max(totals, axis=0, return_indices=True)
                totals = tl.where(of_place * PLACES + rank == which, float("-inf"), totals)
                best = tl.where(place == i, highest, best)
                chosen = tl.where(place == i, which, chosen)
            best = tl.where(place < beam, best, float("-inf"))
            parent = chosen // PLACES
            token = tl.gather(tokens_of, chosen, 0)

            # -------------------------------------------------------------- their places
            alive = best > float("-inf")
            adds = alive & (token != 0) & (token != unk_id)
            hashes, count = tl.gather(hashes, parent, 0), tl.gather(count, parent, 0)
            hashes = tl.where(adds, hashes * 6364136223846793005 + token + 1, hashes)
            count += adds.to(tl.int32)
            if AUTOMATA and biased:
                in_server, in_request = tl.gather(in_server, parent, 0), tl.gather(in_request, parent, 0)
                if tl.max(adds.to(tl.int32), axis=0) > 0:
                    if server_root > 0:
                        gains, in_server = advance(automata, server_root, in_server, token, adds)
                        best += gains
                    if request_root > 0:
                        gains, in_request = advance(automata, request_root, in_request, token, adds)
                        best += gains
            if NGRAMS and lm_scale > 0:
                in_lm, in_lodr = tl.gather(in_lm, parent, 0), tl.gather(in_lodr, parent, 0)
                partial = tl.gather(partial, parent, 0)
                if tl.max(adds.to(tl.int32), axis=0) > 0:
                    if WORDS:
                        gains, in_lm, partial = advance_words(automata, lm_root, in_lm, partial, token, adds)
                    else:
                        gains, in_lm = advance(automata, lm_root, in_lm, token, adds)
                    best += lm_scale * gains
                    if lodr_scale > 0:
                        gains, in_lodr = advance(automata, lodr_root, in_lodr, token, adds)
                        best -= lodr_scale * gains
            if streams is not None:
                added = tl.gather(added, parent, 0) + adds.to(tl.int32)
            last, before = tl.gather(b, parent, 0), tl.gather(emission, parent, 0)
            a = tl.gather(a, parent, 0)
            a = tl.where(adds, history(a, last, num_contexts, histories, CONTEXT_SIZE), a)
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

    if AUTOMATA and streams is None:  # of phrases that have begun and are not complete
        score += taken_back(automata, server_root, in_server) + taken_back(automata, request_root, in_request)
    whole = score.to(tl.float64) + settled
    if WORDS:  # the last word counts as if it ended here
        of_last, _behind = completed(automata, lm_root, in_lm, partial, place >= 0)
        whole += lm_scale * of_last
    tl.debug_barrier()
    if ALL_PLACES:
        # ------------------------------------------------------------------ all places, backwards
        if beam > 0:
            if streams is None:
                added = count
            else:
                tl.store(memory.scores + of_slot, score)
                tl.store(memory.settled + slot + tl.arange(0, 1), settled)
                tl.store(memory.counts + of_slot, count)
                tl.store(memory.hashes + of_slot, hashes)
                tl.store(memory.contexts + 2 * of_slot, a)
                tl.store(memory.contexts + 2 * of_slot + 1, b)
                if AUTOMATA:
                    tl.store(memory.context_states + 2 * of_slot, in_server)
                    tl.store(memory.context_states + 2 * of_slot + 1, in_request)
                if NGRAMS:
                    tl.store(memory.lm_states + 2 * of_slot, in_lm)
                    tl.store(memory.lm_states + 2 * of_slot + 1, in_lodr)
                    tl.store(memory.partial_words + of_slot, partial)
            words = tl.cdiv(tl.num_programs(0), 4) * 4 * (3 * frames + 3)  # see `FoundTensors`
            of_row = place * words + row
            tl.store(found.counts + of_row, added)
            tl.store(found.scores + of_row, whole.to(tl.float32))
            at = emission
            for i in range(0, length):
                says = at >= 0
                to = place * words + row * frames + added - 1 - i
                tl.store(found.tokens + to, tl.load(emitted + at, mask=says, other=0), mask=says)
                tl.store(found.frames + to, at // PLACES, mask=says)
                tl.store(found.log_probs + to, tl.load(emitted_log_probs + at, mask=says, other=0.0), mask=says)
                at = tl.where(says, tl.load(emitted_before + at, mask=says, other=0), at)
            tl.store(found.origins + of_row, -1 - at)
    elif beam > 0:
        # ------------------------------------------------------------------ the winner, backwards
        _, winner = tl.max(whole / (count + CONTEXT_SIZE), axis=0, return_indices=True)
        is_winner = place == winner
        remaining = tl.sum(tl.where(is_winner, count, 0), axis=0)
        at = tl.sum(tl.where(is_winner, emission, 0), axis=0)
        tl.store(found.counts + row, remaining)
        tl.store(found.scores + row, tl.sum(tl.where(is_winner, whole, 0.0), axis=0).to(tl.float32))
        tl.store(found.origins + row, 0)
        while remaining > 0:
            remaining -= 1
            to = row * frames + remaining
            tl.store(found.tokens + to, tl.load(emitted + at))
            tl.store(found.frames + to, at // PLACES)
            tl.store(found.log_probs + to, tl.load(emitted_log_probs + at))
            at = tl.load(emitted_before + at)


@triton.jit
def _decode(
    a, b, predictor, out, num_contexts,
    CONTEXT_SIZE: tl.constexpr, ROWS: tl.constexpr, DEPTH: tl.constexpr, WIDTH: tl.constexpr, BLOCK_J: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """The decoder's projected outputs for the contexts of all rows, into `out` [ROWS, WIDTH]."""
    row = tl.arange(0, ROWS)
    for j0 in range(0, WIDTH, BLOCK_J):
        j = j0 + tl.arange(0, BLOCK_J)
        y = tl.zeros((ROWS, BLOCK_J), dtype=tl.float32)
        for d0 in range(0, DEPTH, 16):
            d = d0 + tl.arange(0, 16)
            x = hidden(a[:, None], b[:, None], predictor.contributions, num_contexts, d[None, :], DEPTH, CONTEXT_SIZE)
            w = tl.load(predictor.projection + d[:, None] * WIDTH + j[None, :])
            y = tl.dot(x.to(w.dtype), w, y, input_precision=PRECISION)
        y += tl.load(predictor.projection_bias + j)[None, :]
        tl.store(out + row[:, None] * WIDTH + j[None, :], y.to(out.dtype.element_ty))


@triton.jit
def _likely(
    joined, predictor, logits, likely, likely_log_probs, penalty_at, sharpness_at,
    BEAM: tl.constexpr, PLACES: tl.constexpr, ROWS: tl.constexpr, WIDTH: tl.constexpr, VOCAB: tl.constexpr,
    BLOCK_J: tl.constexpr, BLOCK_V: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """The BEAM likeliest tokens of each row and their log-probs into [ROWS, PLACES], the likeliest first and of equal
    ones the smallest. `logits` [ROWS, VOCAB] are for vocabularies larger than BLOCK_V."""
    row, v = tl.arange(0, ROWS), tl.arange(0, BLOCK_V)
    blank_penalty, sharpness = tl.load(penalty_at), tl.load(sharpness_at)
    peak = tl.full((ROWS,), float("-inf"), dtype=tl.float32)
    total = tl.zeros((ROWS,), dtype=tl.float32)
    values = tl.zeros((ROWS, BLOCK_V), dtype=tl.float32)
    for v0 in range(0, VOCAB, BLOCK_V):
        values = output_layer(joined, predictor.weight, v0 + v, ROWS, WIDTH, VOCAB, BLOCK_J, BLOCK_V, PRECISION)
        values += tl.load(predictor.bias + v0 + v)[None, :]
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
