"""The folder for temporary files, which the gateway keeps uploads in."""

from __future__ import annotations

import tempfile

from moulin.errors import LaunchError


def expect_temporary_folder() -> None:
    """Raises LaunchError where no folder for temporary files can be written."""
    try:
        with tempfile.TemporaryFile():
            pass
    except OSError as error:
        raise LaunchError(
            f"Expected a folder for temporary files that can be written, for uploads, got: {error.strerror}",
            hint="set TMPDIR to one; a container with a read-only root needs a volume or a tmpfs at /tmp",
        ) from error
