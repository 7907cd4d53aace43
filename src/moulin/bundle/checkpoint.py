"""Icefall's checkpoints: `epoch-N.pt`, `checkpoint-N.pt`, `pretrained.pt`, and averages of them."""

from __future__ import annotations

import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from moulin.errors import BundleError, first_line

Tensors = dict[str, Tensor]


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A model's tensors, on the CPU, with the factors of scaled parameters multiplied in, and what training said of it.

    `parameters` are what Icefall's training keeps beside the model under its options' names (`context_size`,
    `num_heads`, `causal`, …): strings, numbers, None, and containers of these. Empty for a stripped file.
    """

    tensors: Tensors
    parameters: Mapping[str, Any]


def read_checkpoint(file: Path) -> Checkpoint:
    """The checkpoint in `file`.

    Nothing in the file is executed: it is read with `weights_only`. Raises BundleError for what is no checkpoint.
    """
    content = _read(file)
    return Checkpoint(without_scales(_tensors(content, "model", file)), _parameters(content))


def average_checkpoints(files: Sequence[Path]) -> Checkpoint:
    """The mean of several checkpoints' parameters (Icefall's `--avg N --use-averaged-model 0`).

    Tensors of integers, which only count, are those of the last. Raises BundleError where the checkpoints are not of
    one model.
    """
    contents = [_read(file) for file in files]
    models = [_tensors(content, "model", file) for content, file in zip(contents, files, strict=True)]
    _expect_one_model(files, models)
    mean = without_scales(
        {
            name: torch.stack([model[name].double() for model in models]).mean(dim=0).to(last.dtype)
            if last.is_floating_point()
            else last
            for name, last in models[-1].items()
        }
    )
    return Checkpoint(mean, _parameters(contents[-1]))


def average_between(start: Path, end: Path) -> Checkpoint:
    """The mean of the parameters over all batches from checkpoint `start` to checkpoint `end` (Icefall's default,
    `--use-averaged-model 1`).

    Training keeps in `model_avg` the mean over the batches since its beginning, so that the mean between two moments is
    a difference: (end.model_avg * end.batches - start.model_avg * start.batches) / (end.batches - start.batches), with
    `batch_idx_train` for batches (icefall/checkpoint.py). Raises BundleError where a checkpoint keeps no average.
    """
    contents = [_read(file) for file in (start, end)]
    first, last = (_tensors(content, "model_avg", file) for content, file in zip(contents, (start, end), strict=True))
    _expect_one_model((start, end), (first, last))
    before, after = (_batches(content, file) for content, file in zip(contents, (start, end), strict=True))
    if before >= after:
        raise BundleError(
            f"Expected {start} to be earlier in training than {end}, got {before} and {after} batches",
            hint="name the earlier checkpoint first",
        )
    weight = after / (after - before)
    mean = without_scales(
        {
            name: (weight * tensor.double() + (1 - weight) * first[name].double()).to(tensor.dtype)
            if tensor.is_floating_point()
            else tensor
            for name, tensor in last.items()
        }
    )
    return Checkpoint(mean, _parameters(contents[-1]))


def without_scales(tensors: Mapping[str, Tensor]) -> Tensors:
    """`tensors` with every `<name>_scale` multiplied into <name> as exp(scale) and left out.

    Icefall's ScaledLinear, ScaledConv1d, ScaledConv2d, ScaledLSTM and ScaledEmbedding learn the logarithm of a factor
    beside each parameter (pruned_transducer_stateless2/scaling.py). In ScaledEmbedding it is called just `scale`.
    """
    owners = {}
    for name, tensor in tensors.items():
        owner = f"{name[:-5]}weight" if name.endswith(".scale") else name.removesuffix("_scale")
        if owner != name and owner in tensors and tensor.ndim == 0:
            owners[owner] = name
    folded = set(owners.values())
    return {
        name: tensor * tensors[owners[name]].exp() if name in owners else tensor
        for name, tensor in tensors.items()
        if name not in folded
    }


def _read(file: Path) -> Mapping[str, Any]:
    try:
        content = torch.load(file, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise BundleError(f"There is no {file}") from error
    except pickle.UnpicklingError as error:
        raise BundleError(
            f"{file} is no checkpoint, or holds more than tensors and plain values; loading it could run any code",
            hint=f"if you trust it: torch.save({{'model': torch.load('{file.name}', weights_only=False)['model']}}, …)",
        ) from error
    except (OSError, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise BundleError(f"{file} cannot be read as a checkpoint: {first_line(error)}") from error
    if not isinstance(content, Mapping):
        raise BundleError(f"Expected {file} to hold a dictionary with 'model', got a {type(content).__name__}")
    return content


def _tensors(content: Mapping[str, Any], key: str, file: Path) -> Tensors:
    """The state dict under `key`; a file that is nothing but a state dict counts as its 'model'."""
    found = content.get(key)
    if found is None and key == "model" and content and all(isinstance(value, Tensor) for value in content.values()):
        found = content
    if found is None and key == "model_avg":
        raise BundleError(
            f"{file} keeps no running average of its parameters ('model_avg')",
            hint="give several checkpoints to average over instead",
        )
    if not isinstance(found, Mapping) or not found:
        raise BundleError(f"Expected {file} to hold the model's parameters under '{key}', got {_kinds(content)}")
    # Training on several GPUs wraps the model, and with it every name.
    tensors = {str(name).removeprefix("module."): value for name, value in found.items()}
    for name, value in tensors.items():
        if not isinstance(value, Tensor):
            raise BundleError(f"Expected '{name}' of {file} to be a tensor, got a {type(value).__name__}")
        if value.is_floating_point() and not bool(value.isfinite().all()):
            raise BundleError(f"'{name}' of {file} has values that are not finite", hint="use an earlier checkpoint")
    return tensors


def _parameters(content: Mapping[str, Any]) -> Mapping[str, Any]:
    return {name: value for name, value in content.items() if isinstance(value, str | int | float | None)}


def _batches(content: Mapping[str, Any], file: Path) -> int:
    batches = content.get("batch_idx_train")
    if not isinstance(batches, int):
        raise BundleError(f"{file} does not say how many batches it has seen ('batch_idx_train')")
    return batches


def _expect_one_model(files: Sequence[Path], models: Sequence[Tensors]) -> None:
    shapes = {name: tensor.shape for name, tensor in models[0].items()}
    for file, model in zip(files[1:], models[1:], strict=True):
        different = shapes.keys() ^ model.keys() or {name for name in shapes if model[name].shape != shapes[name]}
        if different:
            raise BundleError(f"{file} is not of the same model as {files[0]}: they differ in '{sorted(different)[0]}'")


def _kinds(content: Mapping[str, Any]) -> str:
    return ", ".join(f"'{name}'" for name in list(content)[:8]) or "nothing"
