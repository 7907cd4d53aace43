"""The state of searches between frames: the hypotheses of many rows as arrays."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from moulin.arrays import Doubles, Floats, Ints, Ints32
from moulin.decoding.language_model import Fusion
from moulin.decoding.network import PredictionNetwork, initial_context


@dataclass(frozen=True, slots=True)
class Beams:
    """The hypotheses of N rows, P places each; greedy search uses the first place alone.

    The arrays hold only what the next frames depend on; the tokens are in `moulin.decoding.hypotheses`.
    """

    scores: Doubles
    """[N, P], -inf for a place without a hypothesis."""
    contexts: Ints
    """[N, P, context_size]: the tokens that the decoder sees."""
    decoder_out: Floats
    """[N, P, joiner_dim]"""
    num_tokens: Ints
    """[N, P]"""
    hashes: NDArray[np.uint64]
    """[N, P]: a hash of all tokens so far; equal hashes and counts mean equal tokens."""
    context_states: Ints32
    """[N, P, 2]: the states in the row's two context graphs, 0 without."""
    lm_states: Ints
    """[N, P, width]: the states in the language model (`Fusion`); a width of 0 without."""

    @classmethod
    def memory(cls, rows: int, places: int, context_size: int, joiner_dim: int, lm_width: int = 0) -> Self:
        """Arrays of zeros for N = `rows`, all first places together, then all second ones: the operating system gives
        memory when it is first written, often in large pages, and most places are never used."""

        def zeros(*size: int, dtype: type = np.float64) -> NDArray[Any]:
            return np.zeros((places, rows, *size), dtype).swapaxes(0, 1)

        return cls(
            scores=zeros(),
            contexts=zeros(context_size, dtype=np.int64),
            decoder_out=zeros(joiner_dim, dtype=np.float32),
            num_tokens=zeros(dtype=np.int64),
            hashes=zeros(dtype=np.uint64),
            context_states=zeros(2, dtype=np.int32),
            lm_states=zeros(lm_width, dtype=np.int64),
        )

    def take(self, rows: Ints, places: int) -> Self:
        """Copies of the first `places` places of `rows` [M]."""
        return type(self)(*(getattr(self, name)[rows, :places] for name in self.__slots__))

    def prefix(self, count: int) -> Self:
        """The first `count` rows; shares the arrays."""
        return type(self)(*(getattr(self, name)[:count] for name in self.__slots__))

    def put(self, rows: Ints, part: Beams) -> None:
        """Write `part`, M rows of at most as many places, to `rows` [M]."""
        places = part.scores.shape[1]
        for name in self.__slots__:
            getattr(self, name)[rows, :places] = getattr(part, name)

    def begin(self, rows: Ints, network: PredictionNetwork, fusion: Fusion | None = None) -> None:
        """Begin a search in each of `rows` [M]: one hypothesis without tokens."""
        if not len(rows):
            return
        start = np.array([initial_context(network.context_size)], dtype=np.int64)
        self.contexts[rows] = start
        self.decoder_out[rows] = network.decoder(start)
        self.num_tokens[rows] = self.hashes[rows] = 0
        if fusion is not None:
            self.lm_states[rows] = fusion.start
        self._alone(rows)

    def decide(self, rows: Ints, places: Ints32, num_tokens: Ints32, fusion: Fusion | None = None) -> None:
        """Keep in `rows` [M] only the hypothesis in `places` [M], moved to the first place; `num_tokens` [M] are the
        tokens that it counts from now on. Without any its last word has ended."""
        if not len(rows):
            return
        for array in (self.contexts, self.decoder_out, self.hashes):
            array[rows, 0] = array[rows, places]
        self.num_tokens[rows, 0] = num_tokens
        if fusion is not None:
            self.lm_states[rows, 0] = self.lm_states[rows, places]
            ended = rows[num_tokens == 0]
            self.lm_states[ended, 0] = fusion.closed(self.lm_states[ended, 0])
        self._alone(rows)

    def _alone(self, rows: Ints) -> None:
        self.scores[rows] = -np.inf
        self.scores[rows, 0] = 0.0
        self.context_states[rows] = 0  # phrases begin anew, as in sherpa-onnx after an endpoint
