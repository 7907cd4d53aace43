"""Checkpoints that are open in this process for recordings and for streams."""

from __future__ import annotations

import gc
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from moulin.bundle.load_model import load_model
from moulin.engine.host_pipeline import HostPipeline
from moulin.engine.host_stepper import HostStepper
from moulin.models import shared_model as shared
from moulin.models.open_recognizer import open_recognizer
from moulin.models.open_stream_recognizer import open_stream_recognizer
from moulin.models.shared_model import shared_model
from tests.bundles import BUNDLES
from tests.conftest import Recording

pytestmark = pytest.mark.needs("torch")
CHECKPOINT = BUNDLES / "zipformer2-streaming" / "epoch-1.pt"


def test_recordings_and_streams_share_the_parameters_and_hear_what_they_hear_alone(
    recordings: list[Recording],
) -> None:
    speech = recordings[0].waveform[:64_000]
    with open_recognizer(CHECKPOINT) as alone:
        expected = alone.transcribe([speech])
    with open_recognizer(CHECKPOINT) as offline, open_stream_recognizer(CHECKPOINT, max_streams=1) as live:
        assert isinstance(offline.pipeline, HostPipeline)
        assert isinstance(live.stepper, HostStepper)
        ours = offline.pipeline.runner._encoder, live.stepper.runner._encoder  # type: ignore[attr-defined]
        assert ours[0] is ours[1]
        stream = live.open()
        live.accept(stream, speech)
        live.finish(stream)
        with ThreadPoolExecutor(1) as other:
            whole = other.submit(offline.transcribe, [speech])
            live.advance(stream)
        assert whole.result() == expected
        assert live.text(stream)


def test_it_is_loaded_again_when_it_has_changed_and_dropped_when_nobody_uses_it(tmp_path: Path) -> None:
    file = Path(shutil.copy(CHECKPOINT, tmp_path / "epoch-1.pt"))
    shutil.copy(CHECKPOINT.parent / "tokens.txt", tmp_path)
    spec, by_another_path = load_model(file), load_model(tmp_path / "." / "epoch-1.pt")
    first = shared_model(spec, "cpu")
    assert shared_model(by_another_path, "cpu") is first
    assert shared_model(spec, "cuda") is not first
    file.touch()
    again = shared_model(spec, "cpu")
    assert again is not first
    del first, again
    gc.collect()
    assert not [key for key in shared._open if key[0] == file.resolve()]
