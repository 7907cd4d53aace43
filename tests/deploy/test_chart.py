"""The Helm chart: helm renders it, Kubernetes' schemas take what comes out, and moulin takes every command in it."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml

from moulin.cli.app import app

CHART = Path(__file__).parents[2] / "deploy" / "helm" / "moulin"
TOOLS = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "moulin" / "chart-tools"
HELM = shutil.which("helm", path=f"{TOOLS}{os.pathsep}{os.environ.get('PATH', '')}")
KUBERNETES = ("1.33.0", "1.37.0")
"""The oldest release with OCI volumes by default, and the newest whose schemas are here."""

VALUES = {"default": [], "gpu": [CHART / "ci" / "values-gpu.yaml"], "fetch": [CHART / "ci" / "values-fetch.yaml"]}
CUSTOM = {"ScaledObject", "PodMonitor"}
"""Kinds that are not Kubernetes' own."""

pytestmark = [
    pytest.mark.skipif(HELM is None, reason="helm is missing: scripts/chart-tools.sh brings it"),
    pytest.mark.needs("kubernetes_validate"),
]


def helm(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(HELM), *map(str, arguments)], capture_output=True, text=True, check=False)


def rendered(values: str, *arguments: object, kubernetes: str = KUBERNETES[-1]) -> list[dict[str, Any]]:
    files = [part for file in VALUES[values] for part in ("--values", file)]
    done = helm("template", "asr", CHART, "--namespace", "speech", "--kube-version", kubernetes, *files, *arguments)
    assert done.returncode == 0, done.stderr
    return [one for one in yaml.safe_load_all(done.stdout) if one]


def pods(objects: list[dict[str, Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
    for one in objects:
        if one["kind"] == "Deployment":
            yield one["metadata"]["name"], one["spec"]["template"]["spec"]


def container(pod: dict[str, Any]) -> dict[str, Any]:
    (only,) = pod["containers"]
    found: dict[str, Any] = only
    return found


@pytest.fixture(params=sorted(VALUES))
def values(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


def test_helm_finds_nothing_to_say(values: str) -> None:
    files = [part for file in VALUES[values] for part in ("--values", file)]
    done = helm("lint", CHART, "--strict", *files)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("kubernetes", KUBERNETES)
def test_kubernetes_takes_it(values: str, kubernetes: str) -> None:
    import kubernetes_validate

    objects = rendered(values, kubernetes=kubernetes)
    for one in objects:
        if one["kind"] not in CUSTOM:
            kubernetes_validate.validate(one, kubernetes.rpartition(".")[0], strict=True)
    names = [(one["kind"], one["metadata"]["name"]) for one in objects]
    assert len(set(names)) == len(names)


def test_moulin_takes_every_command(values: str) -> None:
    command: Any = typer.main.get_command(app)
    seen = set()
    for _, pod in pods(rendered(values)):
        for one in [*pod.get("initContainers", ()), container(pod)]:
            program, verb = one["command"]
            assert program == "moulin"
            command.commands[verb].make_context(verb, list(one["args"]))
            seen.add(verb)
    assert seen >= {"gateway", "serve"}
    assert ("fetch" in seen) == (values == "fetch")


KEDA = TOOLS / "keda" / "node_modules" / "@kubernetes-models" / "keda"


@pytest.mark.skipif(not (KEDA.is_dir() and shutil.which("node")), reason="KEDA's schemas or Node are missing")
def test_keda_takes_its_object() -> None:
    (scaler,) = (one for one in rendered("gpu") if one["kind"] == "ScaledObject")
    script = """
        const { ScaledObject } = require("@kubernetes-models/keda/keda.sh/v1alpha1");
        new ScaledObject(JSON.parse(process.argv[1])).validate();
    """

    def checked(one: dict[str, Any]) -> subprocess.CompletedProcess[str]:
        command = [str(shutil.which("node")), "-e", script, json.dumps(one)]
        return subprocess.run(command, capture_output=True, text=True, check=False, cwd=TOOLS / "keda")

    assert checked(scaler).returncode == 0, checked(scaler).stderr
    scaler["spec"]["maxReplicaCount"] = "many"
    assert "maxReplicaCount" in checked(scaler).stderr


def test_pods_have_no_rights_and_time_to_drain(values: str) -> None:
    objects = rendered(values, "--set", "drainSec=77")
    for _, pod in pods(objects):
        assert pod["terminationGracePeriodSeconds"] == 77 + 60
        assert pod["automountServiceAccountToken"] is False
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for one in [*pod.get("initContainers", ()), container(pod)]:
            assert one["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
        running = container(pod)
        assert "--drain-sec=77" in running["args"]
        assert running["lifecycle"]["preStop"]["sleep"]["seconds"] < 60
        assert {"startupProbe", "readinessProbe", "livenessProbe"} <= set(running)
        assert {mount["name"] for mount in running["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}
    for one in objects:
        if one["kind"] == "Deployment":
            assert one["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] == 0


def test_objects_select_the_pods_that_are_there(values: str) -> None:
    objects = rendered(values)
    deployments = {one["metadata"]["name"]: one for one in objects if one["kind"] == "Deployment"}
    labels = [one["spec"]["template"]["metadata"]["labels"] for one in deployments.values()]
    for one in objects:
        spec = one["spec"]
        match one["kind"]:
            case "HorizontalPodAutoscaler" | "ScaledObject":
                selector = None
            case "Service":
                selector = spec["selector"]
            case "NetworkPolicy":
                selector = spec["podSelector"]["matchLabels"]
            case _:
                selector = spec["selector"]["matchLabels"]
        if selector is None:
            assert spec["scaleTargetRef"]["name"] in deployments
            assert "replicas" not in deployments[spec["scaleTargetRef"]["name"]]["spec"]  # else upgrades undo scaling
        else:
            assert sum(selector.items() <= has.items() for has in labels) == 1


def test_gateways_ask_every_pool_by_its_headless_service(values: str) -> None:
    objects = rendered(values)
    headless = {
        one["metadata"]["name"]
        for one in objects
        if one["kind"] == "Service" and one["spec"].get("clusterIP") == "None"
    }
    args = container(dict(pods(objects))["asr-gateway"])["args"]
    asked = {match[1] for arg in args if (match := re.fullmatch(r"--triton=dns:(.+):8001", arg))}
    assert asked == headless
    assert headless == {name for name, _ in pods(objects)} - {"asr-gateway"}


def test_cards_slices_and_volumes() -> None:
    found = dict(pods(rendered("gpu")))
    offline, live = found["asr-offline"], found["asr-live"]
    assert container(offline)["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert container(live)["resources"]["limits"] == {"memory": "16Gi", "nvidia.com/mig-1g.18gb": "1"}
    kinds = {volume["name"]: set(volume) - {"name"} for volume in [*offline["volumes"], *live["volumes"]]}
    assert kinds["models"] == {"image"}
    assert "asr-cpu" not in found
    assert "/models/zipformer" in container(offline)["args"]


def test_the_scaler_asks_for_streams_over_capacity() -> None:
    (scaler,) = (one["spec"] for one in rendered("gpu") if one["kind"] == "ScaledObject")
    (trigger,) = scaler["triggers"]
    pods_of = '{namespace="speech",pod=~"asr-live-.*"}'
    assert trigger["metadata"]["query"] == f"sum(moulin_streams{pods_of}) / sum(moulin_streams_limit{pods_of})"
    assert trigger["metricType"] == "Value"
    (policy,) = scaler["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]["scaleDown"]["policies"]
    assert policy == {"type": "Pods", "value": 1, "periodSeconds": 300}


def test_only_gateways_reach_the_servers() -> None:
    policies = {one["metadata"]["name"]: one["spec"] for one in rendered("gpu") if one["kind"] == "NetworkPolicy"}
    for name in ("asr-offline", "asr-live"):
        grpc, metrics = policies[name]["ingress"]
        assert [port["port"] for port in (*grpc["ports"], *metrics["ports"])] == ["grpc", "metrics"]
        (sender,) = grpc["from"]
        assert sender["podSelector"]["matchLabels"]["app.kubernetes.io/component"] == "gateway"
    assert not [one for one in rendered("fetch") if one["kind"] == "NetworkPolicy"]


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("drainSecs=5", "drainSecs"),
        ("drainSec=-1", "drainSec"),
        ("gateway.image=moulin", "image"),
        ("gateway.image=moulin:latest", "image"),
        ("gateway.keysSecret=", "keysSecret"),
        ("gateway.replicas=0", "replicas"),
        ("pools.cpu.device=gpu", "device"),
        ("pools.cpu.models.from=pvc", "serve"),
        ("pools.cpu.models.from=s3", "from"),
        ("pools.cpu.keda.load=7", "load"),
        ("pools.Big.device=cpu", "Big"),
        ("preStopSec=60", "preStopSec"),
        ("pools.cpu.resources.limit.memory=8Gi", "limit"),
        ("pools.cpu.resources.limits.memory=8GB", "limits.memory: expected a quantity such as 8Gi, got 8GB"),
        ("pools.cpu.resources.limits.memory=500m", "limits.memory: expected a quantity such as 8Gi, got 500m"),
        (
            "pools.cpu.resources.requests.cpu=2 cores",
            "pools.cpu.resources.requests.cpu: expected a quantity such as 500m",
        ),
        ("gateway.resources.limits.memory=4gb", "gateway.resources.limits.memory: expected"),
        ("pools.cpu.models.sizeLimit=8GB", "sizeLimit"),
    ],
)
def test_wrong_values_are_refused_by_name(setting: str, message: str) -> None:
    done = helm("template", "asr", CHART, "--set", setting)
    assert done.returncode != 0
    assert message in done.stderr
    assert "anyOf" not in done.stderr  # what is wrong, and not how the schema is built


@pytest.mark.parametrize("quantity", ["8Gi", "8G", "8589934592", "1.5Gi", "1e9", "512Mi", "900k", ".5Ti"])
def test_quantities_as_kubernetes_writes_them(quantity: str) -> None:
    found = dict(pods(rendered("default", "--set", f"pools.cpu.resources.limits.memory={quantity}")))
    assert "memory" in container(found["asr-cpu"])["resources"]["limits"]


def test_a_pool_can_be_left_out() -> None:
    assert "asr-cpu" not in dict(pods(rendered("gpu")))


@pytest.mark.parametrize("anonymous", [True, False])
def test_notes_ask_for_a_key_where_there_are_keys(anonymous: bool) -> None:
    setting = f"gateway.allowAnonymous={str(anonymous).lower()}"
    done = helm("install", "asr", CHART, "--namespace", "speech", "--dry-run=client", "--set", setting)
    notes = done.stdout.partition("NOTES:")[2]
    assert "moulin transcribe" in notes, done.stderr
    assert ('--api-key "$KEY"' in notes) is not anonymous
    assert ("KEY=$(openssl rand -hex 24)" in notes) is not anonymous
