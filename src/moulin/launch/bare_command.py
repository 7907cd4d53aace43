"""The shell command that starts tritonserver on a repository without moulin."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

from moulin.launch.tritonserver import TritonInstallation


def bare_command(installation: TritonInstallation, repository: Path) -> str:
    """The command with the variables that `installation` needs: Python on PATH, libpython on LD_LIBRARY_PATH."""
    kept = {name: f"${name}" for name in ("PATH", "LD_LIBRARY_PATH") if os.environ.get(name)}
    settings = [
        f'{name}="{value}"' for name, value in installation.environment(kept).items() if value != kept.get(name)
    ]
    arguments = [str(installation.binary), f"--model-repository={repository.resolve()}"]
    if installation.backends is not None:
        arguments.append(f"--backend-directory={installation.backends}")
    # Otherwise Triton starts every python model once more, to complete config.pbtxt, which is complete already.
    arguments.append("--disable-auto-complete-config")
    return " ".join([*settings, *map(shlex.quote, arguments)])
