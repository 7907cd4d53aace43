"""tritonserver's output, and the line in it that explains a failure."""

from __future__ import annotations

import re
from collections import deque

from moulin.launch.triton_lines import message_of

_LOADING = re.compile(r"loading: (?P<model>.+):\d+$")
_UNLOADING = "All models are stopped, unloading models"
_LOADED = re.compile(r"successfully loaded '(?P<model>[^']+)'")
# Ordered from the most specific: a stub without libpython is also "not healthy" and "failed to load".
_REASONS = (
    re.compile(r"(?P<reason>[^/ ]+: error while loading shared libraries: .+)"),
    re.compile(r"failed to load '(?P<model>[^']+)' version \d+: (?P<reason>.+)", re.DOTALL),
    re.compile(r"Error parsing text-format (?P<reason>.+)"),
    re.compile(r"Poll failed for model directory '(?P<model>[^']+)': (?P<reason>.+)"),
    re.compile(r"(?P<reason>failed to start \w+ service: .+)"),
    re.compile(r"(?P<reason>unrecognized option .+)"),
    re.compile(r"^error: (?P<reason>.+)"),
)
_CRASH = re.compile(r"Signal \(\d+\) received\.|\d+# ")
_STATUS = re.compile(r"^(Internal|Invalid argument|Not found|Unavailable|Unknown|Unsupported|Already exists): ")


class ServerLog:
    """Parses the output line by line; keeps its tail, the models still loading, and the best reason so far."""

    def __init__(self, tail_lines: int = 200) -> None:
        self._tail: deque[str] = deque(maxlen=tail_lines)
        self._loading: dict[str, None] = {}
        self._unloading = False
        self._reason: str | None = None
        self._rank = len(_REASONS)

    def feed(self, line: str) -> None:
        self._tail.append(line)
        text = message_of(line)
        if match := _LOADING.search(text):
            self._loading[match["model"]] = None
        elif match := _LOADED.search(text):
            self._loading.pop(match["model"], None)
        elif text == _UNLOADING:
            self._unloading = True
        # Only a more specific reason replaces another; the first of a kind is the cause, later ones its consequences.
        for rank, pattern in enumerate(_REASONS[: self._rank]):
            if match := pattern.search(text):
                self._rank, self._reason = rank, _one_line(match.groupdict())
                return

    @property
    def tail(self) -> list[str]:
        """The last lines, without their line ends."""
        return list(self._tail)

    @property
    def last_words(self) -> str | None:
        """The last line that says something: what a crash is about, not the frames that tritonserver prints of it."""
        said = (line.strip() for line in reversed(self._tail))
        return next((line for line in said if line and not _CRASH.match(line)), None)

    @property
    def loading(self) -> list[str]:
        """Models that have begun to load and are not loaded yet, in the order of beginning."""
        return list(self._loading)

    @property
    def unloading(self) -> bool:
        """Whether the server is exiting and has no request left: it unloads its models."""
        return self._unloading

    @property
    def reason(self) -> str | None:
        """The reason for the server's failure in one line; None without an error in the output."""
        return self._reason


def _one_line(found: dict[str, str | None]) -> str:
    # The python backend appends its stack after "At:"; the exception precedes it.
    text = (found["reason"] or "").split("\n\nAt:")[0]
    text = _STATUS.sub("", " ".join(text.split()))
    model = found.get("model")
    return f"model '{model}': {text}" if model else text
