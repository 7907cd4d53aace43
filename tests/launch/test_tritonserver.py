from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from moulin.errors import LaunchError
from moulin.launch import tritonserver as discovery
from moulin.launch.tritonserver import find_tritonserver

PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"


def _executable(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A nvidia-pytriton with empty files, found instead of the real one."""
    root = tmp_path / "site-packages" / "pytriton"
    _executable(root / "tritonserver/bin/tritonserver")
    for version in ("3.8", PYTHON):
        _executable(root / f"tritonserver/python_backend_stubs/{version}/triton_python_backend_stub")
    for name in ("libtriton_python.so", "triton_python_backend_utils.py"):
        _executable(root / "tritonserver/backends/python" / name)
    libpython = _executable(tmp_path / "lib" / f"libpython{PYTHON}.so.1.0")
    monkeypatch.setattr(discovery, "_pytriton_dir", lambda: root)
    monkeypatch.setattr(discovery, "_pytriton_version", lambda: "0.7.0")
    monkeypatch.setattr(discovery, "find_libpython", lambda: libpython)
    # As on Python 3.11 with numpy 1, whichever runs the tests.
    monkeypatch.setattr(discovery, "suits_stub", lambda _python, _numpy: True)
    return root


def test_private_backend_folder(package: Path, tmp_path: Path) -> None:
    before = sorted(package.rglob("*"))
    found = find_tritonserver(cache=tmp_path / "cache")
    assert (found.source, found.version) == ("pip", "0.7.0")
    assert found.binary == package / "tritonserver/bin/tritonserver"
    assert found.backends is not None
    assert found.python_stub is not None
    assert found.libpython_dir is not None
    assert sorted(path.name for path in (found.backends / "python").iterdir()) == [
        "libtriton_python.so",
        "triton_python_backend_stub",
        "triton_python_backend_utils.py",
    ]
    stub = package / f"tritonserver/python_backend_stubs/{PYTHON}/triton_python_backend_stub"
    assert found.python_stub.resolve() == stub
    assert os.access(found.python_stub, os.X_OK)
    assert [path.name for path in found.libpython_dir.iterdir()] == [f"libpython{PYTHON}.so.1.0"]
    assert sorted(package.rglob("*")) == before
    assert find_tritonserver(cache=tmp_path / "cache") == found


def test_stale_links_are_made_again(package: Path, tmp_path: Path) -> None:
    found = find_tritonserver(cache=tmp_path / "cache")
    assert found.backends is not None
    folder = found.backends / "python"
    (folder / "libtriton_python.so").unlink()
    (folder / "triton_python_backend_stub").unlink()
    (folder / "triton_python_backend_stub").symlink_to("/nonexistent")
    (folder / "triton_python_backend_utils.py").unlink()
    (folder / "triton_python_backend_utils.py").mkdir()
    again = find_tritonserver(cache=tmp_path / "cache")
    assert again == found
    for path in folder.iterdir():
        assert path.resolve().is_relative_to(package)
        assert path.is_file()


@pytest.mark.usefixtures("package")
def test_another_pytriton_or_python_gets_its_own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = find_tritonserver(cache=tmp_path / "cache").backends
    monkeypatch.setattr(discovery, "_pytriton_version", lambda: "0.8.0")
    second = find_tritonserver(cache=tmp_path / "cache").backends
    monkeypatch.setattr(discovery, "_python_version", lambda: "3.8")
    third = find_tritonserver(cache=tmp_path / "cache")
    assert len({first, second, third.backends}) == 3
    assert third.python_stub is not None
    assert third.python_stub.resolve().parent.name == "3.8"


@pytest.mark.usefixtures("package")
def test_stub_for_another_python_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(discovery, "_python_version", lambda: "3.99")
    with pytest.raises(LaunchError, match=rf"stub for Python 3\.99, got stubs for {PYTHON}, 3\.8"):
        find_tritonserver(cache=tmp_path / "cache")


def test_damaged_package(package: Path, tmp_path: Path) -> None:
    (package / "tritonserver/backends/python/libtriton_python.so").unlink()
    with pytest.raises(LaunchError, match=r"libtriton_python\.so from nvidia-pytriton"):
        find_tritonserver(cache=tmp_path / "cache")


@pytest.mark.usefixtures("package")
def test_no_libpython(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(discovery, "find_libpython", lambda: None)
    with pytest.raises(LaunchError) as caught:
        find_tritonserver(cache=tmp_path / "cache")
    assert f"libpython{PYTHON}.so.1.0" in caught.value.message
    assert caught.value.hint == f"make system, or apt-get install libpython{PYTHON}"


@pytest.mark.usefixtures("package")
def test_cache_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(LaunchError) as caught:
        find_tritonserver(cache=tmp_path / "file")
    assert "XDG_CACHE_HOME" in str(caught.value.hint)


@pytest.mark.usefixtures("package")
def test_environment_puts_this_python_first(tmp_path: Path) -> None:
    found = find_tritonserver(cache=tmp_path / "cache")
    base = {"PATH": "/usr/bin", "LD_LIBRARY_PATH": "/cuda/lib", "HOME": "/root"}
    environ = found.environment(base)
    assert environ["PATH"] == f"{Path(sys.executable).parent}:/usr/bin"
    assert environ["LD_LIBRARY_PATH"] == f"{found.libpython_dir}:/cuda/lib"
    assert environ["HOME"] == "/root"
    assert found.environment(environ) == environ
    assert found.environment({})["LD_LIBRARY_PATH"] == str(found.libpython_dir)


def test_nothing_installed_and_nothing_to_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(discovery, "_pytriton_dir", lambda: None)
    monkeypatch.setattr("shutil.which", lambda *_args, **_kwargs: None)
    with pytest.raises(LaunchError, match="got none yet") as caught:
        find_tritonserver(cache=tmp_path, make=False)
    assert "moulin serve" in str(caught.value.hint)
    assert not list(tmp_path.iterdir())


def test_tritonserver_on_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    binary = _executable(tmp_path / "tritonserver/bin/tritonserver")
    stub = _executable(tmp_path / "tritonserver/backends/python/triton_python_backend_stub")
    (tmp_path / "tritonserver/TRITON_VERSION").write_text("2.51.0\n")
    monkeypatch.setattr(discovery, "_pytriton_dir", lambda: None)
    monkeypatch.setenv("PATH", str(binary.parent))
    found = find_tritonserver()
    assert (found.source, found.binary, found.version) == ("path", binary, "2.51.0")
    assert (found.backends, found.python_stub) == (stub.parent.parent, stub)
    assert "LD_LIBRARY_PATH" not in found.environment({})


def test_stub_of_the_system_built_for_another_python(tmp_path: Path) -> None:
    binary = _executable(tmp_path / "tritonserver/bin/tritonserver")
    stub = _executable(tmp_path / "tritonserver/backends/python/triton_python_backend_stub")
    stub.write_bytes(b"\x7fELF\0libpython3.99.so.1.0\0")
    with pytest.raises(LaunchError, match=rf"Expected Python 3\.99.*got Python {PYTHON}"):
        find_tritonserver(binary)


def test_explicit_binary_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(LaunchError, match=r"executable at .*absent"):
        find_tritonserver(tmp_path / "absent")
