"""Writes a Triton model repository: config.pbtxt, the shim that Triton loads, warm-up data and the model's files.

DIR/transducer/config.pbtxt
DIR/transducer/1/model.py         imports moulin, nothing else
DIR/transducer/1/bundle/          the model's files (copied, or a link to where they are)
DIR/transducer/warmup/            what Triton sends before it reports ready (offline)
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from google.protobuf import text_format

from moulin.bundle.spec import ModelSpec
from moulin.engine.recognizer import model_max_sec
from moulin.errors import OptionsError
from moulin.triton_repo import contract
from moulin.triton_repo.offline_config import WARMUP_SAMPLES, OfflineOptions, offline_config
from moulin.triton_repo.streaming_config import StreamingOptions, streaming_config

_MODEL_PY = '''"""Loaded by Triton's python backend. Everything is in the package; see moulin.triton_repo."""

from moulin.triton_repo.{shim} import TritonPythonModel  # noqa: F401
'''


def build_offline_repository(spec: ModelSpec, to: Path, options: OfflineOptions, *, link: bool = False) -> Path:
    """Write the repository for the offline model `spec` into `to`, replacing that model there and no other.

    With `link` the files stay where they are; without, the repository can be moved to another machine. Returns the
    model's folder. The old model stays as it is until the new one is complete, so that `spec` may lie inside it.
    Raises OptionsError where `to` cannot be written or the model's folder holds something else.
    """
    with _new_model(spec, to / options.model_name, "offline_shim", link=link) as model_dir:
        longest_sec = min(model_max_sec(spec), options.max_audio_sec)
        config = offline_config(options, f"bundle/{spec.file.name}", max_utterance_sec=longest_sec)
        (model_dir / "config.pbtxt").write_text(text_format.MessageToString(config))
        warmup = model_dir / "warmup"
        warmup.mkdir()
        noise = np.random.default_rng(0).normal(0, 0.01, WARMUP_SAMPLES).astype("<f4")
        (warmup / contract.WAV).write_bytes(noise.tobytes())
        (warmup / contract.WAV_LENS).write_bytes(np.array([WARMUP_SAMPLES], dtype="<i4").tobytes())
    return to / options.model_name


def build_streaming_repository(spec: ModelSpec, to: Path, options: StreamingOptions, *, link: bool = False) -> Path:
    """The same for the streaming model `spec`. It warms itself up: Triton's warm-up knows no sequences."""
    with _new_model(spec, to / options.model_name, "streaming_shim", link=link) as model_dir:
        config = streaming_config(options, f"bundle/{spec.file.name}")
        (model_dir / "config.pbtxt").write_text(text_format.MessageToString(config))
    return to / options.model_name


@contextmanager
def _new_model(spec: ModelSpec, model_dir: Path, shim: str, *, link: bool) -> Iterator[Path]:
    """A folder with the model's files and code, which takes the place of `model_dir` on leaving."""
    if model_dir.is_symlink() or (model_dir.exists() and not (model_dir / "config.pbtxt").is_file()):
        raise OptionsError(
            f"{model_dir} exists and is not a Triton model that moulin could replace", hint="choose another folder"
        )
    if link and spec.path.resolve().is_relative_to(model_dir.resolve()):
        raise OptionsError(
            f"Cannot link to {spec.path}, which lies in the model folder to replace", hint="build without --link"
        )
    to = model_dir.parent
    try:
        to.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=to, prefix=".new-") as folder:
            new, old = Path(folder) / "model", Path(folder) / "old"
            version = new / "1"
            version.mkdir(parents=True)
            _place_bundle(spec, version / "bundle", link=link)
            (version / "model.py").write_text(_MODEL_PY.format(shim=shim))
            yield new
            if model_dir.exists():
                model_dir.rename(old)
            new.rename(model_dir)
    except OSError as error:
        raise OptionsError(f"Cannot write the repository to {to}: {error.strerror or error}") from error


def _place_bundle(spec: ModelSpec, to: Path, *, link: bool) -> None:
    if link:
        to.symlink_to(spec.path.resolve(), target_is_directory=True)
        return
    to.mkdir()
    for file in spec.all_files:
        shutil.copyfile(file, to / file.name)
