"""Modified beam search of an utterance by several programs beside each other, each with a slice of the vocabulary.

A program keeps its columns of the output layer in registers for the whole search. At each frame it joins all
hypotheses, multiplies them with its columns, and hands the logits to the other programs of the utterance; each then
takes the best extensions, all of them the same. A logit and its frame's number are one word in memory, which is written
and read at once: whoever reads the number that it waits for has the logit, without a barrier.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from moulin.gpu.kernels.greedy import Found
from moulin.gpu.kernels.precision import dot_precision
from moulin.gpu.predictor import Predictor


def split_beam_search(
    encoder_out: Tensor,
    lengths: Tensor,
    predictor: Predictor,
    *,
    beam: int,
    unk_id: int,
    blank_penalty: float = 0.0,
    temperature: float = 1.0,
    splits: int = 16,
    num_warps: int = 4,
    k_parts: int = 1,
) -> Found:
    batch, frames, _ = encoder_out.shape
    device = encoder_out.device
    found = Found.empty(batch, frames, device)
    width, vocab = predictor.weight.shape
    places = triton.next_power_of_2(beam)
    exchange = torch.zeros(batch, 2, vocab, places, dtype=torch.int64, device=device)
    links = torch.empty(3, batch, frames, places, dtype=torch.int32, device=device)
    _split_kernel[(batch * splits,)](
        encoder_out,
        lengths,
        predictor.table,
        predictor.weight,
        predictor.bias,
        exchange,
        links[0],
        links[1],
        links[2].view(torch.float32),
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
        max(8, places),
        width,
        vocab,
        splits,
        k_parts,
        dot_precision(encoder_out.dtype),
        num_warps=num_warps,
        launch_cooperative_grid=splits > 1,
    )
    return found


@triton.jit(do_not_specialize=["frames", "unk_id", "blank_penalty", "sharpness"])
def _split_kernel(
    encoder_out,
    lengths,
    table,
    weight,
    bias,
    exchange,
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
    COLUMNS: tl.constexpr,
    WIDTH: tl.constexpr,
    VOCAB: tl.constexpr,
    SPLITS: tl.constexpr,
    K_PARTS: tl.constexpr,
    PRECISION: tl.constexpr,
):
    BLOCK_V: tl.constexpr = VOCAB // SPLITS
    K: tl.constexpr = WIDTH // K_PARTS
    utterance = (tl.program_id(0) // SPLITS).to(tl.int64)
    part = tl.program_id(0) % SPLITS
    length = tl.load(lengths + utterance)
    encoder_out += utterance * frames * joiner_dim
    exchange += utterance * 2 * VOCAB * PLACES
    befores += utterance * frames * PLACES
    appended += utterance * frames * PLACES
    appended_log_probs += utterance * frames * PLACES
    place = tl.arange(0, PLACES)
    column = tl.arange(0, COLUMNS)
    j = tl.arange(0, WIDTH)
    v = part * BLOCK_V + tl.arange(0, BLOCK_V)
    if K_PARTS == 1:
        w = tl.load(weight + j[None, :] * VOCAB + v[:, None])
    else:
        k = tl.arange(0, K_PARTS)[:, None, None] * K + tl.arange(0, K)[None, None, :]
        w = tl.load(weight + k * VOCAB + v[None, :, None])
    v_bias = tl.load(bias + v) - tl.where(v == 0, blank_penalty, 0.0)
    words = tl.arange(0, VOCAB)[:, None] * PLACES + place[None, :]
    position = place[None, :] * VOCAB + tl.arange(0, VOCAB)[:, None]

    score = tl.where(place == 0, 0.0, float("-inf"))
    settled = tl.zeros((1,), dtype=tl.float64)
    count = tl.zeros((PLACES,), dtype=tl.int32)
    hashes = tl.zeros((PLACES,), dtype=tl.int64)
    a = tl.zeros((PLACES,), dtype=tl.int32)
    b = tl.full((PLACES,), 1, dtype=tl.int32)
    chain = tl.full((PLACES,), -1, dtype=tl.int32)
    frame = tl.load(encoder_out + j, mask=(j < joiner_dim) & (length > 0), other=0.0)
    for t in range(0, length):
        # ------------------------------------------------------------------ the joiner
        context = tl.gather((a * contexts + b).to(tl.int64), column % PLACES, 0)
        y = tl.load(table + context[:, None] * WIDTH + j[None, :], mask=(column < PLACES)[:, None], other=0.0)
        x = 2.0 * (frame.to(tl.float32)[None, :] + y.to(tl.float32))
        joined = (2.0 * tl.sigmoid(x) - 1.0).to(y.dtype)
        frame = tl.load(encoder_out + (t + 1) * joiner_dim + j, mask=(j < joiner_dim) & (t + 1 < length), other=0.0)
        if K_PARTS == 1:
            logits = tl.dot(w, tl.trans(joined), input_precision=PRECISION)
        else:
            parts = tl.permute(tl.reshape(joined, (COLUMNS, K_PARTS, K)), (1, 2, 0))
            logits = tl.sum(tl.dot(w, parts, input_precision=PRECISION), axis=0)
        logits = (logits + v_bias[:, None]) * sharpness

        # ------------------------------------------------------------------ to all programs
        slot = exchange + (t % 2) * VOCAB * PLACES
        word = (logits.to(tl.int32, bitcast=True).to(tl.int64) << 32) | (t + 1)
        tl.store(slot + v[:, None] * PLACES + column[None, :], word, mask=(column < PLACES)[None, :])
        word = tl.load(slot + words, volatile=True)
        while tl.min(word.to(tl.int32)) != t + 1:
            word = tl.load(slot + words, volatile=True)
        logits = (word >> 32).to(tl.int32).to(tl.float32, bitcast=True)

        # ------------------------------------------------------------------ the best extensions
        peak = tl.max(logits, axis=0)
        total = tl.sum(tl.exp(logits - peak[None, :]), axis=0)
        totals = logits + (score - (peak + tl.log(total)))[None, :]
        bits = totals.to(tl.int32, bitcast=True)
        keys = tl.where(bits < 0, bits ^ 0x7FFFFFFF, bits)
        best = tl.zeros((PLACES,), dtype=tl.int32)
        chosen = tl.zeros((PLACES,), dtype=tl.int32)
        for i in tl.static_range(BEAM):
            highest = tl.max(keys)
            at = tl.min(tl.where(keys == highest, position, 0x7FFFFFFF))
            keys = tl.where(position == at, -0x80000000, keys)
            best = tl.where(place == i, highest, best)
            chosen = tl.where(place == i, at, chosen)
        best = tl.where(best < 0, best ^ 0x7FFFFFFF, best).to(tl.float32, bitcast=True)
        best = tl.where(place < BEAM, best, float("-inf"))
        parent, token = chosen // VOCAB, chosen % VOCAB

        # ------------------------------------------------------------------ their places
        adds = (best > float("-inf")) & (token != 0) & (token != unk_id)
        log_prob = best - tl.gather(score, parent, 0)
        hashes, count = tl.gather(hashes, parent, 0), tl.gather(count, parent, 0)
        hashes = tl.where(adds, hashes * 6364136223846793005 + token + 1, hashes)
        count += adds.to(tl.int32)
        last = tl.gather(b, parent, 0)
        a = tl.where(adds, last, tl.gather(a, parent, 0))
        b = tl.where(adds, token + 1, last)
        before = tl.gather(chain, parent, 0)
        chain = tl.where(adds, t * PLACES + place, before)
        if part == 0:
            here = t * PLACES + place
            tl.store(befores + here, before, mask=adds)
            tl.store(appended + here, token, mask=adds)
            tl.store(appended_log_probs + here, log_prob, mask=adds)
        # The same tokens: all goes to the first of them, which is the best.
        top = tl.max(best, axis=0)
        share = tl.exp(best - top)
        sum_of_shares = share
        first = place
        for i in tl.static_range(1, PLACES):
            other = place ^ i
            same = (hashes == tl.gather(hashes, other, 0)) & (count == tl.gather(count, other, 0))
            first = tl.where(same, tl.minimum(first, other), first)
            sum_of_shares += tl.where(same, tl.gather(share, other, 0), 0.0)
        score = tl.where((first == place) & (best > float("-inf")), tl.log(sum_of_shares), float("-inf"))
        settled += top

    # ---------------------------------------------------------------------- the winner, backwards
    if part == 0:
        whole = score.to(tl.float64) + settled
        _, winner = tl.max(whole / (count + CONTEXT_SIZE), axis=0, return_indices=True)
        remaining = tl.sum(tl.where(place == winner, count, 0), axis=0)
        link = tl.sum(tl.where(place == winner, chain, 0), axis=0)
        tl.store(counts + utterance, remaining)
        tl.store(scores + utterance, tl.sum(tl.where(place == winner, whole, 0.0), axis=0).to(tl.float32))
        tokens += utterance * frames
        token_frames += utterance * frames
        log_probs += utterance * frames
        tl.debug_barrier()
        while remaining > 0:
            remaining -= 1
            tl.store(tokens + remaining, tl.load(appended + link))
            tl.store(token_frames + remaining, link // PLACES)
            tl.store(log_probs + remaining, tl.load(appended_log_probs + link))
            link = tl.load(befores + link)
