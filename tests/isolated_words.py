"""Digits of the demo recordings, cut apart where they are quietest, with silence between: their times are known."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from moulin.arrays import Doubles, Floats
from moulin.transcript import Word

GAP_SEC = 0.6
_HOP = 160


@dataclass(frozen=True)
class Digit:
    word: str
    start_sec: float
    end_sec: float


def isolated(waveform: Floats, words: Sequence[Word]) -> tuple[Floats, list[Digit]]:
    """The digits of a recording in which `words` were heard, with 0.6 s of silence around each.

    A digit lasts from the first to the last 10 ms that are at most 20 dB below its loudest. Pieces in which that is no
    usual length of a digit (two of them, or a cough) are part of the audio but not of the list.
    """
    cuts = [0]
    energy = _energy(waveform, 5)
    for word, following in itertools.pairwise(words):
        begin = round(word.start_sec * 100) + 5
        end = max(round(following.start_sec * 100) + 1, begin + 2)
        cuts.append((begin + int(energy[begin:end].argmin())) * _HOP)
    cuts.append(len(waveform))
    gap = np.zeros(round(GAP_SEC * 16000), np.float32)
    parts, digits, at = [gap], [], len(gap)
    for word, begin, end in zip(words, cuts, cuts[1:], strict=False):
        piece = waveform[begin:end]
        loud = np.flatnonzero((energy := _energy(piece, 3)) > energy.max() / 100)
        start_sec, end_sec = at / 16000 + loud[0] / 100, at / 16000 + (loud[-1] + 1) / 100
        if 0.1 < end_sec - start_sec < 0.8:
            digits.append(Digit(word.word, start_sec, end_sec))
        parts += [piece, gap]
        at += len(piece) + len(gap)
    return np.concatenate(parts), digits


def found_among(digits: Sequence[Digit], words: Sequence[Word]) -> list[tuple[Digit, Word]]:
    """Each digit with the word that was heard for it; without those that were misheard."""
    pairs = []
    for digit in digits:
        near = [
            word
            for word in words
            if word.word == digit.word and digit.start_sec - 0.4 < word.start_sec < digit.end_sec + 0.5
        ]
        if near:
            pairs.append((digit, min(near, key=lambda word: abs(word.start_sec - digit.start_sec))))
    return pairs


def _energy(samples: Floats, smoothed_over: int) -> Doubles:
    """The mean square of every 10 ms, averaged over some of them."""
    frames = samples[: len(samples) // _HOP * _HOP].reshape(-1, _HOP).astype(np.float64)
    energy: Doubles = np.convolve((frames**2).mean(axis=1), np.full(smoothed_over, 1 / smoothed_over), "same")
    return energy
