"""Where audio comes from, as a binary file that can be read at any position."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import BinaryIO

from moulin.audio.decoded import described
from moulin.errors import AudioError

_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/+(.*)", re.DOTALL)  # a path has one slash where an address has two

Source = str | Path | bytes | BinaryIO
"""A path, a file's content, or an open binary file, which is read from its position to its end and not closed."""


class _InMemory(io.BytesIO):
    """An in-memory file that ignores a seek to before its beginning, which libsndfile does for broken headers:
    libsndfile calls from C, where an exception is printed instead of raised."""

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        try:
            return super().seek(offset, whence)
        except ValueError:
            return self.tell()


def open_source(source: Source) -> tuple[str, io.FileIO | io.BytesIO]:
    """The audio's name for error messages, and a seekable binary file of it. Raises AudioError."""
    if isinstance(source, bytes | bytearray | memoryview):
        return "audio data", _InMemory(source)
    if not isinstance(source, str | Path):
        try:
            content = source.read()
        except Exception as error:
            raise AudioError(f"{getattr(source, 'name', 'audio data')} cannot be read: {described(error)}") from error
        if not isinstance(content, bytes):
            raise AudioError(f"expected a file opened in binary mode, got {type(content).__name__} from {source!r}")
        return str(getattr(source, "name", "audio data")), _InMemory(content)
    path = Path(source)
    try:
        file = path.open("rb", buffering=0)
        if file.seekable():
            return str(path), file
        with file:  # a pipe, such as bash's <(...)
            return str(path), _InMemory(file.read())
    except FileNotFoundError as error:
        if address := _ADDRESS.match(str(path)):
            hint = "addresses are not read: download it first, or pipe it in: curl -s ADDRESS | moulin transcribe -"
            slashes = "///" if address[1] == "file" else "//"
            message = f"{address[1]}:{slashes}{address[2]} is an address, expected an audio file"
            raise AudioError(message, hint=hint) from error
        raise AudioError(f"{path} does not exist, expected an audio file") from error
    except IsADirectoryError as error:
        raise AudioError(f"{path} is a directory, expected an audio file") from error
    except (OSError, ValueError) as error:  # ValueError: a NUL character in the path
        raise AudioError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from error
