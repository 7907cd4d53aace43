"""How far a model is while it loads, from its process in Triton to whoever started Triton.

What loads calls `tell`. In Triton's stub, whose standard error is part of tritonserver's output, each call becomes a
line that `progress_of` recognises; elsewhere nobody listens.
"""

from __future__ import annotations

import logging
import sys

_HEAD = "moulin progress: "

_logger = logging.getLogger("moulin.progress")


def tell(text: str) -> None:
    """Say what is being done now, for example "capturing graphs 12 of 40"."""
    _logger.info("%s", text)


def progress_to_stderr(instance: str) -> None:
    """From now on write it to standard error, with the name of the model's instance."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter(f"{_HEAD}{instance.replace('%', '%%')}: %(message)s"))
    _logger.addHandler(handler)
    _logger.setLevel(logging.INFO)
    _logger.propagate = False


def progress_of(line: str) -> str | None:
    """The instance and what it does, in a line of tritonserver's output; None for any other line."""
    return line.removeprefix(_HEAD).strip() if line.startswith(_HEAD) else None
