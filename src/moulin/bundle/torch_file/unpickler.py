"""An unpickler that neither imports nor calls anything that a pickle names.

The standard library's `pickletools` splits a pickle into operations, which are carried out here. Time and memory are
bounded by a limit on the number of operations: the memo is sparse, calls are charged by the size of their arguments,
and only short keys are hashed.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from moulin.bundle.torch_file.inert import Placeholder, as_key, rebuilt

MOST_OPERATIONS = 3_000_000
"""The limit. Icefall's largest training checkpoints have some 300,000 operations; each allocates at most 250 bytes."""

_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_EMPTY: Mapping[str, Callable[[], object]] = {"EMPTY_LIST": list, "EMPTY_DICT": dict, "EMPTY_SET": set}
_ARGUMENTS = {
    "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT",
    "UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8",
}  # fmt: skip
_STRINGS = {"STRING", "BINSTRING", "SHORT_BINSTRING"}
_IGNORED = {"PROTO", "FRAME", "READONLY_BUFFER"}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


class PickleError(ValueError):
    """A damaged or too large pickle. The message completes a sentence."""


class Stream(Protocol):
    """The input of `pickletools`."""

    def read(self, size: int, /) -> bytes: ...
    def readline(self) -> bytes: ...
    def tell(self) -> int: ...


class Unpickler:
    """Loads one or more consecutive pickles from `stream`.

    `known` maps a global's full name to its replacement; `persistent` resolves a persistent id.
    """

    def __init__(self, stream: Stream, known: Mapping[str, object], persistent: Callable[[object], object]) -> None:
        self._stream, self._known, self._persistent = stream, known, persistent
        self._left = MOST_OPERATIONS

    def load(self) -> Any:
        """The next pickle's object. Raises PickleError."""
        self._stack: list[Any] = []
        self._marked: list[list[Any]] = []
        self._memo: dict[int, Any] = {}
        try:
            for operation, argument, _ in pickletools.genops(self._stream):  # type: ignore[arg-type]
                self._charge(1)
                self._do(operation.name, argument)
            return self._stack.pop()
        except PickleError:
            raise
        except (ValueError, LookupError, TypeError, OverflowError, MemoryError, Warning) as error:
            raise PickleError(f"its pickle is damaged ({str(error) or type(error).__name__})") from error

    def _charge(self, operations: int) -> None:
        self._left -= operations
        if self._left < 0:
            raise PickleError(f"its pickle has more than {MOST_OPERATIONS:,} operations")

    def _do(self, name: str, argument: Any) -> None:
        stack = self._stack
        if name in ("BINPUT", "LONG_BINPUT", "PUT"):
            self._memo[argument] = stack[-1]
        elif name == "MEMOIZE":
            self._memo[len(self._memo)] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET", "GET"):
            stack.append(self._memo[argument])
        elif name in _ARGUMENTS:
            stack.append(argument)
        elif name in _STRINGS:
            stack.append(_python2_text(argument))
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name in _EMPTY:
            stack.append(_EMPTY[name]())
        elif name in _TUPLES:
            items = tuple(self._popped(_TUPLES[name]))
            self._stack.append(items)
        elif name == "MARK":
            self._marked.append(stack)
            self._stack = []
        elif name not in _IGNORED:
            _OPERATIONS[name](self, argument)

    # ---------------------------------------------------------------------------------------------------- containers

    def _tuple(self, _: Any) -> None:
        items = tuple(self._since_mark())
        self._stack.append(items)

    def _list(self, _: Any) -> None:
        items = self._since_mark()
        self._stack.append(items)

    def _dict(self, _: Any) -> None:
        items = self._since_mark()
        self._stack.append({})
        self._set(items)

    def _frozenset(self, _: Any) -> None:
        items = self._since_mark()
        self._stack.append(frozenset(map(as_key, items)))

    def _append(self, _: Any) -> None:
        self._extend([self._stack.pop()])

    def _appends(self, _: Any) -> None:
        items = self._since_mark()
        self._extend(items)

    def _extend(self, items: list[Any]) -> None:
        into = self._stack[-1]
        if isinstance(into, list):
            into.extend(items)
        elif isinstance(into, set):
            into.update(map(as_key, items))

    def _setitem(self, _: Any) -> None:
        self._set(self._popped(2))

    def _setitems(self, _: Any) -> None:
        items = self._since_mark()
        self._set(items)

    def _set(self, items: list[Any]) -> None:
        into = self._stack[-1]
        if len(items) % 2:
            raise PickleError("its pickle is damaged (a key without a value)")
        if isinstance(into, dict):
            into.update(zip(map(as_key, items[::2]), items[1::2], strict=True))

    # --------------------------------------------------------------------------------------------- globals and calls

    def _global(self, argument: str) -> None:
        module, _, name = argument.rpartition(" ")
        self._stack.append(self._named(module, name))

    def _stack_global(self, _: Any) -> None:
        module, name = self._popped(2)
        self._stack.append(self._named(module, name))

    def _named(self, module: object, name: object) -> object:
        if not isinstance(module, str) or not isinstance(name, str):
            raise PickleError("its pickle is damaged (a global without a name)")
        full = f"{_MODULES.get(module, module)}.{name}"
        return self._known.get(full) or Placeholder(full[:200])

    def _reduce(self, _: Any) -> None:
        what, arguments = self._popped(2)
        self._call(what, arguments)

    def _new_with_keywords(self, _: Any) -> None:
        what, arguments, keywords = self._popped(3)
        self._call(Placeholder(what.name) if keywords and isinstance(what, Placeholder) else what, arguments)

    def _inst(self, argument: str) -> None:
        arguments = tuple(self._since_mark())
        self._global(argument)
        self._call(self._stack.pop(), arguments)

    def _obj(self, _: Any) -> None:
        what, *arguments = self._since_mark()
        self._call(what, tuple(arguments))

    def _call(self, what: object, arguments: object) -> None:
        if isinstance(arguments, tuple):
            self._charge(sum(map(_cost, arguments)) + len(arguments))
        self._stack.append(rebuilt(what, arguments))

    def _build(self, _: Any) -> None:
        state = self._stack.pop()
        what = self._stack[-1]
        take = getattr(what, "take_state", None) if not isinstance(what, Placeholder) else None
        if take is not None:
            take(state)

    def _extension(self, argument: Any) -> None:
        self._stack.append(Placeholder(f"extension {argument}"))

    def _persistent_id(self, _: Any) -> None:
        self._stack.append(self._persistent(self._stack.pop()))

    def _persistent_text(self, argument: str) -> None:
        self._stack.append(self._persistent(argument))

    # -------------------------------------------------------------------------------------------------- stack and end

    def _pop(self, _: Any) -> None:
        if self._stack:
            self._stack.pop()
        else:
            self._since_mark()

    def _pop_mark(self, _: Any) -> None:
        self._since_mark()

    def _bytearray(self, argument: bytearray) -> None:
        self._stack.append(bytes(argument))

    def _dup(self, _: Any) -> None:
        self._stack.append(self._stack[-1])

    def _next_buffer(self, _: Any) -> None:
        self._stack.append(Placeholder("buffer outside the pickle"))

    def _stop(self, _: Any) -> None:
        if self._marked or len(self._stack) != 1:
            raise PickleError("its pickle is damaged (it ends too early)")

    def _popped(self, count: int) -> list[Any]:
        if len(self._stack) < count:
            raise PickleError("its pickle is damaged (an operation without operands)")
        items = self._stack[-count:]
        del self._stack[-count:]
        return items

    def _since_mark(self) -> list[Any]:
        items = self._stack
        self._stack = self._marked.pop()
        return items


_OPERATIONS: Mapping[str, Callable[[Unpickler, Any], None]] = {
    "TUPLE": Unpickler._tuple,
    "LIST": Unpickler._list,
    "DICT": Unpickler._dict,
    "FROZENSET": Unpickler._frozenset,
    "APPEND": Unpickler._append,
    "APPENDS": Unpickler._appends,
    "ADDITEMS": Unpickler._appends,
    "SETITEM": Unpickler._setitem,
    "SETITEMS": Unpickler._setitems,
    "GLOBAL": Unpickler._global,
    "STACK_GLOBAL": Unpickler._stack_global,
    "REDUCE": Unpickler._reduce,
    "NEWOBJ": Unpickler._reduce,
    "NEWOBJ_EX": Unpickler._new_with_keywords,
    "INST": Unpickler._inst,
    "OBJ": Unpickler._obj,
    "BUILD": Unpickler._build,
    "EXT1": Unpickler._extension,
    "EXT2": Unpickler._extension,
    "EXT4": Unpickler._extension,
    "BINPERSID": Unpickler._persistent_id,
    "PERSID": Unpickler._persistent_text,
    "POP": Unpickler._pop,
    "POP_MARK": Unpickler._pop_mark,
    "BYTEARRAY8": Unpickler._bytearray,
    "DUP": Unpickler._dup,
    "NEXT_BUFFER": Unpickler._next_buffer,
    "STOP": Unpickler._stop,
}

# One module name for globals that have moved between modules.
_MODULES = {
    "__builtin__": "builtins",
    "copy_reg": "copyreg",
    "numpy._core.multiarray": "numpy.core.multiarray",
    "pathlib._local": "pathlib",  # Python 3.13
}


def _cost(argument: object) -> int:
    """The number of operations to charge for copying `argument`."""
    if isinstance(argument, list | tuple | dict | set | frozenset):
        return len(argument)
    return len(argument) // 64 if isinstance(argument, str | bytes | bytearray) else 0


def _python2_text(value: str) -> str:
    """A `str` of Python 2, in which pickletools returns one character for each byte."""
    try:
        return value.encode("latin-1").decode()
    except UnicodeError:
        return value
