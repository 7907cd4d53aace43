"""Fast beam search of Icefall and k2, for a graph that allows every token: at most one token a frame.

It differs from modified beam search in four things. Hypotheses whose decoder sees the same `context_size` tokens become
one, of which the best path goes on: there is a maximum where the other adds probabilities, and what was said before
does not keep them apart. They are pruned by a difference of log-probabilities, `beam`, as well as by number,
`max_contexts`; `max_states` changes nothing, as each context has one state in this graph. The best path has the highest
log-probability, whatever its length. And before the first token the decoder sees blanks alone.

`moulin.decoding.reference` holds the definition, that of `fast_beam_search_one_best` (Icefall) and `rnnt_decode.cu`
(k2); a search goes on where it stopped.
"""

from __future__ import annotations

import numpy as np

from moulin.arrays import Bools, Doubles, Floats, Ints
from moulin.decoding.beams import Beams
from moulin.decoding.found import Found
from moulin.decoding.modified_beam_search import joined, largest, trace_back
from moulin.decoding.network import PredictionNetwork, is_emitted
from moulin.decoding.row_options import RowOptions

_HASH_FACTOR = np.uint64(0x9E3779B97F4A7C15)


def begin_fast_beam_search(beams: Beams, rows: Ints, network: PredictionNetwork) -> None:
    """Let the searches that have begun in `rows` [M] see blanks alone."""
    if len(rows):
        blanks = np.zeros((1, network.context_size), np.int64)
        beams.contexts[rows] = 0
        beams.decoder_out[rows] = network.decoder(blanks)


def advance_fast_beam_search(
    network: PredictionNetwork, beams: Beams, encoder_out: Floats, encoder_out_lens: Ints, options: RowOptions
) -> Found:
    """Search the next frames of all rows at once. Changes `beams`; its places stay in the order of their scores.

    The longest rows come first, so that those with frames left are always a prefix.
    """
    order = np.argsort(-encoder_out_lens, kind="stable")
    encoder_out, lengths, options = encoder_out[order], encoder_out_lens[order], options.take(order)
    sorted_beams = beams.take(order, options.places)
    shape = (int(lengths.max(initial=0)), *sorted_beams.scores.shape)
    parents = np.zeros(shape, dtype=np.int16)
    tokens = np.zeros(shape, dtype=np.int32)  # 0: nothing appended
    log_probs = np.zeros(shape, dtype=np.float32)
    for frame in range(shape[0]):
        going = int(np.count_nonzero(lengths > frame))
        parents[frame, :going], tokens[frame, :going], log_probs[frame, :going] = _advance(
            network, encoder_out[:going, frame], sorted_beams.prefix(going), options
        )
    beams.put(order, sorted_beams)
    found = Found.nothing(len(order), shape[2], encoder_out.shape[1])
    found.put(order, trace_back(parents, tokens, log_probs, lengths, sorted_beams.scores))
    return found


def _advance(
    network: PredictionNetwork, encoder_frame: Floats, beams: Beams, options: RowOptions
) -> tuple[Ints, Ints, Floats]:
    """One frame: changes `beams`; returns the parent place, appended token (or 0) and its log-prob, each [N, P].
    `options` may have more than these N rows."""
    num_rows, num_places = beams.scores.shape
    rows = np.arange(num_rows)[:, None]
    alive, log_probs = joined(network, encoder_frame, beams, options)
    if not len(log_probs):
        nothing = np.zeros((num_rows, num_places), dtype=np.int64)
        return nothing, nothing, nothing.astype(np.float32)
    vocab_size = log_probs.shape[1]
    beam = options.prune_beams[:num_rows, None]
    totals = np.full((num_rows, num_places, vocab_size), -np.inf)
    totals[alive] = log_probs + beams.scores[alive][:, None]
    # A token is pruned by the best score before it, blank never.
    tokens_of = totals[:, :, 1:]
    tokens_of[tokens_of < (beams.scores.max(axis=1, keepdims=True) - beam)[:, :, None]] = -np.inf

    # Of extensions to one context there are at most one from each place, and blank.
    candidates = largest(totals.reshape(num_rows, -1), num_places * (num_places + 1))
    parent, token = np.divmod(candidates, vocab_size)
    scores = totals.reshape(num_rows, -1)[rows, candidates]
    contexts = _shifted(beams.contexts, parent, token)
    kept = _best_of_each_context(contexts, scores)
    scores = np.where(kept & (scores >= scores.max(axis=1, keepdims=True) - beam), scores, -np.inf)
    first = np.argsort(-scores, axis=1, kind="stable")[:, :num_places]
    scores_of = scores[rows, first]
    scores_of[np.arange(num_places) >= options.beams[:num_rows, None]] = -np.inf

    parent, token, contexts = parent[rows, first], token[rows, first], contexts[rows, first]
    appended = is_emitted(token, network.skipped_ids)
    beams.num_tokens[:] = beams.num_tokens[rows, parent] + appended
    beams.scores[:], beams.contexts[:] = scores_of, contexts
    beams.decoder_out[:] = beams.decoder_out[rows, parent]
    changed = (token != 0) & np.isfinite(scores_of)
    if changed.any():
        beams.decoder_out[changed] = network.decoder(contexts[changed])
    in_alive = np.cumsum(alive).reshape(alive.shape) - 1
    return parent, np.where(appended, token, 0), log_probs[in_alive[rows, parent], token]


def _shifted(contexts: Ints, parents: Ints, tokens: Ints) -> Ints:
    """The contexts [N, C, context_size] of `tokens` [N, C] behind those in places `parents`; `<unk>` is a token here,
    and blank changes none."""
    rows = np.arange(len(contexts))[:, None]
    before = contexts[rows, parents]
    shifted = np.concatenate([before[:, :, 1:], tokens[:, :, None]], axis=2)
    return np.where(tokens[:, :, None] == 0, before, shifted)


def _best_of_each_context(contexts: Ints, scores: Doubles) -> Bools:
    """Which of C candidates [N, C], the best first, are the first with their context."""
    hashes = np.zeros(scores.shape, np.uint64)
    for place in range(contexts.shape[2]):
        hashes = hashes * _HASH_FACTOR + contexts[:, :, place].astype(np.uint64) + np.uint64(1)
    order = np.argsort(hashes, axis=1, kind="stable")  # of equal ones the first stays the first
    ordered = np.take_along_axis(hashes, order, axis=1)
    first = np.ones(scores.shape, np.bool_)
    first[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    found = np.zeros(scores.shape, np.bool_)
    np.put_along_axis(found, order, first, axis=1)
    return found
