"""The description beside an engine file (a plan): the machine and model that it was built for. A plan runs only there
(one of TensorRT-RTX on every GPU of an architecture), and TensorRT's own error elsewhere comes late and is unclear."""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from moulin.errors import BundleError, EngineError
from moulin.launch.tensorrt_libraries import LibraryName, architecture_name
from moulin.tensorrt_engine.profiles import Profile

PlanPrecision = Literal["fp32", "fp16", "bf16"]
PLAN_PRECISIONS: tuple[PlanPrecision, ...] = get_args(PlanPrecision)


@dataclass(frozen=True, slots=True)
class Machine:
    """The GPU, library and version that a plan is bound to."""

    gpu: str
    """nvidia-smi's name of the GPU, with its compute capability; "any" for a plan with `capabilities`."""
    tensorrt: str
    """The library's version, for example 10.3.0."""
    library: LibraryName = "TensorRT"
    capabilities: tuple[str, ...] = ()
    """The compute capabilities that a plan of TensorRT-RTX runs on, whatever the GPU's name; else empty."""

    @property
    def where(self) -> str:
        """The GPUs, in words."""
        return f"compute capability {', '.join(self.capabilities)}" if self.capabilities else self.gpu

    def runs_on(self, gpu: str) -> bool:
        """Whether a plan for this machine runs on the GPU with the name `gpu`."""
        return capability_of(gpu) in self.capabilities if self.capabilities else gpu == self.gpu


@dataclass(frozen=True)
class PlanFacts:
    """What a plan was built of, and how."""

    machine: Machine
    precision: PlanPrecision
    model: str
    """SHA-256 of the ONNX file, its external weights included."""
    profiles: Sequence[Profile]
    outputs: Sequence[str]
    """By name: the engine of another head of the same file has others."""
    workspace_gib: float | None

    def to_dict(self) -> dict[str, Any]:
        return {
            "machine": asdict(self.machine),
            "precision": self.precision,
            "model": self.model,
            "profiles": [{name: asdict(found) for name, found in profile.items()} for profile in self.profiles],
            "outputs": list(self.outputs),
            "workspace_gib": self.workspace_gib,
        }

    @property
    def key(self) -> str:
        """A hash of what a plan does and where; part of the file's name. It leaves out the workspace: the service takes
        an engine whatever memory its builder had."""
        facts = {name: value for name, value in self.to_dict().items() if name != "workspace_gib"}
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


def facts_file(plan: Path) -> Path:
    """The file with the facts of `plan`."""
    return plan.with_suffix(".json")


def write_facts(plan: Path, facts: PlanFacts, drift: float | None) -> None:
    """Write the facts of `plan`, and the engine's `drift` from ONNX Runtime; None if it is not measured yet."""
    new = facts_file(plan).with_suffix(f".{secrets.token_hex(4)}.new")  # another process may be building the same
    new.write_text(json.dumps(facts.to_dict() | {"drift": drift}, indent=1) + "\n")
    new.replace(facts_file(plan))


def is_checked(plan: Path) -> bool:
    """Whether the engine has been compared with ONNX Runtime. Raises BundleError."""
    return _read_facts(plan).get("drift") is not None


def built_within(plan: Path) -> float | None:
    """The workspace that the builder of `plan` had, in GiB; None for no limit. Raises BundleError."""
    workspace: float | None = _read_facts(plan)["workspace_gib"]
    return workspace


def num_profiles(plan: Path) -> int:
    """The number of the engine's profiles. Raises BundleError."""
    return len(_read_facts(plan)["profiles"])


def check_plan(plan: Path, machine: Machine, model: str) -> None:
    """Raise BundleError where `plan` or its description is missing, and EngineError where it was built on another
    machine or from another model than that with the hash `model`."""
    if not plan.is_file():
        raise BundleError(f"There is no engine at {plan}", hint="`moulin trt build` makes it")
    facts = _read_facts(plan)
    built = built_for(plan)
    different = []
    if not built.runs_on(machine.gpu):
        different.append(f"for the GPU {built.where}, and here is {machine.gpu}")
    if (built.library, built.tensorrt) != (machine.library, machine.tensorrt):
        different.append(
            f"with {built.library} {built.tensorrt}, and here is {machine.library} {machine.tensorrt}",
        )
    if different:
        raise EngineError(f"{plan} was built {'; '.join(different)}", hint=_remedy(built, machine))
    if facts["model"] != model:
        raise EngineError(
            f"{plan} was built from other files than the model's", hint="run `moulin trt build` with this model"
        )


def _remedy(built: Machine, here: Machine) -> str:
    if not built.capabilities:
        return "an engine runs only where it was built: run `moulin trt build` here"
    wanted = architecture_name(capability_of(here.gpu))
    ahead = f", or `moulin trt build --for {wanted}` anywhere" if wanted else ""
    return f"run `moulin trt build` here{ahead}, with {here.library} {here.tensorrt}"


def built_for(plan: Path) -> Machine:
    """The machine that `plan` was built for. Raises BundleError."""
    return _machine(_read_facts(plan))


def _machine(facts: dict[str, Any]) -> Machine:
    read = facts["machine"]
    return Machine(**(read | {"capabilities": tuple(read.get("capabilities", ()))}))


def capability_of(gpu: str) -> str:
    """The compute capability in a GPU's name by `Machine.gpu`."""
    return gpu.rpartition(", ")[2]


def _read_facts(plan: Path) -> dict[str, Any]:
    try:
        facts: dict[str, Any] = json.loads(facts_file(plan).read_text())
        _machine(facts), facts["model"], facts["profiles"], facts["workspace_gib"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BundleError(
            f"{facts_file(plan)}, the description of {plan.name}, cannot be read: {error}",
            hint="build the engine again with `moulin trt build`",
        ) from error
    return facts


def file_hash(*files: Path) -> str:
    """SHA-256 of the concatenated `files`."""
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as opened:
            while block := opened.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()
