"""`moulin bench accuracy` and `moulin bench compare` as a person runs them."""

from __future__ import annotations

import json
import signal
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import product
from pathlib import Path

import pytest

from moulin.demo.files import DEMO_MODEL, DEMO_STREAMING_MODEL
from moulin.evaluate.manifest import demo_clips
from tests.cli.command import MOULIN, TIMEOUT_SEC, moulin, moulin_here


def test_the_demo_model_by_default_in_all_forms(tmp_path: Path) -> None:
    outputs = [tmp_path / f"result.{suffix}" for suffix in ("json", "html", "md", "jsonl")]
    arguments = [argument for output in outputs for argument in ("--to", output)]
    done = moulin("bench", "accuracy", "--targets", "moulin", "--show", 1, *arguments).expect(0)
    assert "moulin: WER 6.43% (9 errors in 140 words: 1 ins, 3 del, 5 sub), CER 6.24%" in done.out
    assert done.out.count("    said ") == done.out.count("    heard ") == 1
    report = json.loads(outputs[0].read_text())
    assert report["normalizer"].endswith("OH counts as ZERO")
    (result,) = report["accuracy"]
    assert result["wer"] | {"rate": 0} == {
        "rate": 0,
        "errors": 9,
        "insertions": 1,
        "deletions": 3,
        "substitutions": 5,
        "reference": 140,
    }
    lines = [json.loads(line) for line in outputs[3].read_text().splitlines()]
    assert len(lines) == 14
    assert sum(a != b for line in lines for a, b in line["alignment"]) == 9
    assert "6.43%" in outputs[1].read_text()
    same = moulin("bench", "compare", outputs[0], outputs[0], "--fail-on-worse").expect(0)
    assert "WER of moulin" in same.out
    assert "within noise (14 recordings, paired)" in same.out


def test_hotwords_with_several_scores() -> None:
    command = ["bench", "accuracy", "--targets", "moulin", "--hotwords", "zero"]
    done = moulin(*command, "--hotwords-scores", "1.5,5").expect(0)
    *_, head, plain, low, high, summary = done.out.splitlines()
    assert json.loads(summary)["kind"] == "accuracy"
    assert head.split() == ["phrases", "said", "found", "recall", "invented", "WER"]
    assert plain.split() == ["moulin", "9", "6", "66.7%", "2", "6.43%"]
    assert low.split() == ["moulin", "hotwords", "1.5", "9", "6", "66.7%", "3", "6.43%"]
    assert high.split() == ["moulin", "hotwords", "5", "9", "8", "88.9%", "5", "7.86%"]
    assert "got '1,x'" in moulin(*command, "--hotwords-scores", "1,x").expect(1).err
    assert (
        "hotwords-score above 0 and of at most 100, got 0" in moulin(*command, "--hotwords-scores", "0").expect(1).err
    )
    assert "Expected targets that take hotwords" in moulin(*command[:2], "--hotwords", "zero").expect(1).err


def test_a_language_model(tmp_path: Path) -> None:
    """It reaches each target that is started with one, here as a file that is missing."""
    command = ["bench", "accuracy", "--lm", tmp_path / "none.arpa", "--targets"]
    for model, target in product((DEMO_MODEL, DEMO_STREAMING_MODEL), ("moulin", "moulin-triton-grpc")):
        done = moulin_here(*command, target, "--model", model).expect(1)
        assert "There is no file of n-grams" in done.err
    for target in ("moulin,sherpa-onnx", "moulin-triton-grpc=localhost:1"):
        assert "Expected targets that are started with --lm" in moulin_here(*command, target).expect(1).err


def test_other_data_has_no_words_alike_unless_told(tmp_path: Path) -> None:
    """References that say oh where the model says ZERO."""
    folder = tmp_path / "calls"
    folder.mkdir()
    for clip in demo_clips():
        (folder / clip.audio.name).symlink_to(clip.audio)
        (folder / clip.audio.name).with_suffix(".txt").write_text(clip.text.lower().replace("zero", "oh") + ".")
    command = ["bench", "accuracy", "--targets", "moulin", "--show", 0, "--data", folder]
    plain = moulin(*command).expect(0).out
    alike = moulin(*command, "--alike", "oh=zero").expect(0).out
    assert "WER 6.43%" in alike
    assert "WER 6.43%" not in plain
    assert "WER 100.71% (141 errors" in moulin(*command, "--normalizer", "none").expect(0).out


def test_a_streaming_model(tmp_path: Path) -> None:
    to = tmp_path / "x.json"
    done = moulin("bench", "accuracy", "--model", DEMO_STREAMING_MODEL, "--targets", "moulin", "--to", to).expect(0)
    assert "moulin: WER 12.86% (18 errors in 140 words" in done.out


def test_a_recording_that_fails_is_said_and_the_exit_status_shows_it(tmp_path: Path) -> None:
    manifest = tmp_path / "list.jsonl"
    (tmp_path / "broken.wav").write_bytes(b"RIFF, or so it says")
    good = demo_clips()[0]
    lines = [{"audio": str(good.audio), "text": good.text}, {"audio": "broken.wav", "text": "ONE"}]
    manifest.write_text("\n".join(map(json.dumps, lines)))
    done = moulin("bench", "accuracy", "--data", manifest, "--targets", "moulin").expect(1)
    assert "1 FAILED (not in the rates)" in done.out
    assert "broken" in done.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--targets", "nobody"], "There is no target 'nobody'"),
        (["--data", "nowhere"], "nowhere does not exist"),
        (["--alike", "OH"], "Expected WORD=OTHER"),
        (["--to", "x.pdf"], "Expected a file that ends in"),
        (["--targets", "rest=ftp://x"], "Expected a gateway's URL"),
    ],
)
def test_what_cannot_be_measured_is_said_first(arguments: list[str], message: str) -> None:
    done = moulin_here("bench", "accuracy", "--model", DEMO_MODEL, *arguments).expect(1)
    assert message in done.err
    assert done.out == ""


def test_ctrl_c_leaves_what_there_is(tmp_path: Path) -> None:
    """A service that answers two recordings, and then no more."""
    to, waiting, answered = tmp_path / "x.json", threading.Event(), list[str]()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            if len(answered) == 2:
                process.send_signal(signal.SIGINT)
                waiting.wait()
            answered.append(self.path)
            body = b'{"text": "ONE"}'
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as service:
        service.daemon_threads = True
        threading.Thread(target=service.serve_forever, daemon=True).start()
        address = f"rest=http://127.0.0.1:{service.server_port}"
        command = [MOULIN, "bench", "accuracy", "--targets", address, "--workers", "1", "--to", str(to)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            out, err = process.communicate(timeout=TIMEOUT_SEC)
            assert process.returncode == 130, err
        waiting.set()
        service.shutdown()
    assert "Interrupted after 2 of 14 recordings" in err
    assert "Traceback" not in err
    assert "20 words" in out
    report = json.loads(to.read_text())
    assert report["interrupted"] is True
    assert report["model"] is None
    assert len(report["accuracy"][0]["utterances"]) == 2


def test_comparing_what_is_none(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("{}")
    done = moulin("bench", "compare", tmp_path / "a.json", tmp_path / "b.json").expect(1)
    assert "is no result of moulin bench" in done.err
