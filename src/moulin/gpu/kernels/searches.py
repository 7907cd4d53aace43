"""Arguments and results of the searches' kernels, as named tuples of tensors: a kernel takes each as one argument."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from moulin.arrays import Ints32
from moulin.decoding.found import Found
from moulin.decoding.row_options import RowOptions


class SearchOptions(NamedTuple):
    """`moulin.decoding.row_options.RowOptions` on the card: one value a row of the batch."""

    beams: Tensor
    """int32 [B]; 0 is greedy search. Each search skips the rows of the other."""
    blank_penalties: Tensor
    """float32 [B]"""
    sharpness: Tensor
    """float32 [B]: 1 / temperature."""
    blank_skips: Tensor
    """float32 [B]: `moulin.gpu.blank_skip` drops frames by it; the searches' kernels do not read it."""
    server_roots: Tensor
    """int32 [B]: where the automata of the server's hotwords begin in the arena (`AutomatonTables`); 0 is none."""
    request_roots: Tensor
    """int32 [B]: those of the request's."""
    lm_scales: Tensor
    """float32 [B]"""
    lodr_scales: Tensor
    """float32 [B]"""

    @classmethod
    def of(cls, memory: Tensor) -> SearchOptions:
        """The parts of int32 [8, B]."""
        beams, blank_penalties, sharpness, blank_skips, server_roots, request_roots, lm_scales, lodr_scales = memory
        return cls(
            beams,
            blank_penalties.view(torch.float32),
            sharpness.view(torch.float32),
            blank_skips.view(torch.float32),
            server_roots,
            request_roots,
            lm_scales.view(torch.float32),
            lodr_scales.view(torch.float32),
        )


NUM_OPTIONS = len(SearchOptions._fields)


def write_options(memory: Ints32, options: RowOptions, roots: Ints32) -> None:
    """Write N rows' `options` and the `roots` [N, 2] of their graphs to the first rows of the memory of a
    `SearchOptions`, int32 [8, B] on the host.

    In numpy: for a step of few streams operations of PyTorch would be a part of its time.
    """
    values = (
        options.beams,
        options.blank_penalties,
        options.sharpness,
        options.blank_skips,
        *roots.T,
        options.lm_scales,
        options.lodr_scales,
    )
    for row, of_row in zip(memory, values, strict=True):
        row[: len(options)] = of_row.view(np.int32)


class SlotMemory(NamedTuple):
    """The searches of streams, each in a slot with P places for hypotheses; greedy search uses the first place alone.

    Values from before a stream's first chunk are never read.
    """

    scores: Tensor
    """float32 [slots, P]: log-probability of each place, less `settled`; -inf for a place without a hypothesis. Not
    for greedy search."""
    settled: Tensor
    """float64 [slots]: the part of the scores that all places share; in greedy search the whole score."""
    counts: Tensor
    """int32 [slots, P]: tokens of each hypothesis. Not for greedy search."""
    hashes: Tensor
    """int64 [slots, P], of all tokens: equal hashes and counts mean equal tokens. Not for greedy search."""
    contexts: Tensor
    """`Predictor.context_dtype` [slots, P, 2]: the decoder's next context, see `moulin.gpu.kernels.contexts`."""
    context_states: Tensor
    """int32 [slots, P, 2]: the states in the server's graph and in the request's. Not for greedy search."""
    lm_states: Tensor
    """int32 [slots, P, 2]: the states in the language model and in the one that is subtracted. Not for greedy
    search."""
    partial_words: Tensor
    """int64 [slots, P]: hashes of words that may still grow (`WordTables`). Not for greedy search."""

    @classmethod
    def zeros(cls, slots: int, places: int, device: torch.device, contexts: torch.dtype = torch.int32) -> SlotMemory:
        def each(*size: int, dtype: torch.dtype = torch.int32) -> Tensor:
            return torch.zeros(slots, *size, dtype=dtype, device=device)

        return cls(
            each(places, dtype=torch.float32),
            each(dtype=torch.float64),
            each(places),
            each(places, dtype=torch.int64),
            each(places, 2, dtype=contexts),
            each(places, 2),
            each(places, 2),
            each(places, dtype=torch.int64),
        )


class StreamSearches(NamedTuple):
    """`moulin.decoding.search.Continuation` on the card, int32 [B] each, and the memory with its slots."""

    slots: Tensor
    fresh: Tensor
    """Not 0 where the search begins anew."""
    decided: Tensor
    kept: Tensor
    memory: SlotMemory


class FoundTensors(NamedTuple):
    """`moulin.decoding.found.Found` of B rows and T frames, place by place: the first places are one piece of memory.

    Greedy search writes counts, scores and origins of the first place only; ignore the other places.
    """

    memory: Tensor
    """int32 [P, B' (3 T + 3)]; all others are views of it. B' is B rounded up to whole 16 bytes: else kernels would be
    compiled again for each alignment of the parts."""
    tokens: Tensor
    """int32 [P, B, T]"""
    frames: Tensor
    """int32 [P, B, T]"""
    log_probs: Tensor
    """float32 [P, B, T]"""
    counts: Tensor
    """int32 [P, B]"""
    scores: Tensor
    """float32 [P, B]"""
    origins: Tensor
    """int32 [P, B]"""

    @classmethod
    def empty(cls, batch: int, frames: int, places: int, device: torch.device) -> FoundTensors:
        memory = torch.empty(places, words(batch, frames), dtype=torch.int32, device=device)
        return cls.of(memory, batch, frames)

    @classmethod
    def of(cls, memory: Tensor, batch: int, frames: int) -> FoundTensors:
        """The parts of `memory`."""
        places, rounded = len(memory), _rounded(batch)
        parts = memory.split([rounded * frames] * 3 + [rounded] * 3, dim=1)
        tokens, at, log_probs = (part.view(places, rounded, frames)[:, :batch] for part in parts[:3])
        counts, scores, origins = (part[:, :batch] for part in parts[3:])
        floats = log_probs.view(torch.float32), scores.view(torch.float32)
        return cls(memory, tokens, at, floats[0], counts, floats[1], origins)

    def read(self, beams: Ints32) -> Found:
        """As `read_found`; the tensors are in the host's memory."""
        _, batch, frames = self.tokens.shape
        return read_found(self.memory.numpy(), batch, frames, beams)


def read_found(memory: Ints32, batch: int, frames: int, beams: Ints32) -> Found:
    """The first N rows of the memory of a `FoundTensors`, int32 [P, W] on the host, which the result shares; they were
    searched with `beams` int32 [N].

    In numpy: for a step of few streams a dozen operations of PyTorch would be a tenth of its time.
    """
    places, count, rounded = len(memory), len(beams), _rounded(batch)
    long = memory[:, : 3 * rounded * frames].reshape(places, 3, rounded, frames)[:, :, :count].transpose(1, 2, 0, 3)
    short = memory[:, 3 * rounded * frames :].reshape(places, 3, rounded)[:, :, :count].transpose(1, 2, 0)
    (tokens, at, log_probs), (counts, scores, origins) = long, short
    scores = scores.view(np.float32).astype(np.float64)
    counts[beams == 0, 1:], scores[beams == 0, 1:] = 0, -np.inf
    return Found(origins, counts, tokens, at, log_probs.view(np.float32), scores)


def words(batch: int, frames: int) -> int:
    """int32 words of a batch's results in one place."""
    return _rounded(batch) * (3 * frames + 3)


def _rounded(batch: int) -> int:
    return -(-batch // 4) * 4
