from __future__ import annotations

import importlib.metadata
import subprocess
import sys
import tomllib
from collections.abc import Iterable
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from moulin.errors import LaunchError
from moulin.launch.serving_requirements import TRITON_REQUIREMENT, serving_requirements

ROOT = Path(__file__).parents[2]


def test_ranges_are_those_of_the_package() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    ranges = {*project["dependencies"], *(r for extra in project["optional-dependencies"].values() for r in extra)}
    assert {requirement.removesuffix(",<2") for requirement in serving_requirements()} <= ranges
    assert any(requirement.startswith(f"{TRITON_REQUIREMENT};") for requirement in ranges)


SHIMS = ("offline_shim", "streaming_shim", "ensemble.component_shim", "ensemble.streaming_shim")


@pytest.mark.parametrize("shim", SHIMS)
def test_a_shim_imports_nothing_else(shim: str) -> None:
    """The environment for Triton has these packages and what they require, and none of the core's others."""
    double = "import sys, types; sys.modules['triton_python_backend_utils'] = types.ModuleType('double')"
    loaded = _loaded(f"{double}; import moulin.triton_repo.{shim}") - _loaded("import sys")
    packages = importlib.metadata.packages_distributions()
    installed = _with_what_they_require(map(Requirement, serving_requirements())) | {"moulin"}
    assert "msgspec" in loaded
    assert not [name for name in loaded if name in packages and not installed.intersection(packages[name])]


def _loaded(code: str) -> set[str]:
    """Packages that are imported by a new Python that runs `code`."""
    code += "; print(*{name.partition('.')[0] for name in sys.modules})"
    return {*subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()}


def _with_what_they_require(requirements: Iterable[Requirement]) -> set[str]:
    found: set[str] = set()
    waiting = list(requirements)
    while waiting:
        requirement = waiting.pop()
        if requirement.name not in found and (requirement.marker is None or requirement.marker.evaluate({"extra": ""})):
            found.add(requirement.name)
            waiting += map(Requirement, importlib.metadata.requires(requirement.name) or [])
    return found


def test_an_engines_packages_are_the_releases_here() -> None:
    version = importlib.metadata.version("torch").partition("+")[0]
    assert f"torch=={version}" in serving_requirements(["torch"])


def _missing(package: str) -> str:
    raise importlib.metadata.PackageNotFoundError(package)


def test_an_engine_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.metadata.version", _missing)
    with pytest.raises(LaunchError, match="Expected tensorrt in this Python"):
        serving_requirements(["tensorrt"])
