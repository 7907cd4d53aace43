"""Devices and lists of them."""

from __future__ import annotations

import pytest

from moulin.engine.device import check_slices, device_list, gpu_count, gpu_index
from moulin.errors import EngineError, OptionsError


@pytest.mark.parametrize(("device", "index"), [("cpu", None), ("cuda", 0), ("cuda:0", 0), ("cuda:13", 13)])
def test_a_device(device: str, index: int | None) -> None:
    assert gpu_index(device) == index


@pytest.mark.parametrize(
    ("devices", "expected"),
    [
        ("cpu", ("cpu",)),
        ("cuda", ("cuda",)),
        ("cuda:3", ("cuda:3",)),
        ("cuda:0,cuda:1", ("cuda:0", "cuda:1")),
        (" cuda:1 , cuda:0 ", ("cuda:1", "cuda:0")),
        ("cuda:all", ("cuda:0", "cuda:1", "cuda:2")),
    ],
)
def test_a_list(devices: str, expected: tuple[str, ...]) -> None:
    assert device_list(devices, lambda: 3) == expected


@pytest.mark.parametrize("devices", ["", ",", "cuda:0,", "cuda:x", "gpu", "cuda:all,cuda:0", "CUDA", "cuda:-1"])
def test_no_devices(devices: str) -> None:
    with pytest.raises(OptionsError, match="a list such as cuda:0,cuda:1, or cuda:all, got"):
        device_list(devices, lambda: 3)


@pytest.mark.parametrize("devices", ["cuda:1,cuda:1", "cuda,cuda:0", "cpu,cpu"])
def test_a_device_twice(devices: str) -> None:
    with pytest.raises(OptionsError, match="Expected every device once"):
        device_list(devices)


def test_no_gpu() -> None:
    with pytest.raises(EngineError, match="Expected a GPU for cuda:all, got none"):
        device_list("cuda:all", lambda: 0)
    assert gpu_count() >= 0


@pytest.mark.parametrize("visible", [None, "", "0,1", "MIG-1", "GPU-1,GPU-2"])
def test_what_cuda_shows_is_all_used(visible: str | None) -> None:
    check_slices(visible)


def test_slices_of_a_gpu() -> None:
    with pytest.raises(OptionsError, match="Expected one MIG slice in CUDA_VISIBLE_DEVICES, got 2") as refused:
        check_slices("MIG-1, MIG-2")
    assert "CUDA_VISIBLE_DEVICES=MIG-2 moulin serve" in (refused.value.hint or "")
