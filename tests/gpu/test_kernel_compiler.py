"""Kernels are compiled here for a card that is elsewhere, in a process without the interpreter."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from moulin.bundle.checkpoint_spec import load_checkpoint_spec
from moulin.bundle.transducer import transducer_of
from moulin.engine.gpu.kernels import utterance_kernels
from moulin.gpu.kernel_compiler import launching_nothing
from tests.bundles import BUNDLES

ONE_KERNEL = """
import json, threading, torch, triton, triton.language as tl
from moulin.gpu.kernel_compiler import META, compile_kernels

@triton.jit
def add(x, y, out, n, BLOCK: tl.constexpr):
    at = tl.arange(0, BLOCK)
    tl.store(out + at, tl.load(x + at, mask=at < n) + tl.load(y + at, mask=at < n), mask=at < n)

others = []
def run():
    for _ in range(3):
        x = torch.empty(64, device=META)
        add[(1,)](x, x, x, 64, 64)
        add[(1,)](x[1:], x, x, 64, 64)  # at another alignment: another kernel
    def elsewhere():
        try:
            add[(1,)](x, x, x, 64, 64)
        except Exception as error:
            others.append(type(error).__name__)
    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()

count = compile_kernels(run, 90, threads=2)
try:
    triton.runtime.driver.active
    driver = "there"
except RuntimeError:
    driver = "none"
print(json.dumps([count, others, driver]))
"""

WARM = """
import json, sys
from dataclasses import replace
from pathlib import Path
from moulin.models.engine_choice import EngineChoice
from moulin.models.load_for_engine import load_for_engine
from moulin.models.warm_kernels import warm_kernels
spec, _ = load_for_engine(Path(sys.argv[1]), EngineChoice("torch", "cuda"), sys.argv[2])
print(json.dumps(warm_kernels(spec, 90, max_batch=4)))
"""


def run(code: str, cache: Path, *arguments: str) -> object:
    """The JSON that `code` prints as its last line."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TRITON_")}
    environment |= {"XDG_CACHE_HOME": str(cache)}
    file = cache / "run.py"
    file.write_text(code)
    done = subprocess.run(
        [sys.executable, file, *arguments], env=environment, check=True, capture_output=True, text=True
    )
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.skipif("TRITON_INTERPRET" not in os.environ, reason="there is a card")
def test_for_a_card_that_is_not_here(tmp_path: Path) -> None:
    """Each kernel once; launches of other threads are not taken for it, and fail here for want of a card."""
    found = run(ONE_KERNEL, tmp_path)
    assert isinstance(found, list)
    count, others, driver = found
    assert count == 2
    assert driver == "none"
    assert len(others) == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("bundle", "mode"),
    [
        ("conformer-offline", "offline"),
        ("lstm-streaming", "streaming"),
    ],
)
def test_what_is_compiled_is_found_again(bundle: str, mode: str, tmp_path: Path) -> None:
    checkpoint = str(BUNDLES / bundle / "epoch-1.pt")
    count = run(WARM, tmp_path, checkpoint, mode)
    assert isinstance(count, int)
    assert count > 10
    compiled = set(tmp_path.rglob("*.cubin"))
    assert run(WARM, tmp_path, checkpoint, mode) == 0
    (mark,) = tmp_path.rglob("*.complete")
    mark.unlink()
    assert run(WARM, tmp_path, checkpoint, mode) == count
    assert set(tmp_path.rglob("*.cubin")) == compiled


@pytest.mark.parametrize("bundle", ["conformer-offline", "zipformer-offline", "zipformer2-ctc-offline"])
def test_recordings_are_passed_without_a_launch(bundle: str) -> None:
    """Both searches, features of both kinds of samples and the encoder are asked for."""
    spec = replace(load_checkpoint_spec(BUNDLES / bundle, streaming=False), run_in="fp16")
    names: set[str] = set()
    with launching_nothing(lambda kernel, *_: names.add(kernel.__name__)):
        utterance_kernels(spec, transducer_of(spec), max_audio_sec=20.0, tail_padding_sec=0.3).run()
    assert {"_greedy_kernel", "_beam_kernel", "_windowed_kernel", "_filter_kernel"} < names
    assert len(names) > 10
