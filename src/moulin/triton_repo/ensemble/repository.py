"""Writing of the layout `ensemble` into a Triton model repository.

DIR/transducer/             config.pbtxt and an empty version: Triton runs it without code
DIR/feature_extractor/1/    model.py
DIR/encoder/1/              model.onnx, and model.py where python runs it; model.plan for TensorRT
DIR/decoder/1/, joiner/1/   the same; not where a CTC head is decoded
DIR/scorer/1/               model.py, tokens.txt
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import onnx

from moulin.bundle.onnx_graph import OnnxGraph
from moulin.bundle.spec import ExportedSpec, ModelSpec, OnnxModelSpec
from moulin.bundle.tokens import tokens_text
from moulin.engine.blank_skip import check_blank_skip
from moulin.engine.lm_scales import check_scales
from moulin.engine.no_hotwords import no_hotwords
from moulin.engine.onnxruntime.encoder import OnnxRuntimeEncoder
from moulin.errors import BundleError, OptionsError
from moulin.models.engines import choose_engine
from moulin.onnx_rewrites.ctc_head import has_other_outputs, keep_searched_outputs
from moulin.onnx_rewrites.packed_states import pack_states
from moulin.tensorrt_engine.plan_file import facts_file, num_profiles
from moulin.triton_repo.ensemble.components import MODEL_FILES, Backend, Part, component_name, encoder_interface
from moulin.triton_repo.ensemble.config import ensemble_configs, tied_configs
from moulin.triton_repo.model_folder import new_model, place_file, write_config, write_shim
from moulin.triton_repo.offline_options import OfflineOptions
from moulin.triton_repo.streaming_options import StreamingOptions


def build_offline_ensemble(
    spec: ModelSpec, to: Path, options: OfflineOptions, *, backend: Backend = "python", link: bool = False
) -> Path:
    """Write the ensemble for the offline model `spec` and its components into `to`, replacing these there and no other.

    Returns the ensemble's folder. With `link` the components have links to the model's files. Raises OptionsError where
    `to` cannot be written or the layout does not fit the model, and BundleError where `backend` cannot run it.
    """
    spec = _checked(spec, options, backend)
    if spec.streaming:
        raise OptionsError(f"Expected an offline model, got the streaming one in {spec.path}")
    encoder_interface(spec, backend)
    profiles = num_profiles(options.engine.plan) if options.engine.plan and backend == "tensorrt" else 1
    min_frames = _min_frames(spec, backend)
    configs = ensemble_configs(spec, options, backend, min_frames=min_frames, num_profiles=profiles)
    with _new_models(spec, to, options.model_name, configs, link=link) as folders:
        if backend == "tensorrt":
            _write_plan(options.engine.plan, folders["encoder"], link=link)
        elif backend == "onnxruntime" and has_other_outputs(spec):
            model = onnx.load(spec.encoder.file)
            keep_searched_outputs(model, spec)
            _write_graph(model, folders["encoder"])
        else:
            _place_graph(spec.encoder, folders["encoder"], link=link)
        _place_prediction(spec, folders, link=link)
        _place_tokens(spec, folders["scorer"] / "1" / "tokens.txt", link=link)
        _write_shims(configs, folders)
    return to / options.model_name


def build_tied_streams(
    spec: ModelSpec, to: Path, options: StreamingOptions, *, backend: Backend = "python", link: bool = False
) -> Path:
    """`build_offline_ensemble` for a streaming model, whose encoder is rewritten with its states packed into one
    tensor."""
    spec = _checked(spec, options, backend)
    if spec.streaming is None:
        raise OptionsError(f"Expected a streaming model, got the offline one in {spec.path}")
    if isinstance(spec.encoder.input("x", 0).shape[0], int):
        raise BundleError(
            f"{spec.encoder.file} was exported for one stream at a time",
            hint="export it with a dynamic batch: `moulin export --streaming`, or Icefall's --dynamic-batch",
        )
    configs = tied_configs(spec, options, backend)
    with _new_models(spec, to, options.model_name, configs, link=link) as folders:
        if backend == "tensorrt":
            _write_plan(options.engine.plan, folders["encoder"], link=link)
        else:
            model = onnx.load(spec.encoder.file)
            keep_searched_outputs(model, spec)
            _write_graph(pack_states(model, spec.streaming), folders["encoder"])
        _place_prediction(spec, folders, link=link)
        _write_shims(configs, folders)
        _place_tokens(spec, folders[None] / "1" / "tokens.txt", link=link)
        write_shim(folders[None], "ensemble.streaming_shim")
    return to / options.model_name


def _checked(spec: ModelSpec, options: OfflineOptions | StreamingOptions, backend: Backend) -> ExportedSpec:
    if not isinstance(spec, ExportedSpec):
        raise OptionsError(
            f"The layout ensemble takes ONNX files, and {spec.file} is a checkpoint",
            hint="`moulin export` writes ONNX files of it; or leave out --layout",
        )
    check_blank_skip(spec, options.decoding)
    if options.hotwords is not None or options.decoding.hotwords:
        raise no_hotwords(ctc=spec.head == "ctc")
    if options.lm.lm is not None:
        raise OptionsError("The layout ensemble uses no language model", hint="leave out --layout, or --lm")
    check_scales(options.decoding, None)
    if options.engine.kind == "tensorrt":
        raise OptionsError(
            "The engine tensorrt is for the layout fused; in the ensemble TensorRT is a backend",
            hint="moulin repo build --layout ensemble --backend tensorrt",
        )
    if options.engine.kind == "openvino":
        raise OptionsError(
            "The engine openvino is for the layout fused", hint="leave out --layout, or run the encoder on ONNX Runtime"
        )
    if backend == "tensorrt" and options.engine.plan is None:
        raise OptionsError(
            "The backend tensorrt needs the encoder's engine", hint="`moulin repo build` on the GPU's machine builds it"
        )
    if backend == "tensorrt" and options.engine.gpu is None:
        raise OptionsError("The backend tensorrt runs on a GPU only", hint="add --device cuda")
    choose_engine(spec, options.engine.named)
    return spec


@contextmanager
def _new_models(
    spec: ExportedSpec, to: Path, name: str, configs: Mapping[Part | None, Any], *, link: bool
) -> Iterator[dict[Part | None, Path]]:
    """Folders of the components and, under None, of the model that ties them together, each with its config.

    All are written before any takes its place. The tying model's does so first, which removes the components of an
    ensemble that was there.
    """
    linked = spec.path if link else None
    with ExitStack() as folders:
        found: dict[Part | None, Path] = {}
        for part, config in sorted(configs.items(), key=lambda item: item[0] is None):
            folder = to / (name if part is None else component_name(name, part))
            found[part] = folders.enter_context(new_model(folder, linked=linked))
            write_config(found[part], config)
        yield found


def _min_frames(spec: ExportedSpec, backend: Backend) -> int:
    """The fewest features that the encoder runs with, for Triton's own backends; the one in python finds it itself."""
    if backend == "python":
        return 0
    return OnnxRuntimeEncoder(
        spec.encoder, feature_dim=spec.feature_dim, precision=spec.precision, threads=1, out=spec.out
    ).min_frames


def _write_plan(plan: Path | None, model_dir: Path, *, link: bool) -> None:
    """Write the TensorRT engine, and its facts beside it."""
    assert plan is not None
    to = model_dir / "1" / MODEL_FILES["tensorrt"]
    place_file(plan, to, link=link)
    place_file(facts_file(plan), facts_file(to), link=link)


def _write_graph(model: onnx.ModelProto, model_dir: Path) -> None:
    file = model_dir / "1" / MODEL_FILES["onnxruntime"]
    onnx.save(model, file, save_as_external_data=model.ByteSize() > 2**30, location="model.data")


def _place_graph(graph: OnnxGraph, model_dir: Path, *, link: bool) -> None:
    version = model_dir / "1"
    place_file(graph.file, version / MODEL_FILES["onnxruntime"], link=link)
    for file in graph.external_files:
        place_file(file, version / file.name, link=link)


def _place_prediction(spec: ExportedSpec, folders: Mapping[Part | None, Path], *, link: bool) -> None:
    """Place decoder and joiner, which a CTC head has not."""
    if isinstance(spec, OnnxModelSpec):
        _place_graph(spec.decoder, folders["decoder"], link=link)
        _place_graph(spec.joiner, folders["joiner"], link=link)


def _write_shims(configs: Mapping[Part | None, Any], folders: Mapping[Part | None, Path]) -> None:
    """Write the code of the components in python."""
    for part, config in configs.items():
        if part is not None and config.backend == "python":
            write_shim(folders[part], "ensemble.component_shim")


def _place_tokens(spec: ExportedSpec, to: Path, *, link: bool) -> None:
    """Place the model's tokens.txt, which is written where the model has a bpe.model instead."""
    if spec.tokens_file.suffix == ".model":
        to.write_text(tokens_text(spec.tokens), encoding="utf-8")
    else:
        place_file(spec.tokens_file, to, link=link)
