"""Modified beam search of whole utterances in one kernel: a program an utterance, from its first frame to its last.

Most frames add no token to any hypothesis that is kept, and leave the contexts as they are. So a program joins the next
FRAMES frames with all contexts that it has, in one product of matrices, and keeps of each pair the tokens that are
likely enough to get into the beam. It goes on from these, a few numbers a frame, until a hypothesis has a context
that is not among them, and joins again from there.

`moulin.decoding.modified_beam_search` holds the definition, and the same with arrays.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from moulin.gpu.kernels.beam import _decode
from moulin.gpu.kernels.greedy import Found, join, output_layer
from moulin.gpu.kernels.precision import dot_precision
from moulin.gpu.predictor import Predictor


def window_beam_search(
    encoder_out: Tensor,
    lengths: Tensor,
    predictor: Predictor,
    *,
    beam: int,
    unk_id: int,
    blank_penalty: float = 0.0,
    temperature: float = 1.0,
    window: int = 8,
    block_j: int = 64,
    num_warps: int = 8,
    num_stages: int = 3,
) -> Found:
    batch, frames, _ = encoder_out.shape
    device = encoder_out.device
    found = Found.empty(batch, frames, device)
    width, vocab = predictor.weight.shape
    places = triton.next_power_of_2(beam)
    window = max(window, 16 // places)
    rows = places * window
    earlier, later, projection, projection_bias = predictor.hidden or (None,) * 4
    decoded = None
    if predictor.hidden is not None:
        decoded = torch.empty(batch * max(16, places), width, dtype=encoder_out.dtype, device=device)
    joined = torch.empty(batch * rows, width, dtype=encoder_out.dtype, device=device)
    block_v = min(vocab, 512)
    logits = torch.empty(batch * rows, vocab, device=device) if vocab > block_v else None
    candidates = torch.empty(2, batch, rows, places, dtype=torch.int32, device=device)
    emissions = torch.empty(3, batch, frames, places, dtype=torch.int32, device=device)
    _window_kernel[(batch,)](
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
        candidates[0],
        candidates[1].view(torch.float32),
        emissions[0],
        emissions[1],
        emissions[2].view(torch.float32),
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
        predictor.context_size,
        beam,
        places,
        window,
        1 if predictor.hidden is None else predictor.hidden[0].shape[1],
        width,
        vocab,
        min(width, block_j),
        block_v,
        dot_precision(encoder_out.dtype),
        num_warps=num_warps,
        num_stages=num_stages,
    )
    return found


@triton.jit(do_not_specialize=["frames", "unk_id", "blank_penalty", "sharpness"])
def _window_kernel(
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
    likely_tokens,
    likely_log_probs,
    befores,
    appended,
    appended_log_probs,
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
    CONTEXT_SIZE: tl.constexpr,
    BEAM: tl.constexpr,
    PLACES: tl.constexpr,
    FRAMES: tl.constexpr,
    DEPTH: tl.constexpr,
    WIDTH: tl.constexpr,
    VOCAB: tl.constexpr,
    BLOCK_J: tl.constexpr,
    BLOCK_V: tl.constexpr,
    PRECISION: tl.constexpr,
):
    ROWS: tl.constexpr = FRAMES * PLACES
    DECODED: tl.constexpr = max(16, PLACES)
    utterance = tl.program_id(0).to(tl.int64)
    length = tl.load(lengths + utterance)
    encoder_out += utterance * frames * joiner_dim
    joined += utterance * ROWS * WIDTH
    if decoded is not None:
        decoded += utterance * DECODED * WIDTH
    if logits is not None:
        logits += utterance * ROWS * VOCAB
    likely_tokens += utterance * ROWS * PLACES
    likely_log_probs += utterance * ROWS * PLACES
    befores += utterance * frames * PLACES
    appended += utterance * frames * PLACES
    appended_log_probs += utterance * frames * PLACES
    tokens += utterance * frames
    token_frames += utterance * frames
    log_probs += utterance * frames

    place = tl.arange(0, PLACES)
    row = tl.arange(0, ROWS)  # of a window: frame * PLACES + place
    cell = tl.arange(0, PLACES * PLACES)  # place * PLACES + rank of a token among the likely ones

    # Of each place: its score less `settled` of the utterance, and the tokens that make its context and tell it apart.
    score = tl.where(place == 0, 0.0, float("-inf"))
    settled = tl.zeros((1,), dtype=tl.float64)
    count = tl.zeros((PLACES,), dtype=tl.int32)
    hashes = tl.zeros((PLACES,), dtype=tl.int64)
    a = tl.zeros((PLACES,), dtype=tl.int32)  # before the beginning
    b = tl.full((PLACES,), 1, dtype=tl.int32)  # blank
    emission = tl.full((PLACES,), -1, dtype=tl.int32)  # the last, frame * PLACES + place
    t = 0
    while t < length:
        # ------------------------------------------------------------------ the joiner
        joint = a * contexts + b
        if decoded is not None:
            tl.debug_barrier()
            some = tl.arange(0, DECODED) % PLACES
            _decode(
                tl.gather(a, some, 0), tl.gather(b, some, 0), earlier, later, projection, projection_bias, decoded,
                DECODED, DEPTH, WIDTH, BLOCK_J, PRECISION,
            )  # fmt: skip
            tl.debug_barrier()
            decoder_out = decoded + (row % PLACES) * WIDTH
        else:
            decoder_out = table + tl.gather(joint, row % PLACES, 0).to(tl.int64) * WIDTH
        row_frame = t + row // PLACES
        join(encoder_out + row_frame * joiner_dim, decoder_out, joined, row_frame < length, joiner_dim, ROWS, WIDTH)
        _likely(
            joined, weight, bias, logits, likely_tokens, likely_log_probs, blank_penalty, sharpness,
            BEAM, PLACES, ROWS, WIDTH, VOCAB, BLOCK_J, BLOCK_V, PRECISION,
        )  # fmt: skip
        tl.debug_barrier()

        # ------------------------------------------------------------------ frame by frame
        joined_with = place  # whose context in `joint` each place has
        start = t
        until = tl.minimum(t + FRAMES, length)
        while t < until:
            at = ((t - start) * PLACES + tl.gather(joined_with, cell // PLACES, 0)) * PLACES + cell % PLACES
            likely = tl.load(likely_tokens + at)
            log_prob = tl.load(likely_log_probs + at)
            log_prob = tl.where(cell % PLACES < BEAM, log_prob, float("-inf"))
            totals = log_prob + tl.gather(score, cell // PLACES, 0)
            best = tl.full((PLACES,), float("-inf"), dtype=tl.float32)
            chosen = tl.zeros((PLACES,), dtype=tl.int32)
            for i in tl.static_range(BEAM):
                highest, which = tl.max(totals, axis=0, return_indices=True)
                totals = tl.where(cell == which, float("-inf"), totals)
                best = tl.where(place == i, highest, best)
                chosen = tl.where(place == i, which, chosen)
            parent = chosen // PLACES
            token = tl.gather(likely, chosen, 0)
            adds = (best > float("-inf")) & (token != 0) & (token != unk_id)

            hashes, count = tl.gather(hashes, parent, 0), tl.gather(count, parent, 0)
            hashes = tl.where(adds, hashes * 6364136223846793005 + token + 1, hashes)
            count += adds.to(tl.int32)
            last = tl.gather(b, parent, 0)
            a = tl.where(adds, last, tl.gather(a, parent, 0))
            b = tl.where(adds, token + 1, last)
            before = tl.gather(emission, parent, 0)
            here = t * PLACES + place
            emission = tl.where(adds, here, before)
            tl.store(befores + here, before, mask=adds)
            tl.store(appended + here, token, mask=adds)
            tl.store(appended_log_probs + here, tl.gather(log_prob, chosen, 0), mask=adds)

            # The same tokens: all goes to the first of them, which is the best. The same context: joined already.
            top = tl.max(best, axis=0)
            share = tl.exp(best - top)
            shares, first = share, place
            context = a * contexts + b
            joined_with = tl.where(context == joint, place, -1)
            for i in tl.static_range(1, PLACES):
                other = place ^ i
                same = (hashes == tl.gather(hashes, other, 0)) & (count == tl.gather(count, other, 0))
                first = tl.where(same, tl.minimum(first, other), first)
                shares += tl.where(same, tl.gather(share, other, 0), 0.0)
                joined_with = tl.where(context == tl.gather(joint, other, 0), other, joined_with)
            alive = (first == place) & (best > float("-inf"))
            score = tl.where(alive, tl.log(shares), float("-inf"))
            settled += top
            t += 1
            until = tl.where(tl.min(tl.where(alive, joined_with, 0), axis=0) < 0, t, until)
            joined_with = tl.maximum(joined_with, 0)

    # ---------------------------------------------------------------------- the winner, backwards
    whole = score.to(tl.float64) + settled
    _, winner = tl.max(whole / (count + CONTEXT_SIZE), axis=0, return_indices=True)
    is_winner = place == winner
    remaining = tl.sum(tl.where(is_winner, count, 0), axis=0)
    link = tl.sum(tl.where(is_winner, emission, 0), axis=0)
    tl.store(counts + utterance, remaining)
    tl.store(scores + utterance, tl.sum(tl.where(is_winner, whole, 0.0), axis=0).to(tl.float32))
    tl.debug_barrier()
    while remaining > 0:
        remaining -= 1
        tl.store(tokens + remaining, tl.load(appended + link))
        tl.store(token_frames + remaining, link // PLACES)
        tl.store(log_probs + remaining, tl.load(appended_log_probs + link))
        link = tl.load(befores + link)


@triton.jit
def _likely(
    joined, weight, bias, logits, likely_tokens, likely_log_probs, blank_penalty, sharpness,
    BEAM: tl.constexpr, PLACES: tl.constexpr, ROWS: tl.constexpr, WIDTH: tl.constexpr, VOCAB: tl.constexpr,
    BLOCK_J: tl.constexpr, BLOCK_V: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """The BEAM most likely tokens of each row and their log-probs, the likeliest first and of equal ones the smaller,
    into [ROWS, PLACES]."""
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
            tl.store(logits + row * VOCAB + token, tl.full((ROWS,), float("-inf"), dtype=tl.float32))
        tl.store(likely_tokens + row * PLACES + i, token)
        tl.store(likely_log_probs + row * PLACES + i, highest - normalizer)
