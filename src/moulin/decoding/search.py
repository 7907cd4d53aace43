"""Search on the host: for every row of a batch the search that its options ask for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Self

import numpy as np

from moulin.arrays import Bools, Floats, Ints, Ints32
from moulin.decoding.beams import Beams
from moulin.decoding.blank_skip import skip_blanks
from moulin.decoding.fast_beam_search import advance_fast_beam_search, begin_fast_beam_search
from moulin.decoding.found import Found
from moulin.decoding.greedy import advance_greedy
from moulin.decoding.language_model import Fusion, RowFusion
from moulin.decoding.modified_beam_search import advance_modified_beam_search
from moulin.decoding.network import PredictionNetwork
from moulin.decoding.rescoring import LanguageModelUse, Rescoring
from moulin.decoding.row_graphs import RowGraphs
from moulin.decoding.row_options import RowOptions


@dataclass(frozen=True, slots=True)
class Continuation:
    """The points from which the searches of N rows go on, one value a row."""

    slots: Ints
    """Slots in which the searches are kept, all different."""
    fresh: Bools
    """Whether a search begins anew, whatever its slot holds."""
    decided: Ints32
    """The place of the only hypothesis that goes on, which moves to the first place; -1 where all hypotheses go on.
    A segment that closes decides for its best one."""
    kept: Ints32
    """How many tokens that hypothesis counts from now on."""

    @classmethod
    def beginning(cls, rows: int) -> Self:
        """New searches for N = `rows`, in slots 0, 1, ..."""
        return cls(
            np.arange(rows), np.ones(rows, np.bool_), np.full(rows, -1, np.int32), np.zeros(rows, dtype=np.int32)
        )

    def take(self, rows: Ints) -> Self:
        """Copies of `rows` [M], in that order."""
        return type(self)(*(getattr(self, name)[rows] for name in self.__slots__))


_Advance = Callable[[PredictionNetwork, Beams, Floats, Ints, RowOptions], Found]


class Searches:
    """Searches that go on as frames come, each in a slot. Different slots may be used from different threads."""

    def __init__(
        self,
        network: PredictionNetwork,
        *,
        slots: int,
        places: int,
        joiner_dim: int,
        fusion: Fusion | None = None,
    ) -> None:
        """`places` is the largest beam. `fusion` is the language model of rows that have a weight for it."""
        self._network, self._joiner_dim, self._fusion = network, joiner_dim, fusion
        self._advances: tuple[_Advance, ...] = (
            advance_greedy,
            partial(advance_modified_beam_search, fusion=fusion),
            advance_fast_beam_search,
        )
        lm_width = 0 if fusion is None else fusion.width
        self._beams = Beams.memory(slots, places, network.context_size, joiner_dim, lm_width)

    def advance(
        self, continuation: Continuation, encoder_out: Floats, encoder_out_lens: Ints, options: RowOptions
    ) -> Found:
        """Search the next frames of N searches: encoder_out float32 [N, T, joiner_dim], of which the first
        `encoder_out_lens` int64 [N] are read; with one channel more where `moulin.decoding.blank_skip` says so. Where
        the network fails, the searches stay where they are."""
        spoken = skip_blanks(encoder_out, encoder_out_lens, options, self._joiner_dim)
        found = self._advance(continuation, spoken.encoder_out, spoken.lengths, options)
        return spoken.with_their_frames(found)

    def ended(self, continuation: Continuation, found: Found, options: RowOptions) -> Found:
        """What `advance` has `found`, for searches that get no more frames: without the bonuses of hotwords that have
        begun and are not complete."""
        graphs = RowGraphs(options.graphs, self._beams.context_states[continuation.slots, : options.places])
        return replace(found, scores=found.scores - graphs.held()) if graphs else found

    def _advance(
        self, continuation: Continuation, encoder_out: Floats, encoder_out_lens: Ints, options: RowOptions
    ) -> Found:
        slots, places = continuation.slots, options.places
        beams = self._beams.take(slots, places)
        if places > 1:  # those beyond a row's beam hold what a wider search left in the slot
            beams.scores[np.arange(places) >= np.maximum(options.beams, 1)[:, None]] = -np.inf
        going_on = np.flatnonzero((continuation.decided >= 0) & ~continuation.fresh)
        beams.decide(going_on, continuation.decided[going_on], continuation.kept[going_on], self._fusion)
        beams.begin(np.flatnonzero(continuation.fresh), self._network, self._fusion)
        begin_fast_beam_search(beams, np.flatnonzero(continuation.fresh & (options.prune_beams > 0)), self._network)
        found = self._found(beams, encoder_out, encoder_out_lens, options)
        self._beams.put(slots, beams)
        fused = RowFusion(self._fusion, options.lm_scales, options.lodr_scales, beams.lm_states)
        return replace(found, scores=found.scores + fused.open()) if fused else found

    def _found(self, beams: Beams, encoder_out: Floats, encoder_out_lens: Ints, options: RowOptions) -> Found:
        """Search rows of any kinds, each by its own search. Changes `beams`."""
        kinds = np.where(options.prune_beams > 0, 2, options.beams > 0)
        if not (kinds != kinds[:1]).any():
            advance = self._advances[kinds[0] if len(kinds) else 0]
            return advance(self._network, beams, encoder_out, encoder_out_lens, options)
        found = Found.nothing(len(kinds), options.places, encoder_out.shape[1])
        for kind, advance in enumerate(self._advances):
            rows = np.flatnonzero(kinds == kind)
            if len(rows):
                part, lengths = beams.take(rows, options.places), encoder_out_lens[rows]
                found.put(rows, advance(self._network, part, encoder_out[rows], lengths, options.take(rows)))
                beams.put(rows, part)
        return found


def search(
    network: PredictionNetwork,
    encoder_out: Floats,
    encoder_out_lens: Ints,
    options: RowOptions,
    joiner_dim: int | None = None,
    fusion: LanguageModelUse | None = None,
) -> Found:
    """The best hypothesis of whole utterances, each searched with its own options, in the first place; where any of
    them wants the others, these are in the next places, the best first.

    encoder_out is float32 [N, T, joiner_dim], of which the first `encoder_out_lens` int64 [N] frames are read. With
    `joiner_dim` it may have the channel more that `moulin.decoding.blank_skip` needs. `moulin.decoding.reference`
    defines the result.
    """
    rows = len(encoder_out)
    joiner_dim = encoder_out.shape[-1] if joiner_dim is None else joiner_dim
    fused, rescoring = (None, fusion) if isinstance(fusion, Rescoring) else (fusion, None)
    searches = Searches(network, slots=rows, places=options.places, joiner_dim=joiner_dim, fusion=fused)
    whole = Continuation.beginning(rows)
    found = searches.advance(whole, encoder_out, encoder_out_lens, options)
    ended = searches.ended(whole, found, options)
    if rescoring is not None:
        gains = rescoring.gains(ended, options.lm_scales, options.lodr_scales)
        ended = replace(ended, scores=ended.scores + gains)
    choose = ended.ranked if options.wants_others.any() else ended.best
    return choose(network.context_size, options.prune_beams > 0)
