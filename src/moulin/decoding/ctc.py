"""Searches of a CTC head's log-probabilities, of whole utterances or of streams, with the result of a transducer's.

Greedy search takes the most likely token of every frame; repetitions count once, and blank (0) separates them. Prefix
beam search (`moulin.decoding.ctc_prefix_beam`) is what the method `modified_beam_search` means for a CTC head.
"""

from __future__ import annotations

import numpy as np

from moulin.arrays import Floats, Ints
from moulin.decoding.ctc_prefix_beam import PrefixBeam
from moulin.decoding.found import Found
from moulin.decoding.network import is_emitted, log_softmax
from moulin.decoding.row_options import RowOptions
from moulin.decoding.search import Continuation


class CtcSearches:
    """Searches that go on as frames come, each in a slot: the counterpart of `moulin.decoding.search.Searches`.
    Different slots may be used from different threads."""

    def __init__(self, *, slots: int, skipped_ids: tuple[int, ...]) -> None:
        """`skipped_ids` are never emitted: blank (0), and `<unk>` where the vocabulary has one."""
        self._skipped_ids = skipped_ids
        self._last = np.zeros(slots, np.int64)  # the token of the last frame, which is not emitted again
        self._beams: list[PrefixBeam] = [PrefixBeam() for _ in range(slots)]
        self._scores = np.zeros(slots)

    def advance(self, continuation: Continuation, log_probs: Floats, lengths: Ints, options: RowOptions) -> Found:
        """Search the next frames of N searches: log_probs float32 [N, T, vocab_size], of which the first `lengths`
        int64 [N] are read."""
        log_probs = _weighed(log_probs, options)
        found = Found.nothing(len(lengths), options.places, log_probs.shape[1])
        greedy = options.beams == 0
        self._advance_greedy(np.flatnonzero(greedy), continuation, log_probs, lengths, found)
        for row in np.flatnonzero(~greedy).tolist():
            self._advance_beam(row, continuation, log_probs[row, : lengths[row]], int(options.beams[row]), found)
        return found

    def _advance_greedy(
        self, rows: Ints, continuation: Continuation, log_probs: Floats, lengths: Ints, found: Found
    ) -> None:
        if not len(rows):
            return
        slots, fresh = continuation.slots[rows], continuation.fresh[rows]
        begun = fresh | (continuation.decided[rows] >= 0)
        scores = np.where(begun, 0.0, self._scores[slots])
        before = np.where(fresh, 0, self._last[slots])
        valid = np.arange(log_probs.shape[1]) < lengths[rows, None]
        best = log_probs[rows].argmax(axis=-1)
        of_best = np.take_along_axis(log_probs[rows], best[..., None], axis=-1)[..., 0]
        previous = np.concatenate([before[:, None], best], axis=1)
        emits = valid & (best != previous[:, :-1]) & is_emitted(best, self._skipped_ids)

        where, frame = np.nonzero(emits)
        place = (rows[where], 0, (np.cumsum(emits, axis=1) - 1)[emits])
        found.tokens[place], found.frames[place], found.log_probs[place] = best[emits], frame, of_best[emits]
        found.counts[rows, 0] = emits.sum(axis=1)
        scores += np.where(valid, of_best, 0.0).sum(axis=1)
        found.scores[rows, 0] = scores
        self._scores[slots] = scores
        self._last[slots] = previous[np.arange(len(rows)), lengths[rows]]

    def _advance_beam(self, row: int, continuation: Continuation, log_probs: Floats, beam: int, found: Found) -> None:
        slot = int(continuation.slots[row])
        search = PrefixBeam() if continuation.fresh[row] else self._beams[slot]
        if continuation.decided[row] >= 0 and not continuation.fresh[row]:
            search = search.decided(int(continuation.decided[row]))
        self._beams[slot] = search = search.advanced(log_probs, beam, self._skipped_ids)
        for place, prefix in enumerate(search.prefixes):
            count = len(prefix.tokens)
            found.origins[row, place], found.counts[row, place] = prefix.origin, count
            found.tokens[row, place, :count] = prefix.tokens
            found.frames[row, place, :count] = prefix.frames
            found.log_probs[row, place, :count] = prefix.log_probs
            found.scores[row, place] = prefix.score


def search_ctc(log_probs: Floats, lengths: Ints, options: RowOptions, skipped_ids: tuple[int, ...]) -> Found:
    """The hypotheses of whole utterances, the best first, or the best alone where no row wants others: log_probs
    float32 [N, T, vocab_size], of which the first `lengths` int64 [N] frames are read."""
    rows = len(lengths)
    found = CtcSearches(slots=rows, skipped_ids=skipped_ids).advance(
        Continuation.beginning(rows), log_probs, lengths, options
    )
    # The prefixes are in the order of their probabilities.
    return found if options.wants_others.any() else found.first()


def _weighed(log_probs: Floats, options: RowOptions) -> Floats:
    """`log_probs` [N, T, vocab_size] with each row's penalty of blank and temperature."""
    if not options.blank_penalties.any() and (options.sharpness == 1).all():
        return log_probs
    frames = log_probs.shape[1]
    flat = log_probs.reshape(-1, log_probs.shape[-1])
    weighed = log_softmax(flat, np.repeat(options.blank_penalties, frames), np.repeat(options.sharpness, frames))
    return weighed.reshape(log_probs.shape)
