"""The way to run a model's ONNX files on this processor that a measurement chose, kept in the cache folder."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, get_args

from moulin.bundle.precision import Precision
from moulin.bundle.spec import ExportedSpec
from moulin.launch.cache import cache_dir
from moulin.models.engine_choice import Engine
from moulin.processor import Processor
from moulin.tensorrt_engine.plan_file import file_hash

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Way:
    """A way to run the files of a model on a CPU."""

    engine: Engine
    precision: Precision

    def __str__(self) -> str:
        return f"{self.engine} in {self.precision}"


def keep(spec: ExportedSpec, way: Way, figures: dict[str, Any], processor: Processor) -> Path:
    """Keep `way` for `spec` on this processor, with the `figures` that say why. Returns the file. Raises OSError."""
    file = _kept_file(spec, processor)
    file.parent.mkdir(parents=True, exist_ok=True)
    new = file.with_suffix(".tmp")
    content = {"engine": way.engine, "precision": way.precision, "model": spec.name, **figures}
    new.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    new.replace(file)
    return file


def kept_way(spec: ExportedSpec, processor: Processor) -> Way | None:
    """What `keep` kept for `spec` on this processor; None without it."""
    file = _kept_file(spec, processor)
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        engine, precision = content["engine"], content["precision"]
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        logger.warning("%s is left aside: it cannot be read (%s)", file, type(error).__name__)
        return None
    known = engine in get_args(Engine) and precision in get_args(Precision)
    return Way(engine, precision) if known else None


def _kept_file(spec: ExportedSpec, processor: Processor) -> Path:
    """The file by the contents of the encoder and by the processor: neither a path nor a name says what is fast."""
    model = _digest((spec.encoder.file, *spec.encoder.external_files))
    machine = hashlib.sha256(f"{processor.name} {' '.join(sorted(processor.flags))}".encode()).hexdigest()
    return cache_dir() / "engines-on-cpu" / f"{model[:24]}-{machine[:12]}.json"


def _digest(files: Sequence[Path]) -> str:
    stats = [file.stat() for file in files]
    return _digest_of(tuple((file, stat.st_size, stat.st_mtime_ns) for file, stat in zip(files, stats, strict=True)))


@cache
def _digest_of(files: tuple[tuple[Path, int, int], ...]) -> str:
    """Of the contents of files, which have these sizes and times: commands ask more than once."""
    return file_hash(*(file for file, _, _ in files))
