from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable

import numpy as np
import onnxruntime
import pytest

from moulin.bundle.load import load_bundle
from moulin.bundle.spec import OnnxModelSpec
from moulin.errors import OptionsError
from moulin.tensorrt_engine.build import prepare
from moulin.tensorrt_engine.profiles import Profile, Range, profiles
from tests.bundles import BUNDLES, OFFLINE, STREAMING


def runs(spec: OnnxModelSpec, shapes: dict[str, tuple[int, ...]]) -> bool:
    """Whether ONNX Runtime takes these shapes, and no input is missing."""
    session = onnxruntime.InferenceSession(spec.encoder.file)
    inputs = {}
    for tensor in session.get_inputs():
        shape = shapes[tensor.name]
        whole = "int" in tensor.type
        inputs[tensor.name] = (
            np.full(shape, shapes["x"][1] if tensor.name == "x_lens" else 0) if whole else np.zeros(shape, np.float32)
        )
    assert shapes.keys() == inputs.keys()
    return bool(np.isfinite(session.run(None, inputs)[0]).all())


def corners(found: Iterable[Profile]) -> list[dict[str, tuple[int, ...]]]:
    return [
        {name: getattr(shapes, corner) for name, shapes in profile.items()}
        for profile in found
        for corner in ("least", "best", "largest")
    ]


@pytest.mark.parametrize("bundle", OFFLINE)
def test_whole_utterances_of_any_length_that_the_model_takes(bundle: str) -> None:
    spec = load_bundle(BUNDLES / bundle)
    found = profiles(spec, max_batch=2, min_frames=9)
    lengths = [(profile["x"].least[1], profile["x"].largest[1]) for profile in found]
    assert lengths[0][0] == 9
    assert lengths[-1][1] == min(spec.max_frames or 12_030, 12_030)  # as long as the service takes
    # Nothing between two profiles.
    assert all(before[1] == after[0] for before, after in itertools.pairwise(lengths))
    assert all(runs(spec, shapes) for shapes in corners(found[:1]))
    for profile in found:
        for shapes in profile.values():
            ordered = zip(shapes.least, shapes.best, shapes.largest, strict=True)
            assert all(least <= best <= largest for least, best, largest in ordered)


@pytest.mark.parametrize("bundle", STREAMING)
def test_streams(bundle: str) -> None:
    """Windows, and all states as one row."""
    spec = load_bundle(BUNDLES / bundle)
    prepared = prepare(spec, precision="fp32", max_batch=3)
    (profile,) = prepared.profiles
    session = onnxruntime.InferenceSession(prepared.model.SerializeToString())
    assert [tensor.name for tensor in session.get_inputs()] == list(profile) == ["x", "states"]
    for shapes in corners([profile]):
        out, states = session.run(None, {name: np.zeros(shape, np.float32) for name, shape in shapes.items()})
        assert np.isfinite(out).all()
        assert states.shape == shapes["states"]


def test_limits_of_the_user_and_of_the_service() -> None:
    spec = load_bundle(BUNDLES / "conformer-offline")
    unlimited = dataclasses.replace(spec, encoder=dataclasses.replace(spec.encoder, max_positions=None))
    (short,) = profiles(unlimited, max_batch=8, min_frames=9, max_seconds=10)
    assert short["x"] == Range((1, 9, 80), (8, 519, 80), (8, 1030, 80))
    assert short["x_lens"] == Range((1,), (8,), (8,))
    every = profiles(unlimited, max_batch=8, min_frames=121)
    # 120 s, which the service allows, and the silence behind them.
    assert [profile["x"].largest[1] for profile in every] == [1600, 6400, 12030]
    hour = profiles(unlimited, max_batch=1, min_frames=9, max_seconds=3600)
    assert hour[-1]["x"].largest == (1, 360_030, 80)


def test_what_cannot_be() -> None:
    spec = load_bundle(BUNDLES / "zipformer2-offline")
    assert profiles(spec, max_batch=1, min_frames=9, max_seconds=60)[-1]["x"].largest[1] == spec.max_frames
    for seconds in (0, -1, float("nan")):
        with pytest.raises(OptionsError, match="max-seconds above 0"):
            profiles(spec, max_batch=1, min_frames=9, max_seconds=seconds)
    with pytest.raises(OptionsError, match=r"at least 1\.21, the shortest input of this encoder, got 0\.5"):
        profiles(spec, max_batch=1, min_frames=121, max_seconds=0.5)
    with pytest.raises(OptionsError, match="max-batch of at least 1, got 0"):
        profiles(spec, max_batch=0, min_frames=9)
    x, x_lens = spec.encoder.inputs
    one = dataclasses.replace(x, shape=(1, *x.shape[1:]))
    fixed = dataclasses.replace(spec, encoder=dataclasses.replace(spec.encoder, inputs=(one, x_lens)))
    with pytest.raises(OptionsError, match=r"Expected max-batch of 1, for which .* was exported, got 8"):
        profiles(fixed, max_batch=8, min_frames=9)
