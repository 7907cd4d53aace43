"""The library of operators: compiled once, and never in the way of a model where it cannot be had."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from moulin.bundle.load import load_bundle
from moulin.engine.onnxruntime import operators
from moulin.engine.onnxruntime.operators import compiled_operators, operators_library
from moulin.engine.onnxruntime.runner import OnnxRuntimeRunner
from moulin.engine.onnxruntime.session import rewritten_encoder
from moulin.engine.onnxruntime.stream_runner import OnnxRuntimeStreamRunner
from moulin.errors import EngineError, LaunchError
from moulin.processor import c_compiler, this_processor
from tests.bundles import BUNDLES


@pytest.fixture
def fresh() -> Iterator[None]:
    operators_library.cache_clear()
    yield
    operators_library.cache_clear()


@pytest.mark.skipif(c_compiler() is None, reason="no C compiler")
def test_compiled_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library = compiled_operators(tmp_path / "operators")
    assert list(library.parent.iterdir()) == [library]
    monkeypatch.setenv("PATH", "")
    assert compiled_operators(tmp_path / "operators") == library
    with pytest.raises(EngineError, match="no C compiler"):
        compiled_operators(tmp_path / "other")


@pytest.mark.skipif(c_compiler() is None, reason="no C compiler")
def test_another_processor_gets_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library = compiled_operators(tmp_path)
    another = this_processor(tmp_path / "cpuinfo")
    monkeypatch.setattr(operators, "this_processor", lambda: another)
    assert compiled_operators(tmp_path) != library


@pytest.mark.skipif(c_compiler() is None, reason="no C compiler")
def test_a_library_cut_short_is_compiled_again(tmp_path: Path) -> None:
    """Loaded it would end the process."""
    library = compiled_operators(tmp_path)
    whole = library.stat().st_size
    library.unlink()
    library.write_bytes(bytes(whole // 2))
    compiled_operators(tmp_path)
    assert library.stat().st_size == whole


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("echo 'no such header' >&2; exit 1", "cc failed: no such header"),
        (r"printf 'kaputt \377\n' >&2; exit 1", "cc failed: kaputt \N{REPLACEMENT CHARACTER}"),
        ("kill -9 $$", "cc failed: status -9"),
        ("exit 0", "No such file"),
        ('for last; do :; done; echo no library > "$last"', "invalid ELF header|file too short"),
    ],
    ids=["fails", "says-no-text", "killed", "writes-nothing", "writes-something-else"],
)
def test_a_compiler_that_fails_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, said: str
) -> None:
    compiler = tmp_path / "cc"
    compiler.write_text(f"#!/bin/sh\n{script}\n")
    compiler.chmod(0o755)
    monkeypatch.setattr(operators, "c_compiler", lambda: [str(compiler)])
    with pytest.raises(EngineError, match=said):
        compiled_operators(tmp_path / "operators")
    assert list((tmp_path / "operators").iterdir()) == []


def test_a_folder_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(EngineError, match="file"):
        compiled_operators(tmp_path / "file" / "operators")


def test_a_compiler_that_hangs_is_ended_with_its_children(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiler, child = tmp_path / "cc", tmp_path / "child"
    compiler.write_text(f"#!/bin/sh\nsleep 600 &\necho $! > {child}\nwait\n")
    compiler.chmod(0o755)
    monkeypatch.setattr(operators, "c_compiler", lambda: [str(compiler)])
    monkeypatch.setattr(operators, "_LIMIT_SEC", 1)
    with pytest.raises(EngineError, match=r"cc took more than 1 s$"):
        compiled_operators(tmp_path / "operators")
    stat = Path(f"/proc/{child.read_text().strip()}/stat")
    while stat.exists() and stat.read_text().split()[2] != "Z":  # without an init process nobody may reap it
        time.sleep(0.01)


@pytest.mark.skipif(c_compiler() is None, reason="no C compiler")
def test_nothing_is_loaded_that_others_may_write(tmp_path: Path) -> None:
    library = compiled_operators(tmp_path / "operators")
    for path, mode in ((library, 0o646), (library.parent, 0o775)):
        before = path.stat().st_mode
        path.chmod(mode)
        with pytest.raises(EngineError, match=f"{path} to belong to this user"):
            compiled_operators(library.parent)
        path.chmod(before)
    assert compiled_operators(library.parent) == library


@pytest.mark.skipif(c_compiler() is None or os.geteuid() != 0, reason="only root gives files away")
def test_nothing_is_loaded_that_is_of_others(tmp_path: Path) -> None:
    library = compiled_operators(tmp_path / "operators")
    for path in (library, library.parent):
        os.chown(path, 4321, -1)
        with pytest.raises(EngineError, match=f"{path} to belong to this user"):
            compiled_operators(library.parent)
        os.chown(path, 0, -1)


@pytest.mark.skipif(c_compiler() is None, reason="no C compiler")
def test_what_killed_processes_left_is_removed(tmp_path: Path) -> None:
    """But not what another is compiling."""
    old, new = tmp_path / "compile-old", tmp_path / "compile-new"
    for folder in (old, new):
        folder.mkdir()
        (folder / "made.so").touch()
    os.utime(old, (0, 0))
    library = compiled_operators(tmp_path)
    assert set(tmp_path.iterdir()) == {new, library}


@pytest.mark.usefixtures("fresh")
@pytest.mark.parametrize("name", ["conformer-offline", "lstm-streaming"])
def test_nothing_is_compiled_for_a_model_without_operators(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(operators, "cache_dir", lambda: tmp_path / "cache")
    spec = load_bundle(BUNDLES / name)
    if spec.streaming is None:
        OnnxRuntimeRunner(spec)
    else:
        OnnxRuntimeStreamRunner(spec)
    assert not (tmp_path / "cache").exists()


@pytest.mark.usefixtures("fresh")
def test_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(operators, "cache_dir", lambda: tmp_path / "cache")
    monkeypatch.setenv("MOULIN_OPERATORS", "off")
    with caplog.at_level(logging.INFO):
        content = rewritten_encoder(load_bundle(BUNDLES / "zipformer2-offline").encoder, "fp32", "cpu")
    assert content is not None
    assert b"Swoosh" not in content
    assert "MOULIN_OPERATORS" in caplog.text
    assert not (tmp_path / "cache").exists()


@pytest.mark.usefixtures("fresh")
def test_without_a_cache_folder(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    def nowhere() -> Path:
        raise LaunchError("no home")

    monkeypatch.setattr(operators, "cache_dir", nowhere)
    with caplog.at_level(logging.INFO):
        assert operators_library() is None
    assert "without moulin's own operators: no home" in caplog.text


@pytest.mark.usefixtures("fresh")
def test_an_encoder_runs_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """In operators of ONNX Runtime's own, with one line in the log."""
    spec = load_bundle(BUNDLES / "zipformer2-offline")
    x, lens = np.random.default_rng(0).normal(-6, 4, (1, 200, spec.feature_dim)).astype(np.float32), np.array([200])
    wanted, _ = OnnxRuntimeRunner(spec).encoder(x, lens)
    operators_library.cache_clear()
    monkeypatch.setattr(operators, "cache_dir", lambda: tmp_path)
    monkeypatch.setattr(operators, "c_compiler", lambda: None)
    with caplog.at_level(logging.INFO):
        found, _ = OnnxRuntimeRunner(spec).encoder(x, lens)
    assert [record.getMessage() for record in caplog.records if record.name == operators.__name__] == [
        "Encoders run slower, without moulin's own operators: no C compiler was found (hint: install gcc)"
    ]
    np.testing.assert_allclose(found, wanted, atol=1e-4 * np.abs(wanted).max())
