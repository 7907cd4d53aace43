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


def core_objects(manifest: dict[str, Any]) -> list[dict[str, Any]]:
    """The manifest, or the parts of it that Kubernetes itself has a schema for."""
    spec = manifest["spec"]
    match manifest["kind"]:
        case "RayJob":
            cluster = spec["rayClusterSpec"]
            groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
            return [{"apiVersion": "v1", "kind": "Pod", **group["template"]} for group in groups]
        case "ServingRuntime":
            pod = {name: spec[name] for name in ("containers", "volumes")}
            return [{"apiVersion": "v1", "kind": "Pod", "metadata": manifest["metadata"], "spec": pod}]
        case _:
            return [manifest]


@pytest.mark.needs("kubernetes_validate")
def test_kubernetes_takes_it(manifest: dict[str, Any]) -> None:
    import kubernetes_validate

    for one in core_objects(manifest):
        kubernetes_validate.validate(one, kubernetes_validate.latest_version(), strict=True)


def expect_to_look_for_the_manifest(command: str, folder: Path, *, program: str) -> None:
    """That moulin takes the command and misses nothing but the manifest."""
    said = command.replace("/data", str(folder)).replace("cuda:all", "cpu").replace("--device cuda ", "--device cpu ")
    words = shlex.split(said)
    assert words[: len(program.split())] == program.split()
    assert "calls.parquet does not exist" in moulin(*words[len(program.split()) :]).expect(1).err


def test_a_job_has_a_pod_for_each_shard_and_its_command_is_taken(tmp_path: Path) -> None:
    job = yaml.safe_load((FOLDER / "bulk-indexed-job.yaml").read_text())["spec"]
    (container,) = job["template"]["spec"]["containers"]
    (command,) = container["args"]
    assert f"$((JOB_COMPLETION_INDEX + 1))/{job['completions']}" in command
    assert job["parallelism"] == job["completions"] == job["maxFailedIndexes"]
    command = command.replace("$((JOB_COMPLETION_INDEX + 1))", "1")
    expect_to_look_for_the_manifest(command, tmp_path, program="exec moulin")


def test_a_ray_cluster_has_what_the_command_asks_for(tmp_path: Path) -> None:
    from moulin.bulk.ray.plan import RayChoice, planned_on_gpus

    spec = yaml.safe_load((FOLDER / "bulk-rayjob.yaml").read_text())["spec"]
    expect_to_look_for_the_manifest(spec["entrypoint"], tmp_path, program="moulin")
    nodes: list[dict[str, float]] = []
    for group in spec["rayClusterSpec"]["workerGroupSpecs"]:
        (container,) = group["template"]["spec"]["containers"]
        counted, resources = group["rayStartParams"], container["resources"]
        assert counted["num-cpus"] == resources["requests"]["cpu"]
        assert counted.get("num-gpus") == resources["limits"].get("nvidia.com/gpu")
        node = {"CPU": float(counted["num-cpus"]), "GPU": float(counted.get("num-gpus", 0))}
        nodes += [node] * group["replicas"]
    plan = planned_on_gpus(nodes, RayChoice("auto"), None)
    assert (plan.actors, plan.decoders) == (2, 46)


def test_kserve_runs_a_command_that_moulin_takes() -> None:
    import typer.main

    from moulin.cli.app import app

    spec = yaml.safe_load((FOLDER / "kserve-serving-runtime.yaml").read_text())["spec"]
    (container,) = spec["containers"]
    program, verb = container["command"]
    commands: Any = typer.main.get_command(app)
    assert program == "moulin"
    commands.commands[verb].make_context(verb, list(container["args"]))
    assert f"--http-port={container['ports'][0]['containerPort']}" in container["args"]
