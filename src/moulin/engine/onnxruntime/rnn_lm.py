"""RNN language models on ONNX Runtime, on one CPU thread as sherpa-onnx runs them by default."""

from __future__ import annotations

from functools import cached_property

import numpy as np

from moulin.arrays import Doubles, Floats, Ints
from moulin.bundle.rnn_lm import RnnLm
from moulin.engine.onnxruntime.session import new_session, run
from moulin.errors import BundleError


class OnnxRnnLm:
    """A `LanguageModel` with states.

    A state is `h` and `c` [layers, hidden] as float32 within int64, room for the log-probabilities of the next token,
    and the last token, which the network has still to see. `ahead` shows it to the network, for all hypotheses of all
    rows in one call, and the last token is then -1: each hypothesis costs one run, and only where it goes on, however
    many frames of blank are between.
    """

    computes_ahead = True

    def __init__(self, model: RnnLm) -> None:
        """Raises EngineError where ONNX Runtime does not run it, BundleError where it gives no log-probabilities."""
        assert model.states is not None
        self._graph, self._states = model.graph, model.states
        self._session = new_session(model.graph.file, "cpu", 1)
        self._outputs = [tensor.name for tensor in model.graph.outputs]
        self._state_words = model.states.num_layers * model.states.hidden_size
        begun = np.zeros((1, self._state_words + 1), np.int64)
        begun[:, -1] = model.states.sos_id
        probabilities = np.exp(self._run(begun)[0].astype(np.float64))
        if probabilities.ndim != 2 or not abs(probabilities.sum() - 1) < 1e-2:  # also for NaN
            raise BundleError(
                f"Expected log-probabilities of the next token from {model.graph.file}, got values of shape "
                f"{list(probabilities.shape)} whose exponentials sum to {probabilities.sum():g}"
            )
        self._vocab_size = probabilities.shape[1]
        self.width = self._state_words + (self._vocab_size + 1) // 2 + 1

    @cached_property
    def start(self) -> Ints:
        """[width]"""
        state = np.zeros(self.width, np.int64)
        state[-1] = self._states.sos_id
        return state

    def ahead(self, states: Ints) -> Ints:
        unseen = (states[:, -1] >= 0).nonzero()[0]
        if not len(unseen):
            return states
        log_probs, h, c = self._run(states[unseen])
        following = states.copy()
        floats = np.zeros((len(unseen), 2 * (self.width - 1)), np.float32)
        floats[:, : 2 * self._state_words] = np.stack([h, c]).transpose(2, 0, 1, 3).reshape(len(unseen), -1)
        floats[:, 2 * self._state_words :][:, : self._vocab_size] = log_probs
        following[unseen, :-1] = floats.view(np.int64)
        following[unseen, -1] = -1
        return following

    def advance(self, states: Ints, tokens: Ints) -> tuple[Doubles, Ints]:
        """`states` are those of `ahead`."""
        log_probs = np.ascontiguousarray(states[:, self._state_words : -1]).view(np.float32)
        following = states.copy()
        following[:, -1] = tokens
        return log_probs[np.arange(len(tokens)), tokens].astype(np.float64), following

    def open(self, states: Ints) -> Doubles:
        return np.zeros(len(states))

    def closed(self, states: Ints) -> Ints:
        return states

    def _run(self, states: Ints) -> tuple[Floats, Floats, Floats]:
        """Log-probabilities [M, vocab_size], and h and c [layers, M, hidden] behind the last tokens of `states`."""
        size = len(states), 2, self._states.num_layers, self._states.hidden_size
        floats = np.ascontiguousarray(states[:, : self._state_words]).view(np.float32)
        h, c = floats.reshape(size).transpose(1, 2, 0, 3)
        inputs = (states[:, -1:], np.ascontiguousarray(h), np.ascontiguousarray(c))
        found = run(self._session, self._outputs, list(zip(self._graph.inputs, inputs, strict=True)))
        return found[0], found[1], found[2]


class OnnxTextScorer:
    """A `TextModel`."""

    def __init__(self, model: RnnLm) -> None:
        """Raises EngineError where ONNX Runtime does not run it, BundleError where it gives no likelihoods."""
        self._graph = model.graph
        self._session = new_session(model.graph.file, "cpu", 1)
        found = self.log_probs(np.array([[1, 1], [1, 0]]), np.array([2, 1]))
        if found.shape != (2,) or not (found < 1e-3).all():  # also for NaN
            raise BundleError(
                f"Expected a negative log-likelihood of each text from {model.graph.file}, got {(-found).tolist()}"
            )

    def log_probs(self, tokens: Ints, lengths: Ints) -> Doubles:
        (found,) = run(
            self._session,
            [self._graph.outputs[0].name],
            list(zip(self._graph.inputs, (tokens, lengths), strict=True)),
        )
        return -found.astype(np.float64)
