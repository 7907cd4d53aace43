"""Lines of progress, from the process that writes them to the one that reads tritonserver's output."""

from __future__ import annotations

import subprocess
import sys

from moulin.start_progress import progress_of

WRITER = """
from moulin.start_progress import progress_to_stderr, tell
tell("unheard")
progress_to_stderr("100%s_0_0")
tell("capturing graphs 12 of 40")
"""


def test_a_line_that_is_recognised() -> None:
    done = subprocess.run([sys.executable, "-c", WRITER], capture_output=True, text=True, check=True)
    (line,) = done.stderr.splitlines()
    assert progress_of(line) == "100%s_0_0: capturing graphs 12 of 40"


def test_other_lines_are_none() -> None:
    assert progress_of('I1129 05:58:07.380776 18048 model_lifecycle.cc:472] "loading: transducer:1"') is None
