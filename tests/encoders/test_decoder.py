from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
import torch

from moulin.bundle.checkpoint import read_checkpoint
from moulin.encoders.decoder import Decoder
from moulin.encoders.joiner import Joiner
from moulin.encoders.tensors import part
from tests.bundles import BUNDLES, OFFLINE, STREAMING


@pytest.mark.parametrize("bundle", [*OFFLINE, *STREAMING])
def test_equals_icefalls_export(bundle: str) -> None:
    tensors = read_checkpoint(BUNDLES / bundle / "epoch-1.pt").tensors
    decoder, joiner = Decoder.from_tensors(part(tensors, "decoder.")), Joiner.from_tensors(part(tensors, "joiner."))
    rng = np.random.default_rng(0)
    y = rng.integers(-1, decoder.vocab_size, (50, decoder.context_size))
    ours = joiner.decoder_proj(decoder(torch.from_numpy(y)))
    (file,) = (file for file in (BUNDLES / bundle).glob("decoder*.onnx") if ".int8." not in file.name)
    theirs = onnxruntime.InferenceSession(file).run(None, {"y": y})[0]
    np.testing.assert_allclose(ours, theirs, atol=1e-4)


@pytest.mark.parametrize(("context_size", "groups"), [(1, 1), (2, 1), (3, 4), (2, 12)])
def test_sizes_come_from_the_tensors(context_size: int, groups: int) -> None:
    made = Decoder(17, 12, context_size, groups)
    read = Decoder.from_tensors(made.state_dict())
    assert (read.vocab_size, read.dim, read.context_size) == (17, 12, context_size)
    y = torch.randint(-1, 17, (5, context_size))
    torch.testing.assert_close(read(y), made.eval()(y).detach())
