"""A model's folder in a repository: written beside the old one, and put in its place when it is complete."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as pb

from moulin.errors import OptionsError
from moulin.triton_repo.ensemble.components import PARTS, component_name

_MODEL_PY = '''"""Loaded by Triton's python backend. Everything is in the package; see moulin.triton_repo."""

from moulin.triton_repo.{shim} import TritonPythonModel  # noqa: F401
'''


@contextmanager
def new_model(model_dir: Path, *, linked: Path | None = None) -> Iterator[Path]:
    """A folder with an empty version `1`, which takes the place of `model_dir` on leaving. The components of an
    ensemble that was there are removed too.

    `linked` is the folder to which the new model will have links. Raises OptionsError where the folder cannot be
    written, holds something else, or would be linked to itself.
    """
    if model_dir.is_symlink() or (model_dir.exists() and not (model_dir / "config.pbtxt").is_file()):
        raise OptionsError(
            f"{model_dir} exists and is not a Triton model that moulin could replace", hint="choose another folder"
        )
    if linked is not None and linked.resolve().is_relative_to(model_dir.resolve()):
        raise OptionsError(
            f"Cannot link to {linked}, which lies in the model folder to replace", hint="build without --link"
        )
    to = model_dir.parent
    try:
        to.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=to, prefix=".new-") as folder:
            new, old = Path(folder) / "model", Path(folder) / "old"
            (new / "1").mkdir(parents=True)
            yield new
            if model_dir.exists():
                for component in _components(model_dir):
                    component.rename(Path(folder) / component.name)
                model_dir.rename(old)
            new.rename(model_dir)
    except OSError as error:
        raise OptionsError(
            f"Cannot write the repository to {to}: {error.strerror or error}",
            hint="choose a folder that you can write, with some space (for `moulin serve`: XDG_CACHE_HOME)",
        ) from error


def write_config(model_dir: Path, config: Any) -> None:
    """Write `config`, an `inference.ModelConfig` message."""
    (model_dir / "config.pbtxt").write_text(text_format.MessageToString(config))


def write_shim(model_dir: Path, shim: str) -> None:
    """Write the model.py that imports the module `shim` of moulin.triton_repo."""
    (model_dir / "1" / "model.py").write_text(_MODEL_PY.format(shim=shim))


def place_file(file: Path, to: Path, *, link: bool) -> None:
    """Copy `file`, or link to where it is."""
    if link:
        to.symlink_to(file.resolve())
    else:
        shutil.copyfile(file, to)


def _components(model_dir: Path) -> list[Path]:
    """The folders of the components of the ensemble in `model_dir`; none where it is no ensemble of moulin's."""
    try:
        config = text_format.Parse((model_dir / "config.pbtxt").read_text(), pb.ModelConfig())
    except (text_format.ParseError, UnicodeDecodeError):
        return []
    names = [component_name(model_dir.name, part) for part in PARTS]
    tied = {step.model_name for step in config.ensemble_scheduling.step}
    tied |= {value.string_value for key, value in config.parameters.items() if key.endswith("_model")}
    if not tied & set(names):
        return []
    return [folder for name in names if (folder := model_dir.parent / name).is_dir()]
