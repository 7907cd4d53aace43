"""Greedy search: at every encoder frame the most likely token, at most one a frame.

The result is that of `moulin.decoding.reference`, with fewer, larger calls; a search goes on where it stopped.
"""

from __future__ import annotations

import numpy as np

from moulin.arrays import Floats, Ints
from moulin.decoding.beams import Beams
from moulin.decoding.found import Found
from moulin.decoding.network import PredictionNetwork, is_emitted, log_softmax, scaled
from moulin.decoding.row_options import RowOptions

WINDOW_FRAMES = 8
"""Frames that are joined at once. English emits a token about every six frames, so a longer window is mostly
thrown away, and a shorter one means more calls."""


def advance_greedy(
    network: PredictionNetwork, beams: Beams, encoder_out: Floats, encoder_out_lens: Ints, options: RowOptions
) -> Found:
    """Search the next frames of all rows at once, a window of frames at a time. Changes `beams`.

    The decoder's output changes only when a token is emitted. So each row joins its next WINDOW_FRAMES frames with the
    decoder output that it has, keeps the frames up to and including the first that emits a token, and goes on behind
    that one (label looping, arXiv 2406.06220, with a window). The loop runs once a token or window instead of once a
    frame.
    """
    if len(beams.scores) == 1:
        return _advance_one(network, beams, encoder_out[0, : int(encoder_out_lens[0])], options, encoder_out.shape[1])
    found = Found.nothing(len(beams.scores), 1, encoder_out.shape[1])
    counts, score = found.counts[:, 0], beams.scores[:, 0]
    context, decoder_out = beams.contexts[:, 0], beams.decoder_out[:, 0]
    offsets = np.arange(WINDOW_FRAMES)
    frame = np.zeros(len(score), dtype=np.int64)

    while (active := np.flatnonzero(frame < encoder_out_lens)).size:
        window = frame[active, None] + offsets
        inside = window < encoder_out_lens[active, None]
        rows, columns = np.nonzero(inside)
        joined = active[rows]
        logits = network.joiner(encoder_out[joined, window[inside]], decoder_out[joined])
        log_probs = log_softmax(logits, options.blank_penalties[joined], options.sharpness[joined])
        best = log_probs.argmax(axis=-1)

        tokens = np.zeros(window.shape, dtype=np.int64)
        tokens[rows, columns] = best
        best_log_probs = np.zeros(window.shape)
        best_log_probs[rows, columns] = log_probs[np.arange(len(best)), best]

        emits = inside & is_emitted(tokens, network.skipped_ids)
        has_token = emits.any(axis=1)
        first = np.where(has_token, emits.argmax(axis=1), WINDOW_FRAMES - 1)
        score[active] += np.where(offsets <= first[:, None], best_log_probs, 0.0).sum(axis=1)
        frame[active] += first + 1

        emitting, at = np.flatnonzero(has_token), first[has_token]
        if not emitting.size:
            continue
        winners, new_tokens = active[emitting], tokens[emitting, at]
        place = (winners, 0, counts[winners])
        found.tokens[place], found.frames[place] = new_tokens, window[emitting, at]
        found.log_probs[place] = best_log_probs[emitting, at]
        counts[winners] += 1
        context[winners, :-1] = context[winners, 1:]
        context[winners, -1] = new_tokens
        decoder_out[winners] = network.decoder(context[winners])

    found.scores[:, 0] = score
    return found


def _advance_one(
    network: PredictionNetwork, beams: Beams, encoder_out: Floats, options: RowOptions, max_frames: int
) -> Found:
    """`advance_greedy` of one row, encoder_out [T, joiner_dim]: there most of the time goes into calls of numpy for few
    numbers, and this makes a third of them. `max_frames` is the size of what is found."""
    found, skipped = Found.nothing(1, 1, max_frames), frozenset(network.skipped_ids)
    as_they_are = options.blank_penalties[0] == 0 and options.sharpness[0] == 1
    decoder_out = np.repeat(beams.decoder_out[:, 0], WINDOW_FRAMES, axis=0)
    frame = count = 0
    score = float(beams.scores[0, 0])
    while frame < len(encoder_out):
        window = encoder_out[frame : frame + WINDOW_FRAMES]
        logits = network.joiner(window, decoder_out[: len(window)])
        if not as_they_are:
            logits = scaled(logits, options.blank_penalties, options.sharpness)
        tokens = logits.argmax(axis=-1).tolist()
        emitted = next((at for at, token in enumerate(tokens) if token not in skipped), None)
        read = logits[: len(tokens) if emitted is None else emitted + 1]
        # A log-softmax of the greatest logits alone.
        log_probs = -np.log(np.exp(read - read.max(axis=-1, keepdims=True)).sum(axis=-1))
        score += float(log_probs.sum(dtype=np.float64))
        if emitted is not None:
            place = (0, 0, count)
            found.tokens[place], found.frames[place] = tokens[emitted], frame + emitted
            found.log_probs[place] = log_probs[-1]
            count += 1
            beams.contexts[0, 0] = [*beams.contexts[0, 0, 1:], tokens[emitted]]
            decoder_out[:] = network.decoder(beams.contexts[:, 0])
        frame += len(read)
    beams.scores[0, 0] = found.scores[0, 0] = score
    beams.decoder_out[0, 0] = decoder_out[0]
    found.counts[0, 0] = count
    return found
