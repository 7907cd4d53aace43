"""How a recording ends, as its process tells it, in this process."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator

import numpy as np
import pytest

from moulin.arrays import Floats
from moulin.audio.recording import Recording
from moulin.audio.selection import MIX
from moulin.audio.timeline import Skip
from moulin.demo.files import DEMO_MANIFEST
from moulin.errors import AudioError, EngineError, MoulinError
from moulin.isolated_decoding.decode import send_pieces
from moulin.isolated_decoding.messages import Order
from moulin.isolated_decoding.processes import Decoding
from moulin.long_audio.cutter import Piece

ORDER = Order(0, "a.wav", max_utterance_sec=30, max_audio_sec=100)


def heard(blocks: Iterator[Floats | Skip], order: Order = ORDER) -> list[Piece]:
    async def pieces(result: socket.socket) -> list[Piece]:
        return [piece async for piece in Decoding(order, None, result)]  # type: ignore[arg-type]

    mine, theirs = socket.socketpair()
    mine.setblocking(False)
    with mine, theirs:
        send_pieces(order, lambda: [(MIX, Given(blocks))], theirs)
        return asyncio.run(pieces(mine))


class Given:
    """Blocks of a recording without warnings."""

    warnings = ()

    def __init__(self, blocks: Iterator[Floats | Skip]) -> None:
        self._blocks = blocks

    def __iter__(self) -> Iterator[Floats | Skip]:
        return self

    def __next__(self) -> Floats | Skip:
        return next(self._blocks)


def failing(error: BaseException) -> Iterator[Floats | Skip]:
    yield np.zeros(1600, np.float32)
    raise error


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (AudioError("a.wav is noise", hint="record again"), AudioError),
        (EngineError("no ONNX Runtime"), EngineError),
        (MoulinError("another"), MoulinError),
    ],
)
def test_errors_are_the_same_at_the_other_end(error: MoulinError, expected: type[MoulinError]) -> None:
    with pytest.raises(MoulinError) as caught:
        heard(failing(error))
    assert type(caught.value) is expected
    assert str(caught.value) == str(error)


def test_no_memory() -> None:
    with pytest.raises(AudioError, match=r"a\.wav cannot be decoded: it needs more than 1024 MiB of memory"):
        heard(failing(MemoryError()))


def test_a_fault_of_our_own_is_none_of_the_clients(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(RuntimeError, match=r"decoding a\.wav: ZeroDivisionError: of ours"):
        heard(failing(ZeroDivisionError("of ours")))
    assert "Traceback" in caplog.text


@pytest.mark.parametrize("error", [TypeError("no"), KeyError("x"), OSError(5, "Input/output error"), MemoryError()])
def test_a_decoder_that_fails_in_a_way_of_its_own(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    """Not a fault of ours: the file's, as far as anybody can tell, and the message names the exception."""
    import av
    import soundfile

    def read(*_arguments: object, **_options: object) -> object:
        raise error

    monkeypatch.setattr(soundfile.SoundFile, "read", read)
    monkeypatch.setattr(av, "open", read)
    with pytest.raises(AudioError, match=type(error).__name__):
        heard(Recording(next(DEMO_MANIFEST.parent.glob("*.flac"))))
