from __future__ import annotations

import pytest

from moulin.launch.log import ServerLog

PREFIX = "E1122 17:43:57.992974 4125 model_lifecycle.cc:642] "


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        ([], None),
        (['I1122 17:43:07.8 3677 server.cc:604] "Waiting for in-flight requests to complete."'], None),
        (
            [
                PREFIX + r'"failed to load '
                r"'bad' version 1: Internal: ValueError: Expected \"a\",\ngot b\n\nAt:\n  /m/model.py(3): initialize\n"
                '"',
                "error: creating server: Internal - failed to load all models",
            ],
            "model 'bad': ValueError: Expected \"a\", got b",
        ),
        (
            ["E0101 1 x.cc:1] failed to load 'old' version 1: Internal: KeyError: 'x'"],  # before 24.02
            "model 'old': KeyError: 'x'",
        ),
        (
            [
                "/c/triton_python_backend_stub: error while loading shared libraries: libpython3.11.so.1.0: "
                "cannot open shared object file: No such file or directory",
                PREFIX + "\"failed to load 'a' version 1: Internal: Stub process 'a_0_0' is not healthy.\"",
            ],
            "triton_python_backend_stub: error while loading shared libraries: libpython3.11.so.1.0: "
            "cannot open shared object file: No such file or directory",
        ),
        (
            ['E1122 4292 main.cc:245] "failed to start GRPC service: Unavailable - Socket in use "'],
            "failed to start GRPC service: Unavailable - Socket in use",
        ),
        (
            ["error: creating server: Internal - failed to stat file /x"],
            "creating server: Internal - failed to stat file /x",
        ),
        (["/p/tritonserver: unrecognized option '--x'", "Usage: tritonserver [options]"], "unrecognized option '--x'"),
        (
            [
                PREFIX + "\"failed to load 'first' version 1: Internal: cause\"",
                PREFIX + "\"failed to load 'second' version 1: Invalid argument: consequence\"",
            ],
            "model 'first': cause",
        ),
    ],
)
def test_reason(lines: list[str], reason: str | None) -> None:
    log = ServerLog()
    for line in lines:
        log.feed(line)
    assert log.reason == reason


def test_loading_and_tail() -> None:
    log = ServerLog(tail_lines=2)
    for line in (
        'I1 1 m.cc:472] "loading: encoder:1"',
        'I1 1 m.cc:472] "loading: transducer:1"',
        "I1 1 m.cc:839] \"successfully loaded 'encoder'\"",
    ):
        log.feed(line)
    assert log.loading == ["transducer"]
    assert len(log.tail) == 2
