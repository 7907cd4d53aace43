"""The microphone, on a stand-in for sounddevice."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from moulin.arrays import Floats
from moulin.audio.decode import resample
from moulin.audio.microphone import Microphone
from moulin.errors import AudioError


class PortAudioError(Exception):
    """sounddevice's."""


class FakeSounddevice:
    """One input device, which captures what a test speaks."""

    PortAudioError = PortAudioError

    def __init__(self, rate: float = 44100.0, *, takes: set[int] | None = None) -> None:
        self.rate, self.takes = rate, takes or {16000, int(rate)}
        self.lost: str | None = None
        self.closed = False

    def query_devices(self, *, kind: str) -> dict[str, float]:
        assert kind == "input"
        if self.lost == "from the start":
            raise PortAudioError("Error querying device -1")
        return {"default_samplerate": self.rate}

    def check_input_settings(self, *, channels: int, dtype: str, samplerate: int) -> None:
        assert (channels, dtype) == (1, "float32")
        if samplerate not in self.takes:
            raise PortAudioError("Invalid sample rate [PaErrorCode -9997]")

    def InputStream(self, **settings: Any) -> SimpleNamespace:
        if self.lost == "to another program":
            raise PortAudioError("Device unavailable [PaErrorCode -9985]")
        self.settings = SimpleNamespace(**settings)
        return SimpleNamespace(start=lambda: None, close=self.close)

    def close(self) -> None:
        self.closed = True
        self.settings.finished_callback()

    def speak(self, samples: Floats, status: str = "") -> None:
        """As PortAudio's thread: in one buffer, which is overwritten every time."""
        size = self.settings.blocksize
        buffer = np.empty((size, 1), np.float32)
        for begin in range(0, len(samples), size):
            buffer[:, 0] = samples[begin : begin + size]
            self.settings.callback(buffer, size, None, status)


@pytest.fixture
def pretend(monkeypatch: pytest.MonkeyPatch) -> Callable[[object], None]:
    return lambda module: monkeypatch.setitem(sys.modules, "sounddevice", module)


def _speech(samples: int) -> Floats:
    return np.linspace(-1, 1, samples, dtype=np.float32)


def test_what_is_spoken_arrives(pretend: Callable[[object], None]) -> None:
    pretend(device := FakeSounddevice())
    speech = _speech(16000)
    with Microphone(chunk_sec=0.05) as microphone:
        device.speak(speech)
        microphone.stop()
        blocks = list(microphone)
    assert (device.settings.samplerate, device.settings.channels, device.settings.dtype) == (16000, 1, "float32")
    assert [len(block) for block in blocks] == [800] * 20
    assert np.array_equal(np.concatenate(blocks), speech)
    assert device.closed


def test_a_device_of_another_rate(pretend: Callable[[object], None]) -> None:
    pretend(device := FakeSounddevice(44100.0, takes={44100}))
    speech = _speech(44100)
    with Microphone() as microphone:
        device.speak(speech)
        microphone.stop()
        heard = np.concatenate(list(microphone))
    assert (device.settings.samplerate, device.settings.blocksize) == (44100, 4410)
    assert heard.dtype == np.float32
    np.testing.assert_allclose(heard, resample(speech, 44100, 16000), atol=1e-4)


def test_waiting_for_somebody_to_speak(pretend: Callable[[object], None]) -> None:
    pretend(device := FakeSounddevice())
    with Microphone() as microphone:
        speaker, stopper = threading.Timer(0.05, device.speak, [_speech(1600)]), threading.Timer(0.1, microphone.stop)
        speaker.start()
        stopper.start()
        assert [len(block) for block in microphone] == [1600]


def test_lost_samples_are_logged(pretend: Callable[[object], None], caplog: pytest.LogCaptureFixture) -> None:
    pretend(device := FakeSounddevice())
    with Microphone() as microphone:
        device.speak(_speech(1600), status="input overflow")
        microphone.stop()
        assert len(list(microphone)) == 1
    assert "input overflow" in caplog.text


def test_a_device_that_is_pulled_out(pretend: Callable[[object], None]) -> None:
    pretend(device := FakeSounddevice())
    with Microphone() as microphone:
        device.speak(_speech(1600))
        device.settings.finished_callback()
        blocks = iter(microphone)
        assert len(next(blocks)) == 1600
        with pytest.raises(AudioError, match="stopped unexpectedly"):
            next(blocks)


@pytest.mark.parametrize(
    ("lost", "message", "hint"),
    [
        ("from the start", "There is no microphone", "python -m sounddevice"),
        ("to another program", "cannot be opened: Device unavailable", "another program"),
    ],
)
def test_no_device(pretend: Callable[[object], None], lost: str, message: str, hint: str) -> None:
    pretend(device := FakeSounddevice())
    device.lost = lost
    with pytest.raises(AudioError, match=message) as caught, Microphone():
        pass
    assert hint in str(caught.value.hint)


def test_no_library(pretend: Callable[[object], None]) -> None:
    pretend(None)  # as if it were not installed
    with pytest.raises(AudioError, match="needs sounddevice") as caught, Microphone():
        pass
    assert caught.value.hint == "pip install '.[mic]' in moulin's folder"


def test_no_portaudio(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    (tmp_path / "sounddevice.py").write_text("raise OSError('PortAudio library not found')")
    monkeypatch.delitem(sys.modules, "sounddevice", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(AudioError, match="needs PortAudio") as caught, Microphone():
        pass
    assert "libportaudio2" in str(caught.value.hint)
