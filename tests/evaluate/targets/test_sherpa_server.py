"""The peer's protocol, against websockets' own server core."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import numpy as np
import pytest
from websockets.frames import Frame, Opcode
from websockets.http11 import Request
from websockets.server import ServerProtocol

from moulin.bundle.load import load_bundle
from moulin.bundle.spec import OnnxModelSpec
from moulin.errors import EngineError, LaunchError, OptionsError
from moulin.evaluate.connection import Record
from moulin.evaluate.process_usage import process_tree
from moulin.evaluate.streaming_clips import Clip, cut
from moulin.evaluate.targets.registry import target
from moulin.evaluate.targets.sherpa_server import BINARY, SherpaConnection, SherpaStream, sherpa_server
from moulin.evaluate.targets.target import ServerSettings
from moulin.models.engine_choice import EngineChoice
from tests.bundles import BUNDLES
from tests.evaluate.virtual_time import run_virtually


class Wire(asyncio.Transport):
    """A transport that hands over to websockets' server core."""

    def __init__(self, stream: SherpaStream) -> None:
        super().__init__()
        self._stream = stream
        self.server = ServerProtocol()
        self.received: list[Frame] = []
        self.closed = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.server.receive_data(bytes(data))
        for event in self.server.events_received():
            if isinstance(event, Request):
                self.server.send_response(self.server.accept(event))
                self.flush()
            else:
                assert isinstance(event, Frame)
                self.received.append(event)

    def flush(self) -> None:
        for data in self.server.data_to_send():
            self._stream.data_received(data)

    def message(self, text: str, *, is_final: bool = False, segment: int = 0) -> None:
        self.raw(json.dumps({"text": text, "segment": segment, "is_final": is_final}))

    def raw(self, text: str) -> None:
        self.server.send_text(text.encode())
        self.flush()

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = True


SPEECH = Clip(
    text="ONE TWO",
    chunks=tuple(np.full(5120, value, dtype=np.float32) for value in (1, 2, 3, 4)),
    tail=np.zeros(800, dtype=np.float32),
    peer_steps=(0, 1, 3, 4),
    measured=(False, True, True, False),
)


def stream_and_wire() -> tuple[Record, SherpaStream, Wire]:
    record = Record(SPEECH)
    stream = SherpaConnection("ws://127.0.0.1:1", [SPEECH]).open(record)
    wire = Wire(stream)
    return record, stream, wire


def test_chunks_wait_for_the_connection_and_are_what_the_protocol_says() -> None:
    async def run() -> None:
        _, stream, wire = stream_and_wire()
        stream.send(0)
        stream.connection_made(wire)
        for index in (1, 2, 3):
            stream.send(index)
        assert [frame.opcode for frame in wire.received] == [Opcode.BINARY] * 4 + [Opcode.TEXT]
        audio = [np.frombuffer(frame.data, "<f4") for frame in wire.received[:4]]
        np.testing.assert_array_equal(np.concatenate(audio), np.concatenate([*SPEECH.chunks, SPEECH.tail]))
        assert [len(samples) for samples in audio] == [5120, 5120, 5120, 5920]
        assert wire.received[-1].data == b"Done"

    run_virtually(run())


def test_message_k_answers_the_chunk_that_made_step_k_possible() -> None:
    async def run() -> None:
        record, stream, wire = stream_and_wire()
        stream.connection_made(wire)
        for index in range(4):
            stream.send(index)
        wire.message("")
        assert np.isnan(record.replied).tolist() == [False, False, True, True]
        wire.message("ONE")
        assert np.isnan(record.replied).tolist() == [False, False, True, True]
        wire.message("ONE", is_final=True)
        assert np.isnan(record.replied).tolist() == [False, False, False, True]
        wire.message("TWO", is_final=True, segment=1)
        assert not np.isnan(record.replied).any()
        assert record.text == "ONE TWO"
        assert wire.closed

    run_virtually(run())


def test_done_may_overtake_the_last_message() -> None:
    async def run() -> None:
        record, stream, wire = stream_and_wire()
        stream.connection_made(wire)
        for text in ("", "ONE", "ONE"):
            wire.message(text)
        wire.raw("Done!")
        unfinished = record.text
        wire.message("ONE TWO", is_final=True)
        assert (unfinished, record.text) == (None, "ONE TWO")

    run_virtually(run())


@pytest.mark.parametrize(
    ("num_messages", "abandoned", "failure"),
    [(3, False, "the server closed the connection: reset"), (3, True, None), (4, False, None)],
)
def test_a_connection_that_is_lost_is_a_failure_unless_all_was_said(
    num_messages: int, abandoned: bool, failure: str | None
) -> None:
    async def run() -> None:
        record, stream, wire = stream_and_wire()
        stream.connection_made(wire)
        for _ in range(num_messages):
            wire.message("ONE", is_final=True)
        if abandoned:
            stream.abandon()
        stream.connection_lost(ConnectionResetError("reset"))
        assert record.failure == failure

    run_virtually(run())


def test_nobody_listening_is_a_failure() -> None:
    async def run() -> Record:
        record = Record(SPEECH)
        connection = SherpaConnection("ws://127.0.0.1:1", [SPEECH])
        stream = connection.open(record)
        await stream.connect()
        stream.abandon()
        await connection.close()
        return record

    assert (asyncio.run(run()).failure or "").startswith("cannot connect")


@pytest.fixture(scope="module")
def spec() -> OnnxModelSpec:
    return load_bundle(BUNDLES / "zipformer2-streaming", expect="streaming")


def test_a_server_that_refuses_its_options_says_which(spec: OnnxModelSpec) -> None:
    with pytest.raises(LaunchError, match="exited with code"), sherpa_server(spec, {"no-such-option": "1"}):
        pass


def test_the_peer_is_ended_with_the_context(spec: OnnxModelSpec) -> None:
    with sherpa_server(spec, {"num-work-threads": "1"}) as (pid, _):
        assert process_tree(pid) == [pid]
        assert Path(f"/proc/{pid}").exists()
    assert not Path(f"/proc/{pid}").exists()


def test_without_the_peer_the_error_says_how_to_get_it(spec: OnnxModelSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.executable", "/nowhere/python")
    with pytest.raises(EngineError, match=BINARY) as caught, sherpa_server(spec, {}):
        pass
    assert caught.value.hint == "pip install '.[bench]' in moulin's folder"


def test_the_peer_runs_on_the_cpu_only(spec: OnnxModelSpec) -> None:
    settings = ServerSettings(EngineChoice(device="cuda:0", threads=1))
    with pytest.raises(OptionsError, match="CPU only"), target("sherpa-onnx-server", "streams")(spec, settings):
        pass


def test_the_peer_without_its_model_is_refused() -> None:
    clip = cut(np.zeros(6000, dtype=np.float32), "ONE", None, 5120)
    refused = pytest.raises(OptionsError, match="does not say which chunk it answers")
    with target("sherpa=127.0.0.1:1", "streams")(None, ServerSettings(EngineChoice(threads=1))) as running, refused:
        running.connect([clip], 0)
