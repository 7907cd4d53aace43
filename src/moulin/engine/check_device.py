"""Whether a device can run a model, before anything is started."""

from __future__ import annotations

from moulin.bundle.spec import CheckpointSpec, ModelSpec


def check_device(device: str, spec: ModelSpec) -> None:
    """Raise OptionsError or EngineError where `device` is no device, or the model's engine cannot use it."""
    if isinstance(spec, CheckpointSpec):
        from moulin.engine.torch_prediction import torch_device

        torch_device(device)
    else:
        from moulin.engine.onnxruntime_session import check_provider

        check_provider(device)
