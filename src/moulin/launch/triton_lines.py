"""Lines of tritonserver's output with their level, as one log has them."""

from __future__ import annotations

import logging
import re
from typing import NamedTuple

from moulin.start_progress import PASSING, PREFIX

# The format of tritonserver 2.51 (24.10): `I1129 05:58:07.382189 18048 file.cc:472] "text"`.
_HEAD = re.compile(r"(?P<level>[VIWEF])\d+ +(?:[\d:.]+ +)+(?P<source>[^ \]]+)\] *(?P<text>.*?)\s*$")
_LEVELS = {"V": logging.DEBUG, "I": logging.INFO, "W": logging.WARNING, "E": logging.ERROR, "F": logging.CRITICAL}
_TABLE = re.compile(r"\+[-+]*\+$|\| .* \|$|\s*$")
_SIGNAL = re.compile(r"Signal \(\d+\) received\.$")
# What every start without a GPU says.
_NO_GPU = re.compile(
    r"CudaDriverHelper has not been initialized|Unable to allocate pinned system memory|Failed to initialize NVML"
    r"|DCGM unable to start|Cannot get CUDA device count"
)


class TritonLine(NamedTuple):
    """`level` is one of `logging`; `source` is Triton's file and line, None where it is another's output. `is_ours`
    marks what a model of ours says about its start, `is_passing` what the next such line replaces."""

    level: int
    text: str
    source: str | None = None
    is_ours: bool = False
    is_passing: bool = False


class TritonLines:
    """Reads the output line by line.

    Where no model needs a GPU, Triton's complaints that there is none are no warnings. A line without a level comes
    from a library, or from Python in the process of a model, which writes there what goes wrong: it is a warning.
    """

    def __init__(self, *, needs_gpu: bool) -> None:
        self._needs_gpu = needs_gpu
        self._level = logging.INFO

    def read(self, line: str) -> TritonLine:
        head = _HEAD.match(line)
        if head is None:
            if line.startswith(PREFIX):
                text, is_passing = line.removeprefix(PREFIX), line.endswith(PASSING)
                return TritonLine(logging.INFO, text, is_ours=True, is_passing=is_passing)
            table = _TABLE.match(line)  # below a line whose level it has
            level = self._level if table else logging.INFO if _SIGNAL.match(line) else logging.WARNING
            return TritonLine(self._mild(level, line), line)
        self._level = self._mild(_LEVELS[head["level"]], head["text"])
        return TritonLine(self._level, _unquoted(head["text"]), head["source"])

    def _mild(self, level: int, text: str) -> int:
        return min(level, logging.INFO) if not self._needs_gpu and _NO_GPU.search(text) else level


def message_of(line: str) -> str:
    """What the line says, without its head."""
    head = _HEAD.match(line)
    return line if head is None else _unquoted(head["text"])


def _unquoted(text: str) -> str:
    """Without the quotes that Triton sets, and with its escaped line breaks as such."""
    if len(text) < 2 or not (text.startswith('"') and text.endswith('"')):
        return text
    return text[1:-1].replace("\\n", "\n").replace('\\"', '"')
