"""Settings of a service from a TOML file and from the environment, below the flags of its command line.

A flag wins over its variable (`MOULIN_SERVE_MAX_BATCH` for `--max-batch` of `moulin serve`), the variable over the
file, and the file over the default. Nothing that is misspelt is passed over.
"""

from __future__ import annotations

import difflib
import json
import os
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from moulin.errors import OptionsError
from moulin.quoting import quoted

SERVICES = ("serve", "gateway")
"""The verbs with settings, each with a table of the file."""

_OWN = {"config", "print_config", "help"}
_KEYS = ("MOULIN_API_KEY", "MOULIN_API_KEYS")
"""The client's key, and the gateway's."""
_NEAR = 0.9
"""The part of its letters that a misspelt variable shares with the one that was meant."""
_ARGUMENTS = "moulin.arguments"
# What Kubernetes sets in every pod for a service called moulin-serve or moulin-gateway, and for any other.
_SERVICE_LINK = re.compile(r"SERVICE_(HOST|PORT)(_.*)?|PORT_\d+_(TCP|UDP|SCTP)(_.*)?")
_ANY_SERVICE_LINK = re.compile(rf"MOULIN.*_({_SERVICE_LINK.pattern})")
_LINK = re.compile(r"(tcp|udp|sctp)://", re.IGNORECASE)


def variables(verb: str) -> dict[str, Any]:
    """Typer's context settings for a verb whose flags have variables in the environment."""
    return {"auto_envvar_prefix": prefix(verb).removesuffix("_")}


def prefix(verb: str) -> str:
    """How the variables of a verb begin."""
    return f"MOULIN_{verb.upper()}_"


def arguments(context: typer.Context, name: str) -> list[Any]:
    """The values that the file has for the arguments (not flags) called `name`, as they stand there."""
    found: list[Any] = context.meta.get(_ARGUMENTS, {}).get(name, [])
    return found


def has_table(file: Path | None, verb: str) -> bool:
    """Whether the settings file has settings for this verb. Raises OptionsError."""
    return file is not None and bool(_read(file).get(verb))


def setting_of(file: Path | None, verb: str, key: str) -> Any:
    """A setting of another verb, from its variable or the file; None where neither has it. Raises OptionsError."""
    said = os.environ.get(prefix(verb) + key.upper().replace("-", "_"), "")
    if _LINK.match(said):
        said = ""  # Kubernetes' MOULIN_GATEWAY_PORT
    return said or (None if file is None else _read(file).get(verb, {}).get(key))


def print_settings(context: typer.Context) -> None:
    """Print all settings, as they are after flags, variables and file, as a file that `--config` reads."""
    typer.echo("\n".join(_lines(context)))


def _load(context: typer.Context, file: Path | None) -> Path | None:
    """Typer's callback of `--config`: what it finds becomes the defaults of the other flags."""
    if context.resilient_parsing:  # completion
        return file
    verb, params = context.info_name or "", _params(context)
    _check_environment(verb, params)
    if file is not None:
        found = _settings(file, verb, params)
        context.meta[_ARGUMENTS] = {name: found.pop(name) for name in list(found) if _is_argument(params[name])}
        context.default_map = found
    return file


ConfigFile = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Settings from the table of this verb in a TOML file, by the names of the flags; flags and variables "
        "(MOULIN_SERVE_…, MOULIN_GATEWAY_…) win.",
        is_eager=True,
        callback=_load,
    ),
]
PrintConfig = Annotated[bool, typer.Option("--print-config", help="Print all settings as such a file, and end.")]


def _params(context: typer.Context) -> dict[str, Any]:
    """The parameters that can be set, by their names in Python."""
    return {
        parameter.name: parameter
        for parameter in context.command.params
        if parameter.name and parameter.name not in _OWN and not getattr(parameter, "hidden", False)
    }


def _is_argument(parameter: Any) -> bool:
    return bool(parameter.param_type_name == "argument")


def _settings(file: Path, verb: str, params: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of the verb by the names of `params`. Raises OptionsError."""
    found = {}
    for key, value in _read(file).get(verb, {}).items():
        name = key.replace("-", "_")
        if name not in params:
            raise OptionsError(
                f"{file}: {verb} has no setting {quoted(key)}",
                hint=_nearest(key, [_key(parameter) for parameter in params.values()], f"moulin {verb} --help"),
            )
        if name in found:
            raise OptionsError(f"{file}: {quoted(key)} is set twice")
        found[name] = _expect_value(file, key, value, params[name])
    return found


def _read(file: Path) -> dict[str, Any]:
    try:
        tables = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise OptionsError(f"Cannot read the settings in {file}: {error.strerror or error}") from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise OptionsError(
            f"{file} is no TOML: {error}", hint='a setting is a line: max-batch = 32, host = "::"'
        ) from error
    for name, table in tables.items():
        if name not in SERVICES or not isinstance(table, dict):
            raise OptionsError(
                f"{file}: expected the tables {' and '.join(f'[{each}]' for each in SERVICES)}, got {quoted(name)}",
                hint="put the settings below [serve] or [gateway]",
            )
    return tables


def _expect_value(file: Path, key: str, value: Any, parameter: Any) -> Any:
    """A value as Typer takes it for a default. Raises OptionsError for one that it would take for something else."""
    several = getattr(parameter, "multiple", False) or parameter.nargs != 1
    if several != isinstance(value, list) or isinstance(value, dict):
        wanted = "a list" if several else "one value"
        raise OptionsError(f"{file}: expected {wanted} for {quoted(key)}, got {quoted(value)}")
    is_flag = getattr(parameter, "is_flag", False)
    if is_flag != isinstance(value, bool):
        wanted = "true or false" if is_flag else "no truth value"
        raise OptionsError(f"{file}: expected {wanted} for {quoted(key)}, got {quoted(value)}")
    return value


def _check_environment(verb: str, params: Mapping[str, Any]) -> None:
    """Raises OptionsError for a variable of the verb that is none of its flags, and for one that is almost one."""
    begins, names = prefix(verb), {*params, "config"}
    known = [begins + each.upper() for each in names]
    if _LINK.match(os.environ.get(f"{begins}PORT", "")):
        del os.environ[f"{begins}PORT"]  # Kubernetes', and no port
    for variable in sorted(os.environ):
        name = variable.removeprefix(begins)
        if name == variable and not _is_misspelt(variable, [*known, *_KEYS]):
            continue
        if name.lower() in names or _SERVICE_LINK.fullmatch(name):
            continue
        raise OptionsError(
            f"moulin {verb} has no setting {quoted(variable)}",
            hint=_nearest(variable, [*known, *_KEYS], f"moulin {verb} --help"),
        )


def _is_misspelt(variable: str, known: Sequence[str]) -> bool:
    """Whether a variable that begins with no verb's name is meant for one of `known`: MOULIN_SERV_MAX_BATCH. Others may
    be anybody's."""
    ours = variable.startswith("MOULIN") and not variable.startswith(tuple(map(prefix, SERVICES)))
    if not ours or variable in _KEYS or _ANY_SERVICE_LINK.fullmatch(variable) or _LINK.match(os.environ[variable]):
        return False
    return bool(difflib.get_close_matches(variable, known, 1, _NEAR))


def _nearest(given: str, known: Iterable[str], otherwise: str) -> str:
    near = difflib.get_close_matches(given, list(known), 1)
    return f"did you mean {near[0]}?" if near else f"see {otherwise}"


def _key(parameter: Any) -> str:
    """The setting's name in the file: the flag's without dashes in front."""
    return str(parameter.name).replace("_", "-")


def _lines(context: typer.Context) -> Iterator[str]:
    verb = context.info_name or ""
    yield f"[{verb}]"
    for name, parameter in _params(context).items():
        value = context.params.get(name)
        if value in (None, (), []):
            value = arguments(context, name)
        if value == []:
            yield f"# {_key(parameter)} is not set"
            continue
        source = context.get_parameter_source(name)
        said = {"COMMANDLINE": "  # command line", "ENVIRONMENT": f"  # {prefix(verb)}{name.upper()}"}
        yield f"{_key(parameter)} = {_toml(value)}{said.get(source.name if source else '', '')}"


def _toml(value: Any) -> str:
    """A string, number, truth value or list of these in TOML. Its strings are JSON's, but for DEL."""
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, bool | int | float):
        return str(value).lower()
    return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")
