"""`GpuStepper` against its plain twin, and its refusals."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest
import torch

from moulin.bundle.checkpoint_spec import load_checkpoint_spec
from moulin.bundle.transducer import load_transducer
from moulin.decoding.context_graph import ContextGraph
from moulin.decoding.found import Found
from moulin.decoding.options import DecodingOptions, Method
from moulin.decoding.row_options import RowOptions
from moulin.decoding.search import Continuation
from moulin.engine.gpu.stepper import GpuStepper, check_memory
from moulin.engine.stepper import Stepper
from moulin.errors import EngineError, OptionsError
from moulin.streaming.turns import Turns
from tests.bundles import BUNDLES

from .plain_stepper import PlainStepper

SPEC = replace(load_checkpoint_spec(BUNDLES / "zipformer2-streaming", streaming=True), run_in="fp32")
BEAM: Method = "modified_beam_search"


def stepper(device: torch.device, capacity: int) -> GpuStepper:
    transducer = load_transducer([SPEC.checkpoint])
    return GpuStepper(SPEC, transducer, capacity=capacity, max_batch=capacity, device=str(device), beam=3)


def step(stepper: Stepper, slots: list[int], options: RowOptions, decided: list[int], kept: list[int]) -> Found:
    """Make the next step of streams whose audio is all in the inbox."""
    at = np.array(slots)
    numbers, heard = stepper.inbox.num_taken[at], stepper.inbox.heard(at)
    continuation = Continuation(at, numbers == 0, np.array(decided, np.int32), np.array(kept, np.int32))
    found = stepper.step(Turns(continuation, numbers, heard, options))
    stepper.inbox.take(at)
    return found


def equal(ours: Found, wanted: Found) -> None:
    for field in fields(Found):
        assert getattr(ours, field.name).shape == getattr(wanted, field.name).shape
        assert getattr(ours, field.name).dtype == getattr(wanted, field.name).dtype
    alive = np.isfinite(wanted.scores)
    assert np.array_equal(np.isfinite(ours.scores), alive)
    np.testing.assert_allclose(ours.scores[alive], wanted.scores[alive], atol=2e-2)
    assert np.array_equal(ours.origins[alive], wanted.origins[alive])
    assert np.array_equal(ours.counts[alive], wanted.counts[alive])
    says = (np.arange(ours.tokens.shape[2]) < wanted.counts[..., None]) & alive[..., None]
    assert np.array_equal(ours.tokens[says], wanted.tokens[says])
    assert np.array_equal(ours.frames[says], wanted.frames[says])
    np.testing.assert_allclose(ours.log_probs[says], wanted.log_probs[says], atol=2e-3)


def test_equals_its_definition(device: torch.device) -> None:
    """Greedy search, a beam on the card and one that is too wide for it, alone and together; each search is reduced to
    one hypothesis after the first step."""
    options = RowOptions.of(
        [DecodingOptions(BEAM, 7), DecodingOptions(blank_penalty=1.0), DecodingOptions(BEAM, 3, temperature=1.5)]
    )
    rng = np.random.default_rng(0)
    audio = [rng.normal(0, 0.2, 12_000).astype(np.float32) for _ in range(3)]
    ours, plain = stepper(device, 3), PlainStepper(SPEC, 3)
    for each in (ours, plain):
        for slot, samples in enumerate(audio):
            each.inbox.open(slot)
            each.inbox.accept(slot, samples)
    said = 0
    for slots, decided, kept in (([2, 0, 1], [-1] * 3, [0] * 3), ([1, 2, 0], [0, 1, 2], [1, 1, 1])):
        found, wanted = (step(each, slots, options.take(np.array(slots)), decided, kept) for each in (ours, plain))
        equal(found, wanted)
        assert found.scores.shape == (3, 7)
        said += int(found.counts.sum())
    assert said > 20
    found, wanted = (step(each, [1], options.take(np.array([1])), [-1], [0]) for each in (ours, plain))
    equal(found, wanted)
    assert found.scores.shape == (1, 1)


def test_hotwords_on_the_card_and_too_many_for_it(device: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    """Streams with the server's list, one of its own, and one of its own that is searched on the host."""
    monkeypatch.setattr("moulin.engine.gpu.stepper._MOST_GRAPH_ROWS", 100)
    rng = np.random.default_rng(1)
    server, small, large = (
        ContextGraph.of({tuple(row): 4.0 for row in rng.integers(3, SPEC.vocab_size, (count, 2)).tolist()})
        for count in (40, 30, 200)
    )
    assert len(small) < 100 < len(large)
    options = RowOptions.of([DecodingOptions(BEAM, 3)] * 3, [(server, None), (server, small), (server, large)])
    audio = [rng.normal(0, 0.2, 12_000).astype(np.float32) for _ in range(3)]
    transducer = load_transducer([SPEC.checkpoint])
    ours = GpuStepper(SPEC, transducer, capacity=3, max_batch=3, device=str(device), beam=3, hotwords=server)
    plain = PlainStepper(SPEC, 3)
    assert ours._too_wide(options).tolist() == [2]
    for each in (ours, plain):
        for slot, samples in enumerate(audio):
            each.inbox.open(slot)
            each.inbox.accept(slot, samples)
    for slots, decided, kept in (([2, 0, 1], [-1] * 3, [0] * 3), ([1, 2, 0], [0, -1, 2], [1, 0, 1])):
        found, wanted = (step(each, slots, options.take(np.array(slots)), decided, kept) for each in (ours, plain))
        equal(found, wanted)
        assert (found.scores.max(axis=1) > -5).any(), "with bonuses"


@pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")  # the interpreter's, of NaN
@pytest.mark.filterwarnings("ignore:All-NaN slice encountered:RuntimeWarning")
def test_nan_stays_in_its_stream(device: torch.device) -> None:
    options = RowOptions.of([DecodingOptions(), DecodingOptions(), DecodingOptions(BEAM, 2), DecodingOptions(BEAM, 2)])
    ours = stepper(device, 4)
    for slot in range(4):
        ours.inbox.open(slot)
        ours.inbox.accept(slot, np.full(12_000, 0.1 if slot % 2 else np.nan, np.float32))
    found = step(ours, [0, 1, 2, 3], options, [-1] * 4, [0] * 4)
    assert np.isfinite(found.scores.max(axis=1)).tolist() == [False, True, False, True]


def test_refusals(device: torch.device) -> None:
    transducer = load_transducer([SPEC.checkpoint])
    transducer.encoder.family = "emformer"
    with pytest.raises(EngineError, match="does not know the emformer encoder of streams"):
        GpuStepper(SPEC, transducer, capacity=1, device=str(device))
    with pytest.raises(OptionsError, match="at least 1 of streams"):
        stepper(device, 0)


def test_more_streams_than_memory() -> None:
    check_memory(30_000_000_000, 20_000, 1_100_000, 1024, 5_500_000)
    with pytest.raises(EngineError, match=r"30,000 streams of 1.10 MB and steps of 1,024 .* need 38.6 GB") as refused:
        check_memory(30_000_000_000, 30_000, 1_100_000, 1024, 5_500_000)
    assert refused.value.hint == "--max-streams 22152"
    check_memory(30_000_000_000, 22_152, 1_100_000, 1024, 5_500_000)
    with pytest.raises(EngineError, match="are free") as refused:
        check_memory(3_000_000_000, 1, 1_100_000, 1024, 5_500_000)
    assert refused.value.hint == "a smaller --max-batch, or fewer --instances"
