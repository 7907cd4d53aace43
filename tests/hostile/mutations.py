"""Seeded mutations of bytes, JSON and protobuf messages: small damage, extreme numbers, and parts moved, left out or
repeated. The same seed gives the same mutation on every machine."""

from __future__ import annotations

import json
import random
import struct
from collections.abc import Callable
from functools import partial
from typing import Any

_INTEGERS = (
    0,
    1,
    -1,
    2,
    127,
    128,
    255,
    2**15,
    2**16 - 1,
    2**31 - 1,
    2**31,
    2**32 - 1,
    2**53,
    2**63 - 1,
    -(2**63),
    2**64 - 1,
)
_TEXTS = (
    "",
    "\0",
    "\n",
    "\ud800",
    "é",
    "..",
    "/",
    "../x",
    "x" * 300,
    "x" * 100_000,
    "%s%n",
    "'",
    "{}",
    "NaN",
    "-1",
    "１",
)
_VALUES: tuple[Any, ...] = (*_INTEGERS, *_TEXTS, None, True, [], {}, 0.5, -0.0, 1e308, [[[]]], {"": {}}, 10**30)


def mutated(data: bytes, seed: int) -> bytes:
    """`data` after one to four mutations."""
    chance = random.Random(seed)
    for _ in range(chance.choice((1, 1, 1, 2, 4))):
        data = chance.choice(_OF_BYTES)(data, chance)
    return data


def mutated_json(value: Any, seed: int) -> str:
    """JSON text of `value` after one to three mutations of its parts, and now and then of its text."""
    chance = random.Random(seed)
    value = json.loads(json.dumps(value))
    for _ in range(chance.randint(1, 3)):
        value = _in_json(value, chance)
    text = json.dumps(value, ensure_ascii=chance.random() < 0.8)
    if chance.random() < 0.3:
        text = mutated(text.encode("utf-8", "surrogatepass"), chance.getrandbits(32)).decode("utf-8", "replace")
    return text


def mutate_message(message: Any, seed: int) -> None:
    """Change one to three fields of a protobuf message, at any depth."""
    chance = random.Random(seed)
    for _ in range(chance.randint(1, 3)):
        _in_message(message, chance)


def _flip(data: bytes, chance: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(chance.choice((1, 2, 8))):
        if changed:
            changed[chance.randrange(len(changed))] ^= 1 << chance.randrange(8)
    return bytes(changed)


def _extreme(data: bytes, chance: random.Random) -> bytes:
    """An integer of four or eight bytes set to an extreme value, near the beginning or anywhere."""
    width = chance.choice((2, 4, 8))
    if len(data) <= width:
        return data
    at = chance.randrange(min(len(data) - width, chance.choice((64, 1024, 1 << 40))))
    value = chance.choice(_INTEGERS) % (1 << (8 * width))
    return data[:at] + value.to_bytes(width, chance.choice(("little", "big"))) + data[at + width :]


def _part(data: bytes, chance: random.Random) -> tuple[int, int]:
    begin = chance.randrange(len(data) + 1)
    return begin, min(len(data), begin + chance.choice((1, 4, 64, 4096)))


def _without(data: bytes, chance: random.Random) -> bytes:
    begin, end = _part(data, chance)
    return data[:begin] + data[end:]


def _again(data: bytes, chance: random.Random) -> bytes:
    begin, end = _part(data, chance)
    return data[:begin] + data[begin:end] * chance.choice((2, 3, 100)) + data[end:]


def _moved(data: bytes, chance: random.Random) -> bytes:
    begin, end = _part(data, chance)
    rest = data[:begin] + data[end:]
    at = chance.randrange(len(rest) + 1)
    return rest[:at] + data[begin:end] + rest[at:]


def _cut(data: bytes, chance: random.Random) -> bytes:
    return data[: chance.randrange(len(data) + 1)]


def _inserted(data: bytes, chance: random.Random) -> bytes:
    at = chance.randrange(len(data) + 1)
    what = chance.choice((chance.randbytes(8), b"\0" * 64, b"\xff" * 16, b"(" * 100, struct.pack("<f", float("nan"))))
    return data[:at] + what + data[at:]


_OF_BYTES: tuple[Callable[[bytes, random.Random], bytes], ...] = (
    _flip,
    _flip,
    _extreme,
    _extreme,
    _without,
    _again,
    _moved,
    _cut,
    _inserted,
)


def _in_json(value: Any, chance: random.Random) -> Any:
    """`value` with one part changed, added, renamed or left out."""
    if chance.random() < 0.15 or not isinstance(value, dict | list) or not value:
        return chance.choice(_VALUES)
    if isinstance(value, list):
        at = chance.randrange(len(value))
        match chance.randrange(4):
            case 0:
                return value[:at] + value[at + 1 :]
            case 1:
                return value[:at] + [value[at]] * chance.choice((2, 50)) + value[at:]
            case _:
                return [*value[:at], _in_json(value[at], chance), *value[at + 1 :]]
    name = chance.choice(list(value))
    match chance.randrange(5):
        case 0:
            return {key: one for key, one in value.items() if key != name}
        case 1:
            return {(chance.choice(_TEXTS) if key == name else key): one for key, one in value.items()}
        case 2:
            return {**value, chance.choice(_TEXTS): chance.choice(_VALUES)}
        case _:
            return {**value, name: _in_json(value[name], chance)}


def _in_message(message: Any, chance: random.Random) -> None:
    for _ in range(20):  # levels
        fields = message.DESCRIPTOR.fields
        given = [field for field, _ in message.ListFields()]
        field = chance.choice(given if given and chance.random() < 0.8 else fields)
        value = getattr(message, field.name)
        repeated = field.is_repeated
        if field.message_type is not None and chance.random() < 0.85 and (not repeated or value):
            message = chance.choice(value) if repeated else value
            continue
        if chance.random() < 0.3:
            message.ClearField(field.name)
        elif repeated:
            _in_repeated(value, field, chance)
        elif field.message_type is None:
            _set(partial(setattr, message, field.name), chance)
        return


def _in_repeated(value: Any, field: Any, chance: random.Random) -> None:
    if value and chance.random() < 0.4:
        del value[chance.randrange(len(value))]
    elif field.message_type is not None:
        copy = value.add()
        if len(value) > 1:
            copy.CopyFrom(value[chance.randrange(len(value) - 1)])
    else:
        _set(value.append, chance)


def _set(assign: Callable[[Any], None], chance: random.Random) -> None:
    """Assign an extreme value of whichever kind fits."""
    for value in chance.sample([*_INTEGERS, *_TEXTS, b"\xff\0", 0.5, 99], 20):
        try:
            assign(value)
        except (TypeError, ValueError, UnicodeError):
            continue
        return
