"""A benchmark's result: its figures, with where, when and with what they were measured."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any

from moulin.bundle.spec import ModelSpec
from moulin.errors import OptionsError
from moulin.evaluate.machine import machine, versions
from moulin.evaluate.results.accuracy import AccuracyFigures
from moulin.evaluate.results.encoder import EncoderFigures
from moulin.evaluate.results.fields import WRITTEN, from_json, to_json
from moulin.evaluate.results.gpu_engine import GpuEngineFigures
from moulin.evaluate.results.leaderboard import LeaderboardFigures
from moulin.evaluate.results.live_streams import LiveStreamFigures
from moulin.evaluate.results.loads import LoadFigures
from moulin.evaluate.results.offline import OfflineFigures

Figures = (
    AccuracyFigures
    | OfflineFigures
    | LoadFigures
    | EncoderFigures
    | GpuEngineFigures
    | LeaderboardFigures
    | LiveStreamFigures
)

KINDS: Mapping[str, type[Figures]] = {
    "accuracy": AccuracyFigures,
    "offline": OfflineFigures,
    "requests": LoadFigures,
    "streaming": LoadFigures,
    "encoder": EncoderFigures,
    "gpu-engine": GpuEngineFigures,
    "leaderboard": LeaderboardFigures,
    "capacity": LiveStreamFigures,
    "churn": LiveStreamFigures,
    "gpu-streaming": LiveStreamFigures,
}


@dataclass(frozen=True, slots=True)
class Model:
    """The model that was measured."""

    name: str
    family: str
    precision: str


@dataclass(frozen=True, slots=True)
class Header:
    """Machine, versions, time, model and command of the measurement."""

    date: str
    machine: Mapping[str, str | int | float]
    versions: Mapping[str, str]
    command: str
    model: Model | None = field(default=None, metadata=WRITTEN)


@dataclass(frozen=True, slots=True)
class Report:
    """A result. In JSON the fields of both parts are beside each other."""

    header: Header
    figures: Figures

    def to_json(self) -> dict[str, Any]:
        return {**to_json(self.header), **to_json(self.figures)}

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> Report:
        """The report in a JSON object of any version of moulin. Raises OptionsError for an unknown kind, and where a
        figure is missing."""
        kind = _kind(found)
        if kind not in KINDS:
            raise OptionsError(f"Expected a result of the kinds {', '.join(KINDS)}, got {kind!r}")
        return cls(from_json(Header, found), from_json(KINDS[kind], {**_renewed(found), "kind": kind}))


def make_report(arguments: Sequence[str], spec: ModelSpec | None, figures: Figures) -> Report:
    """`figures` of `spec` with all that belongs to them. `arguments` are those of the moulin command."""
    return Report(
        Header(
            date.today().isoformat(),
            machine(),
            versions(),
            shlex.join(["moulin", *_without_output(arguments)]),
            Model(spec.name, spec.family, spec.precision) if spec else None,
        ),
        figures,
    )


def _kind(found: Mapping[str, Any]) -> str:
    """The kind of a result, which the oldest results do not name."""
    if "kind" in found:
        return str(found["kind"])
    if "targets" in found:
        return "offline"
    runs = found.get("runs") or [{}]
    return "encoder" if "runner" in runs[0] else "streaming"


def _renewed(found: Mapping[str, Any]) -> Mapping[str, Any]:
    """`found` with the keys of today, where it is of the kind gpu-streaming: the last of its runs of capacity was what
    the search had found, and texts that differ were pairs."""
    renewed = dict(found)
    if (runs := found.get("capacity")) and "largest" in runs[-1]:
        last = runs[-1]
        renewed |= {"largest": last["largest"], "p95_limit_ms": last["p95_below_ms"], "capacity": runs[:-1]}
        renewed |= {"audio": last["audio"], "slots": last["slots"]}
    if found.get("kind") == "gpu-streaming":
        renewed["churn"] = [
            {**run, "differing": [_named(pair) for pair in run["differing"]]} for run in found.get("churn", ())
        ]
    return renewed


def _named(pair: Sequence[str] | Mapping[str, Any]) -> Mapping[str, Any]:
    return pair if isinstance(pair, Mapping) else dict(zip(("expected", "got"), pair, strict=True))


def _without_output(arguments: Sequence[str]) -> list[str]:
    """`arguments` without `--to FILE`, which does not matter for repeating the measurement."""
    kept = [argument for argument in arguments if not argument.startswith("--to=")]
    while "--to" in kept:
        at = kept.index("--to")
        del kept[at : at + 2]
    return kept
