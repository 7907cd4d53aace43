"""What Icefall made of the test bundles: its ONNX exports as they are, and its checkpoints with their parameters."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray

from moulin.arrays import Floats
from moulin.audio.decode import read_audio
from moulin.audio.fbank import Fbank
from moulin.bundle.files import find_bundle_files
from moulin.encoders.recipe import Recipe
from moulin.evaluate.manifest import demo_clips
from tests.bundles import BUNDLES

TOLERANCE = 2e-5
"""The largest difference allowed, relative to the largest value."""


@dataclass(frozen=True)
class Case:
    """A bundle, and what a person has to say of its bare state dict."""

    bundle: str
    streaming: bool = False
    said: Recipe = field(default_factory=Recipe)

    @property
    def checkpoint(self) -> Path:
        return BUNDLES / self.bundle / "epoch-1.pt"

    @property
    def beside_parameters(self) -> Recipe:
        """What no option of training says: with how many frames of the next chunk Icefall's file was exported."""
        return Recipe(right_context=self.said.right_context)

    @cached_property
    def networks(self) -> dict[str, onnxruntime.InferenceSession]:
        """Icefall's three files."""
        files = find_bundle_files(BUNDLES / self.bundle, "fp32")
        return {name: session(getattr(files, name)) for name in ("encoder", "decoder", "joiner")}

    def __str__(self) -> str:
        return self.bundle


_HEADS = (4, 2, 4)
CASES = (
    Case("conformer-offline"),
    Case("zipformer-offline"),
    Case("zipformer2-offline"),
    Case("zipformer2-offline-pos8", said=Recipe(pos_head_dim=(8,))),
    Case("zipformer2-ctc-offline"),
    Case("conformer-streaming", True, Recipe(causal=True)),
    Case("conformer-streaming-right2", True, Recipe(causal=True, right_context=2)),
    Case("lstm-streaming", True),
    Case("zipformer-streaming", True, Recipe(causal=True)),
    Case("zipformer2-streaming", True, Recipe(left_context_frames=64, num_heads=_HEADS)),
    Case("zipformer2-streaming-context1", True, Recipe(num_heads=_HEADS)),
    Case("zipformer2-ctc-streaming", True, Recipe(left_context_frames=64)),
)


def with_parameters(case: Case, file: Path) -> Path:
    """Write the bundle's state dict as Icefall's `save_checkpoint` does in training, beside the recipe's options."""
    recipe = json.loads((BUNDLES / case.bundle / "recipe.json").read_text())
    options = {name.replace("-", "_"): value for name, value in recipe["cli"].items()}
    for name in ("causal", "causal_convolution", "dynamic_chunk_training", "use_ctc", "use_averaged_model"):
        if name in options:
            options[name] = bool(int(options[name]))
    content = {
        "model": torch.load(case.checkpoint, weights_only=True)["model"],
        **options,
        **recipe["patched_params"],
        "vocab_size": recipe["vocab_size"],
        "context_size": recipe.get("context_size", 2),
        "blank_id": 0,
        "feature_dim": 80,
        "subsampling_factor": 4,
        "best_valid_loss": float("inf"),
        "bpe_model": "data/lang_bpe_500/bpe.model",
        "env_info": {"k2-version": "1.24.4", "torch-cuda-available": True},
        "optimizer": {"state": {0: {"step": 3}}, "param_groups": [{"lr": 0.045, "params": [0]}]},
        "sampler": None,
    }
    torch.save(content, file)
    return file


@lru_cache
def speech() -> Floats:
    """Features of real speech: one demo recording after the other."""
    fbank = Fbank()
    return np.concatenate([fbank(read_audio(clip.audio)) for clip in demo_clips()[:6]])


def session(file: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])


def run(network: onnxruntime.InferenceSession, *arrays: Any) -> list[NDArray[Any]]:
    names = [tensor.name for tensor in network.get_inputs()]
    outputs: list[NDArray[Any]] = network.run(None, dict(zip(names, arrays, strict=True)))
    return outputs


def assert_equal(ours: Any, icefalls: NDArray[Any]) -> None:
    """Within rounding; integers exactly."""
    ours = np.asarray(ours)
    assert ours.shape == icefalls.shape
    if icefalls.dtype.kind == "i":
        assert ours.tolist() == icefalls.tolist()
    else:
        assert np.abs(ours - icefalls).max(initial=0.0) <= TOLERANCE * np.abs(icefalls).max(initial=0.0)
