from __future__ import annotations

import pytest
import torch

from moulin.bundle.checkpoint import read_checkpoint
from moulin.encoders.acoustic_model import family_of
from moulin.encoders.transducer import Transducer
from tests.bundles import BUNDLES, OFFLINE, STREAMING


@pytest.mark.parametrize("bundle", [*OFFLINE, *STREAMING])
def test_its_tensors_build_it_again(bundle: str) -> None:
    read = read_checkpoint(BUNDLES / bundle / "epoch-1.pt").tensors
    tensors = Transducer.from_tensors(read).tensors()
    assert all(torch.equal(tensor, read[name]) for name, tensor in tensors.items())
    again = Transducer.from_tensors(tensors)
    assert all(torch.equal(tensor, tensors[name]) for name, tensor in again.tensors().items())
    assert family_of(tensors) is type(again.encoder)


def test_tensors_of_no_module_are_listed() -> None:
    tensors = read_checkpoint(BUNDLES / OFFLINE[0] / "epoch-1.pt").tensors
    names = [*tensors, "encoder.rival.weight", "joiner.extra", "ctc_output.1.weight"]
    assert Transducer.from_tensors(tensors).unknown(names) == ["encoder.rival.weight", "joiner.extra"]


def test_a_part_of_another_size() -> None:
    tensors = dict(read_checkpoint(BUNDLES / OFFLINE[0] / "epoch-1.pt").tensors)
    tensors["joiner.encoder_proj.weight"] = tensors["joiner.encoder_proj.weight"][:, :-1]
    with pytest.raises(ValueError, match="as in the joiner, got"):
        Transducer.from_tensors(tensors)


@pytest.mark.parametrize("bundle", [*OFFLINE, *STREAMING])
def test_no_random_numbers_are_made_for_it(bundle: str) -> None:
    """They take as long as reading a checkpoint; every parameter is read from it."""
    read = read_checkpoint(BUNDLES / bundle / "epoch-1.pt").tensors
    before = torch.get_rng_state()
    Transducer.from_tensors(read)
    assert torch.equal(torch.get_rng_state(), before)
