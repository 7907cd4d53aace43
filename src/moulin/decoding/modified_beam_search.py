"""Modified beam search (Icefall's `modified_beam_search`): at most one token a frame for every hypothesis.

At each frame all hypotheses of an utterance are extended by every token, the `beam` best extensions are kept, and
those that now spell the same tokens are merged by adding their probabilities. The winner is the hypothesis with
the best log-probability per token, where the initial context counts as tokens too (icefall and sherpa-onnx,
`GetMostProbable(length_norm=true)`).

`modified_beam_search_reference` is the definition. `advance_modified_beam_search` does the same with arrays, and goes
on where it stopped when more frames come.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from moulin.arrays import Floats, Ints
from moulin.decoding.network import Hypothesis, PredictionNetwork, initial_context, log_softmax
from moulin.decoding.options import DecodingOptions

# ---------------------------------------------------------------------------------------------- the definition


@dataclass(frozen=True, slots=True)
class _Path:
    tokens: tuple[int, ...] = ()
    frames: tuple[int, ...] = ()
    log_probs: tuple[float, ...] = ()
    score: float = 0.0


def modified_beam_search_reference(
    network: PredictionNetwork, encoder_out: Floats, encoder_out_lens: Ints, options: DecodingOptions
) -> list[Hypothesis]:
    """One utterance after the other, hypotheses in a dictionary by their tokens."""
    hypotheses = []
    for frames_of_utterance, length in zip(encoder_out, encoder_out_lens, strict=True):
        paths = [_Path()]
        for frame in range(int(length)):
            paths = _step(network, frames_of_utterance[frame], frame, paths, options)
        best = max(paths, key=lambda path: path.score / (len(path.tokens) + network.context_size))
        hypotheses.append(Hypothesis(best.tokens, best.frames, best.log_probs, best.score))
    return hypotheses


def _step(
    network: PredictionNetwork, encoder_frame: Floats, frame: int, paths: list[_Path], options: DecodingOptions
) -> list[_Path]:
    start = initial_context(network.context_size)
    contexts = [[*start, *path.tokens][-network.context_size :] for path in paths]
    decoder_out = network.decoder(np.array(contexts, dtype=np.int64))
    logits = network.joiner(np.repeat(encoder_frame[None], len(paths), axis=0), decoder_out)
    log_probs = log_softmax(logits, options)
    totals = log_probs.astype(np.float64) + np.array([[path.score] for path in paths])

    merged: dict[tuple[int, ...], _Path] = {}
    for flat in np.argsort(-totals, axis=None, kind="stable")[: options.beam]:
        parent, token = divmod(int(flat), totals.shape[1])
        score = float(totals[parent, token])
        path = replace(paths[parent], score=score)
        if token not in network.skipped_ids:
            path = _Path(
                (*path.tokens, token), (*path.frames, frame), (*path.log_probs, float(log_probs[parent, token])), score
            )
        same = merged.get(path.tokens)
        if same is not None:
            # The better path came first: its frames stay.
            path = replace(same, score=float(np.logaddexp(same.score, score)))
        merged[path.tokens] = path
    return list(merged.values())


# ---------------------------------------------------------------------------------------------- the fast form


@dataclass(slots=True)
class _Beam:
    """The hypotheses of `N` utterances, `B` places each; a place that holds none has score -inf."""

    scores: NDArray[np.float64]  # [N, B]
    context: Ints  # [N, B, context_size]
    decoder_out: Floats  # [N, B, joiner_dim]
    num_tokens: Ints  # [N, B]
    hashes: NDArray[np.uint64]  # [N, B], of all tokens so far: equal hashes and counts mean equal tokens

    def rows(self, selected: slice) -> _Beam:
        """Some of the utterances; shares the arrays."""
        return _Beam(*(getattr(self, name)[selected] for name in self.__slots__))

    def put(self, selected: slice, rows: _Beam) -> None:
        """Replace those utterances."""
        for name in self.__slots__:
            getattr(self, name)[selected] = getattr(rows, name)

    def place(self, number: int) -> _Beam:
        """What is in that place of every utterance, in all places."""
        every = range(self.scores.shape[1])
        return _Beam(*(np.stack([getattr(self, name)[:, number] for _ in every], axis=1) for name in self.__slots__))

    def copy(self) -> _Beam:
        return _Beam(*(getattr(self, name).copy() for name in self.__slots__))

    @classmethod
    def join(cls, beams: Sequence[_Beam]) -> _Beam:
        """The utterances of several beams as one."""
        return cls(*(np.concatenate([getattr(beam, name) for beam in beams]) for name in cls.__slots__))


@dataclass(slots=True)
class _Emission:
    """A token of a hypothesis and the one before it. Hypotheses with the same beginning share it."""

    before: _Emission | None
    token: int
    frame: int
    log_prob: float


@dataclass(slots=True)
class BeamState:
    """Where the search stands in one utterance.

    What all hypotheses have in common is settled and kept as a list. Behind that each place of the beam has a chain
    of emissions; chains of hypotheses that were dropped go away by themselves.
    """

    beam: _Beam  # N = 1
    context_size: int
    chains: list[_Emission | None]  # [B], the last emission of each place
    settled_until: _Emission | None = None
    settled: list[_Emission] = field(default_factory=list)
    num_frames: int = 0

    def hypothesis(self) -> Hypothesis:
        place = self._best_place()
        emissions = [*self.settled, *reversed(self._open(place))]
        return Hypothesis(
            tuple(emission.token for emission in emissions),
            tuple(emission.frame for emission in emissions),
            tuple(emission.log_prob for emission in emissions),
            float(self.beam.scores[0, place]),
        )

    def drop(self, count: int) -> None:
        """Decide for the best hypothesis and forget its first `count` tokens.

        The decoder's context stays, and so do the frames' numbers.
        """
        best = self._best_place()
        self.beam.put(slice(1), self.beam.place(best))
        self.beam.scores[0] = -np.inf
        self.beam.scores[0, 0] = 0.0
        self.settled = [*self.settled, *reversed(self._open(best))][count:]
        self.beam.num_tokens[:] = len(self.settled)
        self.settled_until = self.settled[-1] if self.settled else None
        self.chains = [self.settled_until] * len(self.chains)
        for emission in self.settled:
            emission.before = None

    def _best_place(self) -> int:
        return int((self.beam.scores[0] / (self.beam.num_tokens[0] + self.context_size)).argmax())

    def settle(self) -> None:
        """Move what all hypotheses have in common from the chains to the list."""
        chains = [self._open(place) for place in np.flatnonzero(np.isfinite(self.beam.scores[0])).tolist()]
        common = 0
        # Chains that share an emission share everything before it.
        for emissions in zip(*(reversed(chain) for chain in chains), strict=False):
            if any(emission is not emissions[0] for emission in emissions):
                break
            common += 1
        if common:
            newly = list(reversed(chains[0]))[:common]
            self.settled += newly
            self.settled_until = newly[-1]
            for emission in newly:
                emission.before = None

    def _open(self, place: int) -> list[_Emission]:
        """The emissions of a place that are not settled, the last first."""
        emissions = []
        emission = self.chains[place]
        while emission is not None and emission is not self.settled_until:
            emissions.append(emission)
            emission = emission.before
        return emissions


def start_modified_beam_search(network: PredictionNetwork, count: int, options: DecodingOptions) -> list[BeamState]:
    """The states of `count` utterances before their first frames."""
    if not count:
        return []
    start = np.array([initial_context(network.context_size)], dtype=np.int64)
    decoder_out = network.decoder(start)
    scores = np.full((1, options.beam), -np.inf)
    scores[:, 0] = 0.0

    def beam() -> _Beam:
        return _Beam(
            scores=scores.copy(),
            context=np.tile(start, (1, options.beam, 1)),
            decoder_out=np.tile(decoder_out, (1, options.beam, 1)),
            num_tokens=np.zeros((1, options.beam), dtype=np.int64),
            hashes=np.zeros((1, options.beam), dtype=np.uint64),
        )

    return [BeamState(beam(), network.context_size, [None] * options.beam) for _ in range(count)]


def advance_modified_beam_search(
    network: PredictionNetwork,
    states: Sequence[BeamState],
    encoder_out: Floats,
    encoder_out_lens: Ints,
    options: DecodingOptions,
) -> None:
    """Search the next frames of all utterances and hypotheses at once.

    Utterances are sorted by length, so that those still going on are always the first rows. Tokens are not copied
    from frame to frame: every frame stores which place each hypothesis came from and what it appended, and the
    emissions of each place are read off backwards at the end. The decoder runs only for hypotheses that got a new
    token.
    """
    lengths = np.asarray(encoder_out_lens, dtype=np.int64)
    if not states or not lengths.any():
        return
    order = np.argsort(-lengths, kind="stable")
    encoder_out, lengths = encoder_out[order], lengths[order]
    states = [states[row] for row in order]
    shape = (int(lengths[0]), len(states), options.beam)
    parents = np.zeros(shape, dtype=np.int16)
    tokens = np.zeros(shape, dtype=np.int32)  # 0: nothing appended
    log_probs = np.zeros(shape, dtype=np.float32)

    beam = _Beam.join([state.beam for state in states])
    for frame in range(shape[0]):
        going = slice(int(np.count_nonzero(lengths > frame)))
        rows = beam.rows(going)
        parents[frame, going], tokens[frame, going], log_probs[frame, going] = _advance(
            network, encoder_out[going, frame], rows, options
        )
        beam.put(going, rows)

    origins, tokens, log_probs = _trace_back(parents, tokens, log_probs, lengths)
    for row, state in enumerate(states):
        state.beam = beam.rows(slice(row, row + 1)).copy()
        state.chains = [
            _extend(state.chains[origin], state.num_frames, tokens[:, row, place], log_probs[:, row, place])
            for place, origin in enumerate(origins[row].tolist())
        ]
        state.num_frames += int(lengths[row])
        state.settle()


def _extend(
    chain: _Emission | None, first_frame: int, tokens: NDArray[np.int32], log_probs: Floats
) -> _Emission | None:
    for frame in np.flatnonzero(tokens).tolist():
        chain = _Emission(chain, int(tokens[frame]), first_frame + frame, float(log_probs[frame]))
    return chain


def _advance(
    network: PredictionNetwork, encoder_frame: Floats, beam: _Beam, options: DecodingOptions
) -> tuple[Ints, Ints, Floats]:
    """One frame: changes `beam`, returns the parent place, appended token (or 0) and its log-prob, each [N, B]."""
    num_utterances, beam_size = beam.scores.shape
    rows = np.arange(num_utterances)[:, None]
    logits = network.joiner(
        np.repeat(encoder_frame, beam_size, axis=0), beam.decoder_out.reshape(num_utterances * beam_size, -1)
    )
    log_probs = log_softmax(logits, options).reshape(num_utterances, beam_size, -1)
    totals = (log_probs + beam.scores[:, :, None]).reshape(num_utterances, -1)
    best = _top(totals, beam_size)
    parent, token = np.divmod(best, log_probs.shape[-1])
    scores = totals[rows, best]

    appended = ~np.isin(token, network.skipped_ids)
    hashes = beam.hashes[rows, parent]
    hashes = np.where(appended, hashes * _HASH_FACTOR + token.astype(np.uint64) + np.uint64(1), hashes)
    num_tokens = beam.num_tokens[rows, parent] + appended
    beam.scores = _merge(scores, hashes, num_tokens)
    beam.hashes, beam.num_tokens = hashes, num_tokens

    beam.context = beam.context[rows, parent]
    beam.decoder_out = beam.decoder_out[rows, parent]
    changed = appended & np.isfinite(beam.scores)
    if changed.any():
        shifted = np.concatenate([beam.context[changed][:, 1:], token[changed][:, None]], axis=1)
        beam.context[changed] = shifted
        beam.decoder_out[changed] = network.decoder(shifted)
    return parent, np.where(appended, token, 0), log_probs[rows, parent, token]


_HASH_FACTOR = np.uint64(0x9E3779B97F4A7C15)  # odd, from the golden ratio: wrapping products spread over 64 bits


def _top(totals: NDArray[np.float64], count: int) -> Ints:
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


def _merge(scores: NDArray[np.float64], hashes: NDArray[np.uint64], num_tokens: Ints) -> NDArray[np.float64]:
    """Add up the probabilities of places with the same tokens into the first of them; the others become -inf."""
    same = (hashes[:, :, None] == hashes[:, None, :]) & (num_tokens[:, :, None] == num_tokens[:, None, :])
    is_first = same.argmax(axis=2) == np.arange(scores.shape[1])
    peak = scores[:, :1]  # the places come sorted
    shares = np.exp(scores - peak)
    with np.errstate(divide="ignore"):
        summed = np.log(np.where(same, shares[:, None, :], 0.0).sum(axis=2)) + peak
    return np.where(is_first, summed, -np.inf)


def _trace_back(
    parents: NDArray[np.int16], tokens: NDArray[np.int32], log_probs: Floats, lengths: Ints
) -> tuple[Ints, NDArray[np.int32], Floats]:
    """Follow every place from an utterance's last frame to the first.

    Returns the place [N, B] that each came from, and the tokens and log-probs [T, N, B] on its way.
    """
    num_frames, num_utterances, beam_size = parents.shape
    place = np.tile(np.arange(beam_size), (num_utterances, 1))
    path_tokens, path_log_probs = np.zeros_like(tokens), np.zeros_like(log_probs)
    for frame in range(num_frames - 1, -1, -1):
        going = int(np.count_nonzero(lengths > frame))
        at = place[:going]
        path_tokens[frame, :going] = np.take_along_axis(tokens[frame, :going], at, axis=1)
        path_log_probs[frame, :going] = np.take_along_axis(log_probs[frame, :going], at, axis=1)
        place[:going] = np.take_along_axis(parents[frame, :going], at, axis=1)
    return place, path_tokens, path_log_probs
