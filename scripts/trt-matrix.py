"""Builds engines with TensorRT-RTX, which needs no GPU, and prints a table of what its builder said.

    python scripts/trt-matrix.py [--models NAME...] [--for ARCHITECTURE...] [--precisions P...] [--parse] ...

Models are the test bundles, digits-en-streaming and the published sizes (random weights), or folders.
Every plan is built as `moulin trt build --for` does and thrown away; with --parse a graph only goes through the parser.
The memory is the largest that this process has had until then. Ends with 1 where one was not built.
"""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import onnx

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from tests.bundles import BUNDLES, MORE_OFFLINE, MORE_STREAMING, OFFLINE, STREAMING  # noqa: E402

from moulin.bundle.choice import Wish  # noqa: E402
from moulin.bundle.load_model import load_model  # noqa: E402
from moulin.bundle.spec import OnnxModelSpec  # noqa: E402
from moulin.cli.fetch import local_model  # noqa: E402
from moulin.demo.files import DEMO_STREAMING_MODEL  # noqa: E402
from moulin.engine.limits import MAX_AUDIO_SEC  # noqa: E402
from moulin.errors import MoulinError  # noqa: E402
from moulin.evaluate.published_sizes import SIZES, random_transducer, write_random_model  # noqa: E402
from moulin.export.to_onnx import export_onnx  # noqa: E402
from moulin.launch.tensorrt_libraries import ARCHITECTURES  # noqa: E402
from moulin.tensorrt_engine.build import build_plan, prepare  # noqa: E402
from moulin.tensorrt_engine.builders import builder_ahead  # noqa: E402
from moulin.tensorrt_engine.plan_file import PLAN_PRECISIONS, PlanPrecision  # noqa: E402

DEMOS = {"digits-en-streaming": DEMO_STREAMING_MODEL}  # digits-en itself is int8
FAMILIES = (*OFFLINE, *STREAMING, *MORE_OFFLINE, *MORE_STREAMING)
STREAMS_ALONE = ("lstm-84m",)
RECORDINGS = tuple(size for size in SIZES if size not in STREAMS_ALONE)
_STREAMING = ("conformer-77m", *(size for size in SIZES if "streaming" in size or "causal" in size), *STREAMS_ALONE)
STREAMS = {f"{size}-streaming": size for size in _STREAMING}


def main() -> int:
    names = (*FAMILIES, *DEMOS, *RECORDINGS, *STREAMS)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=names, metavar="NAME", help=f"a folder, or {', '.join(names)}")
    parser.add_argument("--for", nargs="+", choices=list(ARCHITECTURES), default=list(ARCHITECTURES), dest="targets")
    parser.add_argument("--precisions", nargs="+", choices=PLAN_PRECISIONS, default=PLAN_PRECISIONS)
    parser.add_argument("--max-batch", type=int, default=64)
    parser.add_argument("--max-seconds", type=float, default=MAX_AUDIO_SEC, help="of offline models")
    parser.add_argument("--parse", action="store_true", help="build nothing")
    asked = parser.parse_args()
    version = builder_ahead("8.9").version
    print(f'TensorRT-RTX {version}, {datetime.now(UTC):%Y-%m-%d}, `make trt TRT="{" ".join(sys.argv[1:])}"`\n')
    print("| model | for | precision | operators | profiles | plan, MB | s | memory, GB |")
    print("|---|---|---|---|---|---|---|---|")
    targets = asked.targets[:1] if asked.parse else asked.targets
    failed = 0
    for name in asked.models:
        with tempfile.TemporaryDirectory() as folder:
            model = _model(name, Path(folder))
            for precision in asked.precisions:
                for target in targets:
                    try:
                        cells = _built(model, precision, ARCHITECTURES[target][0], asked)
                    except MoulinError as error:
                        failed += 1
                        cells = f"{error} | | | | "
                    print(f"| {name} | {target} | {precision} | {cells} |", flush=True)
    return 1 if failed else 0


def _model(name: str, folder: Path) -> Path:
    """The folder of the model `name`; of a published size written into `folder`."""
    if name in RECORDINGS:
        write_random_model(name, folder, onnx=True)
        return folder
    if name in STREAMS:
        transducer = random_transducer(STREAMS[name])
        write_random_model(STREAMS[name], folder, onnx=False)
        export_onnx(transducer, folder, "", transducer.encoder.streaming_layout())
        return folder
    return DEMOS.get(name, BUNDLES / name if name in FAMILIES else Path(name))


def _built(model: Path, precision: PlanPrecision, capability: str, asked: argparse.Namespace) -> str:
    """Cells of the table from `operators` on. Raises MoulinError."""
    spec = load_model(local_model(model, Wish(precision="fp32", form="onnx")).path)
    assert isinstance(spec, OnnxModelSpec)
    prepared = prepare(spec, precision=precision, max_batch=asked.max_batch, max_seconds=asked.max_seconds)
    with tempfile.TemporaryDirectory() as folder:
        builder, size = builder_ahead(capability), "-"
        began = time.monotonic()
        if asked.parse:
            onnx.save(prepared.model, file := Path(folder) / "encoder.onnx", save_as_external_data=True)
            builder.parse(file)
        else:
            plan = build_plan(spec, prepared, Path(folder), builder, None, precision)
            size = f"{plan.stat().st_size / 1e6:.1f}"
        took = time.monotonic() - began
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    return f"{len(prepared.model.graph.node)} | {len(prepared.profiles)} | {size} | {took:.0f} | {memory:.1f}"


if __name__ == "__main__":
    sys.exit(main())
