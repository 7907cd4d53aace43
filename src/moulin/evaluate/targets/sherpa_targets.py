"""sherpa-onnx's websocket servers, the peer: started for a run, or running at an address."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial

from moulin.bundle.spec import ModelSpec
from moulin.decoding.options import DecodingOptions
from moulin.errors import OptionsError
from moulin.evaluate.connection import Connection
from moulin.evaluate.streaming_clips import Clip
from moulin.evaluate.targets.sherpa_server import SherpaConnection, SherpaOfflineConnection, sherpa_server
from moulin.evaluate.targets.target import SHERPA_SETTINGS, RunningTarget, ServerSettings, onnx


@contextmanager
def started(spec: ModelSpec | None, settings: ServerSettings) -> Iterator[RunningTarget]:
    """The server for the model, with the best settings found and what `settings` changes of them."""
    if settings.device != "cpu":
        raise OptionsError("sherpa-onnx as PyPI has it runs on the CPU only", hint="leave it out of --targets")
    options = DecodingOptions().updated(settings.decoding)
    method = {"greedy": "greedy_search"}.get(options.method, options.method)
    decoding = {"decoding-method": method, "max-active-paths": str(options.beam)}
    with sherpa_server(onnx(spec), {**SHERPA_SETTINGS, **decoding, **settings.sherpa}) as (pid, port):
        yield RunningTarget(pid, partial(connect, f"ws://127.0.0.1:{port}"))


def connect(url: str, clips: Sequence[Clip], _generator: int = 0) -> Connection:
    """To the online server for chunks, to the offline one for whole recordings."""
    whole = all(clip.whole for clip in clips)
    if not whole and not all(clip.peer_steps for clip in clips):
        raise OptionsError(
            "sherpa-onnx's server does not say which chunk it answers", hint="name its model (--model), which does"
        )
    return SherpaOfflineConnection(url, clips) if whole else SherpaConnection(url, clips)


def at(address: str, _settings: ServerSettings) -> RunningTarget:
    """The server at ws://HOST:PORT."""
    return RunningTarget(None, partial(connect, address if "://" in address else f"ws://{address}"))
