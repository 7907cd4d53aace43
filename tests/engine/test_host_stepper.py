"""`HostStepper`: steps that fail, streams with NaN, and the widest beam."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from moulin.arrays import Floats, Ints
from moulin.bundle.load import load_bundle
from moulin.decoding.options import MAX_BEAM, METHODS, DecodingOptions, Method
from moulin.engine.host_stepper import HostStepper
from moulin.engine.onnxruntime.stream_runner import OnnxRuntimeStreamRunner
from moulin.engine.stream_recognizer import StreamRecognizer
from moulin.errors import EngineError
from moulin.streaming.options import StreamOptions
from tests.bundles import BUNDLES

SPEC = load_bundle(BUNDLES / "zipformer2-streaming")


class Troubled(OnnxRuntimeStreamRunner):
    """A runner that fails when `fails` is set, and gives NaN for streams in `broken_slots`."""

    fails = False
    broken_slots: tuple[int, ...] = ()

    def encoder(self, x: Floats, slots: Ints) -> Floats:
        if self.fails:
            raise EngineError("out of memory")
        encoder_out = super().encoder(x, slots)
        encoder_out[np.isin(slots, self.broken_slots)] = np.nan
        return encoder_out


def recognizer_of(runner: OnnxRuntimeStreamRunner, **options: Any) -> StreamRecognizer:
    return StreamRecognizer(SPEC, HostStepper(SPEC, runner), **options)


def test_a_step_that_failed_may_be_made_again(noises: list[Floats]) -> None:
    """Nothing of the audio is lost, at the beginning of a stream and later."""
    runner = Troubled(SPEC, threads=1, capacity=2)
    recognizer = recognizer_of(runner)
    plain, troubled = recognizer.open(), recognizer.open()
    for stream in (plain, troubled):
        recognizer.accept(stream, noises[0])
        recognizer.finish(stream)
    recognizer.advance(plain)
    for _ in range(3):
        runner.fails = True
        with pytest.raises(EngineError):
            recognizer.step([troubled])
        runner.fails = False
        recognizer.step([troubled])
    recognizer.advance(troubled)
    assert recognizer.text(troubled) == recognizer.text(plain) != ""


@pytest.mark.parametrize("method", METHODS)
def test_what_is_no_number_is_an_error_of_its_stream(noises: list[Floats], method: Method) -> None:
    runner = Troubled(SPEC, threads=1, capacity=3)
    recognizer = recognizer_of(runner, options=StreamOptions(DecodingOptions(method)))
    streams = [recognizer.open() for _ in range(3)]
    runner.broken_slots = (streams[1].slot,)
    for stream in streams:
        recognizer.accept(stream, noises[0])
    while recognizer.is_ready(streams[0]):
        recognizer.step(streams)
    assert recognizer.text(streams[0]) == recognizer.text(streams[2])
    for asked in (recognizer.text, recognizer.update):
        with pytest.raises(EngineError, match=r"Expected numbers from .* for a stream, got NaN or infinity"):
            asked(streams[1])
    recognizer.close(streams[1])
    runner.broken_slots = ()
    again = recognizer.open()
    assert again.slot == streams[1].slot
    recognizer.accept(again, noises[0])
    recognizer.advance(again)
    assert recognizer.text(again) == recognizer.text(streams[0])


def test_the_widest_beam_beside_greedy_search(noises: list[Floats]) -> None:
    recognizer = recognizer_of(OnnxRuntimeStreamRunner(SPEC, threads=1, capacity=2))
    greedy = recognizer.open()
    wide = recognizer.open(StreamOptions(DecodingOptions("modified_beam_search", beam=MAX_BEAM)))
    for stream in (greedy, wide):
        recognizer.accept(stream, noises[0])
        recognizer.finish(stream)
    while recognizer.is_ready(greedy):
        recognizer.step([greedy, wide])
    assert recognizer.text(greedy)
    assert recognizer.text(wide)
