"""Live audio from a microphone, through PortAudio (sounddevice, the extra `mic`)."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from queue import SimpleQueue
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moulin.audio.waveform import SAMPLE_RATE
from moulin.errors import AudioError
from moulin.extras import install_hint

logger = logging.getLogger(__name__)


class Microphone:
    """The system's default input, captured from the moment when the context is entered.

        with Microphone() as microphone:
            for samples in microphone:  # float32 [N], 16 kHz, mono
                ...

    After `stop` the iteration yields the samples captured so far and ends. Entering raises AudioError without a
    microphone or the library for it; iterating raises AudioError where the microphone is lost.
    """

    def __init__(self, chunk_sec: float = 0.1) -> None:
        """`chunk_sec` is the duration of a captured block; a resampled block may differ a little."""
        self._chunk_sec = chunk_sec
        # Filled by PortAudio's thread; None marks the end.
        self._blocks: SimpleQueue[NDArray[np.float32] | None] = SimpleQueue()
        self._stopped = False

    def __enter__(self) -> Microphone:
        sounddevice = _sounddevice()
        self._rate = _usable_rate(sounddevice)
        try:
            self._stream = sounddevice.InputStream(
                samplerate=self._rate,
                blocksize=round(self._chunk_sec * self._rate),
                channels=1,
                dtype="float32",
                callback=self._captured,
                finished_callback=lambda: self._blocks.put(None),
            )
            self._stream.start()
        except sounddevice.PortAudioError as error:
            raise AudioError(f"The microphone cannot be opened: {error}", hint="another program may have it") from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stream.close()

    def __iter__(self) -> Iterator[NDArray[np.float32]]:
        blocks = self._until_stopped()
        return blocks if self._rate == SAMPLE_RATE else _resampled(blocks, self._rate)

    def stop(self) -> None:
        """End the iteration. May be called by a signal handler or another thread."""
        self._stopped = True
        self._blocks.put(None)

    def _captured(self, block: NDArray[np.float32], _frames: int, _time: Any, status: Any) -> None:
        if status:
            logger.warning("The microphone has lost samples: %s", status)
        self._blocks.put(block[:, 0].copy())  # PortAudio reuses its buffer

    def _until_stopped(self) -> Iterator[NDArray[np.float32]]:
        while (block := self._blocks.get()) is not None:
            yield block
        if not self._stopped:
            raise AudioError("The microphone stopped unexpectedly", hint="check that it is still plugged in")


def _sounddevice() -> Any:
    try:
        import sounddevice
    except ModuleNotFoundError as error:
        raise AudioError("The microphone needs sounddevice", hint=install_hint("mic")) from error
    except OSError as error:  # sounddevice's wheel for Linux does not include PortAudio
        raise AudioError(
            "The microphone needs PortAudio", hint="install it, for example with apt install libportaudio2"
        ) from error
    return sounddevice


def _usable_rate(sounddevice: Any) -> int:
    """16 kHz where the device or the sound server offers it; else the device's own rate."""
    try:
        device = sounddevice.query_devices(kind="input")
    except sounddevice.PortAudioError as error:
        raise AudioError(
            "There is no microphone", hint="'python -m sounddevice' lists the devices that PortAudio finds"
        ) from error
    try:
        sounddevice.check_input_settings(channels=1, dtype="float32", samplerate=SAMPLE_RATE)
    except sounddevice.PortAudioError:
        return int(device["default_samplerate"])
    return SAMPLE_RATE


def _resampled(blocks: Iterator[NDArray[np.float32]], rate: int) -> Iterator[NDArray[np.float32]]:
    import soxr

    stream = soxr.ResampleStream(rate, SAMPLE_RATE, 1, dtype="float32", quality="HQ")
    for block in blocks:
        yield stream.resample_chunk(block)
    yield stream.resample_chunk(np.zeros(0, np.float32), last=True)
