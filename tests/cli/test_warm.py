"""`moulin warm` as a person runs it, on a machine without a card.

`tests/gpu/test_kernel_compiler.py` has what it compiles."""

from __future__ import annotations

from pathlib import Path

import pytest

from moulin.gpu.kernel_cache import KernelSet
from tests.bundles import BUNDLES

from .command import moulin_here

pytestmark = [pytest.mark.needs("torch"), pytest.mark.needs("triton")]
MODEL = BUNDLES / "zipformer2-streaming"


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> list[tuple[KernelSet, int]]:
    """The sets of kernels that were asked for; they are not compiled, which takes a minute."""
    asked: list[tuple[KernelSet, int]] = []

    def complete(kernels: KernelSet, capability: int) -> int:
        known = (kernels.mark, capability) in [(one.mark, other) for one, other in asked]
        asked.append((kernels, capability))
        return 0 if known else 9

    monkeypatch.setattr("moulin.gpu.kernel_cache.complete_kernels", complete)
    return asked


def sizes(kernels: KernelSet) -> tuple[object, ...]:
    assert isinstance(kernels.sizes, tuple)
    return kernels.sizes


def test_a_checkpoint_for_both(compiled: list[tuple[KernelSet, int]]) -> None:
    """For recordings, and for streams as it was trained for these too; the second time nothing is left to do."""
    command = ["warm", MODEL / "epoch-1.pt", "--compute-capability", "9.0"]
    done = moulin_here(*command).expect(0)
    assert [sizes(kernels)[0] for kernels, _ in compiled] == ["utterances", "streams"]
    assert {capability for _, capability in compiled} == {90}
    first, second = done.out.splitlines()
    assert first.startswith(
        "zipformer2-streaming (zipformer2, offline, fp16): kernels for compute capability 9.0 compiled in "
    )
    assert "(zipformer2, streaming, fp16)" in second
    assert moulin_here(*command).expect(0).out.count("in the cache already") == 2


@pytest.mark.parametrize(
    "other",
    [
        ["--precision", "bf16"],
        ["--streaming", "--max-batch", 64],
        ["--streaming", "--beam", 8],
        ["--offline", "--max-audio-sec", 30],
    ],
)
def test_options_that_change_the_kernels(compiled: list[tuple[KernelSet, int]], other: list[object]) -> None:
    command = ["warm", MODEL / "epoch-1.pt", "--compute-capability", "12.0"]
    moulin_here(*command).expect(0)
    before = {kernels.mark for kernels, _ in compiled}
    moulin_here(*command, *other).expect(0)
    assert compiled[-1][0].mark not in before


def test_onnx_files(compiled: list[tuple[KernelSet, int]], tmp_path: Path) -> None:
    for file in MODEL.iterdir():
        if file.suffix != ".pt":
            (tmp_path / file.name).symlink_to(file)
    moulin_here("warm", tmp_path, "--compute-capability", "9.0").expect(0)
    ((kernels, _),) = compiled
    assert sizes(kernels)[0] == "streams"


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ([], "Expected --compute-capability of the card that will serve, for there is no GPU here"),
        (["--compute-capability", "nine"], "of 7.0 or more, such as 9.0, got 'nine'"),
        (["--compute-capability", "6.1"], "of 7.0 or more, such as 9.0, got '6.1'"),
        (["--compute-capability", "9.0", "--precision", "fp32"], "runs in fp32 as plain modules"),
        (["--compute-capability", "9.0", "--engine", "onnxruntime"], "onnxruntime has none"),
    ],
)
def test_refusals(compiled: list[tuple[KernelSet, int]], options: list[str], error: str) -> None:
    done = moulin_here("warm", MODEL / "epoch-1.pt", *options).expect(1)
    assert error in done.err
    assert "hint: " in done.err
    assert not compiled
