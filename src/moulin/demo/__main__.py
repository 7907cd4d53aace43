"""`python -m moulin.demo`: start Triton with the demo model, transcribe the demo recordings, show how well it went."""

from __future__ import annotations

import sys
import time

from moulin.audio.source import AudioSource
from moulin.bundle.load import load_bundle
from moulin.demo.files import DEMO_MODEL, demo_clips
from moulin.errors import MoulinError
from moulin.evaluate.wer import WordErrors, count_word_errors, digits_spelled_alike
from moulin.launch.server import ServerOptions, TritonServer
from moulin.launch.workspace import workspace
from moulin.transcribe_files import transcribe_on_server
from moulin.transcript import Transcript
from moulin.triton_repo.offline_config import OfflineOptions
from moulin.triton_repo.repository import build_offline_repository


def main() -> None:
    """Exit status 0 when every recording was transcribed."""
    started = time.perf_counter()
    clips = list(demo_clips())
    with workspace("demo") as repository:
        spec = load_bundle(DEMO_MODEL, expect="offline")
        build_offline_repository(spec, repository, OfflineOptions(), link=True)
        print(f"Starting Triton with {spec.name} ({spec.family}, {spec.precision}) ...", flush=True)
        with TritonServer(repository, ServerOptions(http_port=0, grpc_port=0, metrics_port=0)) as server:
            server.wait_ready()
            print(f"Ready on {server.grpc_url} after {time.perf_counter() - started:.1f} s\n", flush=True)

            total = WordErrors()
            audio_sec = 0.0
            asked = time.perf_counter()
            sources = [AudioSource(str(clip.audio)) for clip in clips]
            outcomes = transcribe_on_server(sources, server.grpc_url, model="transducer", changes={}, jobs=4)
            for clip, outcome in zip(clips, outcomes, strict=True):
                if not isinstance(outcome.result, Transcript):
                    raise outcome.result
                errors = count_word_errors(clip.text, outcome.result.text, normalize=digits_spelled_alike)
                total += errors
                audio_sec += outcome.result.duration_sec
                print(f"{clip.audio.name}   WER {errors.rate:6.1%}")
                print(f"  heard  {outcome.result.text}")
                print(f"  said   {clip.text}", flush=True)
            took = time.perf_counter() - asked
    print(f"\n{len(clips)} recordings, {audio_sec:.1f} s of speech in {took:.2f} s")
    print(f"WER {total.rate:.2%} ({total.errors} errors in {total.words} words; OH counts as ZERO)")


if __name__ == "__main__":
    try:
        main()
    except (MoulinError, OSError) as problem:
        sys.exit(f"moulin demo: {problem}")
    except KeyboardInterrupt:
        sys.exit(130)
