"""Reference searches, written as they are defined: one utterance and one frame at a time.

Greedy search takes the most likely token at every frame, and emits it unless it is blank.

Fast beam search is Icefall's and k2's (`moulin.decoding.fast_beam_search`).

Modified beam search (Icefall's `modified_beam_search`) extends at each frame all hypotheses by every token, keeps the
`beam` best extensions, and merges those that now spell the same tokens by adding their probabilities. The winner is
the hypothesis with the best log-probability per token, where the initial context counts as tokens too (icefall and
sherpa-onnx, `GetMostProbable(length_norm=true)`). A token gives its hypothesis the bonuses of both context graphs,
after the best extensions have been chosen; at the end the bonuses of phrases that are not complete are taken back. So
does a language model with its log-probability, times the row's weight.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol

import numpy as np

from moulin.arrays import Floats, Ints
from moulin.decoding.found import Found, Hypothesis
from moulin.decoding.network import PredictionNetwork, initial_context, log_softmax
from moulin.decoding.plain_context_graph import PlainContextGraph, State
from moulin.decoding.row_options import RowOptions


def search_reference(
    network: PredictionNetwork,
    encoder_out: Floats,
    encoder_out_lens: Ints,
    options: RowOptions,
    joiner_dim: int | None = None,
    language_model: PlainLanguageModel | None = None,
) -> Found:
    """The plain twin of `moulin.decoding.search.search`."""
    hypotheses = []
    for row, (frames, length) in enumerate(zip(encoder_out, encoder_out_lens, strict=True)):
        one = _greedy if options.beams[row] == 0 else partial(_modified_beam_search, language_model=language_model)
        one = _fast_beam_search if options.prune_beams[row] > 0 else one
        searched = list(range(length))
        if joiner_dim is not None and frames.shape[1] > joiner_dim:  # the last channel is the CTC head's blank
            searched = [frame for frame in searched if not frames[frame, joiner_dim] >= options.blank_skips[row]]
            frames = frames[:, :joiner_dim]
        hypotheses.append(one(network, frames, searched, options.take(np.array([row]))))
    return Found.of(hypotheses)


def _greedy(
    network: PredictionNetwork, encoder_out: Floats, searched: Sequence[int], options: RowOptions
) -> Hypothesis:
    """`searched` are the numbers of the frames in `encoder_out` that are not skipped."""
    context = initial_context(network.context_size)
    decoder_out = network.decoder(np.array([context], dtype=np.int64))
    tokens: list[int] = []
    frames: list[int] = []
    log_probs: list[float] = []
    score = 0.0
    for frame in searched:
        logits = network.joiner(encoder_out[frame : frame + 1], decoder_out)
        log_prob = log_softmax(logits, options.blank_penalties, options.sharpness)[0]
        token = int(log_prob.argmax())
        score += float(log_prob[token])
        if token in network.skipped_ids:
            continue
        tokens.append(token)
        frames.append(frame)
        log_probs.append(float(log_prob[token]))
        context = [*context[1:], token]
        decoder_out = network.decoder(np.array([context], dtype=np.int64))
    return Hypothesis(tuple(tokens), tuple(frames), tuple(log_probs), score)


def _fast_beam_search(
    network: PredictionNetwork, encoder_out: Floats, searched: Sequence[int], options: RowOptions
) -> Hypothesis:
    """The best path to each context, by what the decoder sees: see `moulin.decoding.fast_beam_search`."""
    beam, most = float(options.prune_beams[0]), int(options.beams[0])
    paths = {(0,) * network.context_size: Hypothesis((), (), (), 0.0)}
    for frame in searched:
        threshold = max(path.score for path in paths.values()) - beam
        found: dict[tuple[int, ...], Hypothesis] = {}
        for context, path in paths.items():
            decoder_out = network.decoder(np.array([context], np.int64))
            logits = network.joiner(encoder_out[frame : frame + 1], decoder_out)
            for token, value in enumerate(log_softmax(logits, options.blank_penalties, options.sharpness)[0]):
                score = path.score + float(value)
                if token and score < threshold:
                    continue
                to, longer = (*context[1:], token) if token else context, replace(path, score=score)
                if token not in network.skipped_ids:
                    longer = Hypothesis(
                        (*path.tokens, token), (*path.frames, frame), (*path.log_probs, float(value)), score
                    )
                if to not in found or longer.score > found[to].score:
                    found[to] = longer
        best = sorted(found.items(), key=lambda one: -one[1].score)[:most]
        paths = {context: path for context, path in best if path.score >= best[0][1].score - beam}
    return max(paths.values(), key=lambda path: path.score)


@dataclass(frozen=True, slots=True)
class _Path:
    tokens: tuple[int, ...] = ()
    frames: tuple[int, ...] = ()
    log_probs: tuple[float, ...] = ()
    score: float = 0.0
    states: tuple[State, ...] = ((), ())


class PlainLanguageModel(Protocol):
    """A language model without states."""

    def score(self, tokens: Sequence[int], scale: float, lodr_scale: float, *, ended: bool) -> float:
        """The weighed log-probability of `tokens`; unless they have `ended`, without a word that may still grow."""


def _modified_beam_search(
    network: PredictionNetwork,
    encoder_out: Floats,
    searched: Sequence[int],
    options: RowOptions,
    language_model: PlainLanguageModel | None,
) -> Hypothesis:
    def of_text(tokens: Sequence[int], *, ended: bool) -> float:
        scale, lodr_scale = float(options.lm_scales[0]), float(options.lodr_scales[0])
        return language_model.score(tokens, scale, lodr_scale, ended=ended) if language_model and scale else 0.0

    graphs = [PlainContextGraph(graph.phrases if graph else {}) for graph in options.graphs[0]]
    paths = [_Path()]
    for frame in searched:
        paths = _step(network, encoder_out[frame], frame, paths, options, graphs, of_text)
    paths = [replace(path, score=path.score - sum(map(PlainContextGraph.held, graphs, path.states))) for path in paths]
    paths = [
        replace(path, score=path.score + of_text(path.tokens, ended=True) - of_text(path.tokens, ended=False))
        for path in paths
    ]
    paths.sort(key=lambda path: -path.score / (len(path.tokens) + network.context_size))
    best, *others = [Hypothesis(path.tokens, path.frames, path.log_probs, path.score) for path in paths]
    return replace(best, others=tuple(others)) if options.wants_others[0] else best


def _step(
    network: PredictionNetwork,
    encoder_frame: Floats,
    frame: int,
    paths: list[_Path],
    options: RowOptions,
    graphs: Sequence[PlainContextGraph],
    of_text: Callable[..., float],
) -> list[_Path]:
    """The paths after one more frame; those with equal tokens are merged."""
    start = initial_context(network.context_size)
    contexts = [[*start, *path.tokens][-network.context_size :] for path in paths]
    decoder_out = network.decoder(np.array(contexts, dtype=np.int64))
    logits = network.joiner(np.repeat(encoder_frame[None], len(paths), axis=0), decoder_out)
    log_probs = log_softmax(
        logits, np.repeat(options.blank_penalties, len(paths)), np.repeat(options.sharpness, len(paths))
    )
    totals = log_probs.astype(np.float64) + np.array([[path.score] for path in paths])

    merged: dict[tuple[int, ...], _Path] = {}
    for flat in np.argsort(-totals, axis=None, kind="stable")[: int(options.beams[0])]:
        parent, token = divmod(int(flat), totals.shape[1])
        score = float(totals[parent, token])
        path = replace(paths[parent], score=score)
        if token not in network.skipped_ids:
            advanced = [graph.advance(state, token) for graph, state in zip(graphs, path.states, strict=True)]
            gain = of_text((*path.tokens, token), ended=False) - of_text(path.tokens, ended=False)
            path = _Path(
                (*path.tokens, token),
                (*path.frames, frame),
                (*path.log_probs, float(log_probs[parent, token])),
                score + sum(bonus for bonus, _ in advanced) + gain,
                tuple(state for _, state in advanced),
            )
        same = merged.get(path.tokens)
        if same is not None:
            # The better path came first: its frames stay.
            path = replace(same, score=float(np.logaddexp(same.score, path.score)))
        merged[path.tokens] = path
    return list(merged.values())
