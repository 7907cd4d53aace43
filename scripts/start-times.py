"""The time from a process's start to a recognizer that is ready on the GPU engine, with an empty and with a full cache.

    python scripts/start-times.py --size zipformer2-66m --instances 1,3
    python scripts/start-times.py --size zipformer2-causal-66m --streams 4000 --instances 1,4
    python scripts/start-times.py --size zipformer2-causal-66m --both

A line of JSON each. Instances are processes that begin together and share the streams, as in `moulin serve`; the time
is that of the last one. `--both` opens one checkpoint for recordings and for streams in one process, and tells the
card's memory after each. Another version's `src` on PYTHONPATH is measured in the same way.
"""

from __future__ import annotations

import argparse
import json
import os
import site
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="zipformer2-66m")
    parser.add_argument("--streams", type=int, default=0, help="measure streams, so many of all instances together")
    parser.add_argument("--instances", default="1")
    parser.add_argument("--both", action="store_true")
    parser.add_argument("--open", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.open is not None:
        _open(asked.open, asked.streams, both=asked.both)
        return
    from moulin.evaluate.published_sizes import write_speaking_checkpoint

    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        write_speaking_checkpoint(asked.size, folder)
        for count in map(int, asked.instances.split(",")):
            home = folder / f"home{count}"
            home.mkdir()
            for cache in ("empty", "full"):
                took = _together(folder, home, asked.streams // count, count, both=asked.both)
                shown = {"size": asked.size, "streams": asked.streams, "instances": count, "cache": cache, **took}
                print(json.dumps(shown), flush=True)


def _together(model: Path, home: Path, streams: int, count: int, *, both: bool) -> dict[str, Any]:
    """Start `count` processes at once; the measurements of the last one that was ready."""
    began = time.time()
    # Triton-lang's own cache is below HOME, and so may be the packages of this Python.
    places = {"HOME": str(home), "XDG_CACHE_HOME": str(home / "cache"), "PYTHONUSERBASE": site.getuserbase()}
    environment = {**os.environ, **places, "BEGAN": str(began)}
    command = [sys.executable, __file__, "--open", str(model), "--streams", str(streams), *["--both"] * both]
    started = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(count)]
    lines = [process.communicate()[0].splitlines() for process in started]
    if any(process.returncode for process in started):
        sys.exit("a process failed")
    found: list[dict[str, Any]] = [json.loads(said[-1]) for said in lines]
    return max(found, key=lambda one: one["ready_sec"])


def _open(model: Path, streams: int, *, both: bool) -> None:
    import numpy as np
    import torch

    from moulin.models.engine_choice import EngineChoice
    from moulin.models.open_recognizer import open_recognizer
    from moulin.models.open_stream_recognizer import open_stream_recognizer

    began = float(os.environ["BEGAN"])
    engine, found = EngineChoice(device="cuda"), {"imports_sec": round(time.time() - began, 2)}
    noise = np.random.default_rng(0).normal(0, 0.05, 16_000 * 5).astype(np.float32)
    if both or not streams:
        recognizer = open_recognizer(model, engine)
        found["ready_sec"] = round(time.time() - began, 2)
        at = time.perf_counter()
        recognizer.transcribe([noise])
        found["first_ms"] = round(1e3 * (time.perf_counter() - at), 1)
        found["card_mib"] = round(torch.cuda.memory_allocated() / 2**20)
    if both or streams:
        live = open_stream_recognizer(model, engine, max_streams=streams or 16)
        live.warm_up()
        found["ready_sec"] = round(time.time() - began, 2)
        found["card_mib_with_streams"] = round(torch.cuda.memory_allocated() / 2**20)
    print(json.dumps(found), flush=True)
    os._exit(0)


if __name__ == "__main__":
    main()
