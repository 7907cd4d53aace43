"""The images and the compose file without a Docker engine: what they name is there and takes what they say."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml

from moulin.cli.app import app
from moulin.gateway.metrics import Metrics
from moulin.gateway.state_metrics import StateMetrics
from moulin.gateway.supervision import Supervision
from moulin.launch.ports import claim_ports
from moulin.launch.server import TritonServer
from moulin.launch.supervision import SupervisionBoard

from .test_chart import TOOLS

ROOT = Path(__file__).parents[2]
DOCKER = ROOT / "deploy" / "docker"
DOCKERFILES = sorted(DOCKER.glob("*.Dockerfile"))
HEALTHCHECK = DOCKER / "healthcheck.py"
PROMTOOL = shutil.which("promtool", path=f"{TOOLS}{os.pathsep}{os.environ.get('PATH', '')}")


def instructions(file: Path) -> list[tuple[str, str]]:
    """(FROM, ...), (RUN, ...), with continued lines joined."""
    lines = [line for line in file.read_text().splitlines() if not line.startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    found = (line.partition(" ") for line in joined.splitlines() if line.strip())
    return [(name, rest.strip()) for name, _, rest in found]


def expect_command(words: list[str]) -> None:
    """That `moulin` takes these arguments. Raises click's error where it does not."""
    command: Any = typer.main.get_command(app)
    assert words[0] in command.commands, words
    command.commands[words[0]].make_context(words[0], words[1:])


@pytest.mark.parametrize("file", DOCKERFILES, ids=lambda file: file.name)
def test_an_image_is_pinned_unprivileged_and_says_how_it_is(file: Path) -> None:
    found = instructions(file)
    assert all(":" in rest.split()[0] and "latest" not in rest for name, rest in found if name == "FROM")
    assert [rest for name, rest in found if name == "USER"] == ["10001"]
    (check,) = (rest for name, rest in found if name == "HEALTHCHECK")
    assert "/usr/local/bin/healthcheck.py" in check
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    for name, rest in found:
        if name == "COPY" and not rest.startswith("--from"):
            for source in rest.split()[:-1]:
                assert (ROOT / source).exists()
                assert f"!{source}" in ignored, f"{source} is not sent to the builder"


@pytest.mark.parametrize("file", DOCKERFILES, ids=lambda file: file.name)
def test_extras_and_commands_exist(file: Path) -> None:
    extras = re.findall(r"^ARG EXTRAS=(.*)$", file.read_text(), flags=re.MULTILINE)
    declared = re.findall(r"^([a-z-]+) = \[", (ROOT / "pyproject.toml").read_text(), flags=re.MULTILINE)
    assert extras
    assert set(extras[0].split(",")) <= set(declared)
    command = json.loads(next(rest for name, rest in instructions(file) if name == "CMD"))
    if command[0] != "tritonserver":
        expect_command(command)
    # The example above the file.
    for example in re.findall(r"moulin:\w+ (?:\\\n#\s+)(.*)", file.read_text()):
        words = shlex.split(example)
        expect_command(words[1:] if words[0] == "moulin" else words)


def compose(*names: str) -> dict[str, Any]:
    """Merged as docker does it for what is here: later files win."""
    services: dict[str, Any] = {}
    for name in names:
        for service, settings in yaml.safe_load((DOCKER / name).read_text())["services"].items():
            known = services.setdefault(service, {})
            known |= {**settings, "build": {**known.get("build", {}), **settings.get("build", {})}}
    return services


@pytest.mark.needs("check_jsonschema")
def test_compose_files_are_of_its_schema() -> None:
    schema = ["--builtin-schema", "vendor.compose-spec"]
    files = sorted(DOCKER.glob("compose*.yaml"))
    assert len(files) >= 3
    command = [sys.executable, "-m", "check_jsonschema", *schema, *map(str, files)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_wyoming_asks_the_gateway() -> None:
    services = compose("compose.yaml", "compose.wyoming.yaml")
    environment = services["wyoming"]["environment"]
    assert environment["STT_OPENAI_URL"] == "http://gateway:9000/v1"
    assert services["wyoming"]["ports"] == ["${WYOMING_ADDRESS:-127.0.0.1}:10300:10300"]
    assert re.search(r"wyoming_openai==[\d.]+$", services["wyoming"]["build"]["dockerfile_inline"], re.MULTILINE)


@pytest.mark.parametrize("also", ["compose.gpu.yaml", "compose.wyoming.yaml", None])
def test_services(also: str | None) -> None:
    services = compose("compose.yaml", *([also] if also else []))
    assert set(services) - {"wyoming"} == {"server", "gateway", "prometheus", "grafana"}
    for name, service in services.items():
        if "dockerfile_inline" in service["build"]:
            assert service["image"].startswith("moulin:")
        elif service["build"]:
            assert (ROOT / service["build"]["dockerfile"]).is_file()
        else:
            assert re.fullmatch(r"\S+:\$\{\w+:-[\w.]+\}", service["image"]), name
        for volume in service.get("volumes", ()):
            if volume.startswith("./"):
                assert (DOCKER / volume.split(":")[0]).exists()
        command = service.get("command", [])
        if isinstance(command, str):
            command = shlex.split(re.sub(r"\$\{(?:[^{}]|\$\{[^{}]*\})*\}", "model", command))
        if command:
            expect_command(command[1:] if command[0] == "moulin" else command)
    assert services["gateway"]["depends_on"]["server"]["condition"] == "service_healthy"
    assert services["server"]["shm_size"] == "1g"


def test_prometheus_asks_the_ports_that_are_served() -> None:
    config = yaml.safe_load((DOCKER / "prometheus.yaml").read_text())
    targets = {job["job_name"]: job["static_configs"][0]["targets"] for job in config["scrape_configs"]}
    assert targets == {"triton": ["server:8002"], "gateway": ["gateway:9000"]}
    secrets = yaml.safe_load((DOCKER / "compose.yaml").read_text())["secrets"]
    (gateway,) = (job for job in config["scrape_configs"] if job["job_name"] == "gateway")
    assert Path(gateway["authorization"]["credentials_file"]).name in secrets


@pytest.mark.skipif(PROMTOOL is None, reason="needs promtool: scripts/chart-tools.sh brings it")
def test_each_alert_comes_when_it_should() -> None:
    assert PROMTOOL is not None
    done = subprocess.run(
        [PROMTOOL, "test", "rules", DOCKER / "alerts_test.yaml"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_each_alert_has_its_test() -> None:
    (group,) = yaml.safe_load((DOCKER / "alerts.yaml").read_text())["groups"]
    names = {rule["alert"] for rule in group["rules"]}
    for test in yaml.safe_load((DOCKER / "alerts_test.yaml").read_text())["tests"]:
        assert {case["alertname"] for case in test["alert_rule_test"]} == names


@pytest.mark.triton
def test_every_metric_of_the_dashboard_and_the_alerts_is_published(server: TritonServer) -> None:
    dashboard = json.loads((DOCKER / "grafana" / "dashboards" / "moulin.json").read_text())
    shown = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    (group,) = yaml.safe_load((DOCKER / "alerts.yaml").read_text())["groups"]
    shown += [rule["expr"] for rule in group["rules"]]
    wanted = {name for expression in shown for name in re.findall(r"\b(?:nv|moulin)_\w+", expression)}
    with urllib.request.urlopen(server.metrics_url) as answer:
        text = answer.read().decode()
    ours = Metrics().exposition(), StateMetrics({}).exposition(), Supervision(SupervisionBoard().fd).exposition()
    text += b"".join(ours).decode()
    published = set(re.findall(r"^# TYPE (\w+)", text, flags=re.MULTILINE))
    # The samples of a histogram; a counter's total is its name in Triton, and an addition to it in the gateway.
    published |= {f"{name}_bucket" for name in published} | {f"{name}_total" for name in published}
    on_a_gpu = {name for name in wanted if name.startswith("nv_gpu_")}
    assert on_a_gpu == {"nv_gpu_utilization", "nv_gpu_memory_used_bytes", "nv_gpu_memory_total_bytes"}
    assert wanted - on_a_gpu <= published
    source = yaml.safe_load((DOCKER / "grafana/provisioning/datasources/prometheus.yaml").read_text())
    assert {panel["datasource"]["uid"] for panel in dashboard["panels"]} == {source["datasources"][0]["uid"]}


GRAFANA = TOOLS / "grafana" / "node_modules"


@pytest.mark.skipif(not (GRAFANA.is_dir() and shutil.which("node")), reason="Grafana's schema or Node are missing")
def test_the_dashboard_is_of_grafanas_schema(tmp_path: Path) -> None:
    """Its types are TypeScript's, which refuses a literal with a field of another name or type."""
    dashboard = json.loads((DOCKER / "grafana" / "dashboards" / "moulin.json").read_text())
    types = GRAFANA / "@grafana" / "schema" / "dist" / "types" / "raw" / "dashboard" / "x" / "types.gen"

    def refused(one: dict[str, Any]) -> str:
        file = tmp_path / "dashboard.ts"
        imported = f"import type {{ Dashboard }} from {json.dumps(str(types))};"
        file.write_text(f"{imported}\nexport const one: Dashboard = {json.dumps(one)};\n")
        compiler = GRAFANA / ".bin" / "tsc"
        command = [str(compiler), "--noEmit", "--strict", "--skipLibCheck", str(file)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        return done.stdout

    assert refused(dashboard) == ""
    panel = dashboard["panels"][0]
    panel["gridPosition"] = panel.pop("gridPos")
    assert "gridPosition" in refused(dashboard)


def healthy(address: str) -> bool:
    done = subprocess.run([sys.executable, HEALTHCHECK, address], capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr
    return done.returncode == 0


@pytest.mark.triton
def test_the_health_check(server: TritonServer) -> None:
    assert healthy(f"http://{server.http_url}/v2/health/ready")
    assert not healthy(f"http://{server.http_url}/v2/health/nothing")
    port = claim_ports("127.0.0.1", {"--http-port": 0})["--http-port"]
    assert not healthy(f"http://127.0.0.1:{port}/v2/health/ready")
