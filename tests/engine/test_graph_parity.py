"""The comparison that decides whether a graph in another form may run."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest

from moulin.bundle.load import load_bundle
from moulin.engine.graph_parity import Feeds, largest_difference, relative_difference
from tests.bundles import BUNDLES


@pytest.mark.parametrize(
    "name", ["zipformer2-offline", "zipformer2-streaming", "conformer-streaming", "lstm-streaming"]
)
def test_a_difference_is_found_wherever_it_is(name: str) -> None:
    """In every output, the states among them, and in the last chunk alone."""
    spec = load_bundle(BUNDLES / name)
    session = onnxruntime.InferenceSession(spec.encoder.file, providers=["CPUExecutionProvider"])

    def difference(broken: str | None, call: int) -> float:
        calls = 0

        def other(names: list[str], feeds: Feeds) -> list[np.ndarray]:  # type: ignore[type-arg]
            nonlocal calls
            calls += 1
            found = dict(zip(names, session.run(names, feeds), strict=True))
            if broken is not None and calls == call:
                found[broken] = found[broken] + np.array(1, found[broken].dtype)
            return list(found.values())

        return largest_difference(
            session.run, other, spec.encoder, feature_dim=spec.feature_dim, streaming=spec.streaming, lengths=(203,)
        )

    assert difference(None, 0) == 0
    for tensor in spec.encoder.outputs:
        for call in (1, 2):
            assert difference(tensor.name, call) > 1e-3, (tensor.name, call)


def test_relative_difference() -> None:
    ones = np.ones(3, np.float32)
    assert relative_difference(ones, ones) == 0
    assert relative_difference(ones / 2, ones / 4) == pytest.approx(0.25)
    assert relative_difference(ones * 8, ones * 10) == pytest.approx(0.2)
    for found, wanted in (
        (ones, np.ones(4, np.float32)),
        (np.array([1, 2]), np.array([1, 3])),
        (ones * np.nan, ones),
        (ones * np.inf, ones),
    ):
        assert relative_difference(found, wanted) == float("inf")
