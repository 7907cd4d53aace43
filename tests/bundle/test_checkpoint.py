from __future__ import annotations

import re
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from moulin.bundle.checkpoint import Checkpoint, average_between, average_checkpoints, read_checkpoint, without_scales
from moulin.errors import BundleError
from tests.bundles import BUNDLES, TRAINING

LSTM = BUNDLES / "lstm-streaming" / "epoch-1.pt"


def save(folder: Path, name: str, **content: Any) -> Path:
    torch.save(content, folder / name)
    return folder / name


def model(value: float, count: int = 0) -> dict[str, Tensor]:
    return {"a.weight": torch.full((2, 3), value), "a.count": torch.tensor(count)}


def test_scales_are_multiplied_in() -> None:
    raw = torch.load(LSTM, weights_only=True)["model"]
    tensors = read_checkpoint(LSTM).tensors
    for name, scale in (
        ("encoder.encoder_embed.conv.0.weight", "encoder.encoder_embed.conv.0.weight_scale"),
        ("encoder.encoder.layers.1.lstm.weight_hr_l0", "encoder.encoder.layers.1.lstm.weight_hr_l0_scale"),
        ("decoder.embedding.weight", "decoder.embedding.scale"),
        ("joiner.output_linear.bias", "joiner.output_linear.bias_scale"),
    ):
        assert scale not in tensors
        torch.testing.assert_close(tensors[name], raw[name] * raw[scale].exp())
        assert not torch.equal(tensors[name], raw[name]) or raw[scale] == 0
    assert not [name for name in tensors if name.endswith("_scale")]


def test_what_only_looks_like_a_scale_stays() -> None:
    tensors = {
        "layer.bypass_scale": torch.ones(48),
        "norm.log_scale": torch.tensor(0.5),
        "conv.chunkwise_conv_scale": torch.ones(2, 4, 7),
        "conv.chunkwise_conv.weight": torch.ones(4, 1, 7),
    }
    assert without_scales(tensors).keys() == tensors.keys()


def test_the_average_of_several(tmp_path: Path) -> None:
    files = [save(tmp_path, f"epoch-{n}.pt", model=model(float(n), n)) for n in (1, 2, 6)]
    average = average_checkpoints(files).tensors
    assert average["a.weight"].tolist() == [[3.0] * 3] * 2
    assert average["a.weight"].dtype == torch.float32
    assert average["a.count"] == 3  # (1 + 2 + 6) // 3, as in Icefall


def test_the_average_between_two(tmp_path: Path) -> None:
    """The running means over 100 and 400 batches are 1 and 4: over the 300 between them it is 5."""
    first = save(tmp_path, "epoch-1.pt", model=model(9.0), model_avg=model(1.0), batch_idx_train=100)
    last = save(tmp_path, "epoch-4.pt", model=model(9.0), model_avg=model(4.0, 7), batch_idx_train=400)
    average = average_between(first, last).tensors
    torch.testing.assert_close(average["a.weight"], torch.full((2, 3), 5.0))
    assert average["a.count"] == 7
    with pytest.raises(BundleError, match="to be earlier in training"):
        average_between(last, first)


def test_a_running_average_that_is_not_there(tmp_path: Path) -> None:
    file = save(tmp_path, "pretrained.pt", model=model(1.0))
    with pytest.raises(BundleError, match="keeps no running average"):
        average_between(file, file)


def test_a_bare_state_dict_and_one_from_several_gpus(tmp_path: Path) -> None:
    torch.save(model(1.0), tmp_path / "bare.pt")
    assert read_checkpoint(tmp_path / "bare.pt").tensors.keys() == model(1.0).keys()
    wrapped = save(tmp_path, "ddp.pt", model={f"module.{name}": value for name, value in model(1.0).items()})
    assert read_checkpoint(wrapped).tensors.keys() == model(1.0).keys()


@pytest.mark.parametrize(
    "wrapped",
    ["_orig_mod.encoder.a", "module._orig_mod.encoder.a", "_orig_mod.module.encoder.a", "encoder._orig_mod.a"],
)
def test_models_that_training_compiled(tmp_path: Path, wrapped: str) -> None:
    file = save(tmp_path, "epoch-1.pt", model={wrapped: torch.ones(2), "joiner.module.b": torch.ones(1)})
    assert read_checkpoint(file).tensors.keys() == {"encoder.a", "joiner.module.b"}


def test_one_name_with_and_without_its_wrapper(tmp_path: Path) -> None:
    file = save(tmp_path, "epoch-1.pt", model={"module.encoder.a": torch.ones(2), "encoder.a": torch.zeros(2)})
    with pytest.raises(BundleError, match="several tensors of one name"):
        read_checkpoint(file)


def test_what_is_beside_a_transducer_may_be_anything(tmp_path: Path) -> None:
    file = save(
        tmp_path,
        "epoch-1.pt",
        model={
            "encoder.a": torch.ones(2),
            "encoder._extra_state": {"step": 1},
            "lm": None,
            "teacher": torch.eye(2).to_sparse(),
        },
    )
    assert read_checkpoint(file).tensors.keys() == {"encoder.a"}
    file = save(tmp_path, "epoch-1.pt", model={"encoder.a": torch.ones(2), "encoder.b": torch.eye(2).to_sparse()})
    with pytest.raises(BundleError, match=r"Expected 'encoder\.b' of .* to be a tensor"):
        read_checkpoint(file)


class Hostile:
    def __reduce__(self) -> Any:
        return (Path.touch, (Path("/nonexistent/never"),))


def test_nothing_in_a_checkpoint_is_executed(tmp_path: Path) -> None:
    file = save(tmp_path, "epoch-1.pt", model=model(1.0), sampler=Hostile(), context_size=2)
    checkpoint = read_checkpoint(file)
    assert checkpoint.tensors.keys() == model(1.0).keys()
    assert checkpoint.parameters == {"context_size": 2}


@pytest.mark.parametrize(
    ("folder", "expected", "average"),
    [
        ("zipformer2-training", "expected-avg-2-3.pt", lambda folder: average_checkpoints(epochs(folder, 2, 3))),
        (
            "zipformer2-training",
            "expected-averaged-model-1-3.pt",
            lambda folder: average_between(*epochs(folder, 1, 3)),
        ),
        (
            "zipformer2-causal-training",
            "expected-averaged-model-1-3.pt",
            lambda folder: average_between(*epochs(folder, 1, 3)),
        ),
    ],
)
def test_averages_are_icefalls(folder: str, expected: str, average: Callable[[Path], Checkpoint]) -> None:
    found = average(TRAINING / folder)
    wanted = torch.load(TRAINING / folder / expected, weights_only=True)["model"]
    assert found.tensors.keys() == wanted.keys()
    for name, tensor in wanted.items():
        torch.testing.assert_close(found.tensors[name], tensor, rtol=0, atol=1e-6)
    assert found.parameters["batch_idx_train"] == 300
    assert any(bool((tensor.abs() > 0.1).any()) for tensor in wanted.values())


def epochs(folder: Path, *numbers: int) -> list[Path]:
    return [folder / f"epoch-{number}.pt" for number in numbers]


@pytest.mark.parametrize(
    "file", sorted(TRAINING.glob("*/epoch-*.pt")), ids=lambda file: f"{file.parent.name}-{file.stem}"
)
def test_a_training_checkpoint(file: Path) -> None:
    """Every tensor as PyTorch reads it, and the options as they are, those that were paths as text."""
    found = read_checkpoint(file)
    whole = torch.load(file, weights_only=False)
    assert found.tensors.keys() == whole["model"].keys()
    for name, tensor in whole["model"].items():
        assert torch.equal(found.tensors[name], tensor)
    options = {name: value for name, value in whole.items() if not isinstance(value, dict) and name != "sampler"}
    assert found.parameters == options | {"exp_dir": "zipformer/exp"}
    assert isinstance(options["exp_dir"], Path)


def test_batches_are_counted_to_the_last_update_of_the_average(tmp_path: Path) -> None:
    """model_avg is brought up to date every average_period batches: at 200 and 600 here, not at 250 and 649."""
    content: dict[str, Any] = {"model": model(9.0), "average_period": 200}
    first = save(tmp_path, "epoch-1.pt", **content, model_avg=model(1.0), batch_idx_train=250)
    last = save(tmp_path, "epoch-2.pt", **content, model_avg=model(3.0), batch_idx_train=649)
    # (3 * 600 - 1 * 200) / 400
    torch.testing.assert_close(average_between(first, last).tensors["a.weight"], torch.full((2, 3), 4.0))


def test_the_mean_of_half_precision_is_taken_in_double(tmp_path: Path) -> None:
    files = [save(tmp_path, f"epoch-{n}.pt", model={"a": torch.full((2,), 60000.0).half()}) for n in range(3)]
    assert average_checkpoints(files).tensors["a"].tolist() == [60000.0, 60000.0]


def test_scales_are_averaged_before_they_are_multiplied_in(tmp_path: Path) -> None:
    """As in Icefall, where the average is loaded into the model and then converted."""
    files = [
        save(tmp_path, f"epoch-{n}.pt", model={"a.weight": torch.ones(2) * n, "a.weight_scale": torch.tensor(float(n))})
        for n in (1, 3)
    ]
    average = average_checkpoints(files).tensors
    assert average.keys() == {"a.weight"}
    torch.testing.assert_close(average["a.weight"], torch.ones(2) * 2 * torch.tensor(2.0).exp())


def test_tensors_that_are_one_stay_one(tmp_path: Path) -> None:
    weight = torch.randn(3)
    files = [save(tmp_path, f"epoch-{n}.pt", model={"a": weight, "b": weight, "c": weight.clone()}) for n in (1, 2)]
    for tensors in (read_checkpoint(files[0]).tensors, average_checkpoints(files).tensors):
        assert tensors["a"].data_ptr() == tensors["b"].data_ptr() != tensors["c"].data_ptr()


def test_only_a_running_average(tmp_path: Path) -> None:
    file = save(tmp_path, "averaged.pt", model_avg=model(2.0))
    assert read_checkpoint(file).tensors["a.weight"].mean() == 2


class CountedFile:
    """A file that remembers which bytes of it were read."""

    def __init__(self, file: Any) -> None:
        self.file = file
        self.ranges: list[tuple[int, int]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()

    def _note(self, begin: int) -> None:
        self.ranges.append((begin, self.file.tell()))

    def read(self, *size: int) -> bytes:
        begin = self.file.tell()
        content = self.file.read(*size)
        self._note(begin)
        return content  # type: ignore[no-any-return]

    def readinto(self, buffer: Any) -> int:
        begin = self.file.tell()
        count = self.file.readinto(buffer)
        self._note(begin)
        return count  # type: ignore[no-any-return]


@pytest.mark.parametrize("legacy", [False, True])
def test_nothing_is_read_of_the_optimizer(tmp_path: Path, legacy: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor of `model_avg`: the values of these, three million bytes each, occur in no range that is read."""
    size = 750_000
    content = {
        "model": {"w": torch.full((size,), 1.0)},
        "model_avg": {"w": torch.full((size,), 2.0)},
        "optimizer": {"state": {n: {"exp_avg": torch.full((size,), 3.0)} for n in range(4)}},
    }
    file = tmp_path / "epoch-1.pt"
    torch.save(content, file, _use_new_zipfile_serialization=not legacy)
    opened: list[CountedFile] = []

    def counted(path: Path, *arguments: Any, **options: Any) -> Any:
        opened.append(CountedFile(open(path, *arguments, **options)))  # noqa: PTH123, SIM115
        return opened[-1]

    with monkeypatch.context() as context:
        context.setattr(Path, "open", counted)
        tensors = read_checkpoint(file).tensors
    assert tensors["w"].sum() == size
    whole = file.read_bytes()
    read = b"".join(whole[begin:end] for begin, end in opened[0].ranges)
    assert 4 * size <= len(read) < 4 * size + 300_000
    for value in (2.0, 3.0):
        assert struct.pack("<f", value) * 1000 not in read


def test_a_hole_where_the_optimizer_was(tmp_path: Path) -> None:
    """Its storages may even be damaged."""
    content = {"optimizer": {"a": torch.full((1000,), 3.0)}, "model": model(1.0)}
    file = save(tmp_path, "epoch-1.pt", **content)
    file.write_bytes(file.read_bytes().replace(struct.pack("<f", 3.0) * 1000, bytes(4000)))
    assert read_checkpoint(file).tensors["a.weight"].mean() == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is no checkpoint"),
        (b"not a checkpoint", "is no checkpoint"),
        (LSTM.read_bytes()[:5000], "cannot be read as a checkpoint"),
    ],
    ids=["empty", "text", "cut off"],
)
def test_damaged_files(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "epoch-1.pt").write_bytes(content)
    with pytest.raises(BundleError, match=message):
        read_checkpoint(tmp_path / "epoch-1.pt")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"optimizer": {}}, "Expected .* to hold the model's parameters under 'model', got 'optimizer'"),
        ({"model": {}}, "parameters under 'model'"),
        ({"model": {"a": 1}}, "Expected 'a' of .* to be a tensor, got a int"),
        ({"model": {"a": torch.eye(2).to_sparse()}}, "to be a tensor, got torch._utils._rebuild_sparse_tensor"),
        ({"model": {"a": torch.ones(1, device="meta")}}, "to be a tensor, got torch._utils._rebuild_meta_tensor"),
        ({"model": torch.nn.Linear(1, 1)}, "under 'model', got torch.nn.modules.linear.Linear there"),
        ({"epoch": 1, "lr": 0.5}, "under 'model', got 'epoch', 'lr'"),
        ({}, "under 'model', got nothing"),
        ({"model": {"a": torch.tensor([1.0, float("nan")])}}, "'a' of .* has values that are not finite"),
    ],
)
def test_what_is_no_model(tmp_path: Path, content: dict[str, Any], message: str) -> None:
    with pytest.raises(BundleError, match=message):
        read_checkpoint(save(tmp_path, "epoch-1.pt", **content))


def test_a_pickled_module(tmp_path: Path) -> None:
    torch.save(torch.nn.Linear(1, 1), tmp_path / "model.pt")
    with pytest.raises(
        BundleError, match=r"to hold a dictionary with 'model', got torch\.nn\.modules\.linear\.Linear"
    ) as caught:
        read_checkpoint(tmp_path / "model.pt")
    assert "state_dict()" in str(caught.value.hint)


def test_different_models_have_no_average(tmp_path: Path) -> None:
    other = save(tmp_path, "epoch-2.pt", model={"a.weight": torch.ones(2, 4), "a.count": torch.tensor(1)})
    one = save(tmp_path, "epoch-1.pt", model=model(1.0))
    with pytest.raises(BundleError, match=re.escape("differ in 'a.weight'")):
        average_checkpoints([one, other])
