"""Decoding options as arrays, one value a row, so that each row of a batch has its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from moulin.arrays import Bools, Floats, Ints, Ints32
from moulin.decoding.options import DecodingOptions
from moulin.decoding.row_graphs import NO_GRAPHS, Graphs


@dataclass(frozen=True, slots=True)
class RowOptions:
    """Arrays [N] with one value a row; see `DecodingOptions`. A new option is a new array here."""

    beams: Ints32
    """Hypotheses of a search with a beam; 0 is greedy search."""
    blank_penalties: Floats
    sharpness: Floats
    """1 / temperature."""
    blank_skips: Floats
    """Frames whose blank has at least this log-probability by the CTC head are skipped; infinity skips none."""
    graphs: NDArray[np.object_]
    """[N, 2]: the `ContextGraph` of the server's hotwords and that of the request's, None for none."""
    wants_others: Bools
    """Whether the hypotheses beside the best are part of the result."""
    lm_scales: Floats
    """Weights of the language model; 0 is without."""
    lodr_scales: Floats
    """Weights of the low-order model that is subtracted."""
    prune_beams: Floats
    """The beam of fast beam search in log-probability; 0 is another search."""

    @classmethod
    def of(cls, options: Sequence[DecodingOptions], graphs: Sequence[Graphs] | None = None) -> Self:
        """One row for each of `options`, with its `graphs`."""
        rows = cls.defaults(len(options))
        for row, chosen in enumerate(options):
            rows.set(row, chosen, NO_GRAPHS if graphs is None else graphs[row])
        return rows

    @classmethod
    def defaults(cls, count: int) -> Self:
        """`count` rows of greedy search without a penalty, at temperature 1, of all frames."""
        return cls(
            np.zeros(count, np.int32),
            np.zeros(count, np.float32),
            np.ones(count, np.float32),
            np.full(count, np.inf, np.float32),
            np.full((count, 2), None),
            np.zeros(count, np.bool_),
            np.zeros(count, np.float32),
            np.zeros(count, np.float32),
            np.zeros(count, np.float32),
        )

    def __len__(self) -> int:
        return len(self.beams)

    def set(self, row: int, options: DecodingOptions, graphs: Graphs = NO_GRAPHS) -> None:
        """Change one row in place. A row with hotwords, `nbest` or a language model is searched with a beam, whatever
        its method."""
        self.graphs[row, 0], self.graphs[row, 1] = graphs
        self.wants_others[row] = options.nbest > 1
        self.lm_scales[row], self.lodr_scales[row] = options.lm_scale or 0.0, options.lodr_scale or 0.0
        biased = graphs != NO_GRAPHS or options.lm_scale
        greedy = options.method == "greedy" and options.nbest == 1 and not biased
        fast = options.method == "fast_beam_search"
        self.prune_beams[row] = options.beam if fast else 0
        narrow = options.max_contexts if fast else max(options.beam, options.nbest)
        self.beams[row] = 0 if greedy else narrow
        self.blank_penalties[row] = options.blank_penalty
        self.sharpness[row] = 1.0 / options.temperature
        self.blank_skips[row] = np.inf if options.blank_skip is None else np.log(options.blank_skip)

    def take(self, rows: Ints) -> Self:
        """Copies of `rows` [M], in that order."""
        return type(self)(*(getattr(self, name)[rows] for name in self.__slots__))

    @property
    def places(self) -> int:
        """Hypotheses that the widest search of the batch keeps."""
        return int(self.beams.max(initial=1))
