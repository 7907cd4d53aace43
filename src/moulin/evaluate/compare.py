"""Whether two results differ by more than noise: paired bootstrap, recordings and runs resampled.

For each pair of figures the difference B - A is estimated many times on resampled data. Where the middle 95 % of these
estimates leave out "no difference", it is called a change. What is resampled decides what is tested: recordings for
word errors (another set of recordings), runs or rounds for speed (another time on the same machine).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from moulin.arrays import Doubles
from moulin.errors import OptionsError
from moulin.evaluate.report import Report
from moulin.evaluate.results.accuracy import AccuracyFigures
from moulin.evaluate.results.fields import to_json
from moulin.evaluate.results.gpu_engine import GpuEngineFigures
from moulin.evaluate.results.loads import LoadFigures, LoadRun
from moulin.evaluate.results.offline import OfflineFigures

REPLICATES = 10_000
_SEED = 0
_MIN_RUNS = 3


@dataclass(frozen=True, slots=True)
class Change:
    """One figure in both results. `low` and `high` bound the difference with 95 %; None where they are not known."""

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
    """The kind of data that was resampled."""
    disturbed: bool = False
    """Whether other processes disturbed a run on either side: the figure says nothing of the program then."""

    @property
    def significant(self) -> bool | None:
        """Whether the interval excludes 0; None without an interval, and for what was disturbed."""
        if self.low is None or self.high is None or self.disturbed:
            return None
        return self.low > 0 or self.high < 0

    @property
    def verdict(self) -> str:
        if self.disturbed:
            return "cannot be said: disturbed"
        if self.significant is None:
            return "cannot be said"
        if not self.significant:
            return "within noise"
        return "better" if (self.b < self.a) == (self.better == "lower") else "worse"


def compare(a: Report, b: Report) -> list[Change]:
    """All figures that both results have, of targets and loads that occur in both. Raises OptionsError."""
    match a.figures, b.figures:
        case (old, new) if old.kind != new.kind:
            raise OptionsError(
                f"Expected two results of one kind, got {old.kind} and {new.kind}",
                hint="compare what the same benchmark measured",
            )
        case (AccuracyFigures() as old, AccuracyFigures() as new):
            changes = list(_accuracy(old, new))
        case (OfflineFigures() as old, OfflineFigures() as new):
            changes = list(_offline(old, new))
        case (LoadFigures() as old, LoadFigures() as new):
            changes = list(_loads(old, new))
        case (GpuEngineFigures() as old, GpuEngineFigures() as new):
            changes = list(_gpu_engine(old, new))
        case _:
            raise OptionsError(f"Results of the kind {a.figures.kind} are not compared", hint="see their tables")
    if not changes:
        raise OptionsError("The two results have no target and load in common")
    return changes


def differences(a: Report, b: Report) -> list[str]:
    """Other differences between the two reports, which may be the cause of a change."""
    found = []
    sides = [{**to_json(report.header), **to_json(report.figures)} for report in (a, b)]
    for name in _CIRCUMSTANCES:
        old, new = (side.get(name) for side in sides)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            found += [
                f"{name} {key}: {old.get(key, 'none')} → {new.get(key, 'none')}"
                for key in sorted({*old, *new})
                if old.get(key) != new.get(key)
            ]
        elif old != new and None not in (old, new):
            found.append(f"{name}: {old} → {new}")
    return found


_CIRCUMSTANCES = (
    *("machine", "versions", "model", "data", "normalizer", "threads", "device", "decoding", "chunk_ms", "servers"),
)


def _accuracy(a: AccuracyFigures, b: AccuracyFigures) -> Iterator[Change]:
    olds, news = ({it.target: it.utterances for it in side.accuracy} for side in (a, b))
    for names in _pairs(list(olds), list(news)):
        answered = [[it for it in its if it.failure is None] for its in (olds[names[0]], news[names[1]])]
        words = [{it.id: (it.errors, it.words) for it in side} for side in answered]
        yield _error_rate(f"WER of {_label(names)}", *words)
        characters = [{it.id: (it.character_errors, it.characters) for it in side} for side in answered]
        yield _error_rate(f"CER of {_label(names)}", *characters)


def _offline(a: OfflineFigures, b: OfflineFigures) -> Iterator[Change]:
    olds, news = ({it.name: it for it in side.targets} for side in (a, b))
    for names in _pairs(list(olds), list(news)):
        pair = olds[names[0]], news[names[1]]
        speeds = [side.audio_sec / np.array(it.seconds) for side, it in zip((a, b), pair, strict=True)]
        yield _unpaired(f"RTFx of {_label(names)}", *speeds, unit="×", better="higher", of="rounds")
        tables = [{key: (it.errors, it.words) for key, it in (side.utterances or {}).items()} for side in pair]
        if tables[0] and tables[1]:
            yield _error_rate(f"WER of {_label(names)}", *tables)


def _gpu_engine(a: GpuEngineFigures, b: GpuEngineFigures) -> Iterator[Change]:
    olds, news = ({(it.size, it.method, it.beam, it.batch): it for it in side.pipeline} for side in (a, b))
    for run in olds.keys() & news.keys():
        size, method, beam, batch = run
        about = f"{size}, {method if method == 'greedy' else f'beam {beam}'}, {batch} at once"
        for dtype in ("float32", "int16"):
            calls = [np.array(getattr(side[run], dtype).call_ms) for side in (olds, news)]
            yield _unpaired(f"{about}, {dtype}", *calls, unit="ms", better="lower", of="calls")


def _loads(a: LoadFigures, b: LoadFigures) -> Iterator[Change]:
    sides = [_by_target(side.runs) for side in (a, b)]
    for names in _pairs(*(list(dict.fromkeys(target for target, _ in side)) for side in sides)):
        loads = [{load for target, load in side if target == which} for side, which in zip(sides, names, strict=True)]
        for load in sorted(loads[0] & loads[1]):
            pair = [side[which, load] for side, which in zip(sides, names, strict=True)]
            about = f"{_label(names)} at {load:g}"
            disturbed = any(run.disturbed for runs in pair for run in runs)
            for what, read in _LATENCIES.items():
                if what == "final p95" and pair[0][0].unit != "streams":
                    continue  # for whole recordings it equals the latency
                values = [[ms for run in runs if (ms := read(run)) is not None] for runs in pair]
                if values[0] and values[1]:
                    change = _unpaired(
                        f"{what} of {about}", *map(np.array, values), unit="ms", better="lower", of="runs"
                    )
                    yield replace(change, disturbed=disturbed)
            tables = [_summed_utterances(runs) for runs in pair]
            if tables[0] and tables[1]:
                yield _error_rate(f"WER of {about}", *tables)


_LATENCIES: Mapping[str, Callable[[LoadRun], float | None]] = {
    "p50": lambda run: run.latency_ms.p50,
    "p95": lambda run: run.latency_ms.p95,
    "p99": lambda run: run.latency_ms.p99,
    "final p95": lambda run: run.final_latency_ms.p95,
}


def _error_rate(what: str, a: Mapping[str, tuple[int, int]], b: Mapping[str, tuple[int, int]]) -> Change:
    """The change of an error rate, paired by recording; recordings in one result only are left out."""
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
    """The change of the median of runs made at different times; no interval for fewer than three on a side."""
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
    """Pairs of targets with the same name; without any, the only target of each result."""
    same = [(name, name) for name in a if name in b]
    return same or ([(a[0], b[0])] if len(a) == len(b) == 1 else [])


def _label(names: tuple[str, str]) -> str:
    return names[0] if names[0] == names[1] else f"{names[0]} → {names[1]}"


def _by_target(runs: Sequence[LoadRun]) -> dict[tuple[str, float], list[LoadRun]]:
    found: dict[tuple[str, float], list[LoadRun]] = {}
    for run in runs:
        found.setdefault((run.target, run.load), []).append(run)
    return found


def _summed_utterances(runs: Sequence[LoadRun]) -> dict[str, tuple[int, int]]:
    summed: dict[str, tuple[int, int]] = {}
    for run in runs:
        for name, it in (run.utterances or {}).items():
            errors, words = summed.get(name, (0, 0))
            summed[name] = (errors + it.errors, words + it.words)
    return summed
