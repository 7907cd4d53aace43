"""Settings of `serve` and `gateway` from flags, variables and a file, in this order."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

MOULIN = Path(sys.executable).with_name("moulin")
ENVIRON = {name: value for name, value in os.environ.items() if not name.startswith("MOULIN_")}


def moulin(*arguments: str | Path, **variables: str) -> subprocess.CompletedProcess[str]:
    environ = {**ENVIRON, **variables}
    return subprocess.run([MOULIN, *arguments], capture_output=True, text=True, env=environ, check=False, timeout=60)


def settings(*arguments: str | Path, **variables: str) -> dict[str, object]:
    """What `--print-config` of a verb says, read as TOML."""
    printed = moulin(*arguments, "--print-config", **variables)
    assert printed.returncode == 0, printed.stderr
    found: dict[str, object] = tomllib.loads(printed.stdout)[str(arguments[0])]
    return found


def refusal(*arguments: str | Path, **variables: str) -> str:
    ended = moulin(*arguments, **variables)
    assert ended.returncode == 1, ended.stderr
    assert ended.stdout == ""
    assert "Traceback" not in ended.stderr
    return ended.stderr


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "moulin.toml"
    file.write_text(
        '[serve]\nmodels = ["a b", "ü"]\nmax-batch = 32\nmax_streams = 5\nendpoint = false\nhost = "::1"\n'
        'linger-ms = 2\n\n[gateway]\nallow-origin = ["https://a", "https://b"]\nmax-streams = 3\n'
    )
    return file


def test_flags_before_variables_before_the_file_before_defaults(file: Path) -> None:
    found = settings(
        "serve", "--config", file, "--max-batch", "8", MOULIN_SERVE_MAX_BATCH="16", MOULIN_SERVE_HOST="::2"
    )
    assert (found["max-batch"], found["host"], found["max-streams"], found["beam"]) == (8, "::2", 5, 4)
    assert (found["models"], found["endpoint"], found["linger-ms"]) == (["a b", "ü"], False, 2.0)
    assert settings("serve", "--config", file, "--endpoint", "c")["endpoint"] is True
    assert settings("serve", "--config", file, "c")["models"] == ["c"]
    assert settings("serve", MOULIN_SERVE_CONFIG=str(file), MOULIN_SERVE_ENDPOINT="true")["endpoint"] is True


def test_the_gateway_has_its_own(file: Path) -> None:
    found = settings("gateway", "--config", file)
    assert (found["allow-origin"], found["max-streams"]) == (["https://a", "https://b"], 3)
    assert settings("gateway", MOULIN_GATEWAY_TRITON="a:1 b:2")["triton"] == ["a:1", "b:2"]
    assert settings("gateway", MOULIN_SERVE_MAX_STREAMS="7")["max-streams"] == 256


def test_what_is_printed_can_be_read_again(file: Path, tmp_path: Path) -> None:
    first = moulin("serve", "--config", file, "--print-config").stdout
    (tmp_path / "again.toml").write_text(first)
    assert moulin("serve", "--config", tmp_path / "again.toml", "--print-config").stdout == first
    from_a_flag = moulin("serve", "--host", '"\\\x7f', "--print-config", MOULIN_SERVE_BEAM="2").stdout
    assert "beam = 2  # MOULIN_SERVE_BEAM" in from_a_flag
    assert tomllib.loads(from_a_flag)["serve"]["host"] == '"\\\x7f'


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[serve]\nmax-bacth = 3", "did you mean max-batch?"),
        ("[serve]\nconfig = 'x'", "'config'"),
        ("[serve]\nsupervision-fd = 3", "'supervision-fd'"),
        ("[serve]\nmax-batch = [3]", "one value"),
        ("[serve]\nmax-batch = true", "no truth value"),
        ("[serve]\nmax-batch = {a = 1}", "one value"),
        ("[serve]\nendpoint = 'no'", "true or false"),
        ("[serve]\nmodels = 'a'", "a list"),
        ("[serve]\nmax-batch = 3\nmax_batch = 4", "set twice"),
        ("[serve]\nmax-batch = 3\nmax-batch = 4", "no TOML"),
        ("[sevre]\nmax-batch = 3", "'sevre'"),
        ("max-batch = 3", "below [serve]"),
        ("serve = 3", "'serve'"),
        ("[serve", "no TOML"),
        (b"\xff", "no TOML"),
    ],
    ids=str,
)
def test_what_is_wrong_in_a_file_is_named(text: str | bytes, reason: str, tmp_path: Path) -> None:
    file = tmp_path / "moulin.toml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    message = refusal("serve", "--config", file)
    assert str(file) in message
    assert reason in message


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    assert "No such file" in refusal("serve", "--config", tmp_path / "none")
    assert "directory" in refusal("gateway", "--config", tmp_path)


def test_numbers_of_a_file_are_checked_as_those_of_flags(tmp_path: Path) -> None:
    file = tmp_path / "moulin.toml"
    file.write_text("[serve]\nmax-batch = 0\n")
    assert "Expected max-batch of 1 to" in refusal("serve", "--config", file)


def test_a_misspelt_variable_is_named() -> None:
    assert "did you mean MOULIN_SERVE_MAX_BATCH?" in refusal("serve", MOULIN_SERVE_MAX_BACH="3")
    assert "'MOULIN_GATEWAY_LISTEN_FD'" in refusal("gateway", MOULIN_GATEWAY_LISTEN_FD="3")


@pytest.mark.parametrize(
    ("given", "meant"),
    [("MOULIN_SERV_MAX_BATCH", "MOULIN_SERVE_MAX_BATCH"), ("MOULIN_API_KEYES", "MOULIN_API_KEYS")],
)
def test_a_variable_with_a_misspelt_beginning_is_named(given: str, meant: str) -> None:
    done = moulin("serve", "--print-config", **{given: "32"})
    assert (done.returncode, done.stderr) == (
        1,
        f"moulin serve has no setting '{given}'\n  hint: did you mean {meant}?\n",
    )


def test_variables_of_others_are_passed_over() -> None:
    """Of a program of the same name, and what Kubernetes sets for services called moulin and moulin-server."""
    links = {
        "MOULIN_SERVICE_HOST": "10.0.0.1",
        "MOULIN_SERVER_PORT": "tcp://10.0.0.1:9000",
        "MOULIN_PORT_9000_TCP": "x",
    }
    environ = {**links, "MOULIN_ROUGE": "1", "MOULIN_API_KEY": "k", "MOULIN_API_KEYS": "k"}
    assert settings("serve", **environ) == settings("serve")


def test_variables_that_kubernetes_sets_for_a_service_of_this_name() -> None:
    links = {
        "SERVICE_HOST": "10.0.0.1",
        "SERVICE_PORT": "9000",
        "SERVICE_PORT_HTTP": "9000",
        "PORT": "tcp://10.0.0.1:9000",
    }
    links |= {"PORT_9000_TCP": "tcp://10.0.0.1:9000", "PORT_9000_TCP_ADDR": "10.0.0.1"}
    for verb in ("serve", "gateway"):
        environ = {f"MOULIN_{verb.upper()}_{name}": value for name, value in links.items()}
        assert settings(verb, **environ) == settings(verb)
    assert settings("gateway", MOULIN_GATEWAY_PORT="9001")["port"] == 9001


def test_a_repository_is_served_as_it_was_built(file: Path, tmp_path: Path) -> None:
    message = refusal("serve", "--repository", tmp_path, "--config", file)
    assert "alone, got" in message
