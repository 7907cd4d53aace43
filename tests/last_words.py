"""What a service says when it ends with an error: two lines of text with dates, or one of JSON."""

from __future__ import annotations

import json
import re

_DATE = re.compile(r"^\d{4}-\d\d-\d\dT[\d:]+[+-]\d{4} ")


def last_words(stderr: str) -> tuple[str, str]:
    """The message and the hint, which are all that it says."""
    lines = stderr.splitlines()
    if len(lines) == 1:
        said = json.loads(lines[0])
        return said["message"], said["hint"]
    message, hint = (_DATE.sub("", line) for line in lines)
    assert message.startswith("moulin: ")
    assert hint.startswith("  hint: ")
    return message.removeprefix("moulin: "), hint.removeprefix("  hint: ")
