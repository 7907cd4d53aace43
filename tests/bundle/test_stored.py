from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from moulin.bundle.checkpoint_files import find_checkpoint, is_checkpoint
from moulin.bundle.stored import read_stored, write_stored
from moulin.bundle.transducer import load_transducer
from moulin.encoders.recipe import Recipe
from moulin.errors import BundleError
from tests.bundles import BUNDLES, OFFLINE, STREAMING


@pytest.mark.parametrize("bundle", [*OFFLINE, *STREAMING])
@pytest.mark.parametrize("said", [False, True])
def test_what_is_stored_comes_back(bundle: str, said: bool, tmp_path: Path) -> None:
    recipe = Recipe()
    if said and not bundle.startswith("lstm"):
        heads = (4,) if bundle.startswith("conformer") else (2, 2, 4) if bundle.startswith("zipformer2") else (4, 4, 4)
        recipe = Recipe(causal="streaming" in bundle, num_heads=heads, chunk_size=16, left_context_frames=32)
    transducer = load_transducer([BUNDLES / bundle / "epoch-1.pt"], recipe=recipe)
    write_stored(transducer, tmp_path / "model.safetensors")
    assert is_checkpoint(tmp_path)
    again = load_transducer([find_checkpoint(tmp_path)])
    assert again.encoder.recipe == recipe
    assert again.encoder.config == transducer.encoder.config
    x, x_lens = torch.randn(2, 100, 80), torch.tensor([100, 77])
    torch.testing.assert_close(again.encode(x, x_lens), transducer.encode(x, x_lens), rtol=0, atol=0)
    y = torch.tensor([[-1, 0], [3, 4]])
    torch.testing.assert_close(again.predict(y), transducer.predict(y), rtol=0, atol=0)


def test_it_comes_before_checkpoints(tmp_path: Path) -> None:
    for name in ("model.safetensors", "pretrained.pt", "epoch-3.pt"):
        (tmp_path / name).touch()
    assert find_checkpoint(tmp_path).name == "model.safetensors"


def test_other_files(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    with pytest.raises(BundleError, match="There is no"):
        read_stored(file)
    file.write_bytes(b"not safetensors")
    with pytest.raises(BundleError, match="cannot be read"):
        read_stored(file)
    save_file({"a": torch.ones(2)}, file)
    with pytest.raises(BundleError, match="to be a moulin-transducer of version 1, got no format"):
        read_stored(file)
