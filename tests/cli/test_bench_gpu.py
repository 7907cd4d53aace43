"""`moulin bench gpu`: what it refuses. Its parts are tested in tests/evaluate/test_gpu_benchmark.py."""

from __future__ import annotations

import pytest

from tests.cli.command import moulin_here


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--device", "cpu"], "bench gpu measures our GPU engine, which does not run on cpu"),
        (["--device", "tpu"], "tpu"),
        (["--parts", "pipeline,taste"], "There is no part 'taste'"),
        (["--batches", "1,2", "--calls", "3"], "Expected as many --calls as --batches, got '3' and '1,2'"),
        (["--to", "x.pdf"], "Expected a file that ends in"),
    ],
)
def test_what_cannot_be_measured_is_said_first(arguments: list[str], message: str) -> None:
    done = moulin_here("bench", "gpu", *arguments).expect(1)
    assert message in done.err
    assert done.out == ""


def test_help_has_an_example() -> None:
    assert "Example: moulin bench gpu --parts pipeline" in moulin_here("bench", "gpu", "--help").expect(0).out
