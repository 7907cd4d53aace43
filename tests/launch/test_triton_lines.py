from __future__ import annotations

import logging

import pytest

from moulin.launch.triton_lines import TritonLine, TritonLines

# As tritonserver 2.51 writes them on a machine without a GPU.
NO_GPU = [
    'E1129 05:58:07.379791 18048 server.cc:241] "CudaDriverHelper has not been initialized."',
    'W1129 05:58:07.379531 18048 pinned_memory_manager.cc:273] "Unable to allocate pinned system memory, pinned memory '
    'pool will not be available: CUDA driver version is insufficient for CUDA runtime version"',
    "Error: Failed to initialize NVML",
    'W1129 05:58:11.924525 18048 metrics.cc:798] "DCGM unable to start: DCGM initialization error"',
]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (
            'I1129 05:58:07.380776 18048 model_lifecycle.cc:472] "loading: transducer:1"',
            TritonLine(logging.INFO, "loading: transducer:1", "model_lifecycle.cc:472"),
        ),
        (
            "E1129 05:58:07.380776 1 model_lifecycle.cc:642] \"failed to load 'm' version 1: Internal: x\\n\\nAt:\\n\"",
            TritonLine(logging.ERROR, "failed to load 'm' version 1: Internal: x\n\nAt:\n", "model_lifecycle.cc:642"),
        ),
        ("W1129 05:58:07.380776 1 f.cc:1] plain", TritonLine(logging.WARNING, "plain", "f.cc:1")),
        ("Signal (15) received.", TritonLine(logging.INFO, "Signal (15) received.")),
        ("UserWarning: something in a model", TritonLine(logging.WARNING, "UserWarning: something in a model")),
        ("moulin: asr_0_0: Compiling", TritonLine(logging.INFO, "asr_0_0: Compiling", is_ours=True)),
        ("moulin: a: x ...", TritonLine(logging.INFO, "a: x ...", is_ours=True, is_passing=True)),
        ("", TritonLine(logging.INFO, "")),
    ],
)
def test_levels(line: str, expected: TritonLine) -> None:
    assert TritonLines(needs_gpu=True).read(line) == expected


def test_a_table_has_the_level_of_the_line_above_it() -> None:
    lines = TritonLines(needs_gpu=True)
    table = ["+------+--------+", "| Name | Status |", "+------+--------+"]
    for level, name in [("I", logging.INFO), ("W", logging.WARNING)]:
        lines.read(f"{level}1129 05:58:11.921466 18048 server.cc:674] ")
        assert [lines.read(line).level for line in table] == [name] * 3


def test_that_there_is_no_gpu_is_a_warning_where_one_is_needed() -> None:
    assert all(TritonLines(needs_gpu=True).read(line).level >= logging.WARNING for line in NO_GPU)
    assert all(TritonLines(needs_gpu=False).read(line).level == logging.INFO for line in NO_GPU)
