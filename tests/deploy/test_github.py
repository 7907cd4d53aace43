"""The project on GitHub: its forms by its own schemas, and jobs that run what is in the repository."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
GITHUB = ROOT / ".github"
FORMS = sorted(path for path in (GITHUB / "ISSUE_TEMPLATE").glob("*.yml") if path.name != "config.yml")


@pytest.mark.needs("check_jsonschema")
@pytest.mark.parametrize(
    ("schema", "files"),
    [
        ("github-issue-forms", FORMS),
        ("github-issue-config", [GITHUB / "ISSUE_TEMPLATE" / "config.yml"]),
        ("github-workflows", sorted((GITHUB / "workflows").glob("*.yml"))),
    ],
)
def test_githubs_schemas(schema: str, files: list[Path]) -> None:
    assert files
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", f"vendor.{schema}", *map(str, files)]
    checked = subprocess.run(command, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout


@pytest.mark.parametrize("file", sorted((GITHUB / "workflows").glob("*.yml")), ids=lambda file: file.stem)
def test_jobs_run_what_is_in_the_repository_and_nothing_else(file: Path) -> None:
    workflow: dict[str, Any] = yaml.safe_load(file.read_text())
    commands = [step["run"] for job in workflow["jobs"].values() for step in job["steps"] if "run" in step]
    assert commands
    for command in commands:
        program, *target = command.split()
        if program == "make":
            assert re.search(rf"^{re.escape(target[0])}:", (ROOT / "Makefile").read_text(), re.MULTILINE)
        else:
            assert (ROOT / program).stat().st_mode & 0o100


def test_hooks_before_a_commit_are_make_targets() -> None:
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())
    (hook,) = [hook for repo in config["repos"] for hook in repo["hooks"]]
    assert hook["entry"] == "make format"
    assert hook["language"] == "system"
