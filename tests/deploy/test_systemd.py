"""The systemd unit: systemd takes it, and its command is one that moulin takes."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "deploy" / "systemd"
UNIT = (FOLDER / "moulin.service").read_text()
MOULIN = Path(sys.executable).with_name("moulin")


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
def test_systemd_takes_it(tmp_path: Path) -> None:
    """As it is, but for the place of moulin, which must exist."""
    unit = tmp_path / "moulin.service"
    unit.write_text(UNIT.replace("/opt/moulin/bin/moulin", str(MOULIN)))
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", unit], capture_output=True, text=True, check=False)
    about_it = [line for line in done.stderr.splitlines() if "moulin.service" in line]
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


def test_the_gateways_settings_are_taken() -> None:
    command: list[str | Path] = [MOULIN, "gateway", "--config", FOLDER / "moulin.toml", "--print-config"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr


def test_it_waits_longer_than_moulin_takes_to_stop() -> None:
    """docs/reliability.md: 40 s; a signal to all processes at once would end requests under way."""
    assert "\nTimeoutStopSec=45s\n" in UNIT
    assert "\nKillMode=mixed\n" in UNIT
