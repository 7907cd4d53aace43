"""The components `decoder` and `joiner` in python."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from moulin.engine.onnxruntime.prediction import OnnxRuntimeNetwork
from moulin.engine.together import answer_together
from moulin.errors import MoulinError
from moulin.triton_repo.ensemble.part import Tensors


@dataclass(frozen=True)
class NetworkPart:
    """Runs a network on all rows of all requests in one call."""

    network: OnnxRuntimeNetwork
    inputs: tuple[str, ...]
    output: str

    def answer(self, requests: Sequence[Tensors]) -> list[Tensors | MoulinError]:
        return list(answer_together(requests, self._run, what=f"Computing {self.output}"))

    def close(self) -> None:
        pass

    def _run(self, requests: Sequence[Tensors]) -> list[Tensors]:
        found = self.network(*(np.concatenate([request[name] for request in requests]) for name in self.inputs))
        ends = np.cumsum([len(request[self.inputs[0]]) for request in requests])
        return [{self.output: rows} for rows in np.split(found, ends[:-1])]
