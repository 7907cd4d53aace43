"""An end to work without sound: a small file can keep a decoder busy for long and give nothing."""

from __future__ import annotations

import io
import time

from moulin.audio.decoded import CannotDecodeError
from moulin.audio.part import BinaryFile

WITHOUT_SOUND_SEC = 4.0


class Patience:
    """The CPU time that a thread may work on a recording until its next sound."""

    def __init__(self) -> None:
        self.renew()

    def renew(self) -> None:
        """Begin anew with the next read: sound has come, or another thread goes on."""
        self._since: float | None = None
        self.ended: CannotDecodeError | None = None
        """Why the recording may not be read any more, once that was tried."""

    def is_over(self) -> bool:
        """To be asked by the thread that works."""
        now = time.thread_time()
        if self._since is None:
            self._since = now
        return now - self._since > WITHOUT_SOUND_SEC


class PatientFile(io.RawIOBase):
    """A view of `file` that ends when `patience` is over: all work reads now and then.

    The first read behind that raises CannotDecodeError, the next ones give nothing, since FFmpeg may ignore an error.
    Not for libsndfile, which reads from C, where an exception is printed instead of raised.
    """

    def __init__(self, file: BinaryFile, patience: Patience) -> None:
        self._file, self._patience = file, patience
        self.name = str(getattr(file, "name", "<none>"))
        """As PyAV asks for it: FFmpeg guesses a few formats by the suffix."""

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._file.tell()

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        return self._file.seek(offset, whence)

    def read(self, size: int = -1, /) -> bytes:
        patience = self._patience
        if patience.ended is None and patience.is_over():
            patience.ended = CannotDecodeError(f"{WITHOUT_SOUND_SEC:g} s of work have given no sound")
            raise patience.ended
        return b"" if patience.ended else self._file.read(size) or b""
