"""--precision for every engine, device, form of the model and mode: the precision that runs, or the refusal.

`RUNS` is written out by hand. Each combination goes the whole way that a service goes: the model's spec, config.pbtxt,
the shim's parameters, the recognizer; what needs a GPU is replaced by a stand-in that notes in what it was to run.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from moulin.bundle.files import PRECISIONS, Precision
from moulin.bundle.load_model import load_model
from moulin.bundle.spec import CheckpointSpec, ModelSpec
from moulin.cli.models import NamedModel, Services, build_models, load_models
from moulin.errors import BundleError, MoulinError, OptionsError
from moulin.models import open_recognizer as opening
from moulin.models import open_stream_recognizer as opening_streams
from moulin.models.engine_choice import Engine, EngineChoice
from moulin.models.engines import choose_engine
from moulin.models.precisions import precision_for
from moulin.triton_repo.offline_options import OfflineOptions
from moulin.triton_repo.shim_parameters import ShimParameters
from moulin.triton_repo.streaming_options import StreamingOptions
from tests.bundles import BUNDLES
from tests.triton_repo.shim_args import shim_args

# (engine, form) -> mode -> device -> what a wish runs in; a wish that is missing is refused.
ANY_FILE: dict[Precision | None, Precision] = {None: "fp32", "fp32": "fp32", "int8": "int8"}
PLANS: dict[Precision | None, Precision] = {None: "fp16", "fp16": "fp16", "bf16": "bf16", "fp32": "fp32"}
MODULES: dict[Precision | None, Precision] = {None: "fp32", "fp32": "fp32"}
GPU_ENGINE: dict[Precision | None, Precision] = {None: "fp16", "fp16": "fp16", "bf16": "bf16", "fp32": "fp32"}

# Bundles: of zipformer2 there are int8 files too, of none fp16 ones.
OFFLINE, STREAMING = "zipformer2-offline", "zipformer2-streaming"
RUNS: dict[tuple[Engine, str, str], dict[str, dict[Precision | None, Precision]]] = {
    ("onnxruntime", "onnx", OFFLINE): {"cpu": ANY_FILE, "cuda": ANY_FILE},
    ("onnxruntime", "onnx", STREAMING): {"cpu": MODULES, "cuda": MODULES},
    ("tensorrt", "onnx", OFFLINE): {"cpu": PLANS, "cuda": PLANS},  # cpu means the first GPU there
    ("tensorrt", "onnx", STREAMING): {"cpu": PLANS, "cuda": PLANS},
    ("torch", "checkpoint", OFFLINE): {"cpu": MODULES, "cuda": GPU_ENGINE},
    ("torch", "checkpoint", STREAMING): {"cpu": MODULES, "cuda": GPU_ENGINE},
    ("torch", "encoder", OFFLINE): {"cpu": MODULES, "cuda": GPU_ENGINE},
    ("torch", "encoder", STREAMING): {"cpu": MODULES, "cuda": GPU_ENGINE},
}
WISHES: list[Precision | None] = [None, *PRECISIONS]
COMBINATIONS = [(*key, device, wish) for key, device, wish in product(RUNS, ("cpu", "cuda"), WISHES)]
needs_torch = pytest.mark.needs("torch")


def model_of(form: str, bundle: str) -> Path:
    """A checkpoint, a folder with ONNX files and that checkpoint, or the encoder's file in it."""
    if form == "encoder":
        return next(file for file in (BUNDLES / bundle).glob("encoder*.onnx") if "int8" not in file.name)
    return BUNDLES / bundle / "epoch-1.pt" if form == "checkpoint" else BUNDLES / bundle


class Opened(Exception):
    """Raised in place of a GPU's recognizer, with what it was to be."""

    def __init__(self, what: str, precision: str) -> None:
        super().__init__(what, precision)
        self.what, self.precision = what, precision


@pytest.fixture
def no_gpu_needed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    from moulin.engine.gpu import pipeline as gpu_pipeline
    from moulin.engine.gpu import stepper as gpu_stepper
    from moulin.engine.torch import runner as torch_runner
    from moulin.engine.torch import stream_runner as torch_stream_runner
    from moulin.tensorrt_engine import ready_plan as open_tensorrt
    from moulin.tensorrt_engine import runner as tensorrt_runner
    from moulin.tensorrt_engine import stream_runner as tensorrt_stream_runner
    from moulin.tensorrt_engine.plan_file import facts_file

    def opened(what: str) -> Any:
        def make(spec: ModelSpec, *_arguments: Any, **_options: Any) -> Any:
            raise Opened(what, spec.precision)

        return make

    def ready(_spec: ModelSpec, *, precision: Precision | None = None, **_options: Any) -> Path:
        running_in = open_tensorrt.plan_precision(precision)
        plan = tmp_path / f"encoder-{running_in}.plan"
        plan.write_text(running_in)
        facts_file(plan).write_text("{}")
        return plan

    def open_plan(_spec: ModelSpec, plan: Path, **_options: Any) -> Any:
        raise Opened("plan", plan.read_text())

    for module in (opening, opening_streams):
        monkeypatch.setattr(module, "check_gpu_engine", lambda _device: None)
    monkeypatch.setattr(open_tensorrt, "check_tensorrt", lambda _device: None)
    monkeypatch.setattr(open_tensorrt, "ready_plan", ready)
    monkeypatch.setattr(open_tensorrt, "open_plan", open_plan)
    monkeypatch.setattr(gpu_pipeline, "GpuEnginePipeline", opened("gpu engine"))
    monkeypatch.setattr(gpu_stepper, "GpuStepper", opened("gpu engine"))
    monkeypatch.setattr(torch_runner, "TorchRunner", opened("modules"))
    monkeypatch.setattr(torch_stream_runner, "TorchStreamRunner", opened("modules"))
    monkeypatch.setattr(opening, "OnnxRuntimeRunner", opened("onnxruntime"))
    monkeypatch.setattr(opening_streams, "OnnxRuntimeStreamRunner", opened("onnxruntime"))
    yield
    del tensorrt_runner, tensorrt_stream_runner  # imported before the stand-ins, so that they load as ever


def expected_opening(engine: Engine, device: str, runs_in: Precision) -> tuple[str, str]:
    if engine == "torch":
        return ("gpu engine" if device == "cuda" and runs_in != "fp32" else "modules"), runs_in
    return ("plan" if engine == "tensorrt" else "onnxruntime"), runs_in


@needs_torch  # whose runners the stand-ins replace
@pytest.mark.parametrize(("engine", "form", "bundle", "device", "wish"), COMBINATIONS)
@pytest.mark.usefixtures("no_gpu_needed")
def test_the_whole_way_of_a_service(
    engine: Engine, form: str, bundle: str, device: str, wish: Precision | None, tmp_path: Path
) -> None:
    model, streaming = model_of(form, bundle), "streaming" in bundle
    runs_in = RUNS[engine, form, bundle][device].get(wish)

    def load() -> list[NamedModel]:
        return load_models(
            [model], EngineChoice(engine, device, precision=wish), mode="streaming" if streaming else None
        )

    def open_in_process() -> object:
        if streaming:
            return opening_streams.open_stream_recognizer(
                model, EngineChoice(precision=wish, kind=engine, device=device)
            )
        return opening.open_recognizer(model, EngineChoice(precision=wish, kind=engine, device=device))

    if runs_in is None:
        for attempt in (load, open_in_process):
            with pytest.raises((OptionsError, BundleError)) as refused:
                attempt()
            assert str(wish) in refused.value.message
            assert refused.value.hint
        return
    with pytest.raises(Opened) as opened:
        open_in_process()
    assert (opened.value.what, opened.value.precision) == expected_opening(engine, device, runs_in)

    named = load()
    assert [one.precision for one in named] == [runs_in]  # what `serve` and `repo build` say
    parameters = built_parameters(named, tmp_path / "repository")
    assert parameters.options.engine.precision == runs_in
    with pytest.raises(Opened) as opened:
        open_as_the_shim_does(parameters, streaming=streaming)
    assert (opened.value.what, opened.value.precision) == expected_opening(engine, device, runs_in)


def built_parameters(named: list[NamedModel], to: Path) -> Any:
    services = Services(
        offline=OfflineOptions(max_batch=2, max_audio_sec=5), streaming=StreamingOptions(max_batch=2, max_streams=2)
    )
    (folder,) = build_models(named, to, services, link=True)
    if named[0].spec.streaming:
        return ShimParameters.read(shim_args(folder), StreamingOptions)
    return ShimParameters.read(shim_args(folder), OfflineOptions)


def open_as_the_shim_does(parameters: Any, *, streaming: bool) -> None:
    open_it: Any = opening_streams.open_stream_recognizer if streaming else opening.open_recognizer
    open_it(parameters.encoder, parameters.engine)


@pytest.mark.parametrize(
    ("engine", "form", "bundle", "device", "wish"),
    [pytest.param(*one, marks=needs_torch if one[0] == "torch" else ()) for one in COMBINATIONS],
)
def test_the_table_answers_for_itself(
    engine: Engine, form: str, bundle: str, device: str, wish: Precision | None
) -> None:
    """`precision_for` of a spec that was loaded without a wish; ONNX files are what they are."""
    spec = load_model(model_of(form, bundle), expect="streaming" if "streaming" in bundle else "offline")
    assert choose_engine(spec, engine) == engine
    on = "cuda" if engine == "tensorrt" else device
    runs_in = RUNS[engine, form, bundle][device].get(wish)
    if runs_in is None or (engine == "onnxruntime" and wish not in (None, spec.precision)):
        with pytest.raises(OptionsError):
            precision_for(spec, engine, on, wish)
    else:
        assert precision_for(spec, engine, on, wish) == runs_in


@needs_torch
@pytest.mark.parametrize("bundle", [OFFLINE, STREAMING])
@pytest.mark.parametrize("wish", ["fp16", "bf16"])
def test_half_precision_of_a_checkpoint_on_a_cpu_says_why_not(bundle: str, wish: Precision) -> None:
    what = "Streams" if "streaming" in bundle else "Recordings"
    with pytest.raises(OptionsError, match=f"{what} of a checkpoint run in fp32 on a CPU, not in {wish}"):
        load_models(
            [model_of("checkpoint", bundle)],
            EngineChoice(precision=wish),
            mode="streaming" if "streaming" in bundle else None,
        )


@pytest.mark.parametrize(
    ("engine", "wish", "message"),
    [
        ("onnxruntime", "bf16", "ONNX Runtime runs ONNX files in fp32, fp16 and int8, not in bf16"),
        ("tensorrt", "int8", "TensorRT builds its engines in fp16, bf16 and fp32, not in int8"),
        ("torch", "int8", "PyTorch runs checkpoints in fp32, fp16 and bf16, not in int8"),
    ],
)
def test_what_an_engine_never_runs_is_refused_before_anything_is_fetched(
    engine: Engine, wish: Precision, message: str
) -> None:
    from moulin.cli.runnable_model import runnable_model

    with pytest.raises(OptionsError, match=message):
        runnable_model(Path("hf://nobody/nothing"), EngineChoice(engine, precision=wish), streaming=False)


@needs_torch
def test_the_spec_of_a_checkpoint_remembers_what_runs() -> None:
    (named,) = load_models(
        [model_of("checkpoint", STREAMING)],
        EngineChoice(device="cuda"),
        mode="streaming",
    )
    assert isinstance(named.spec, CheckpointSpec)
    assert (named.precision, named.spec.run_in) == ("fp16", "fp16")


@pytest.mark.parametrize("form", ["onnx", pytest.param("checkpoint", marks=needs_torch)])
@pytest.mark.parametrize("bundle", [OFFLINE, STREAMING])
def test_without_a_wish_nothing_is_refused(bundle: str, form: str) -> None:
    try:
        load_models(
            [model_of(form, bundle)],
            EngineChoice(device="cuda"),
            mode="streaming" if "streaming" in bundle else None,
        )
    except MoulinError as error:  # pragma: no cover
        pytest.fail(str(error))
