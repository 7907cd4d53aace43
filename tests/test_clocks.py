"""A machine's clock is set at times, by hours: waits, deadlines and rates go by a clock that is not."""

from __future__ import annotations

import ast
from pathlib import Path

SOURCE = Path(__file__).parents[1] / "src" / "moulin"
ROOMS_OF_REPORTS = ("evaluate", "bulk", "demo", "cli")
"""They write dates into what they make."""
MAY_ASK_FOR_THE_DATE = {
    "engine/onnxruntime/operators.py",  # the age of files
    "gateway/client_secrets.py",  # they expire on every machine at the same time
    "gateway/deepgram/results.py",  # `created`
    "launch/serving_environment.py",  # the age of files
    "launch/workspace.py",
}


def test_who_reads_the_wall_clock() -> None:
    found = set()
    for file in SOURCE.rglob("*.py"):
        path = str(file.relative_to(SOURCE))
        if not path.startswith(ROOMS_OF_REPORTS) and any(map(_reads_it, ast.walk(ast.parse(file.read_text())))):
            found.add(path)
    assert found == MAY_ASK_FOR_THE_DATE


def _reads_it(node: ast.AST) -> bool:
    if not isinstance(node, ast.Attribute) or not isinstance(node.value, ast.Name):
        return False
    return (node.value.id, node.attr) in {("time", "time"), ("time", "time_ns"), ("datetime", "now"), ("date", "today")}
