from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from moulin.bundle.checkpoint import average_between, average_checkpoints, read_checkpoint, without_scales
from moulin.bundle.checkpoint_files import find_checkpoint, is_checkpoint
from moulin.errors import BundleError
from tests.bundles import BUNDLES

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
    assert average["a.count"] == 6


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


class Hostile:
    def __reduce__(self) -> Any:
        return (Path.touch, (Path("/nonexistent/never"),))


def test_nothing_in_a_checkpoint_is_executed(tmp_path: Path) -> None:
    file = save(tmp_path, "epoch-1.pt", model=model(1.0), sampler=Hostile())
    with pytest.raises(BundleError, match="holds more than tensors") as caught:
        read_checkpoint(file)
    assert "weights_only=False" in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "cannot be read as a checkpoint|is no checkpoint"),
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
        ({"model": {"a": torch.tensor([1.0, float("nan")])}}, "'a' of .* has values that are not finite"),
    ],
)
def test_what_is_no_model(tmp_path: Path, content: dict[str, Any], message: str) -> None:
    with pytest.raises(BundleError, match=message):
        read_checkpoint(save(tmp_path, "epoch-1.pt", **content))


def test_different_models_have_no_average(tmp_path: Path) -> None:
    other = save(tmp_path, "epoch-2.pt", model={"a.weight": torch.ones(2, 4), "a.count": torch.tensor(1)})
    one = save(tmp_path, "epoch-1.pt", model=model(1.0))
    with pytest.raises(BundleError, match=re.escape("differ in 'a.weight'")):
        average_checkpoints([one, other])


@pytest.mark.parametrize(
    ("names", "chosen"),
    [
        (["epoch-9.pt", "epoch-30.pt"], "epoch-30.pt"),
        (["epoch-2.pt", "checkpoint-48000.pt"], "epoch-2.pt"),
        (["checkpoint-8000.pt", "checkpoint-12000.pt"], "checkpoint-12000.pt"),
        (["pretrained.pt", "epoch-30.pt"], "pretrained.pt"),
        (["anything.pt"], "anything.pt"),
    ],
)
def test_the_checkpoint_of_a_folder(tmp_path: Path, names: list[str], chosen: str) -> None:
    for name in names:
        (tmp_path / name).touch()
    assert find_checkpoint(tmp_path).name == chosen
    assert is_checkpoint(tmp_path)
    (tmp_path / "encoder-epoch-1-avg-1.onnx").touch()
    assert not is_checkpoint(tmp_path)


def test_a_folder_without_a_clear_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="found none"):
        find_checkpoint(tmp_path)
    for name in ("a.pt", "b.pt"):
        (tmp_path / name).touch()
    with pytest.raises(BundleError, match=r"found a\.pt, b\.pt"):
        find_checkpoint(tmp_path)
    with pytest.raises(BundleError, match="There is no checkpoint at"):
        find_checkpoint(tmp_path / "c.pt")
