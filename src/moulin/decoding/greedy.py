"""Greedy search: at every encoder frame the most likely token, at most one a frame.

`greedy_search_reference` is the definition. `greedy_search` finds the same tokens with fewer, larger calls.
"""

from __future__ import annotations

import numpy as np

from moulin.decoding.network import Floats, Hypothesis, Ints, PredictionNetwork, initial_context, log_softmax
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


def greedy_search(
    network: PredictionNetwork, encoder_out: Floats, encoder_out_lens: Ints, options: DecodingOptions
) -> list[Hypothesis]:
    """All utterances at once, a window of frames at a time.

    The decoder's output changes only when a token is emitted. So each utterance joins its next WINDOW_FRAMES
    frames with the decoder output that it has, keeps what comes up to and including the first token emitted, and
    goes on behind that frame (label looping, arXiv 2406.06220, with a window). The loop runs once a token or
    window instead of once a frame.
    """
    num_utterances = len(encoder_out)
    lengths = np.asarray(encoder_out_lens, dtype=np.int64)
    offsets = np.arange(WINDOW_FRAMES)
    context = np.tile(np.array(initial_context(network.context_size), dtype=np.int64), (num_utterances, 1))
    decoder_out = network.decoder(context) if num_utterances else np.zeros((0, 0), np.float32)
    frame = np.zeros(num_utterances, dtype=np.int64)
    score = np.zeros(num_utterances)
    emitted: list[list[tuple[int, int, float]]] = [[] for _ in range(num_utterances)]

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
            emitted[utterance].append((token, token_frame, log_prob))
        context[winners, :-1] = context[winners, 1:]
        context[winners, -1] = new_tokens
        decoder_out[winners] = network.decoder(context[winners])

    return [
        Hypothesis(
            tokens=tuple(token for token, _, _ in steps),
            frames=tuple(token_frame for _, token_frame, _ in steps),
            log_probs=tuple(log_prob for _, _, log_prob in steps),
            score=float(total),
        )
        for steps, total in zip(emitted, score, strict=True)
    ]
