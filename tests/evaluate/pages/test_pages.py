"""A report of each kind as a page and as Markdown: whole, escaped, and with nothing from elsewhere."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from moulin.errors import OptionsError
from moulin.evaluate.accuracy import Accuracy, score
from moulin.evaluate.connection import Record
from moulin.evaluate.measurement import Counts, evaluate
from moulin.evaluate.offline_benchmark import throughput
from moulin.evaluate.pages.html import to_html
from moulin.evaluate.pages.markdown import to_markdown
from moulin.evaluate.report import Figures, Report, make_report
from moulin.evaluate.report_files import check_outputs, indented, read_report, to_text, write
from moulin.evaluate.request_load import Workers
from moulin.evaluate.results.accuracy import AccuracyFigures
from moulin.evaluate.results.encoder import EncoderFigures, EncoderRun
from moulin.evaluate.results.live_streams import CapacityRun, LiveStreamFigures, StepRun
from moulin.evaluate.results.loads import LoadFigures, LoadRun
from moulin.evaluate.results.offline import OfflineFigures
from moulin.evaluate.results.setup import Percentiles
from moulin.evaluate.results.summary import summary_line
from moulin.evaluate.streaming_load import Load
from moulin.evaluate.target_usage import TargetUsage
from moulin.evaluate.targets.triton_statistics import TritonStatistics
from moulin.evaluate.wer import WordErrors
from tests.evaluate.fake_server import FakeServer, clip
from tests.evaluate.test_request_load import load as run_requests
from tests.evaluate.test_request_load import recording
from tests.evaluate.test_streaming_load import load as run_streams

HOSTILE = '<script>alert("&")</script> | x'
RESULTS = Path(__file__).parents[3] / "docs" / "benchmarks" / "results"


def report(figures: Figures) -> Report:
    made = make_report(["bench", "x", "--to", "somewhere.html", "--to=else.json"], None, figures)
    return Report.from_json(json.loads(to_text(made)))


def accuracy_report() -> Report:
    accuracy = Accuracy("moulin")
    heard = {"a": "ONE TWO", "b": "ONE", "c": f"ONE {HOSTILE} TWO"}
    for name, text in heard.items():
        record = Record(recording(name))
        record.finish(text)
        accuracy.scored.append(score(record, str))
    failed = Record(recording("d"))
    failed.fail(HOSTILE)
    accuracy.scored.append(score(failed, str))
    return report(AccuracyFigures("accuracy", [accuracy.figures()], interrupted=True))


def offline_report() -> Report:
    result = throughput("moulin", 100.0, (1.0, 1.1), {"a": WordErrors(10, 1, 0, 0)}, (1.9, 2.1))
    assert result.cpu_ms_of_second(100.0) == pytest.approx(20.0)
    return report(OfflineFigures("offline", 100.0, [result], threads=2))


def measured(result: Load, unit: str, load: float) -> LoadRun:
    usage, counts = TargetUsage(3.0, 4.0, 2**30), Counts(7, TritonStatistics(7, 0, 3, 0.1, 0.2))
    return evaluate("fake", unit, load, result, usage, str.upper, counts=counts).figures()


def streaming_report() -> Report:
    runs = [measured(run_streams(FakeServer(0.05), [clip(8)], streams=n), "streams", n) for n in (2, 4)]
    return report(LoadFigures("streaming", runs, chunk_ms=320))


def requests_report() -> Report:
    runs = [measured(run_requests(FakeServer(0.5), Workers(n)), "workers", n) for n in (1, 2)]
    failing = measured(run_requests(FakeServer(0.5, fail_at=0), Workers(3)), "workers", 3)
    return report(LoadFigures("requests", [*runs, failing]))


def encoder_report() -> Report:
    runs = [EncoderRun("torch", batch, 9, batch / 2, 1.0, 9.0, 2e3) for batch in (1, 8)]
    return report(EncoderFigures([*runs, EncoderRun("onnxruntime", 8, failure=HOSTILE)], frames=663))


def capacity_report() -> Report:
    percentiles = Percentiles(7.2, 13.3, 15.8, 21.4, 32.2)
    runs = [
        CapacityRun(n, 5.0, percentiles, 14.4, percentiles, 900, 30, 30.0, 64, 0.9, 0.1, (), False, n < 9)
        for n in (8, 16)
    ]
    steps = [StepRun("gpu", 16, 2.0, 2.5, 1.9)]
    return report(LiveStreamFigures("capacity", p95_limit_ms=160.0, steps=steps, capacity=runs, largest=8))


REPORTS = {
    "capacity": capacity_report,
    "encoder": encoder_report,
    "accuracy": accuracy_report,
    "offline": offline_report,
    "streaming": streaming_report,
    "requests": requests_report,
}


class Checker(HTMLParser):
    """Finds what a page loads, and tags that do not close."""

    VOID = frozenset({"meta", "link", "br", "img", "line", "circle", "rect"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.loaded: list[str] = []
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.loaded += [str(value) for name, value in attrs if name in ("src", "href", "srcset")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:  # noqa: ARG002
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag


@pytest.mark.parametrize("kind", REPORTS)
def test_a_page_is_whole_and_needs_nothing_else(kind: str) -> None:
    page = to_html(REPORTS[kind]())
    checker = Checker()
    checker.feed(page)
    assert checker.open == []
    assert checker.loaded == []
    assert "script" not in checker.tags
    assert "svg" in checker.tags
    assert not re.search(r"url\(|@import|https?://", page)
    assert "nan" not in re.sub(r"<style>.*</style>", "", page, flags=re.DOTALL).lower()
    assert "prefers-color-scheme: dark" in page
    assert "moulin bench x</pre>" in page  # without where it was written to


def loads_report(*, disturbed: bool) -> Report:
    whole = requests_report()
    assert isinstance(whole.figures, LoadFigures)
    runs = [replace(run, disturbed=disturbed) for run in whole.figures.runs]
    return Report(whole.header, replace(whole.figures, runs=runs))


def test_a_disturbed_run_is_said_first_and_shown_grey() -> None:
    page = to_html(loads_report(disturbed=True))
    assert page.index("Other processes disturbed 3 of the 3 runs") < page.index('<dl class="facts">')
    assert "<div class=doubtful>" in page
    assert "<div><dt>" not in page
    text = to_markdown(loads_report(disturbed=True))
    assert text.index("Other processes disturbed") < text.index("; disturbed by other processes")
    quiet = to_html(loads_report(disturbed=False))
    assert "<div><dt>" in quiet
    assert "<div class=doubtful>" not in quiet


def test_the_line_for_scripts() -> None:
    for kind, make in REPORTS.items():
        line = summary_line(make().figures)
        assert "\n" not in line
        found = json.loads(line)
        assert found["kind"] in (kind, make().figures.kind)
    runs = json.loads(summary_line(requests_report().figures))["runs"]
    assert [(run["target"], run["workers"], run["failures"] > 0) for run in runs] == [
        ("fake", 1, False),
        ("fake", 2, False),
        ("fake", 3, True),
    ]
    assert runs[0]["latency_ms"]["p95"] > 0 or runs[0]["final_latency_ms"]["p95"] > 0


@pytest.mark.parametrize("kind", REPORTS)
def test_markdown_says_the_same_in_whole_tables(kind: str) -> None:
    text = to_markdown(REPORTS[kind]())
    assert text.startswith("# ")
    assert "<svg" not in text
    for table in re.findall(r"(?:^\|.*\|\n)+", text, flags=re.MULTILINE):
        columns = {len(re.findall(r"(?<!\\)\|", row)) for row in table.splitlines()}
        assert len(columns) == 1


def test_what_was_heard_is_text_and_no_markup() -> None:
    page, text = to_html(accuracy_report()), to_markdown(accuracy_report())
    assert "&lt;script&gt;" in page
    assert "1 failed" in page
    assert "Interrupted" in page
    assert "said  ONE TWO" in text
    assert "WER" in text


@pytest.mark.parametrize("file", sorted(RESULTS.glob("*.json")), ids=lambda file: file.stem)
def test_old_results_are_read_too(file: Path) -> None:
    """Those in the repository were written by all versions that there were."""
    if '"command": "moulin bench' not in file.read_text() and "scripts/benchmark-gpu" not in file.read_text():
        pytest.skip("of another tool")
    old = read_report(file)
    assert to_html(old).startswith("<!doctype html>")
    assert to_markdown(old).startswith("# ")
    assert Report.from_json(old.to_json()) == old


def test_a_kind_that_nobody_knows_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text('{"command": "x", "kind": "taste"}')
    with pytest.raises(OptionsError, match=r"Expected a result of the kinds accuracy, .*, got 'taste'"):
        read_report(tmp_path / "x.json")


def test_every_form_is_written(tmp_path: Path) -> None:
    files = [tmp_path / "new" / f"result{suffix}" for suffix in (".json", ".html", ".md", ".jsonl")]
    check_outputs(files)
    write(offline_report(), files, [{"id": "a"}, {"id": "É"}])
    assert read_report(files[0]) == offline_report()
    assert files[1].read_text().startswith("<!doctype html>")
    assert files[2].read_text().startswith("# Offline throughput")
    assert files[3].read_text().splitlines() == ['{"id": "a"}', '{"id": "É"}']


def test_lists_of_numbers_stand_on_one_line() -> None:
    text = indented({"command": "x", "latency": [1.0, 2.5], "runs": [{"a": [1, 2]}]})
    assert '"latency": [ 1.0, 2.5 ]' in text
    assert json.loads(text) == {"command": "x", "latency": [1.0, 2.5], "runs": [{"a": [1, 2]}]}


@pytest.mark.parametrize(("name", "message"), [("result.pdf", "Expected a file that ends in"), ("", "Expected|folder")])
def test_files_that_cannot_be_written_are_said_beforehand(name: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(OptionsError, match=message):
        check_outputs([tmp_path / name])


@pytest.mark.parametrize("content", ["[]", "{}", "no json", '{"id": 1}\n{"id": 2}'])
def test_files_that_are_no_results(content: str, tmp_path: Path) -> None:
    file = tmp_path / "x.json"
    file.write_text(content)
    with pytest.raises(OptionsError, match="is no result of moulin bench"):
        read_report(file)
    with pytest.raises(OptionsError, match="cannot be read"):
        read_report(tmp_path / "nowhere.json")
