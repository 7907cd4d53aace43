"""The requirements of Triton's stub process to run moulin's models, in pip's form.

The ranges are those of pyproject.toml, for the packages that are used in the stub, with numpy below 2.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Collection

from moulin.errors import LaunchError
from moulin.extras import install_hint
from moulin.launch.tensorrt_libraries import LIBRARIES

TRITON_REQUIREMENT = "nvidia-pytriton==0.7.0"
"""Installed without its dependencies: only its tritonserver is used."""

_ALWAYS = (
    "numpy>=1.26,<2",
    "onnx>=1.16",
    "kaldi-native-fbank>=1.20",
    "sentencepiece>=0.2.1",
    "soundfile>=0.12.1",
    "msgspec>=0.19",
)
"""soundfile reads the bundled speech on which rewritten graphs are compared before they run."""
_BESIDE = {"torch": ("torch", "safetensors"), "openvino": ("openvino",)}
"""Packages of each engine, whose extra has its name. They are large and differ by machine, so the release installed
here is required."""


def serving_requirements(engines: Collection[str] = ()) -> tuple[str, ...]:
    """Requirements for models that run on `engines` (`onnxruntime`, `torch`, `tensorrt`, `openvino`). ONNX Runtime is
    always among them, with CUDA if this Python's has it.

    Raises LaunchError where the packages of an engine are not installed here.
    """
    runtime = "onnxruntime" if _version("onnxruntime-gpu") is None else "onnxruntime-gpu"
    beside = [_same_release(package, extra=engine) for engine in sorted(engines) for package in _BESIDE.get(engine, ())]
    if "tensorrt" in engines:
        beside += _tensorrt_libraries()
    return (*_ALWAYS, f"{runtime}>=1.18", *beside)


def _tensorrt_libraries() -> list[str]:
    """TensorRT or TensorRT-RTX, whichever is installed here; both where both are, and the card decides."""
    found = [library.installed_package for library in LIBRARIES]
    if not any(found):
        raise LaunchError(
            "Expected tensorrt in this Python, which the models to serve run with, or tensorrt-rtx-cu13, got neither",
            hint=" or ".join(library.hint for library in LIBRARIES),
        )
    return [_same_release(package, extra="rtx") for package in found if package is not None]


def _same_release(package: str, *, extra: str) -> str:
    version = _version(package)
    if version is None:
        raise LaunchError(
            f"Expected {package} in this Python, which the models to serve run with, got none",
            hint=install_hint(extra),
        )
    return f"{package}=={version.partition('+')[0]}"


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
