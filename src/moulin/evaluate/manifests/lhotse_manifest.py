"""Lhotse's manifests, read by Lhotse itself: cuts of all kinds, or recordings and their supervisions."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from moulin.audio.decode import resample
from moulin.audio.waveform import SAMPLE_RATE, check_waveform
from moulin.errors import AudioError, EngineError, OptionsError, first_line
from moulin.evaluate.utterance import Utterance
from moulin.extras import install_hint
from moulin.manifests.lhotse_entry import first_entry

if TYPE_CHECKING:
    from lhotse import CutSet


def read_lhotse(file: Path, supervisions: Path | None = None) -> list[Utterance]:
    """An utterance for each cut with a recording, with the texts of its supervisions in their order.

    Recordings are cut into their supervisions (by default of the file that is called `…supervisions…` instead of
    `…recordings…`). Raises OptionsError, EngineError where Lhotse is not installed.
    """
    try:
        from lhotse import CutSet, RecordingSet, SupervisionSet
    except ModuleNotFoundError as error:
        raise EngineError(
            f"{file} is a manifest of Lhotse's, which is not installed", hint=install_hint("lhotse")
        ) from error
    try:
        if "sources" not in first_entry(file):
            cuts: CutSet = CutSet.from_file(file)
        else:
            beside = supervisions or file.with_name(file.name.replace("recordings", "supervisions"))
            if beside == file or not beside.is_file():
                raise OptionsError(
                    f"{file} holds recordings, and there are no supervisions in {beside}",
                    hint="name the file with the texts (--text)",
                )
            cuts = CutSet.from_manifests(RecordingSet.from_file(file), SupervisionSet.from_file(beside))
            cuts = cuts.trim_to_supervisions(keep_overlapping=False)
        return [_utterance(file, cut) for cut in cuts]
    except (AssertionError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise OptionsError(f"Lhotse cannot read {file}: {first_line(error)}") from error


def _utterance(file: Path, cut: Any) -> Utterance:
    if not cut.has_recording:
        raise OptionsError(
            f"The cut {cut.id!r} of {file} has features but no recording", hint="moulin computes its own features"
        )
    said = " ".join(s.text for s in sorted(cut.supervisions, key=lambda s: s.start) if s.text)
    sources: list[Any] = cut.recording.sources if hasattr(cut, "recording") else []
    audio = Path(str(sources[0].source)) if len(sources) == 1 and sources[0].type == "file" else Path(cut.id)
    return Utterance(audio, said, cut.id, load=_loader(file, cut, audio))


def _loader(file: Path, cut: Any, audio: Path) -> Callable[[], NDArray[np.float32]]:
    # Lhotse's paths are relative to where it was run; beside the manifest is tried, too.
    if not audio.is_file() and (file.parent / audio).is_file():
        cut = cut.with_recording_path_prefix(file.parent)

    def load() -> NDArray[np.float32]:
        try:
            samples = np.asarray(cut.load_audio(), dtype=np.float32).mean(axis=0)
        except Exception as error:  # whatever of Lhotse's backends
            raise AudioError(f"Lhotse cannot read the audio of {cut.id}: {first_line(error)}") from error
        # Lhotse would want scipy or torchaudio for it.
        return check_waveform(resample(samples, cut.sampling_rate, SAMPLE_RATE), what=cut.id)

    return load
