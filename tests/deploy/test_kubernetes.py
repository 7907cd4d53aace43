"""Kubernetes' manifests: its schema takes them, and their commands are ones that moulin takes."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cli.command import moulin

FOLDER = Path(__file__).parents[2] / "deploy" / "kubernetes"


@pytest.fixture(params=sorted(FOLDER.glob("*.yaml")), ids=lambda file: file.name)
def manifest(request: pytest.FixtureRequest) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(request.param.read_text())
    return loaded


@pytest.mark.needs("kubernetes_validate")
def test_kubernetes_takes_it(manifest: dict[str, Any]) -> None:
    import kubernetes_validate

    kubernetes_validate.validate(manifest, kubernetes_validate.latest_version(), strict=True)


def test_a_job_has_a_pod_for_each_shard_and_its_command_is_taken(tmp_path: Path) -> None:
    job = yaml.safe_load((FOLDER / "bulk-indexed-job.yaml").read_text())["spec"]
    (container,) = job["template"]["spec"]["containers"]
    (command,) = container["args"]
    assert f"$((JOB_COMPLETION_INDEX + 1))/{job['completions']}" in command
    assert job["parallelism"] == job["completions"] == job["maxFailedIndexes"]
    said = command.replace("/data", str(tmp_path)).replace("cuda:all", "cpu")
    said = said.replace("$((JOB_COMPLETION_INDEX + 1))", "1")
    first, program, *arguments = shlex.split(said)
    assert (first, program) == ("exec", "moulin")
    assert "calls.parquet does not exist" in moulin(*arguments).expect(1).err
