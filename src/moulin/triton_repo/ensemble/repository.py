"""Writes the layout `ensemble` into a Triton model repository.

DIR/transducer/             config.pbtxt and an empty version: Triton runs it by itself
DIR/feature_extractor/1/    model.py
DIR/encoder/1/              model.onnx, and model.py where python runs it
DIR/decoder/1/, joiner/1/   the same
DIR/scorer/1/               model.py, tokens.txt
"""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

from moulin.bundle.onnx_graph import OnnxGraph
from moulin.bundle.spec import ModelSpec, OnnxModelSpec
from moulin.engine.engines import choose_engine
from moulin.engine.onnxruntime_encoder import OnnxRuntimeEncoder
from moulin.errors import OptionsError
from moulin.triton_repo.ensemble.components import MODEL_FILES, PARTS, Backend, Part, component_name, interface
from moulin.triton_repo.ensemble.config import ensemble_configs
from moulin.triton_repo.model_folder import new_model, place_file, write_config, write_shim
from moulin.triton_repo.offline_config import OfflineOptions


def build_offline_ensemble(
    spec: ModelSpec, to: Path, options: OfflineOptions, *, backend: Backend = "python", link: bool = False
) -> Path:
    """Write the ensemble for the offline model `spec` and its components into `to`, replacing these there and no other.

    Returns the ensemble's folder. With `link` the components have links to the model's files. Raises OptionsError where
    `to` cannot be written or the layout does not fit the model, and BundleError where `backend` cannot run it.
    """
    if not isinstance(spec, OnnxModelSpec):
        raise OptionsError(
            f"The layout ensemble takes ONNX files, and {spec.file} is a checkpoint",
            hint="`moulin export` writes ONNX files of it; or leave out --layout",
        )
    if spec.streaming:
        raise OptionsError(
            f"The layout ensemble serves whole utterances, and {spec.path} is a streaming model",
            hint="leave out --layout for it",
        )
    if backend == "tensorrt":
        raise OptionsError(
            "The backend tensorrt needs an engine file, which moulin cannot build yet",
            hint="choose the backend onnxruntime or python",
        )
    choose_engine(spec, options.engine)
    interface(spec, backend)
    configs = ensemble_configs(spec, options, backend, min_frames=_min_frames(spec, backend))
    linked = spec.path if link else None
    with ExitStack() as folders:
        # All are written before any takes its place. The ensemble's does so first, and takes the components of the
        # ensemble that was there away.
        for part in PARTS:
            folder = folders.enter_context(new_model(to / component_name(options.model_name, part), linked=linked))
            _write_component(spec, folder, part, configs[part], link=link)
        write_config(folders.enter_context(new_model(to / options.model_name, linked=linked)), configs[None])
    return to / options.model_name


def _min_frames(spec: OnnxModelSpec, backend: Backend) -> int:
    """Python's encoder finds it when it is loaded. For Triton's own backends it is found here."""
    if backend == "python":
        return 0
    return OnnxRuntimeEncoder(
        spec.encoder, feature_dim=spec.feature_dim, precision=spec.precision, threads=1
    ).min_frames


def _write_component(spec: OnnxModelSpec, model_dir: Path, part: Part, config: Any, *, link: bool) -> None:
    write_config(model_dir, config)
    graphs: dict[Part, OnnxGraph] = {"encoder": spec.encoder, "decoder": spec.decoder, "joiner": spec.joiner}
    version = model_dir / "1"
    if part in graphs:
        place_file(graphs[part].file, version / MODEL_FILES["onnxruntime"], link=link)
        for file in graphs[part].external_files:
            place_file(file, version / file.name, link=link)
    if part == "scorer":
        place_file(spec.files.tokens, version / "tokens.txt", link=link)
    if config.backend == "python":
        write_shim(model_dir, "ensemble.component_shim")
