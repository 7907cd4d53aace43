from __future__ import annotations

import importlib.metadata
import tomllib
from pathlib import Path

import pytest

from moulin.errors import LaunchError
from moulin.launch.serving_requirements import TRITON_REQUIREMENT, serving_requirements

ROOT = Path(__file__).parents[2]


def test_ranges_are_those_of_the_package() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    ranges = {*project["dependencies"], *(r for extra in project["optional-dependencies"].values() for r in extra)}
    assert {requirement.removesuffix(",<2") for requirement in serving_requirements()} <= ranges
    assert any(requirement.startswith(f"{TRITON_REQUIREMENT};") for requirement in ranges)


def test_an_engines_packages_are_the_releases_here() -> None:
    version = importlib.metadata.version("torch").partition("+")[0]
    assert f"torch=={version}" in serving_requirements(["torch"])


def _missing(package: str) -> str:
    raise importlib.metadata.PackageNotFoundError(package)


def test_an_engine_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.metadata.version", _missing)
    with pytest.raises(LaunchError, match="Expected tensorrt in this Python"):
        serving_requirements(["tensorrt"])
