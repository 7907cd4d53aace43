"""Rooms import one another downwards only, as the block `rooms` in ARCHITECTURE.md draws them.

Each line of the block names rooms (folders and top-level files of the package) that may import the rooms of the lines
below it, and neither one another nor any room above. Imports inside functions and under TYPE_CHECKING count as well.
An entry point (`__main__.py`) may import every room and is imported by none. The package itself (`__version__`) imports
no room and is open to all.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "moulin"
ENTRY_POINT = "__main__"
PACKAGE = "__init__"


class Import(NamedTuple):
    """`file:line` imports `imported`, a dotted name below `moulin`: () for the package itself."""

    file: Path
    line: int
    imported: tuple[str, ...]


def test_rooms_import_downwards_only() -> None:
    assert violations(SOURCE, drawn_layers()) == []


def test_every_room_is_drawn_once() -> None:
    drawn = sorted(room for layer in drawn_layers() for room in layer)
    assert drawn == sorted(rooms(SOURCE))


@pytest.mark.parametrize(
    ("file", "text", "violation"),
    [
        ("low/x.py", "from moulin.high.y import z", "low/x.py:1 imports moulin.high.y.z"),
        ("low/x.py", "def f():\n    import moulin.high.y", "low/x.py:2 imports moulin.high.y"),
        ("low/x.py", "if TYPE_CHECKING:\n    from moulin import high", "low/x.py:2 imports moulin.high"),
        ("low/x.py", "from ..high import y", "low/x.py:1 imports moulin.high.y"),
        ("low/in/x.py", "from ...high import y", "low/in/x.py:1 imports moulin.high.y"),
        ("low.py", "from .high import y", "low.py:1 imports moulin.high.y"),
        ("low/x.py", "from moulin.beside import z", "low/x.py:1 imports moulin.beside.z"),
        ("low/x.py", "import moulin.undrawn", "low/x.py:1 imports moulin.undrawn"),
        ("high/x.py", "from moulin.low.__main__ import main", "high/x.py:1 imports moulin.low.__main__.main"),
        ("__main__.py", "import moulin.low.__main__", "__main__.py:1 imports moulin.low.__main__"),
        ("__init__.py", "from moulin.low import x", "__init__.py:1 imports moulin.low.x"),
        ("low/x.py", "from moulin import __version__", None),
        ("low/x.py", "from . import y\nfrom moulin.low.y import z\nimport moulinette.high, os.path", None),
        ("high/x.py", "from moulin.low import y", None),
        ("low/__main__.py", "from moulin.high import y\nfrom moulin.low import y", None),
    ],
)
def test_a_planted_import_is_found(tmp_path: Path, file: str, text: str, violation: str | None) -> None:
    planted = tmp_path / file
    planted.parent.mkdir(parents=True, exist_ok=True)
    planted.write_text(text)
    layers = [{"high"}, {"low", "beside"}]
    found = violations(tmp_path, layers)
    assert [line.split(":", 2)[0] + ":" + line.split(":", 2)[1] for line in found] == ([violation] if violation else [])


def drawn_layers() -> list[set[str]]:
    """The rooms on each line of ARCHITECTURE.md's block `rooms`, from top to bottom."""
    (block,) = re.findall(r"^```rooms\n(.*?)^```$", (ROOT / "ARCHITECTURE.md").read_text(), re.DOTALL | re.MULTILINE)
    return [set(line.split()) for line in block.splitlines()]


def rooms(source: Path) -> set[str]:
    """Folders with Python files in them and top-level modules, entry points and the package's own file aside."""
    return {_room(file.relative_to(source).with_suffix("").parts) for file in source.rglob("*.py")} - {
        ENTRY_POINT,
        PACKAGE,
    }


def violations(source: Path, layers: list[set[str]]) -> list[str]:
    """A line for each import under `source` that does not go to a room of a lower line."""
    height = {room: -line for line, layer in enumerate(layers) for room in layer}
    return [
        f"{found.file}:{found.line} imports moulin.{'.'.join(found.imported)}: "
        f"`{_room(found.imported)}` is not drawn below `{_room(found.file.with_suffix('').parts)}`"
        for found in imports(source)
        if not _allowed(found, height)
    ]


def _allowed(found: Import, height: dict[str, int]) -> bool:
    importer, imported = _room(found.file.with_suffix("").parts), _room(found.imported)
    if ENTRY_POINT in found.imported:
        return False
    if imported in (importer, PACKAGE) or found.file.stem == ENTRY_POINT:
        return True
    return importer in height and imported in height and height[imported] < height[importer]


def imports(source: Path) -> Iterator[Import]:
    """Every import of a part of moulin, with one item for each imported name."""
    for path in sorted(source.rglob("*.py")):
        file = path.relative_to(source)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            for name in _imported_names(node, file):
                if name.split(".")[0] == "moulin":
                    yield Import(file, getattr(node, "lineno", 0), tuple(name.split(".")[1:]))


def _imported_names(node: ast.AST, file: Path) -> list[str]:
    """Absolute dotted names that an import statement binds or looks into; none of any other node."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if not isinstance(node, ast.ImportFrom):
        return []
    packages = ["moulin", *file.parent.parts]
    origin = packages[: len(packages) - node.level + 1] if node.level else []
    return [".".join([*origin, *filter(None, [node.module]), alias.name]) for alias in node.names]


def _room(parts: tuple[str, ...]) -> str:
    """The room of a file or of an imported name, given its parts below `moulin`."""
    first = parts[0] if parts else PACKAGE
    return PACKAGE if first.startswith("__") and first != ENTRY_POINT else first
