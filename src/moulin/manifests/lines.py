"""The lines of a manifest, packed with gzip or not."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path

from moulin.errors import OptionsError

_UTF_8 = "utf-8-sig"  # with the mark that programs of Windows put first, or without


def read_lines(file: Path) -> Iterator[tuple[int, str]]:
    """(number, line) of those that are not blank, without their ends. Raises OptionsError."""
    try:
        with gzip.open(file, "rt", encoding=_UTF_8) if file.suffix == ".gz" else file.open(encoding=_UTF_8) as lines:
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    yield number, line.strip()
    except UnicodeDecodeError:
        raise OptionsError(
            f"{file} is not text in UTF-8", hint="a manifest is text; see --help for its forms"
        ) from None
    except (OSError, EOFError, zlib.error) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or error
        raise OptionsError(f"{file} cannot be read: {reason}") from error
