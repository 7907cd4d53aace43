"""The operator's options in config.pbtxt: one parameter of JSON, written and read by the same classes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from moulin.errors import BundleError, OptionsError
from moulin.options import from_json, to_json
from moulin.triton_repo.offline_options import OfflineOptions
from moulin.triton_repo.service_options import ServiceOptions
from moulin.triton_repo.streaming_options import StreamingOptions

NAME = "service"

_Options = TypeVar("_Options", OfflineOptions, StreamingOptions)


def add_service(config: Any, options: ServiceOptions) -> None:
    """Put `options` into an `inference.ModelConfig` message."""
    config.parameters[NAME].string_value = to_json(options)


def read_service(options: type[_Options], values: Mapping[str, str], where: str) -> _Options:
    """The options in `values`, the parameters of a config.pbtxt by name; `where` names it in messages.

    Raises BundleError where there are none, as in a repository of an earlier moulin, or where this moulin refuses them.
    """
    try:
        text = values[NAME]
    except KeyError:
        found = ", ".join(sorted(values)) or "none"
        raise BundleError(
            f"Expected {where} to have the parameter {NAME!r}, got {found}: an earlier moulin wrote it, or none",
            hint="build it anew with `moulin repo build`",
        ) from None
    try:
        return from_json(options, text)
    except OptionsError as error:
        raise BundleError(
            f"{where} was written for another moulin: {error.message}", hint="build it anew with `moulin repo build`"
        ) from error
