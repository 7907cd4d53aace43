#!/usr/bin/env python3
"""Writes docs/reference/*.md from the program: commands, settings, HTTP, tensors, metrics,
versions.

Without arguments it rewrites them; with --check it changes nothing and exits with 1 where one is out of date. Two that
are long and say what `-h` says are made when the site is built (`built_pages`), and are no files.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import typer

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "docs" / "reference"
WRITTEN = "<!-- Written by scripts/docs-reference.py. -->"


def main() -> None:
    check = sys.argv[1:] == ["--check"]
    assert all(built_pages().values())
    pages = {
        "http": http(),
        "tensors": tensors(),
        "metrics": metrics(),
        "versions": versions(),
    }
    stale = []
    for name, lines in pages.items():
        file, text = FOLDER / f"{name}.md", "\n".join([WRITTEN, "", *lines, ""])
        if not file.exists() or file.read_text() != text:
            stale.append(f"{file.relative_to(ROOT)}")
            if not check:
                file.write_text(text)
    if check and stale:
        sys.exit(f"Out of date: {', '.join(stale)} (hint: run scripts/docs-reference.py)")


def built_pages() -> dict[str, str]:
    """The pages of the site that are no files, by their paths."""
    pages = {"reference/cli.md": commands(), "reference/settings.md": settings()}
    return {path: "\n".join([*lines, ""]) for path, lines in pages.items()}


def verbs(command: Any, context: Any) -> Iterator[tuple[str, Any, Any]]:
    """Each command with its whole name and its context: itself, then those below it."""
    yield context.command_path, command, context
    for name in getattr(command, "commands", {}):
        below = command.commands[name]
        yield from verbs(below, below.context_class(below, info_name=name, parent=context))


def every_verb() -> list[tuple[str, Any, Any]]:
    from moulin.cli.app import app

    root = typer.main.get_command(app)
    context = root.context_class(root, info_name="moulin", **root.context_settings)  # type: ignore[attr-defined]
    return list(verbs(root, context))


def commands() -> Iterator[str]:
    """What help says: for each verb its own options, and those of several verbs once, by their headings."""
    verbs = [(name, command, sections_of(command, context)) for name, command, context in every_verb()]
    users: dict[Section, list[str]] = {}
    for name, _, sections in verbs:
        for section in sections:
            users.setdefault(section, []).append(name)
    shared = [section for section, names in users.items() if len(names) > 1 and section.heading != "Options"]
    titles = dict(zip(shared, _titles(shared), strict=True))
    yield "# Commands"
    yield ""
    yield (
        "What `-h` says of each, with the options of several verbs once, [at the end](#options-of-several-verbs). "
        "`moulin --install-completion` adds completion to bash, zsh, fish or PowerShell."
    )
    for name, command, sections in verbs:
        yield from ("", f"## {name}", *_paragraphs(command.help or ""))
        for section in sections:
            if section not in titles and section.rows:
                yield from section.table(heading=None if section.heading == "Options" else section.heading)
        if others := [f"[{titles[section]}](#{_anchor(titles[section])})" for section in sections if section in titles]:
            yield from ("", f"And the options of {', '.join(others)}.")
        if command.epilog:
            yield from ("", f"{_cell(command.epilog)}")
    yield from ("", "## Options of several verbs")
    for section, title in titles.items():
        yield from ("", f"### {title}", "", f"Of {', '.join(f'`{name}`' for name in users[section])}.")
        yield from section.table(heading=None)


@dataclass(frozen=True)
class Section:
    """Arguments or options below one heading of help, with what is said of each."""

    heading: str
    rows: tuple[tuple[str, str], ...]

    def table(self, *, heading: str | None) -> Iterator[str]:
        yield from ("", f"| {heading or ''} | |", "|---|---|")
        for names, text in self.rows:
            yield f"| `{names.replace('|', chr(92) + '|')}` | {_cell(text)} |"


def sections_of(command: Any, context: Any) -> list[Section]:
    from moulin.cli.verbs import help_sections

    usual = ("--help", "completion")
    return [
        Section(heading, tuple(row for row in rows if not any(word in row[0] for word in usual)))
        for heading, rows in help_sections(command, context).items()
    ]


def _titles(sections: list[Section]) -> Iterator[str]:
    """The headings, numbered where several sections have the same."""
    seen: dict[str, int] = {}
    for section in sections:
        seen[section.heading] = number = seen.get(section.heading, 0) + 1
        yield section.heading if number == 1 else f"{section.heading}, {number}"


def _anchor(title: str) -> str:
    return "".join(char for char in title.lower() if char.isalnum() or char in " -").replace(" ", "-")


def _paragraphs(help: str) -> Iterator[str]:
    for paragraph in help.split("\n\n"):
        yield from ("", _cell(paragraph))


def settings() -> Iterator[str]:
    from moulin.cli.settings import SERVICES, _key, _params, prefix

    yield "# Settings"
    yield ""
    yield (
        "Of `moulin serve` and `moulin gateway`, as flags, as keys of a TOML file (`--config`) and as variables. "
        "[How they go together](../serving.md#settings-in-a-file-or-in-the-environment)."
    )
    for name, _, context in every_verb():
        verb = name.removeprefix("moulin ")
        if verb not in SERVICES:
            continue
        yield from (
            "",
            f"## {verb}",
            "",
            f"Below `[{verb}]`; what each means: [moulin {verb}](cli.md#moulin-{verb}).",
            "",
        )
        yield from ("| key | variable |", "|---|---|")
        for parameter in _params(context).values():
            variable = f"`{prefix(verb)}{parameter.name.upper()}`" if parameter.param_type_name == "option" else ""
            yield f"| `{_key(parameter)}` | {variable} |"


def http() -> Iterator[str]:
    from moulin.gateway.app import create_app
    from moulin.gateway.openapi import TAGS, document
    from moulin.gateway.settings import gateway_settings

    described = document(create_app(gateway_settings()).routes)
    yield "# HTTP"
    yield ""
    yield (
        "Of the gateway: the same as `GET /openapi.json` and `GET /docs` of a running one. "
        "[What it does with them](../gateway.md)."
    )
    for tag in TAGS:
        yield from ("", f"## {tag}", "", "| | | answers |", "|---|---|---|")
        for path, methods in described["paths"].items():
            for method, operation in methods.items():
                if method != "parameters" and tag in operation["tags"]:
                    content = operation["responses"].get("200", {}).get("content", {})
                    answers = ", ".join(f"`{kind}`" for kind in content)
                    yield f"| `{method.upper()} {path}` | {_cell(operation['summary'])} | {answers} |"
    yield from ("", "## WebSockets", "", "| | |", "|---|---|")
    for path, what in described["x-websockets"].items():
        yield f"| `{path}` | {_cell(what)} |"
    yield from ("", "## Fields of `POST /v1/audio/transcriptions`", "", "| field | type | what |", "|---|---|---|")
    form = described["paths"]["/v1/audio/transcriptions"]["post"]["requestBody"]["content"]["multipart/form-data"]
    for name, field in form["schema"]["properties"].items():
        yield f"| `{name}` | {_cell(_kind(field))} | {_cell(field.get('description', ''))} |"


def _kind(schema: dict[str, Any]) -> str:
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    if "anyOf" in schema:
        return " or ".join(kind for kind in map(_kind, schema["anyOf"]) if kind != "null")
    kind = str(schema.get("type", "any"))
    return f"{kind} of {_kind(schema['items'])}" if kind == "array" and "items" in schema else kind


def tensors() -> Iterator[str]:
    """The tensors of `moulin.triton_repo.contract`, and the options of OPTIONS."""
    from dataclasses import fields

    from moulin.decoding.options import DecodingOptions
    from moulin.streaming.endpoint_rules import EndpointRules

    yield "# Tensors"
    yield ""
    yield "Of the models in Triton. [The contract](../triton-contract.md) says what is sent when."
    yield from ("", "| tensor | |", "|---|---|")
    source = ROOT / "src" / "moulin" / "triton_repo" / "contract.py"
    body = ast.parse(source.read_text()).body
    for statement, comment in pairwise(body):
        match statement, comment:
            case (
                ast.Assign(targets=[ast.Name()], value=ast.Constant(value=str(name))),
                ast.Expr(value=ast.Constant(value=str(text))),
            ):
                yield f"| `{name}` | {_cell(text)} |"
    yield from ("", "## OPTIONS", "", "| name | default | of |", "|---|---|---|")
    for kind, of in ((DecodingOptions, "all"), (EndpointRules, "streams")):
        for one in fields(kind):
            yield f"| `{one.name}` | `{_json(one.default)}` | {of} |"
    yield "| `endpoint` | `true` | streams |"


def _json(value: object) -> str:
    import json

    return json.dumps(value)


def metrics() -> Iterator[str]:
    # Triton has it inside its stub only.
    sys.modules.setdefault("triton_python_backend_utils", ModuleType("triton_python_backend_utils"))
    from prometheus_client.metrics import MetricWrapperBase

    from moulin.gateway.metrics import Metrics
    from moulin.gateway.state_metrics import StateMetrics
    from moulin.gateway.supervision import Supervision
    from moulin.triton_repo.offline_metrics import COUNTERS
    from moulin.triton_repo.streaming_metrics import _COUNTERS, _GAUGES, _LATENCY, _LATENCY_TEXT

    head = ("", "| metric | kind | labels | |", "|---|---|---|---|")
    yield "# Metrics"
    yield ""
    yield "## Of the gateway, at `/metrics` of its port"
    yield from head
    for metric in vars(Metrics()).values():
        if isinstance(metric, MetricWrapperBase):
            yield _metric(metric._name, metric._type, metric._labelnames, metric._documentation)
    for family in (*StateMetrics({}).collect(), *Supervision(None).collect()):
        yield _metric(family.name, family.type, family._labelnames, family.documentation)  # type: ignore[attr-defined]
    yield ""
    yield "## Of a streaming model, on Triton's metrics port"
    yield from head
    for kind, names in (("gauge", _GAUGES), ("counter", _COUNTERS)):
        for name, text in names.items():
            yield _metric(name.removesuffix("_total"), kind, ("model", "version", "instance"), text)
    yield _metric(_LATENCY, "histogram", ("model", "version", "instance"), _LATENCY_TEXT)
    yield ""
    yield "## Of a model of whole recordings on a CPU, on Triton's metrics port"
    yield from head
    for name, text in COUNTERS.items():
        yield _metric(name.removesuffix("_total"), "counter", ("model", "version", "instance"), text)
    yield ""
    yield (
        "Beside them stand [Triton's own](https://docs.nvidia.com/deeplearning/triton-inference-server/user-guide/docs/"
        "user_guide/metrics.html), `nv_…`. [What to look at](../serving.md#metrics-and-health)."
    )


def versions() -> Iterator[str]:
    """What `pyproject.toml` and the images ask for."""
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    images = {
        name: value
        for file in sorted((ROOT / "deploy" / "docker").glob("*.Dockerfile"))
        for name, value in re.findall(r"^ARG (\w+_VERSION)=(\S+)", file.read_text(), re.MULTILINE)
    }
    yield "# Supported versions"
    yield ""
    yield (
        "The oldest release of everything that moulin is meant to run with; tests and images have the newest that go "
        "together (`deploy/constraints-3.X.txt`). [Why each is there](../dependencies.md)."
    )
    yield from ("", "| | |", "|---|---|")
    yield "| system | Linux on x86-64, glibc |"
    yield f"| Python | {project['requires-python']} |"
    yield "| tritonserver | 2.51 (24.10), which nvidia-pytriton 0.7.0 carries; as a container 24.11 or later |"
    for name, value in sorted(images.items()):
        yield f"| {name.removesuffix('_VERSION').capitalize()} in the images | {value} |"
    yield from ("", "| package | release | extra |", "|---|---|---|")
    wanted: dict[str, list[str]] = {}
    groups = {"core": project["dependencies"], **project["optional-dependencies"]}
    for extra, lines in groups.items():
        for line in lines:
            if not line.startswith("moulin["):
                wanted.setdefault(line, []).append(extra)
    for line, extras in sorted(wanted.items()):
        found = re.fullmatch(r"(?P<name>[\w.-]+(\[\w+\])?)(?P<release>[^;]*)(;(?P<where>.*))?", line)
        assert found, line
        where = f" ({found['where'].strip()})" if found["where"] else ""
        release = _cell(f"{found['release'].strip() or 'any'}{where}")
        yield f"| {found['name']} | {release} | {', '.join(f'`{extra}`' for extra in extras)} |"


def _metric(name: str, kind: str, labels: tuple[str, ...], text: str) -> str:
    name += {"counter": "_total", "info": "_info"}.get(kind, "")
    return f"| `{name}` | {kind} | {', '.join(labels)} | {_cell(text)} |"


def _cell(text: str) -> str:
    """Text on one line, in which nothing is markup but what stands in backticks."""
    parts = re.split(r"(`[^`]*`)", " ".join(text.split()).replace("|", "\\|"))
    return "".join(
        part if number % 2 else part.replace("<", "&lt;").replace("[", "\\[") for number, part in enumerate(parts)
    )


if __name__ == "__main__":
    main()
