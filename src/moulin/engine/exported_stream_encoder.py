"""An exported streaming encoder, by whatever runtime: a `StreamEncoder` but for the runtime's call and the features."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moulin.arrays import Floats, Ints
from moulin.bundle.spec import ExportedSpec
from moulin.decoding.blank_skip import with_blank
from moulin.engine.exported_encoder import Values
from moulin.engine.stepper import StepLimits
from moulin.errors import BundleError
from moulin.streaming.encoder_states import EncoderStates


class ExportedStreamEncoder(ABC):
    """Keeps the states of all streams in main memory."""

    def __init__(self, spec: ExportedSpec, limits: StepLimits) -> None:
        """Raises BundleError for an offline model."""
        if spec.streaming is None:
            raise BundleError(f"Expected a streaming model, got the {spec.mode} {spec.family} in {spec.path}")
        self.limits = limits
        self._specs = spec.streaming.states
        self._states = EncoderStates(self._specs, limits.capacity)
        self._x = spec.encoder.input("x", 0)
        self._inputs = [spec.encoder.input(state.name, -1) for state in self._specs]
        self._with_blank = spec.ctc_output is not None
        self._outputs = [
            spec.out,
            *(state.output for state in self._specs if state.output is not None),
            *([spec.ctc_output] if spec.ctc_output else []),
        ]

    @abstractmethod
    def _infer(self, values: Values) -> list[NDArray[Any]]:
        """The graph's outputs `self._outputs` for `values`. Raises EngineError."""

    def encoder(self, x: Floats, slots: Ints) -> Floats:
        batches = [np.arange(len(slots))] if self._batches else np.arange(len(slots))[:, None]
        results = [self._run(x[rows], slots[rows]) for rows in batches]
        for rows, (_, states) in zip(batches, results, strict=True):  # after all batches have succeeded
            self._states.scatter(slots[rows], states)
        return np.concatenate([encoder_out for encoder_out, _ in results])

    def reset(self, slots: Ints) -> None:
        self._states.reset(slots)

    def _run(self, x: Floats, slots: Ints) -> tuple[Floats, list[NDArray[Any]]]:
        """Returns encoder_out and the next states."""
        states = self._states.gather(slots)
        encoder_out, *returned = self._infer([(self._x, x), *zip(self._inputs, states, strict=True)])
        if self._with_blank:
            encoder_out = with_blank(encoder_out, returned.pop())
        outputs = iter(returned)
        return encoder_out.astype(np.float32, copy=False), [
            next(outputs) if spec.output is not None else state + spec.increment
            for spec, state in zip(self._specs, states, strict=True)
        ]

    @property
    def _batches(self) -> bool:
        """Whether the export has a dynamic batch axis."""
        return not isinstance(self._x.shape[0], int)
