"""Icefall's checkpoints: `epoch-N.pt`, `checkpoint-N.pt`, `pretrained.pt`, and averages of them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from moulin.bundle.plain_parameters import plain_parameters
from moulin.bundle.torch_file import Placeholder, StoredTensor, TorchFile, open_torch_file
from moulin.bundle.untrusted_file import errors_of
from moulin.errors import BundleError
from moulin.quoting import quoted

Tensors = dict[str, Tensor]
_Model = Mapping[str, StoredTensor]
# Prefixes of parameter names from DistributedDataParallel and torch.compile, around the model or one of its parts.
_WRAPPER = re.compile(r"^(?:module\.|_orig_mod\.)+|(?<=\.)_orig_mod\.")
# The names of a transducer's parts; others (a CTC head, an attention decoder) are ignored.
_PARTS = ("encoder", "decoder", "joiner")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A model's tensors, on the CPU, with the factors of scaled parameters multiplied in, and its training's options.

    `parameters` are the options that Icefall's training stores beside the model (`context_size`, `num_heads`, `causal`,
    …): strings, numbers, None, and containers of these. Empty for a stripped file.
    """

    tensors: Tensors
    parameters: Mapping[str, Any]


def read_checkpoint(file: Path) -> Checkpoint:
    """The checkpoint in `file`: its `model`, or its `model_avg` where it has no `model`.

    Nothing that the file names is imported or called, and only the model's tensors are read. Raises BundleError where
    `file` is no checkpoint.
    """
    with errors_of(file), open_torch_file(file) as opened:
        model = _model(opened, "model")
        return Checkpoint(
            _tensors([model], lambda name: _finite(opened, model, name)), plain_parameters(opened.content)
        )


def average_checkpoints(files: Sequence[Path]) -> Checkpoint:
    """The mean of several checkpoints' parameters (Icefall's `--avg N --use-averaged-model 0`), taken in double
    precision, a tensor at a time. The mean of integers is rounded down, as in Icefall.

    Raises BundleError where the checkpoints are of different models.
    """
    with errors_of(files[-1]), ExitStack() as stack:
        opened = [stack.enter_context(open_torch_file(file)) for file in files]
        models = [_model(file, "model") for file in opened]
        _expect_one_model(files, models)

        sums, terms = _Doubles(models[0]), _Doubles(models[0])

        def mean(name: str) -> Tensor:
            read = (_finite(file, model, name) for file, model in zip(opened, models, strict=True))
            return _mean(read, len(files), sums, terms)

        return Checkpoint(_tensors(models, mean), plain_parameters(opened[-1].content))


def average_between(start: Path, end: Path) -> Checkpoint:
    """The mean of the parameters over all batches from checkpoint `start` to checkpoint `end` (Icefall's default,
    `--use-averaged-model 1`).

    `model_avg` is the mean over all batches since the training began, so the mean over an interval is a difference:
    (end.model_avg * end.batches - start.model_avg * start.batches) / (end.batches - start.batches). `batches` is
    `batch_idx_train` rounded down to the last update of `model_avg` (every `average_period` batches;
    icefall/checkpoint.py). Integers are those of `end`. Raises BundleError where there is no `model_avg`.
    """
    with errors_of(end), open_torch_file(start) as first, open_torch_file(end) as last:
        models = _model(first, "model_avg"), _model(last, "model_avg")
        _expect_one_model((start, end), models)
        period = max(1, _count(first, "average_period", default=1))
        before, after = (_count(file, "batch_idx_train") // period * period for file in (first, last))
        if before >= after:
            raise BundleError(
                f"Expected {start} to be earlier in training than {end}, got {before} and {after} batches",
                hint="name the earlier checkpoint first",
            )
        weight = after / (after - before)
        sums, terms = _Doubles(models[1]), _Doubles(models[1])

        def mean(name: str) -> Tensor:
            tensor = _finite(last, models[1], name).contiguous()
            if not tensor.is_floating_point():
                return tensor
            total = sums.of(tensor).mul_(weight)
            return tensor.copy_(total.add_(terms.of(_finite(first, models[0], name)), alpha=1 - weight))

        return Checkpoint(_tensors(models, mean), plain_parameters(last.content))


def without_scales(tensors: Mapping[str, Tensor]) -> Tensors:
    """`tensors` without the `<name>_scale`, each of which is multiplied into `<name>` as exp(scale).

    Icefall's ScaledLinear, ScaledConv1d, ScaledConv2d, ScaledLSTM and ScaledEmbedding learn the logarithm of a factor
    beside each parameter (pruned_transducer_stateless2/scaling.py). ScaledEmbedding's is called `scale`.
    """
    scales = _scales({name: tensor.shape for name, tensor in tensors.items()})
    folded = set(scales.values())
    return {
        name: tensor * tensors[scales[name]].exp() if name in scales else tensor
        for name, tensor in tensors.items()
        if name not in folded
    }


def _scales(shapes: Mapping[str, Sequence[int]]) -> dict[str, str]:
    """The name of each scaled parameter's scale tensor."""
    scales = {}
    for name, shape in shapes.items():
        owner = f"{name[:-5]}weight" if name.endswith(".scale") else name.removesuffix("_scale")
        if owner != name and owner in shapes and len(shape) == 0:
            scales[owner] = name
    return scales


def _tensors(models: Sequence[_Model], read: Callable[[str], Tensor]) -> Tensors:
    """`without_scales` of the tensors that `read` returns for the names of `models`, read one at a time. Names of one
    shared tensor share the result."""
    scales = _scales({name: tensor.size for name, tensor in models[-1].items()})
    folded = set(scales.values())
    places = {
        name: (scales.get(name), *(model[name].place for model in models)) for name in models[-1] if name not in folded
    }
    uses = Counter(places.values())
    shared: dict[object, Tensor] = {}
    tensors: Tensors = {}
    for name, place in places.items():
        tensor = shared.get(place)
        if tensor is None:
            tensor = read(name) * read(scales[name]).exp() if name in scales else read(name)
        if uses[place] > 1:
            shared[place] = tensor
        tensors[name] = tensor
    return tensors


class _Doubles:
    """A buffer for one tensor at a time in double precision, as large as the largest tensor of `model`. Allocating for
    each tensor instead fragments the heap by up to twice the model's size."""

    def __init__(self, model: _Model) -> None:
        largest = max((tensor.numel for tensor in model.values()), default=0)
        self._memory = torch.empty(largest, dtype=torch.float64)

    def of(self, tensor: Tensor) -> Tensor:
        return self._memory[: tensor.numel()].view(tensor.shape).copy_(tensor)


def _mean(tensors: Iterator[Tensor], count: int, sums: _Doubles, terms: _Doubles) -> Tensor:
    """The mean of `count` tensors of one shape and dtype, written into the first. Boolean and complex tensors are not
    averaged: the last one is returned."""
    mean = next(tensors).contiguous()
    if mean.dtype == torch.bool or mean.is_complex():
        for tensor in tensors:
            mean = tensor
        return mean
    if not mean.is_floating_point():
        return (sum(tensors, mean.long()) // count).to(mean.dtype)
    total = sums.of(mean)
    for tensor in tensors:
        total += terms.of(tensor)
    return mean.copy_(total.div_(count))


def _finite(opened: TorchFile, model: _Model, name: str) -> Tensor:
    tensor = opened.read(model[name], name)
    if tensor.is_floating_point() and tensor.numel():
        checked = tensor.float() if tensor.itemsize == 1 else tensor
        # Not isfinite() of the whole tensor, which allocates another tensor of its size.
        if not all(bool(end.isfinite()) for end in checked.aminmax()):
            raise BundleError(
                f"'{name}' of {opened.path} has values that are not finite", hint="use an earlier checkpoint"
            )
    return tensor


def _model(opened: TorchFile, key: str) -> _Model:
    """The state dict under `key`. For 'model' also a file that is a bare state dict, or `model_avg` where there is no
    'model'."""
    content, file = opened.content, opened.path
    if not isinstance(content, dict):
        raise BundleError(
            f"Expected {file} to hold a dictionary with 'model', got {_said(content)}",
            hint="save the state dict: torch.save({'model': model.state_dict()}, FILE)",
        )
    found = content.get(key)
    if found is None and key == "model_avg":
        raise BundleError(
            f"{file} keeps no running average of its parameters ('model_avg')",
            hint="give several checkpoints to average over instead",
        )
    if found is None:
        found = content.get("model_avg")
    if found is None and sum(isinstance(value, StoredTensor) for value in content.values()) * 2 > len(content):
        found = content
    if not isinstance(found, dict) or not found:
        got = _held(content) if found is None or isinstance(found, dict) else f"{_said(found)} there"
        raise BundleError(f"Expected {file} to hold the model's parameters under '{key}', got {got}")
    model = {_WRAPPER.sub("", str(name)): value for name, value in found.items()}
    if len(model) < len(found):
        raise BundleError(f"Expected one model in {file}, got several tensors of one name with and without 'module.'")
    for name, value in list(model.items()):
        if isinstance(value, StoredTensor):
            if value.numel > opened.most_elements:
                raise BundleError(f"{quoted(name)} of {file} has more elements than the file can hold")
            continue
        if len(model) > 1 and (name.endswith("_extra_state") or not name.startswith(_PARTS)):
            del model[name]
        else:
            raise BundleError(
                f"Expected '{name}' of {file} to be a tensor, got {_said(value)}",
                hint="save it dense and unquantised" if isinstance(value, Placeholder) else None,
            )
    return model


def _count(opened: TorchFile, key: str, default: int | None = None) -> int:
    count = opened.content.get(key, default)
    if not isinstance(count, int):
        raise BundleError(f"{opened.path} does not say how many batches it has seen ('{key}')")
    return count


def _expect_one_model(files: Sequence[Path], models: Sequence[_Model]) -> None:
    shapes = {name: tensor.size for name, tensor in models[0].items()}
    for file, model in zip(files[1:], models[1:], strict=True):
        different = shapes.keys() ^ model.keys() or {name for name in shapes if model[name].size != shapes[name]}
        if different:
            raise BundleError(f"{file} is not of the same model as {files[0]}: they differ in '{sorted(different)[0]}'")


def _held(content: Mapping[object, object]) -> str:
    return ", ".join(f"'{str(name)[:80]}'" for name in list(content)[:8]) or "nothing"


def _said(value: object) -> str:
    return value.name if isinstance(value, Placeholder) else f"a {type(value).__name__}"
