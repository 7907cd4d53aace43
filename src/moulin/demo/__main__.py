"""`python -m moulin.demo`: start Triton with the demo models, transcribe the demo recordings, show how well it went."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
from numpy.typing import NDArray

from moulin.audio.decode import read_audio
from moulin.audio.source import AudioSource
from moulin.bundle.load import load_bundle
from moulin.client import Client
from moulin.demo.files import DEMO_MODEL, DEMO_STREAMING_MODEL
from moulin.errors import MoulinError
from moulin.evaluate.manifest import demo_clips
from moulin.evaluate.utterance import Utterance
from moulin.evaluate.wer import WordErrors, count_word_errors, digits_spelled_alike
from moulin.launch.server import TritonServer
from moulin.launch.server_options import ServerOptions
from moulin.launch.tritonserver import find_tritonserver
from moulin.launch.workspace import workspace
from moulin.transcribe_files import transcribe_on_server
from moulin.transcript import Transcript
from moulin.triton_repo.contract import MODEL_NAME, STREAMING_MODEL_NAME
from moulin.triton_repo.offline_options import OfflineOptions
from moulin.triton_repo.repository import build_offline_repository, build_streaming_repository
from moulin.triton_repo.streaming_options import StreamingOptions

_CHUNK_SAMPLES = 5120  # 320 ms


def main() -> None:
    """Exit status 0 when every recording was transcribed."""
    triton = find_tritonserver(say=partial(print, flush=True))
    started = time.perf_counter()
    clips = list(demo_clips())
    with workspace("demo") as repository:
        offline = load_bundle(DEMO_MODEL, expect="offline")
        streaming = load_bundle(DEMO_STREAMING_MODEL, expect="streaming")
        build_offline_repository(offline, repository, OfflineOptions(), link=True)
        build_streaming_repository(streaming, repository, StreamingOptions(model_name=STREAMING_MODEL_NAME), link=True)
        print(f"Starting Triton with {offline.name} and {streaming.name} ({offline.family}) ...", flush=True)
        ports = ServerOptions(http_port=0, grpc_port=0, metrics_port=0)
        with TritonServer(repository, ports, installation=triton) as server:
            server.wait_ready()
            print(f"Ready on {server.grpc_url} after {time.perf_counter() - started:.1f} s\n", flush=True)
            _transcribe(server.grpc_url, clips)
            _stream(server.grpc_url, clips)


def _transcribe(url: str, clips: list[Utterance]) -> None:
    asked = time.perf_counter()
    sources = [AudioSource(str(clip.audio)) for clip in clips]
    outcomes = transcribe_on_server(sources, url, model=MODEL_NAME, changes={}, jobs=4)
    heard = []
    for clip, outcome in zip(clips, outcomes, strict=True):
        if not isinstance(outcome.result, Transcript):
            raise outcome.result
        heard.append(outcome.result)
        print(f"{clip.audio.name}   WER {_errors([clip], [outcome.result]).rate:6.1%}")
        print(f"  heard  {outcome.result.text}")
        print(f"  said   {clip.text}", flush=True)
    _summary("recordings", clips, heard, time.perf_counter() - asked)


def _stream(url: str, clips: list[Utterance]) -> None:
    print(f"\n{clips[0].audio.name} in pieces of 320 ms:", flush=True)
    waveforms = [read_audio(clip.audio) for clip in clips]
    with Client(url) as client:

        def live(waveform: NDArray[np.float32], *, show: bool = False) -> Transcript:
            with client.stream() as stream:
                shown = ""
                for first in range(0, len(waveform), _CHUNK_SAMPLES):
                    stream.send(waveform[first : first + _CHUNK_SAMPLES])
                    if show and stream.live.text != shown:
                        shown = stream.live.text
                        print(f"  after {stream.live.duration_sec:4.1f} s  {shown}", flush=True)
                return stream.finish()

        live(waveforms[0], show=True)
        asked = time.perf_counter()
        with ThreadPoolExecutor(len(clips)) as speakers:
            heard = list(speakers.map(live, waveforms))
    _summary("streams at once", clips, heard, time.perf_counter() - asked)


def _summary(what: str, clips: list[Utterance], heard: list[Transcript], took_sec: float) -> None:
    audio_sec = sum(transcript.duration_sec for transcript in heard)
    total = _errors(clips, heard)
    print(f"\n{len(clips)} {what}, {audio_sec:.1f} s of speech in {took_sec:.2f} s")
    print(f"WER {total.rate:.2%} ({total.errors} errors in {total.words} words; OH counts as ZERO)", flush=True)


def _errors(clips: Iterable[Utterance], heard: Iterable[Transcript]) -> WordErrors:
    counts: Iterator[WordErrors] = (
        count_word_errors(clip.text, transcript.text, normalize=digits_spelled_alike)
        for clip, transcript in zip(clips, heard, strict=True)
    )
    return sum(counts, WordErrors())


if __name__ == "__main__":
    try:
        main()
    except (MoulinError, OSError) as problem:
        sys.exit(f"moulin demo: {problem}")
    except KeyboardInterrupt:
        sys.exit(130)
