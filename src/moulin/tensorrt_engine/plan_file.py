"""The description beside an engine file (a plan): the machine and model that it was built for. A plan runs only there,
and TensorRT's own error elsewhere comes late and is unclear."""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from moulin.errors import BundleError, EngineError
from moulin.tensorrt_engine.profiles import Profile

PlanPrecision = Literal["fp32", "fp16", "bf16"]
PLAN_PRECISIONS: tuple[PlanPrecision, ...] = get_args(PlanPrecision)


@dataclass(frozen=True, slots=True)
class Machine:
    """The GPU and TensorRT version that a plan is bound to."""

    gpu: str
    """nvidia-smi's name of the GPU, with its compute capability."""
    tensorrt: str
    """The version, for example 10.3.0."""


@dataclass(frozen=True)
class PlanFacts:
    """Everything that determines a plan's content."""

    machine: Machine
    precision: PlanPrecision
    model: str
    """SHA-256 of the ONNX file, its external weights included."""
    profiles: Sequence[Profile]
    workspace_gib: float

    def to_dict(self) -> dict[str, Any]:
        return {
            "machine": asdict(self.machine),
            "precision": self.precision,
            "model": self.model,
            "profiles": [{name: asdict(found) for name, found in profile.items()} for profile in self.profiles],
            "workspace_gib": self.workspace_gib,
        }

    @property
    def key(self) -> str:
        """A hash of the facts; part of the file's name."""
        return hashlib.sha256(json.dumps(self.to_dict(), sort_keys=True).encode()).hexdigest()[:16]


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


def num_profiles(plan: Path) -> int:
    """The number of the engine's profiles. Raises BundleError."""
    return len(_read_facts(plan)["profiles"])


def check_plan(plan: Path, machine: Machine, model: str) -> None:
    """Raise BundleError where `plan` or its description is missing, and EngineError where it was built on another
    machine or from another model than that with the hash `model`."""
    if not plan.is_file():
        raise BundleError(f"There is no engine at {plan}", hint="`moulin trt build` makes it")
    facts = _read_facts(plan)
    built = Machine(**facts["machine"])
    different = [
        f"{what} {getattr(built, name)}, and here is {getattr(machine, name)}"
        for name, what in (("gpu", "for the GPU"), ("tensorrt", "with TensorRT"))
        if getattr(built, name) != getattr(machine, name)
    ]
    if different:
        raise EngineError(
            f"{plan} was built {'; '.join(different)}",
            hint="an engine runs only where it was built: run `moulin trt build` here",
        )
    if facts["model"] != model:
        raise EngineError(
            f"{plan} was built from other files than the model's", hint="run `moulin trt build` with this model"
        )


def _read_facts(plan: Path) -> dict[str, Any]:
    try:
        facts: dict[str, Any] = json.loads(facts_file(plan).read_text())
        Machine(**facts["machine"]), facts["model"], facts["profiles"]
    except (OSError, ValueError, KeyError, TypeError) as error:
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
