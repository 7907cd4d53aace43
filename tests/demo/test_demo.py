"""`make demo`: the whole service on real speech, and the figure that the documentation quotes."""

from __future__ import annotations

import itertools
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from moulin.bundle.load import load_bundle
from moulin.demo.files import DEMO_MODEL, DEMO_STREAMING_MODEL
from moulin.evaluate.manifest import demo_clips
from tests.cli.command import Serving


def test_the_files_are_there() -> None:
    clips = list(demo_clips())
    assert len(clips) == 14
    assert all(clip.audio.is_file() and len(clip.text.split()) == 10 for clip in clips)
    assert load_bundle(DEMO_MODEL, expect="offline").family == "zipformer2"
    assert load_bundle(DEMO_STREAMING_MODEL, expect="streaming").family == "zipformer2"


@pytest.mark.triton
def test_the_demonstration(tmp_path: Path) -> None:
    demo = Serving.start([sys.executable, "-m", "moulin.demo"], tmp_path)
    try:
        assert demo.process.wait(600) == 0, demo.err
        assert demo.err == ""
        lines = demo.out.splitlines()
        assert lines[0] == "Starting Triton with digits-en and digits-en-streaming (zipformer2) ..."
        assert lines[1].startswith("Ready on 127.0.0.1:")
        for name in ("  heard  ", "  said   "):
            assert len([line for line in lines if line.startswith(name)]) == 14
        assert len([line for line in lines if "   WER " in line]) == 14
        offline = next(n for n, line in enumerate(lines) if line.startswith("14 recordings, 107.7 s of speech in "))
        assert lines[offline + 1] == "WER 6.43% (9 errors in 140 words; OH counts as ZERO)"
        partials = [line.split("s  ")[1] for line in lines if line.startswith("  after ")]
        assert len(partials) > 5
        assert all(after.startswith(before) for before, after in itertools.pairwise(partials))
        assert lines[-2].startswith("14 streams at once, 107.7 s of speech in ")
        # 18 errors alone; a batch's sums may round differently, which decides where two digits are all but equal.
        errors = re.fullmatch(r"WER \d+\.\d\d% \((\d+) errors in 140 words; OH counts as ZERO\)", lines[-1])
        assert errors is not None
        assert 17 <= int(errors[1]) <= 19
        assert demo.find_family() == set()
        demo.assert_nothing_left(demo.process.pid)
    finally:
        demo.kill()


def test_a_demonstration_that_cannot_start_says_why(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "moulin.demo"]
    environ = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "file" / "x")}
    (tmp_path / "file").touch()
    done = subprocess.run(command, capture_output=True, text=True, env=environ, check=False)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("moulin demo: ")
    assert "Traceback" not in done.stderr
