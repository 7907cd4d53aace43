"""Whether two results differ by more than noise: paired bootstrap, recordings and runs resampled.

For each pair of figures the difference B - A is estimated many times on resampled data. Where the middle 95 % of these
estimates leave out "no difference", it is called a change. What is resampled decides what is tested: recordings for
word errors (another set of recordings), runs or rounds for speed (another time on the same machine).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from moulin.arrays import Doubles
from moulin.errors import OptionsError
from moulin.evaluate.pages.document import load_unit, report_kind

REPLICATES = 10_000
_SEED = 0
_MIN_RUNS = 3


@dataclass(frozen=True, slots=True)
class Change:
    """One figure in both results. `low` and `high` bound the difference with 95 %; None where that is not known."""

    what: str
    a: float
    b: float
    low: float | None
    high: float | None
    unit: str
    """%, ms, RTFx."""
    better: str
    """lower or higher"""
    basis: str
    """What was resampled."""

    @property
    def significant(self) -> bool | None:
        """None where it cannot be said."""
        if self.low is None or self.high is None:
            return None
        return self.low > 0 or self.high < 0

    @property
    def verdict(self) -> str:
        if self.significant is None:
            return "cannot be said"
        if not self.significant:
            return "within noise"
        return "better" if (self.b < self.a) == (self.better == "lower") else "worse"


def compare(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[Change]:
    """All figures that both results have, of targets and loads that occur in both. Raises OptionsError."""
    if report_kind(a) != report_kind(b):
        raise OptionsError(
            f"Expected two results of one kind, got {report_kind(a)} and {report_kind(b)}",
            hint="compare what the same benchmark measured",
        )
    changes = list({"accuracy": _accuracy, "offline": _offline}.get(report_kind(a), _loads)(a, b))
    if not changes:
        raise OptionsError("The two results have no target and load in common", hint=f"{_named(a)} against {_named(b)}")
    return changes


def differences(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[str]:
    """What else differs between the two, so that a change may come from it."""
    found = []
    for name in (
        "machine",
        "versions",
        "model",
        "data",
        "normalizer",
        "threads",
        "device",
        "decoding",
        "chunk_ms",
        "servers",
    ):
        old, new = a.get(name), b.get(name)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            found += [
                f"{name} {key}: {old.get(key, 'none')} → {new.get(key, 'none')}"
                for key in sorted({*old, *new})
                if old.get(key) != new.get(key)
            ]
        elif old != new and (name in a and name in b):
            found.append(f"{name}: {old} → {new}")
    return found


def _accuracy(a: Mapping[str, Any], b: Mapping[str, Any]) -> Iterator[Change]:
    olds, news = ({it["target"]: it for it in report["accuracy"]} for report in (a, b))
    for name in _pairs(list(olds), list(news)):
        old, new = olds[name[0]], news[name[1]]
        for what, errors, reference in (("WER", "errors", "words"), ("CER", "character_errors", "characters")):
            tables = [
                {it["id"]: (it[errors], it[reference]) for it in side["utterances"] if it["failure"] is None}
                for side in (old, new)
            ]
            yield _error_rate(f"{what} of {_label(name)}", *tables)


def _offline(a: Mapping[str, Any], b: Mapping[str, Any]) -> Iterator[Change]:
    olds, news = ({it["name"]: it for it in report["targets"]} for report in (a, b))
    for name in _pairs(list(olds), list(news)):
        old, new = olds[name[0]], news[name[1]]
        speeds = [
            np.array([report["audio_sec"] / seconds for seconds in side["seconds"]])
            for report, side in ((a, old), (b, new))
        ]
        yield _unpaired(f"RTFx of {_label(name)}", *speeds, unit="×", better="higher", of="rounds")
        tables = [
            {key: (it["errors"], it["words"]) for key, it in side.get("utterances", {}).items()} for side in (old, new)
        ]
        if tables[0] and tables[1]:
            yield _error_rate(f"WER of {_label(name)}", *tables)


def _loads(a: Mapping[str, Any], b: Mapping[str, Any]) -> Iterator[Change]:
    sides = [_by_target(report["runs"]) for report in (a, b)]
    for name in _pairs(*(list(dict.fromkeys(target for target, _ in side)) for side in sides)):
        loads = [{load for target, load in side if target == which} for side, which in zip(sides, name, strict=True)]
        for load in sorted(loads[0] & loads[1]):
            old, new = (side[which, load] for side, which in zip(sides, name, strict=True))
            about = f"{_label(name)} at {load:g}"
            for what, read in _LATENCIES.items():
                if what == "final p95" and load_unit(old[0]) != "streams":
                    continue  # of whole recordings it is the same again
                values = [
                    np.array([read(run) for run in runs if read(run) is not None], dtype=float) for runs in (old, new)
                ]
                if len(values[0]) and len(values[1]):
                    yield _unpaired(f"{what} of {about}", *values, unit="ms", better="lower", of="runs")
            tables = [_summed_utterances(runs) for runs in (old, new)]
            if tables[0] and tables[1]:
                yield _error_rate(f"WER of {about}", *tables)


_LATENCIES: Mapping[str, Callable[[Mapping[str, Any]], float | None]] = {
    "p50": lambda run: run["latency_ms"]["p50"],
    "p95": lambda run: run["latency_ms"]["p95"],
    "p99": lambda run: run["latency_ms"]["p99"],
    "final p95": lambda run: run["final_latency_ms"]["p95"],
}


def _error_rate(what: str, a: Mapping[str, tuple[int, int]], b: Mapping[str, tuple[int, int]]) -> Change:
    """Paired by recording, those in both."""
    both = sorted({*a} & {*b})
    old, new = (np.array([side[key] for key in both], dtype=float).reshape(-1, 2) for side in (a, b))
    rates = [100 * side[:, 0].sum() / max(1, side[:, 1].sum()) for side in (old, new)]
    low = high = None
    if len(both) > 1:
        rows = np.random.default_rng(_SEED).integers(0, len(both), (REPLICATES, len(both)))
        resampled = [100 * side[rows, 0].sum(axis=1) / np.maximum(1, side[rows, 1].sum(axis=1)) for side in (old, new)]
        low, high = _interval(resampled[1] - resampled[0])
    return Change(what, rates[0], rates[1], low, high, "%", "lower", f"{len(both)} recordings, paired")


def _unpaired(what: str, a: Doubles, b: Doubles, *, unit: str, better: str, of: str) -> Change:
    """Medians of runs that were made at other times. Fewer than three of each say nothing of the noise."""
    low = high = None
    if min(len(a), len(b)) >= _MIN_RUNS:
        random = np.random.default_rng(_SEED)
        medians = [np.median(side[random.integers(0, len(side), (REPLICATES, len(side)))], axis=1) for side in (a, b)]
        low, high = _interval(medians[1] - medians[0])
    basis = f"{len(a)} and {len(b)} {of}"
    return Change(what, float(np.median(a)), float(np.median(b)), low, high, unit, better, basis)


def _interval(differences: Doubles) -> tuple[float, float]:
    low, high = np.percentile(differences, (2.5, 97.5))
    return float(low), float(high)


def _pairs(a: Sequence[str], b: Sequence[str]) -> list[tuple[str, str]]:
    """Targets of the same name; where each result has but one, these two."""
    same = [(name, name) for name in a if name in b]
    return same or ([(a[0], b[0])] if len(a) == len(b) == 1 else [])


def _label(names: tuple[str, str]) -> str:
    return names[0] if names[0] == names[1] else f"{names[0]} → {names[1]}"


def _by_target(runs: Sequence[Mapping[str, Any]]) -> dict[tuple[str, float], list[Mapping[str, Any]]]:
    found: dict[tuple[str, float], list[Mapping[str, Any]]] = {}
    for run in runs:
        found.setdefault((run["target"], run[load_unit(run)]), []).append(run)
    return found


def _summed_utterances(runs: Sequence[Mapping[str, Any]]) -> dict[str, tuple[int, int]]:
    summed: dict[str, tuple[int, int]] = {}
    for run in runs:
        for name, it in run.get("utterances", {}).items():
            errors, words = summed.get(name, (0, 0))
            summed[name] = (errors + it["errors"], words + it["words"])
    return summed


def _named(report: Mapping[str, Any]) -> str:
    names = [
        it.get("name") or it.get("target") for key in ("targets", "accuracy", "runs") for it in report.get(key, [])
    ]
    return ", ".join(dict.fromkeys(map(str, names)))
