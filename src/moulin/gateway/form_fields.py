"""The fields of a form, in the spellings that clients' libraries give to lists and objects."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from typing import Any

from starlette.datastructures import UploadFile

from moulin.gateway.api_error import ApiError
from moulin.quoting import quoted

_INDEXED = re.compile(r"(?P<name>[^\[\]]+)\[(?P<key>[^\[\]]*)\]")


def form_fields(
    items: Iterable[tuple[str, str | UploadFile]], lists: Iterable[str], single: Collection[str] = ()
) -> dict[str, Any]:
    """Values by name, but for the file: text, a list (`name[]`, `name[0]`, `name` of `lists`), an object (`name[key]`).

    An empty value is a field that was not given, and names in `lists` are lists however they come. Raises ApiError 400
    for text that is no Unicode, a file in another field, and two values of a field in `single`; of another that is
    given twice the last counts.
    """
    fields: dict[str, Any] = {}
    for name, value in items:
        _expect_unicode(name)
        if name == "file":
            continue
        if isinstance(value, UploadFile):
            raise ApiError(
                400,
                f"Unknown parameter: {quoted(name)}",
                code="unknown_parameter",
                param=name,
                hint="the recording is the field 'file'",
            )
        _expect_unicode(value)
        if value == "":
            continue
        indexed = _INDEXED.fullmatch(name)
        name, key = (indexed["name"], indexed["key"]) if indexed else (name, None)
        if key is None and name not in lists:
            if name in single and fields.get(name, value) != value:
                raise given_twice(name, fields[name], value)
            fields[name] = value
        elif not key or key.isdecimal():
            gathered = fields.get(name)
            fields[name] = [*gathered, value] if isinstance(gathered, list) else [value]
        else:
            gathered = fields.get(name)
            fields[name] = {**gathered, key: value} if isinstance(gathered, dict) else {key: value}
    return fields


def given_twice(name: str, one: object, other: object) -> ApiError:
    """The refusal of two values where one counts: to take either would be a guess."""
    return ApiError(
        400,
        f"Expected one {name}, got {quoted(one)} and {quoted(other)}",
        code="invalid_value",
        param=name,
        hint="give it once",
    )


def _expect_unicode(value: str) -> None:
    """Raise ApiError for half of a surrogate pair: the client names the charset of its form, and some decode to it."""
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ApiError(
            400, f"Expected a form in UTF-8, got {quoted(value)}", code="invalid_value", hint="leave out its charset"
        ) from None
