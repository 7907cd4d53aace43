"""Greedy search: at every encoder frame the most likely token, at most one a frame.

`greedy_search_reference` is the definition. `advance_greedy` finds the same tokens with fewer, larger calls, and goes
on where it stopped when more frames come.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from moulin.arrays import Floats, Ints
from moulin.decoding.network import Hypothesis, PredictionNetwork, initial_context, log_softmax
from moulin.decoding.options import DecodingOptions

WINDOW_FRAMES = 8
"""Frames that are joined at once. English emits a token about every six frames, so a longer window is mostly
thrown away, and a shorter one means more calls."""


def greedy_search_reference(
    network: PredictionNetwork, encoder_out: Floats, encoder_out_lens: Ints, options: DecodingOptions
) -> list[Hypothesis]:
    """One utterance after the other, one frame after the other."""
    hypotheses = []
    for frames_of_utterance, length in zip(encoder_out, encoder_out_lens, strict=True):
        context = initial_context(network.context_size)
        decoder_out = network.decoder(np.array([context], dtype=np.int64))
        tokens: list[int] = []
        frames: list[int] = []
        log_probs: list[float] = []
        score = 0.0
        for frame in range(int(length)):
            log_prob = log_softmax(network.joiner(frames_of_utterance[frame : frame + 1], decoder_out), options)[0]
            token = int(log_prob.argmax())
            score += float(log_prob[token])
            if token in network.skipped_ids:
                continue
            tokens.append(token)
            frames.append(frame)
            log_probs.append(float(log_prob[token]))
            context = [*context[1:], token]
            decoder_out = network.decoder(np.array([context], dtype=np.int64))
        hypotheses.append(Hypothesis(tuple(tokens), tuple(frames), tuple(log_probs), score))
    return hypotheses


@dataclass(slots=True)
class GreedyState:
    """Where the search stands in one utterance."""

    context: Ints  # [context_size]
    decoder_out: Floats  # [joiner_dim]
    num_frames: int = 0
    score: float = 0.0
    tokens: list[int] = field(default_factory=list)
    frames: list[int] = field(default_factory=list)
    log_probs: list[float] = field(default_factory=list)

    def hypothesis(self) -> Hypothesis:
        return Hypothesis(tuple(self.tokens), tuple(self.frames), tuple(self.log_probs), self.score)

    def drop(self, count: int) -> None:
        """Forget the first `count` tokens. The decoder's context stays, and so do the frames' numbers."""
        del self.tokens[:count], self.frames[:count], self.log_probs[:count]
        self.score = 0.0


def start_greedy(network: PredictionNetwork, count: int, _options: DecodingOptions) -> list[GreedyState]:
    """The states of `count` utterances before their first frames."""
    context = np.array(initial_context(network.context_size), dtype=np.int64)
    decoder_out = network.decoder(context[None])[0] if count else np.zeros(0, dtype=np.float32)
    return [GreedyState(context, decoder_out) for _ in range(count)]


def advance_greedy(
    network: PredictionNetwork,
    states: Sequence[GreedyState],
    encoder_out: Floats,
    encoder_out_lens: Ints,
    options: DecodingOptions,
) -> None:
    """Search the next frames of all utterances at once, a window of frames at a time.

    The decoder's output changes only when a token is emitted. So each utterance joins its next WINDOW_FRAMES
    frames with the decoder output that it has, keeps what comes up to and including the first token emitted, and
    goes on behind that frame (label looping, arXiv 2406.06220, with a window). The loop runs once a token or
    window instead of once a frame.
    """
    if not states:
        return
    lengths = np.asarray(encoder_out_lens, dtype=np.int64)
    offsets = np.arange(WINDOW_FRAMES)
    context = np.stack([state.context for state in states])
    decoder_out = np.stack([state.decoder_out for state in states])
    frame = np.zeros(len(states), dtype=np.int64)
    score = np.zeros(len(states))

    while (active := np.flatnonzero(frame < lengths)).size:
        window = frame[active, None] + offsets
        inside = window < lengths[active, None]
        rows, columns = np.nonzero(inside)
        utterances = active[rows]
        logits = network.joiner(encoder_out[utterances, window[inside]], decoder_out[utterances])
        log_probs = log_softmax(logits, options)
        best = log_probs.argmax(axis=-1)

        tokens = np.zeros(window.shape, dtype=np.int64)
        tokens[rows, columns] = best
        best_log_probs = np.zeros(window.shape)
        best_log_probs[rows, columns] = log_probs[np.arange(len(best)), best]

        emits = inside & ~np.isin(tokens, network.skipped_ids)
        has_token = emits.any(axis=1)
        first = np.where(has_token, emits.argmax(axis=1), WINDOW_FRAMES - 1)
        score[active] += np.where(offsets <= first[:, None], best_log_probs, 0.0).sum(axis=1)
        frame[active] += first + 1

        emitting, at = np.flatnonzero(has_token), first[has_token]
        if not emitting.size:
            continue
        winners, new_tokens = active[emitting], tokens[emitting, at]
        for utterance, token, token_frame, log_prob in zip(
            winners.tolist(),
            new_tokens.tolist(),
            window[emitting, at].tolist(),
            best_log_probs[emitting, at].tolist(),
            strict=True,
        ):
            state = states[utterance]
            state.tokens.append(token)
            state.frames.append(state.num_frames + token_frame)
            state.log_probs.append(log_prob)
        context[winners, :-1] = context[winners, 1:]
        context[winners, -1] = new_tokens
        decoder_out[winners] = network.decoder(context[winners])

    for row, state in enumerate(states):
        # Copies: a view would keep the rows of all the others alive.
        state.context, state.decoder_out = context[row].copy(), decoder_out[row].copy()
        state.num_frames += int(lengths[row])
        state.score += float(score[row])
