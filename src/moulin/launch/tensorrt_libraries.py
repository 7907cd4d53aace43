"""The libraries behind `--engine tensorrt`, with the GPUs that each serves, and which of them are installed."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
from dataclasses import dataclass
from typing import Any, Literal

from moulin.errors import EngineError, first_line

LibraryName = Literal["TensorRT", "TensorRT-RTX"]
Architecture = Literal["turing", "ampere", "ada", "blackwell"]

ARCHITECTURES: dict[Architecture, tuple[str, ...]] = {
    "turing": ("7.5",),
    "ampere": ("8.0", "8.6"),
    "ada": ("8.9",),
    "blackwell": ("12.0", "12.1"),
}
"""Compute capabilities that TensorRT-RTX builds for, by NVIDIA's names of the architectures."""

FP16_ALONE = frozenset(ARCHITECTURES["turing"])
"""Compute capabilities that TensorRT-RTX's compiler has neither products in fp32 nor bf16 for (1.7.1 says so)."""


@dataclass(frozen=True, slots=True)
class Library:
    """A library that builds and runs plans. The two have nearly the same Python API."""

    name: LibraryName
    module: str
    packages: tuple[str, ...]
    """Packages on PyPI that have the module; the first is the one to install."""
    first: tuple[int, ...]
    """The first release whose API is used."""
    cards: str
    """The GPUs that it serves, in words."""
    capabilities: frozenset[str] | None
    """Compute capabilities that it serves; None: all that its release for this machine knows."""

    def serves(self, capability: str) -> bool:
        return self.capabilities is None or capability in self.capabilities

    @property
    def installed(self) -> str | None:
        """The installed release; None where it is not installed. Imports nothing."""
        if importlib.util.find_spec(self.module) is None:
            return None
        package = self.installed_package
        return importlib.metadata.version(package) if package else "of unknown release"

    @property
    def installed_package(self) -> str | None:
        """The first of `packages` that is installed."""
        for package in self.packages:
            try:
                importlib.metadata.version(package)
            except importlib.metadata.PackageNotFoundError:
                continue
            return package
        return None

    def load(self) -> Any:
        """The module. Raises EngineError where it cannot be loaded or is too old."""
        try:
            module = importlib.import_module(self.module)
        except (ImportError, OSError, RuntimeError) as error:  # RTX loads its shared library by ctypes
            raise EngineError(f"{self.name} cannot be loaded: {first_line(error)}", hint=self.hint) from error
        version = tuple(int(part) for part in module.__version__.split(".")[: len(self.first)])
        if version < self.first:
            wanted = ".".join(map(str, self.first))
            raise EngineError(f"Expected {self.name} {wanted} or later, got {module.__version__}", hint=self.hint)
        return module

    @property
    def hint(self) -> str:
        return f"pip install {self.packages[0]}"


TENSORRT = Library(
    "TensorRT", "tensorrt", ("tensorrt",), (10,), "every NVIDIA GPU from Turing on, H100 and H200 too", None
)
TENSORRT_RTX = Library(
    "TensorRT-RTX",
    "tensorrt_rtx",
    ("tensorrt-rtx-cu13", "tensorrt-rtx"),
    (1, 3),
    "Turing, Ampere, Ada and GeForce or RTX PRO Blackwell (compute capability "
    + ", ".join(capability for found in ARCHITECTURES.values() for capability in found)
    + "), not Hopper",
    frozenset(capability for found in ARCHITECTURES.values() for capability in found),
)
LIBRARIES = (TENSORRT, TENSORRT_RTX)
"""In order of preference where both are installed and serve the card."""


def library_named(name: str) -> Library:
    """Raises EngineError where there is no such library."""
    for library in LIBRARIES:
        if library.name == name:
            return library
    raise EngineError(f"Expected a library of {', '.join(found.name for found in LIBRARIES)}, got {name!r}")


def library_for(capability: str | None = None) -> tuple[Library, Any]:
    """The first library that is installed and serves `capability` (for example 8.9; None: any), and its module.

    Raises EngineError with each library's reason, and the pip command of those that would do.
    """
    reasons = []
    for library in LIBRARIES:
        if capability is not None and not library.serves(capability):
            reasons.append(f"{library.name} does not run on compute capability {capability}, but on {library.cards}")
            continue
        try:
            return library, library.load()
        except EngineError as error:
            reasons.append(error.message)
    raise EngineError(
        f"The engine tensorrt needs TensorRT's Python package or TensorRT-RTX's: {'; '.join(reasons)}",
        hint=f"{install_hints(capability)}, or leave out --engine: ONNX Runtime runs the model with --device cuda",
    )


def install_hints(capability: str | None = None) -> str:
    """The pip commands of the libraries that serve `capability`; None: of all."""
    return ", or ".join(library.hint for library in LIBRARIES if capability is None or library.serves(capability))


def architecture_name(capability: str) -> Architecture | None:
    """The architecture of `capability` if TensorRT-RTX builds for it."""
    return next((name for name, found in ARCHITECTURES.items() if capability in found), None)


def architecture_of(capability: str) -> tuple[str, ...]:
    """All compute capabilities of the architecture that `capability` belongs to; of an unknown one, itself."""
    return next((found for found in ARCHITECTURES.values() if capability in found), (capability,))
