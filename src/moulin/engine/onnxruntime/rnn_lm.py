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

    A state is `h` and `c` [layers, hidden] before the last token, as float32 within int64, and that token: so the
    network runs once for each token that is appended, for all hypotheses of all rows in one call.
    """

    def __init__(self, model: RnnLm) -> None:
        """Raises EngineError where ONNX Runtime does not run it, BundleError where it gives no log-probabilities."""
        assert model.states is not None
        self._graph, self._states = model.graph, model.states
        self._session = new_session(model.graph.file, "cpu", 1)
        self._outputs = [tensor.name for tensor in model.graph.outputs]
        self.width = model.states.num_layers * model.states.hidden_size + 1
        probabilities = np.exp(self._run(self.start[None])[0].astype(np.float64))
        if probabilities.ndim != 2 or not abs(probabilities.sum() - 1) < 1e-2:  # also for NaN
            raise BundleError(
                f"Expected log-probabilities of the next token from {model.graph.file}, got values of shape "
                f"{list(probabilities.shape)} whose exponentials sum to {probabilities.sum():g}"
            )

    @cached_property
    def start(self) -> Ints:
        """[width]"""
        state = np.zeros(self.width, np.int64)
        state[-1] = self._states.sos_id
        return state

    def advance(self, states: Ints, tokens: Ints) -> tuple[Doubles, Ints]:
        if not len(states):
            return np.zeros(0), states
        log_probs, h, c = self._run(states)
        following = np.empty_like(states)
        floats = np.stack([h, c]).transpose(2, 0, 1, 3).reshape(len(states), -1)
        following[:, :-1] = np.ascontiguousarray(floats, np.float32).view(np.int64)
        following[:, -1] = tokens
        return log_probs[np.arange(len(tokens)), tokens].astype(np.float64), following

    def open(self, states: Ints) -> Doubles:
        return np.zeros(len(states))

    def closed(self, states: Ints) -> Ints:
        return states

    def _run(self, states: Ints) -> tuple[Floats, Floats, Floats]:
        """Log-probabilities [M, vocab_size], and h and c [layers, M, hidden] behind `states` [M, width]."""
        size = len(states), 2, self._states.num_layers, self._states.hidden_size
        h, c = np.ascontiguousarray(states[:, :-1]).view(np.float32).reshape(size).transpose(1, 2, 0, 3)
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
