"""The systemd unit and its drop-in: systemd takes them, and their command is one that moulin takes."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "deploy" / "systemd"
UNIT = (FOLDER / "moulin.service").read_text()
PUBLIC = (FOLDER / "public.conf").read_text()
SHARED_KEYS = (FOLDER / "shared-keys.conf").read_text()
MOULIN = Path(sys.executable).with_name("moulin")


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
def test_systemd_takes_it(tmp_path: Path) -> None:
    """As it is, but for the place of moulin, which must exist."""
    unit = tmp_path / "moulin.service"
    unit.write_text(UNIT.replace("/opt/moulin/bin/moulin", str(MOULIN)))
    (tmp_path / "moulin.service.d").mkdir()
    (tmp_path / "moulin.service.d" / "public.conf").write_text(PUBLIC)
    (tmp_path / "moulin.service.d" / "shared-keys.conf").write_text(SHARED_KEYS)
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", unit], capture_output=True, text=True, check=False)
    about_it = [line for line in done.stderr.splitlines() if "moulin.service" in line or ".conf" in line]
    assert about_it == []


def test_its_command_is_taken() -> None:
    (command,) = (line.removeprefix("ExecStart=") for line in UNIT.splitlines() if line.startswith("ExecStart="))
    program, *arguments = shlex.split(command)
    assert program == "/opt/moulin/bin/moulin"
    here = [argument.replace("/etc/moulin", str(FOLDER)) for argument in arguments]
    done = subprocess.run([MOULIN, *here, "--print-config"], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    found = tomllib.loads(done.stdout)["serve"]
    assert (found["models"], found["log-format"]) == (["/srv/models/zipformer"], "json")


def test_the_variables_of_the_drop_in_are_taken() -> None:
    """They name files that systemd hands over, and open the gateway alone."""
    variables = dict(re.findall(r"^Environment=(\w+)=(.+)$", PUBLIC, re.MULTILINE))
    handed_over = {f"%d/{name}" for name in re.findall(r"^LoadCredential=([\w.-]+):", PUBLIC, re.MULTILINE)}
    assert handed_over <= set(variables.values())
    command: list[str | Path] = [MOULIN, "serve", "--config", FOLDER / "moulin.toml", "--print-config"]
    environ = {**os.environ, **variables}
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, env=environ)
    assert done.returncode == 0, done.stderr
    found = tomllib.loads(done.stdout)["serve"]
    assert (found["host"], found["gateway-host"]) == ("127.0.0.1", "0.0.0.0")
    assert {found["api-keys"], found["tls-certificate"], found["tls-key"]} == handed_over


def test_keys_that_change_without_a_restart_take_the_place_of_those_that_are_handed_over() -> None:
    """systemd reads drop-ins in the order of their names, and the last of a variable holds."""
    assert "public.conf" < "shared-keys.conf"
    (variable,) = re.findall(r"^Environment=(\w+)=/etc/moulin/shared-keys$", SHARED_KEYS, re.MULTILINE)
    assert f"\nEnvironment={variable}=%d/api-keys\n" in PUBLIC


def test_the_gateways_settings_are_taken() -> None:
    command: list[str | Path] = [MOULIN, "gateway", "--config", FOLDER / "moulin.toml", "--print-config"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr


def test_it_waits_longer_than_moulin_takes_to_stop() -> None:
    """docs/reliability.md: 40 s; a signal to all processes at once would end requests under way."""
    assert "\nTimeoutStopSec=45s\n" in UNIT
    assert "\nKillMode=mixed\n" in UNIT
