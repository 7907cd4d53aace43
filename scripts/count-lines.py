#!/usr/bin/env python3
"""Counts the source by room: files, lines, functions, lengths, long parameter lists, modules with a test of their own.

    python scripts/count-lines.py [SOURCE]           one tree (default: src/moulin)
    python scripts/count-lines.py OLD NEW            two trees, and the difference
    python scripts/count-lines.py OLD NEW --together decoding,streaming

A room is a folder of the tree, nested folders included. Rooms between which files moved are counted as one (`TOGETHER`,
or each --together). Tests are looked for beside the tree: `SOURCE/../../tests/ROOM/test_MODULE.py`.
"""

from __future__ import annotations

import argparse
import ast
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

# `engine` and `export` held what is now in `models`, `tensorrt_engine` and `onnx_rewrites`.
TOGETHER = ("decoding,streaming,engine,models,tensorrt_engine,onnx_rewrites,export",)
TOP_LEVEL = "(top level)"
MOST_PARAMETERS = 8
COLUMNS = (
    "files", "lines", "functions",
    "function p50", "p90", "max",
    "file p50", "p90", "max",
    f"over {MOST_PARAMETERS} parameters", "modules", "with own test",
)  # fmt: skip


@dataclass
class Count:
    """What one room, or several counted as one, holds."""

    file_lengths: list[int] = field(default_factory=list)
    function_lengths: list[int] = field(default_factory=list)
    long_parameter_lists: list[str] = field(default_factory=list)
    modules: int = 0
    tested_modules: int = 0

    def __add__(self, other: Count) -> Count:
        return Count(
            self.file_lengths + other.file_lengths,
            self.function_lengths + other.function_lengths,
            self.long_parameter_lists + other.long_parameter_lists,
            self.modules + other.modules,
            self.tested_modules + other.tested_modules,
        )

    def figures(self) -> tuple[int, ...]:
        """One figure for each of `COLUMNS`."""
        return (
            len(self.file_lengths), sum(self.file_lengths), len(self.function_lengths),
            *_quantiles(self.function_lengths), *_quantiles(self.file_lengths),
            len(self.long_parameter_lists), self.modules, self.tested_modules,
        )  # fmt: skip


def main() -> None:
    arguments = _arguments()
    trees = [count_tree(source) for source in arguments.sources]
    trees = [_joined(rooms, [group.split(",") for group in arguments.together]) for rooms in trees]
    for line in _table(trees):
        print(line)
    for source, rooms in zip(arguments.sources, trees, strict=True):
        names = [name for count in rooms.values() for name in count.long_parameter_lists]
        print(f"\nMore than {MOST_PARAMETERS} parameters in {source}: {', '.join(names) or 'none'}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sources", nargs="*", type=Path, help="one tree, or an old and a new one")
    parser.add_argument("--together", action="append", metavar="ROOM,ROOM", help="rooms to count as one; repeatable")
    arguments = parser.parse_args()
    arguments.sources = arguments.sources or [Path(__file__).parents[1] / "src" / "moulin"]
    arguments.together = TOGETHER if arguments.together is None else arguments.together
    if len(arguments.sources) > 2:
        parser.error(f"Expected one or two trees, got {len(arguments.sources)}")
    for source in arguments.sources:
        if not (source / "__init__.py").is_file():
            parser.error(f"Expected a package's folder, as src/moulin, got {source}")
    return arguments


def count_tree(source: Path) -> dict[str, Count]:
    """A count for each room of the package in folder `source`."""
    rooms: dict[str, Count] = {}
    for path in sorted(source.rglob("*.py")):
        parts = path.relative_to(source).parts
        room = parts[0] if len(parts) > 1 else TOP_LEVEL
        rooms[room] = rooms.get(room, Count()) + _count_file(source, path)
    return rooms


def _count_file(source: Path, path: Path) -> Count:
    text = path.read_text(encoding="utf-8")
    functions = list(_functions(ast.parse(text)))
    name = path.relative_to(source).with_suffix("")
    is_module = path.stem not in ("__init__", "__main__")
    return Count(
        file_lengths=[len(text.splitlines())],
        function_lengths=[(function.end_lineno or 0) - function.lineno + 1 for function in functions],
        long_parameter_lists=[
            f"{name}:{function.name}({_parameters(function)})"
            for function in functions
            if _parameters(function) > MOST_PARAMETERS and not _is_kernel(function)
        ],
        modules=int(is_module),
        tested_modules=int(is_module and (_tests(source) / name.parent / f"test_{name.name}.py").is_file()),
    )


def _tests(source: Path) -> Path:
    return source.resolve().parents[1] / "tests"


def _functions(tree: ast.Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Every function, methods and nested ones included."""
    return (node for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)))


def _parameters(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """How many parameters a function has beside `self` or `cls`; `*args` and `**kwargs` are one each."""
    arguments = function.args
    named = [argument.arg for argument in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)]
    collecting = (arguments.vararg is not None) + (arguments.kwarg is not None)
    return len(named) - (named[:1] in (["self"], ["cls"])) + collecting


def _is_kernel(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Whether a decorator is `triton.jit`, with or without arguments."""
    decorators = [node.func if isinstance(node, ast.Call) else node for node in function.decorator_list]
    return any(ast.unparse(decorator) == "triton.jit" for decorator in decorators)


def _joined(rooms: dict[str, Count], groups: Sequence[Sequence[str]]) -> dict[str, Count]:
    """The same counts with each group's rooms as one, under their names joined by ` + `."""
    joined = dict(rooms)
    for group in groups:
        joined[" + ".join(group)] = sum((joined.pop(room) for room in group if room in joined), Count())
    return joined


def _table(trees: Sequence[dict[str, Count]]) -> Iterator[str]:
    """Lines of a Markdown table: a row for each room and tree, with a row of differences below two of them."""
    names = sorted({name for rooms in trees for name in rooms}, key=lambda name: (" + " in name, name))
    totals = [sum(rooms.values(), Count()) for rooms in trees]
    yield f"| room | {' | '.join(COLUMNS)} |"
    yield f"|---|{'---:|' * len(COLUMNS)}"
    for name in names:
        yield from _rows(name, [rooms.get(name, Count()) for rooms in trees])
    yield from _rows("everything", totals)


def _rows(name: str, counts: Sequence[Count]) -> Iterator[str]:
    figures = [count.figures() for count in counts]
    if len(figures) == 1:
        yield _row(name, figures[0])
        return
    old, new = figures
    yield _row(f"{name}, old", old)
    yield _row("new", new)
    yield _row("difference", [f"{b - a:+}" if b != a else "" for a, b in zip(old, new, strict=True)])


def _row(name: str, cells: Sequence[object]) -> str:
    return f"| {name} | {' | '.join(str(cell) for cell in cells)} |"


def _quantiles(lengths: Sequence[int]) -> tuple[int, int, int]:
    """Median, 90th percentile (both rounded) and maximum; zeros of nothing."""
    if not lengths:
        return 0, 0, 0
    tenths = statistics.quantiles([*lengths, *lengths] if len(lengths) == 1 else lengths, n=10, method="inclusive")
    return round(tenths[4]), round(tenths[8]), max(lengths)


if __name__ == "__main__":
    main()
