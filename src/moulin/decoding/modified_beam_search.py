"""Modified beam search: at most one token a frame for every hypothesis.

The result is that of `moulin.decoding.reference`, with arrays over all rows; a search goes on where it stopped.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from moulin.arrays import Bools, Doubles, Floats, Ints, Ints32
from moulin.decoding.beams import Beams
from moulin.decoding.found import Found
from moulin.decoding.language_model import Fusion, RowFusion
from moulin.decoding.network import PredictionNetwork, is_emitted, log_softmax
from moulin.decoding.row_graphs import RowGraphs
from moulin.decoding.row_options import RowOptions


def advance_modified_beam_search(
    network: PredictionNetwork,
    beams: Beams,
    encoder_out: Floats,
    encoder_out_lens: Ints,
    options: RowOptions,
    fusion: Fusion | None = None,
) -> Found:
    """Search the next frames of all rows at once. Changes `beams`, which have places for the widest row's hypotheses.

    The longest rows come first, so that those with frames left are always a prefix. Hypotheses are not copied from
    frame to frame: every frame stores which place each hypothesis came from and what it appended, and the emissions of
    each place are read off backwards at the end. The decoder runs only for hypotheses that got a new token.
    """
    order = np.argsort(-encoder_out_lens, kind="stable")
    encoder_out, lengths, options = encoder_out[order], encoder_out_lens[order], options.take(order)
    sorted_beams = beams.take(order, options.places)
    graphs = RowGraphs(options.graphs, sorted_beams.context_states)
    fused = RowFusion(fusion, options.lm_scales, options.lodr_scales, sorted_beams.lm_states)
    shape = (int(lengths.max(initial=0)), *sorted_beams.scores.shape)
    parents = np.zeros(shape, dtype=np.int16)
    tokens = np.zeros(shape, dtype=np.int32)  # 0: nothing appended
    log_probs = np.zeros(shape, dtype=np.float32)
    for frame in range(shape[0]):
        going = int(np.count_nonzero(lengths > frame))
        parents[frame, :going], tokens[frame, :going], log_probs[frame, :going] = _advance(
            network, encoder_out[:going, frame], sorted_beams.prefix(going), options, graphs, fused
        )
    if graphs:
        sorted_beams.context_states[:] = graphs.states()
    beams.put(order, sorted_beams)
    found = Found.nothing(len(order), shape[2], encoder_out.shape[1])
    found.put(order, trace_back(parents, tokens, log_probs, lengths, sorted_beams.scores))
    return found


def _advance(
    network: PredictionNetwork,
    encoder_frame: Floats,
    beams: Beams,
    options: RowOptions,
    graphs: RowGraphs,
    fused: RowFusion,
) -> tuple[Ints, Ints, Floats]:
    """One frame: changes `beams`, and `graphs` and `fused` with them; returns the parent place, appended token (or 0)
    and its log-prob, each [N, P].

    `options`, `graphs` and `fused` may have more than these N rows; the further ones are ignored. Bonuses of hotwords
    and the language model count from the next frame on, as in Icefall and sherpa-onnx: the best extensions are chosen
    without.
    """
    num_rows, num_places = beams.scores.shape
    rows = np.arange(num_rows)[:, None]
    alive, log_probs = joined(network, encoder_frame, beams, options)
    if not len(log_probs):
        nothing = np.zeros((num_rows, num_places), dtype=np.int64)
        return nothing, nothing, nothing.astype(np.float32)
    vocab_size = log_probs.shape[1]
    totals = np.full((num_rows, num_places, vocab_size), -np.inf)
    totals[alive] = log_probs + beams.scores[alive][:, None]
    best = largest(totals.reshape(num_rows, -1), num_places)
    parent, token = np.divmod(best, vocab_size)
    scores = totals[rows, parent, token]
    scores[np.arange(num_places) >= options.beams[:num_rows, None]] = -np.inf

    appended = is_emitted(token, network.skipped_ids)
    if graphs:
        scores += graphs.advance(parent, token, appended)
    if fused:
        scores += fused.advance(parent, token, appended & np.isfinite(scores))
    hashes = beams.hashes[rows, parent]
    hashes = np.where(appended, hashes * _HASH_FACTOR + token.astype(np.uint64) + np.uint64(1), hashes)
    beams.num_tokens[:] = beams.num_tokens[rows, parent] + appended
    beams.scores[:] = _merge(scores, hashes, beams.num_tokens)
    beams.hashes[:] = hashes

    beams.contexts[:] = beams.contexts[rows, parent]
    beams.decoder_out[:] = beams.decoder_out[rows, parent]
    changed = appended & np.isfinite(beams.scores)
    if changed.any():
        shifted = np.concatenate([beams.contexts[changed][:, 1:], token[changed][:, None]], axis=1)
        beams.contexts[changed] = shifted
        beams.decoder_out[changed] = network.decoder(shifted)
    in_alive = np.cumsum(alive).reshape(alive.shape) - 1
    return parent, np.where(appended, token, 0), log_probs[in_alive[rows, parent], token]


_HASH_FACTOR = np.uint64(0x9E3779B97F4A7C15)  # odd, from the golden ratio: wrapping products spread over 64 bits


def joined(
    network: PredictionNetwork, encoder_frame: Floats, beams: Beams, options: RowOptions
) -> tuple[Bools, Floats]:
    """Which places [N, P] have a hypothesis, and the log-probabilities of what may follow each of these A, [A, V] (A in
    the order of `numpy.nonzero`); of none, [0, 0]. `options` may have more than these N rows."""
    alive = np.isfinite(beams.scores)  # places without a hypothesis are not joined
    rows, _ = np.nonzero(alive)
    if not rows.size:
        return alive, np.zeros((0, 0), np.float32)
    logits = network.joiner(encoder_frame[rows], beams.decoder_out[alive])
    log_probs = log_softmax(logits, options.blank_penalties[rows], options.sharpness[rows])
    if (broken := np.isnan(log_probs[:, 0])).any():
        log_probs[broken] = -np.inf  # a row whose encoder gives NaN is left without a hypothesis
    return alive, log_probs


def largest(totals: Doubles, count: int) -> Ints:
    """The positions of the `count` largest values in each row, the largest first, of equal ones the leftmost."""
    if count >= totals.shape[1]:
        return np.argsort(-totals, axis=1, kind="stable")[:, :count]
    candidates = np.argpartition(-totals, count - 1, axis=1)[:, :count]
    candidates.sort(axis=1)
    values = np.take_along_axis(totals, candidates, axis=1)
    best = np.take_along_axis(candidates, np.argsort(-values, axis=1, kind="stable"), axis=1)
    # Of several values equal to the last one kept, argpartition keeps any.
    tied = np.flatnonzero(np.count_nonzero(totals >= values.min(axis=1, keepdims=True), axis=1) > count)
    best[tied] = np.argsort(-totals[tied], axis=1, kind="stable")[:, :count]
    return best


def _merge(scores: Doubles, hashes: NDArray[np.uint64], num_tokens: Ints) -> Doubles:
    """Add up the probabilities of places with the same tokens into the first of them; the others become -inf."""
    same = (hashes[:, :, None] == hashes[:, None, :]) & (num_tokens[:, :, None] == num_tokens[:, None, :])
    is_first = same.argmax(axis=2) == np.arange(scores.shape[1])
    peak = scores.max(axis=1, keepdims=True)
    peak[~np.isfinite(peak)] = 0.0
    shares = np.exp(scores - peak)
    with np.errstate(divide="ignore"):
        summed = np.log(np.where(same, shares[:, None, :], 0.0).sum(axis=2)) + peak
    return np.where(is_first, summed, -np.inf)


def trace_back(parents: NDArray[np.int16], tokens: Ints32, log_probs: Floats, lengths: Ints, scores: Doubles) -> Found:
    """Follow every place from a row's last frame to its first; `scores` [N, P] are those after the last frame."""
    num_frames, num_rows, num_places = parents.shape
    place = np.tile(np.arange(num_places), (num_rows, 1))
    path_tokens, path_log_probs = np.zeros_like(tokens), np.zeros_like(log_probs)
    for frame in range(num_frames - 1, -1, -1):
        going = int(np.count_nonzero(lengths > frame))
        at = place[:going]
        path_tokens[frame, :going] = np.take_along_axis(tokens[frame, :going], at, axis=1)
        path_log_probs[frame, :going] = np.take_along_axis(log_probs[frame, :going], at, axis=1)
        place[:going] = np.take_along_axis(parents[frame, :going], at, axis=1)

    found = Found.nothing(num_rows, num_places, num_frames)
    found.origins[:], found.scores[:] = place, scores
    emitted = path_tokens != 0
    found.counts[:] = emitted.sum(axis=0)
    at_frame, *where = np.nonzero(emitted)
    number = (np.cumsum(emitted, axis=0) - 1)[emitted]  # of the token among those of its place
    for values, emissions in (
        (found.tokens, path_tokens[emitted]),
        (found.frames, at_frame),
        (found.log_probs, path_log_probs[emitted]),
    ):
        values[*where, number] = emissions
    return found
