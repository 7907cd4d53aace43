"""Modified beam search (Icefall's `modified_beam_search`): at most one token a frame for every hypothesis.

At each frame all hypotheses of an utterance are extended by every token, the `beam` best extensions are kept, and
those that now spell the same tokens are merged by adding their probabilities. The winner is the hypothesis with
the best log-probability per token, where the initial context counts as tokens too (icefall and sherpa-onnx,
`GetMostProbable(length_norm=true)`).

`modified_beam_search_reference` is the definition. `modified_beam_search` does the same with arrays.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from moulin.decoding.network import Floats, Hypothesis, Ints, PredictionNetwork, initial_context, log_softmax
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

    def keep(self, num_utterances: int) -> None:
        """Drop the utterances behind the first `num_utterances`."""
        for name in self.__slots__:
            setattr(self, name, getattr(self, name)[:num_utterances])


def modified_beam_search(
    network: PredictionNetwork, encoder_out: Floats, encoder_out_lens: Ints, options: DecodingOptions
) -> list[Hypothesis]:
    """All utterances and hypotheses at once.

    Utterances are sorted by length, so that those still going on are always the first rows. Tokens are not copied
    from frame to frame: every frame stores which place each hypothesis came from and what it appended, and the
    winners are read off backwards at the end. The decoder runs only for hypotheses that got a new token.
    """
    lengths = np.asarray(encoder_out_lens, dtype=np.int64)
    num_utterances, beam_size = len(lengths), options.beam
    if not num_utterances:
        return []
    order = np.argsort(-lengths, kind="stable")
    num_frames = int(lengths[order[0]])
    parents = np.zeros((num_frames, num_utterances, beam_size), dtype=np.int16)
    tokens = np.zeros((num_frames, num_utterances, beam_size), dtype=np.int32)  # 0: nothing appended
    log_probs = np.zeros((num_frames, num_utterances, beam_size), dtype=np.float32)
    final_scores = np.full((num_utterances, beam_size), -np.inf)
    final_num_tokens = np.zeros((num_utterances, beam_size), dtype=np.int64)

    beam = _initial_beam(network, num_utterances, beam_size)
    encoder_out = encoder_out[order]
    ended = num_utterances
    for frame in range(num_frames + 1):
        going = int(np.count_nonzero(lengths > frame))
        if going < ended:
            final_scores[going:ended] = beam.scores[going:]
            final_num_tokens[going:ended] = beam.num_tokens[going:]
            beam.keep(going)
            ended = going
        if going:
            parents[frame, :going], tokens[frame, :going], log_probs[frame, :going] = _advance(
                network, encoder_out[:going, frame], beam, options
            )

    place = (final_scores / (final_num_tokens + network.context_size)).argmax(axis=1)
    paths = _trace_back(parents, tokens, log_probs, lengths[order], place)
    scores = final_scores[np.arange(num_utterances), place]
    hypotheses: list[Hypothesis | None] = [None] * num_utterances
    for position, path, score in zip(order, paths, scores, strict=True):
        hypotheses[position] = Hypothesis(*path, float(score))
    return [hypothesis for hypothesis in hypotheses if hypothesis is not None]


def _initial_beam(network: PredictionNetwork, num_utterances: int, beam_size: int) -> _Beam:
    start = np.array(initial_context(network.context_size), dtype=np.int64)
    scores = np.full((num_utterances, beam_size), -np.inf)
    scores[:, 0] = 0.0
    return _Beam(
        scores=scores,
        context=np.tile(start, (num_utterances, beam_size, 1)),
        decoder_out=np.tile(network.decoder(start[None]), (num_utterances, beam_size, 1)),
        num_tokens=np.zeros((num_utterances, beam_size), dtype=np.int64),
        hashes=np.zeros((num_utterances, beam_size), dtype=np.uint64),
    )


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
    parents: NDArray[np.int16],
    tokens: NDArray[np.int32],
    log_probs: Floats,
    lengths: Ints,
    place: Ints,
) -> list[tuple[tuple[int, ...], tuple[int, ...], tuple[float, ...]]]:
    """Follow the winners (`place` [N]) from their last frame to the first: tokens, frames, log-probs of each."""
    num_utterances = len(lengths)
    place = place.copy()
    path_tokens = np.zeros((len(parents), num_utterances), dtype=np.int64)
    path_log_probs = np.zeros((len(parents), num_utterances))
    for frame in range(len(parents) - 1, -1, -1):
        going = np.arange(int(np.count_nonzero(lengths > frame)))
        at = place[going]
        path_tokens[frame, going] = tokens[frame, going, at]
        path_log_probs[frame, going] = log_probs[frame, going, at]
        place[going] = parents[frame, going, at]
    paths = []
    for utterance in range(num_utterances):
        frames = np.flatnonzero(path_tokens[:, utterance])
        paths.append(
            (
                tuple(path_tokens[frames, utterance].tolist()),
                tuple(frames.tolist()),
                tuple(path_log_probs[frames, utterance].tolist()),
            )
        )
    return paths
