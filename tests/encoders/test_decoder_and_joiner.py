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


def session(bundle: str, role: str) -> onnxruntime.InferenceSession:
    (file,) = (file for file in (BUNDLES / bundle).glob(f"{role}*.onnx") if ".int8." not in file.name)
    return onnxruntime.InferenceSession(file)


@pytest.mark.parametrize("bundle", [*OFFLINE, *STREAMING])
def test_equal_icefalls_exports(bundle: str) -> None:
    tensors = read_checkpoint(BUNDLES / bundle / "epoch-1.pt").tensors
    decoder, joiner = Decoder.from_tensors(part(tensors, "decoder.")), Joiner.from_tensors(part(tensors, "joiner."))
    rng = np.random.default_rng(0)
    y = rng.integers(-1, decoder.vocab_size, (50, decoder.context_size))
    ours = joiner.decoder_proj(decoder(torch.from_numpy(y)))
    theirs = session(bundle, "decoder").run(None, {"y": y})[0]
    np.testing.assert_allclose(ours, theirs, atol=1e-4)
    heard, said = rng.standard_normal((2, 9, joiner.joiner_dim), dtype=np.float32)
    logit = session(bundle, "joiner").run(None, {"encoder_out": heard, "decoder_out": said})[0]
    np.testing.assert_allclose(joiner(torch.from_numpy(heard), torch.from_numpy(said)), logit, atol=1e-5)


@pytest.mark.parametrize(("context_size", "groups"), [(1, 1), (2, 1), (3, 4), (2, 12)])
def test_sizes_come_from_the_tensors(context_size: int, groups: int) -> None:
    made = Decoder(17, 12, context_size, groups)
    read = Decoder.from_tensors(made.state_dict())
    assert (read.vocab_size, read.dim, read.context_size) == (17, 12, context_size)
    y = torch.randint(-1, 17, (5, context_size))
    torch.testing.assert_close(read(y), made.eval()(y).detach())


def test_a_missing_tensor_is_named() -> None:
    tensors = Joiner(8, 12, 10, 17).state_dict()
    del tensors["output_linear.bias"]
    with pytest.raises(ValueError, match=r"'output_linear\.bias' is missing"):
        Joiner.from_tensors(tensors)
