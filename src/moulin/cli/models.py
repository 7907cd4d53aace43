"""The part that `moulin serve` and `moulin repo build` share: folders on the command line to models of a repository."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import typer

from moulin.cli.messages import say
from moulin.cli.model_options import NOTHING_SAID, ModelOptions
from moulin.engine.device import gpu_index
from moulin.errors import BundleError, OptionsError
from moulin.models.engine_choice import USUAL_ENGINE, EngineChoice
from moulin.options import held, option
from moulin.triton_repo.contract import MODEL_NAME, streaming_name_beside
from moulin.triton_repo.offline_options import OfflineOptions
from moulin.triton_repo.streaming_options import StreamingOptions

DeviceList = Annotated[
    str,
    typer.Option(
        help="cpu, cuda, cuda:N, a list such as cuda:0,cuda:1, or cuda:all; with TensorRT always GPUs.  [default: cpu]",
        show_default=False,
    ),
]

if TYPE_CHECKING:
    from moulin.bundle.choice import Mode
    from moulin.bundle.precision import Precision
    from moulin.bundle.spec import ModelSpec
    from moulin.encoders.recipe import Recipe
    from moulin.triton_repo.ensemble.components import Backend


@dataclass(frozen=True, slots=True)
class ModelNames:
    """Names of the models in Triton."""

    name: str | None = option(None, "The model's name in Triton, with two models the offline one's.", usual=MODEL_NAME)
    streaming_name: str | None = option(
        None,
        "The streaming model's name in Triton.",
        usual=f"{MODEL_NAME}, beside an offline model its name and _streaming",
    )


USUAL_NAMES = ModelNames()


@dataclass(frozen=True, slots=True)
class Services:
    """Options of the services: an offline one, a streaming one, or both, by one engine."""

    help_section: ClassVar[str] = "Service"

    names: ModelNames = held(ModelNames)
    layout: Literal["fused", "ensemble"] = option(
        "fused", "fused: one Triton model does everything. ensemble: sherpa's layout, a Triton model for each part."
    )
    offline: OfflineOptions = held(OfflineOptions)
    streaming: StreamingOptions = held(StreamingOptions)

    @property
    def engine(self) -> EngineChoice:
        """On several GPUs that of the first."""
        return self.offline.engine

    def on(self, devices: Sequence[str]) -> Services:
        """These services on one device, or on several GPUs. Raises OptionsError."""
        gpus = tuple(gpu for device in devices if (gpu := gpu_index(device)) is not None)
        if len(devices) > 1:
            if len(gpus) < len(devices):
                raise OptionsError(f"Expected GPUs alone where there are several devices, got {', '.join(devices)}")
            if self.layout == "ensemble":
                raise OptionsError(
                    f"Expected one device for --layout ensemble, got {', '.join(devices)}",
                    hint="--layout fused runs on several, or serve once for each",
                )
        engine, several = replace(self.engine, device=devices[0]), gpus if len(devices) > 1 else ()
        return replace(
            self,
            offline=replace(self.offline, engine=engine, gpus=several),
            streaming=replace(self.streaming, engine=engine, gpus=several),
        )

    @property
    def host_search(self) -> str | None:
        """As `needs_host_search` says it; both services have these options from the same flags."""
        from moulin.models.host_search import needs_host_search

        return needs_host_search(self.offline.decoding, self.offline.lm)


@dataclass(frozen=True, slots=True)
class NamedModel:
    """A model, its name in Triton, and its engine."""

    spec: ModelSpec
    name: str
    engine: EngineChoice

    @property
    def precision(self) -> Precision | None:
        return self.engine.precision

    @property
    def runs_in(self) -> str:
        """The precision, and the engine where it is not the usual one."""
        return f"{self.precision} on openvino" if self.engine.kind == "openvino" else str(self.precision)


def load_models(
    models: Sequence[Path],
    engine: EngineChoice = USUAL_ENGINE,
    *,
    said: ModelOptions = NOTHING_SAID,
    names: ModelNames = USUAL_NAMES,
    mode: Mode | None = None,
    onnx_only: bool = False,
    both_ways: bool = False,
    host_search: str | None = None,
) -> list[NamedModel]:
    """At most one offline and one streaming model, with their names, by `runnable_of_mode`. `both_ways` adds to a lone
    checkpoint that can stream its streaming form.

    Several checkpoint files are one model, their average, which `chosen_model` makes by the options `said`. Checkpoints
    are of the `mode` that is asked for, else offline unless their exports are streaming ones, and taken from a folder
    with both where the `engine` runs checkpoints. Raises BundleError, OptionsError, EngineError or FetchError.
    """
    from moulin.cli.chosen_model import chosen_model

    recipe = said.recipe.recipe(streaming=mode == "streaming")
    files = len(models) > 1 and all(model.suffix == ".pt" for model in models)
    if files or said.tokens is not None or said.checkpoint.is_made:
        models, recipe = [chosen_model(models, said.checkpoint, tokens=said.tokens, recipe=recipe)], None
    runnable = partial(
        _load, engine=engine, said=said, mode=mode, onnx_only=onnx_only, recipe=recipe, host_search=host_search
    )
    loaded = _one_of_each_mode(map(runnable, models))
    if mode is None and loaded.keys() == {"offline"}:
        if both_ways:
            loaded |= _streaming_form(loaded["offline"][0], engine)
        if "streaming" not in loaded:
            _say_what_it_is_taken_for(models[0], engine)
    return _named(loaded, names)


def _say_what_it_is_taken_for(model: Path, engine: EngineChoice) -> None:
    """A line for a checkpoint whose path says that it is for live audio."""
    from moulin.bundle.checkpoint_files import is_checkpoint

    if "streaming" in str(model).lower() and is_checkpoint(model, preferred=engine.prefers_checkpoint):
        say(f"{model} is taken for whole utterances; --streaming is for live audio")


def _streaming_form(spec: ModelSpec, engine: EngineChoice) -> dict[str, tuple[ModelSpec, EngineChoice]]:
    """The streaming form of a checkpoint, where it is known to have been trained for it; a line says where the engine
    does not stream it."""
    from moulin.bundle.spec import CheckpointSpec
    from moulin.models.load_for_engine import load_for_engine

    if not isinstance(spec, CheckpointSpec):
        return {}
    try:
        streaming, chosen = load_for_engine(spec.checkpoint, engine, "streaming")
    except BundleError:
        return {}
    except OptionsError as error:
        say(f"{spec.checkpoint} is served for recordings alone: {error.message}")
        return {}
    if isinstance(streaming, CheckpointSpec) and set(streaming.doubts) == set(spec.doubts):
        return {"streaming": (streaming, chosen)}
    return {}


def _load(
    model: Path,
    *,
    engine: EngineChoice,
    said: ModelOptions,
    mode: Mode | None,
    onnx_only: bool,
    recipe: Recipe | None,
    host_search: str | None,
) -> tuple[ModelSpec, EngineChoice]:
    from moulin.bundle.checkpoint_files import is_checkpoint
    from moulin.cli.any_length import of_any_length
    from moulin.cli.messages import warn_of
    from moulin.cli.runnable_model import runnable_of_mode
    from moulin.models.load_for_engine import load_for_engine

    found = runnable_of_mode(model, engine, mode=mode, language=said.language, onnx_only=onnx_only, recipe=recipe)
    checkpoint = is_checkpoint(found.path, preferred=engine.prefers_checkpoint)
    if onnx_only and engine.named is None and not checkpoint:  # the files themselves, not the network in them
        engine = replace(engine, kind="onnxruntime")
    expect: Mode | None = "streaming" if checkpoint and found.mode == "streaming" else None
    spec, chosen = load_for_engine(found.path, engine, expect, host_search=host_search)
    if unlimited := of_any_length(spec):
        if engine.kind == "auto":  # what was measured for the files that were named
            engine = replace(engine, kind=chosen.kind, precision=chosen.precision)
        spec, chosen = load_for_engine(unlimited, engine, None, host_search=host_search)
    warn_of(spec)
    return spec, chosen


def _one_of_each_mode(
    loaded: Iterator[tuple[ModelSpec, EngineChoice]],
) -> dict[str, tuple[ModelSpec, EngineChoice]]:
    from moulin.bundle.spec import CheckpointSpec

    found: dict[str, tuple[ModelSpec, EngineChoice]] = {}
    for spec, engine in loaded:
        if spec.mode in found:
            checkpoint = isinstance(spec, CheckpointSpec)
            raise OptionsError(
                f"Expected one offline and one streaming model at most, got two {spec.mode} ones: "
                f"{found[spec.mode][0].path} and {spec.path}",
                hint="serve the second one with other ports, or build both into one repository with --name"
                + ("; to serve a checkpoint for streams beside it, `moulin export --streaming` it first" * checkpoint),
            )
        found[spec.mode] = spec, engine
    return found


def _named(loaded: dict[str, tuple[ModelSpec, EngineChoice]], names: ModelNames) -> list[NamedModel]:
    """The models with their names, the offline one first. Raises OptionsError for two equal names, or no model."""
    if names.streaming_name is not None and "streaming" not in loaded:
        raise OptionsError("--streaming-name is given, but there is no streaming model")
    first = names.name or MODEL_NAME
    named = []
    if "offline" in loaded:
        spec, engine = loaded["offline"]
        named.append(NamedModel(spec, first, engine))
    if "streaming" in loaded:
        spec, engine = loaded["streaming"]
        usual = streaming_name_beside(first) if named else first
        named.append(NamedModel(spec, names.streaming_name or usual, engine))
    if len({model.name for model in named}) < len(named):
        raise OptionsError(f"Expected two different names, got {first!r} twice")
    return named


def build_models(
    models: Sequence[NamedModel], to: Path, services: Services, *, backend: Backend = "python", link: bool = False
) -> list[Path]:
    """Write each model's folder into the repository `to`. Every option is checked before anything is written, and
    engines for TensorRT are built."""
    from moulin.triton_repo.ensemble.repository import build_offline_ensemble, build_tied_streams
    from moulin.triton_repo.repository import build_offline_repository, build_streaming_repository

    folders = []
    for spec, options in [(model.spec, _options(model, services, backend)) for model in models]:
        match services.layout, options:
            case "ensemble", StreamingOptions():
                folder = build_tied_streams(spec, to, options, backend=backend, link=link)
            case "ensemble", OfflineOptions():
                folder = build_offline_ensemble(spec, to, options, backend=backend, link=link)
            case _, StreamingOptions():
                folder = build_streaming_repository(spec, to, options, link=link)
            case _, OfflineOptions():
                folder = build_offline_repository(spec, to, options, link=link)
        folders.append(folder)
    return folders


def _options(model: NamedModel, services: Services, backend: Backend) -> OfflineOptions | StreamingOptions:
    engine = _engine(model, services, backend)
    if model.spec.streaming:
        return replace(services.streaming, model_name=model.name, engine=engine)
    return replace(services.offline, model_name=model.name, engine=engine)


def _engine(model: NamedModel, services: Services, backend: Backend) -> EngineChoice:
    """The engine for `model`, with a plan where TensorRT runs it, in our own process or by Triton's backend. The engine
    that was asked for stays, which the layout ensemble may refuse."""
    engine = replace(model.engine, kind=services.engine.named) if services.layout == "ensemble" else model.engine
    if (backend if services.layout == "ensemble" else engine.kind) != "tensorrt":
        return engine
    from moulin.demo.files import demo_speech
    from moulin.tensorrt_engine.ready_plan import ready_plan

    plan = ready_plan(
        model.spec,
        device=engine.device,
        speech=demo_speech,
        precision=engine.precision,
        max_batch=(services.streaming if model.spec.streaming else services.offline).max_batch,
        max_audio_sec=services.offline.max_audio_sec,
        say=say,
    )
    return replace(engine, plan=plan)
