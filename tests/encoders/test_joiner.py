from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
import torch

from moulin.bundle.checkpoint import read_checkpoint
from moulin.encoders.joiner import Joiner
from moulin.encoders.tensors import part
from tests.bundles import BUNDLES, OFFLINE, STREAMING


@pytest.mark.parametrize("bundle", [*OFFLINE, *STREAMING])
def test_equals_icefalls_export(bundle: str) -> None:
    joiner = Joiner.from_tensors(part(read_checkpoint(BUNDLES / bundle / "epoch-1.pt").tensors, "joiner."))
    (file,) = (file for file in (BUNDLES / bundle).glob("joiner*.onnx") if ".int8." not in file.name)
    heard, said = np.random.default_rng(0).standard_normal((2, 9, joiner.joiner_dim), dtype=np.float32)
    logit = onnxruntime.InferenceSession(file).run(None, {"encoder_out": heard, "decoder_out": said})[0]
    np.testing.assert_allclose(joiner(torch.from_numpy(heard), torch.from_numpy(said)), logit, atol=1e-5)


def test_a_missing_tensor_is_named() -> None:
    tensors = Joiner(8, 12, 10, 17).state_dict()
    del tensors["output_linear.bias"]
    with pytest.raises(ValueError, match=r"'output_linear\.bias' is missing"):
        Joiner.from_tensors(tensors)
