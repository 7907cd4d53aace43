"""Reads the files that `torch.save` writes, of any age, without importing or calling anything that they name.

    file.py ▶ zip_form.py or legacy_form.py ▶ unpickler.py ▶ known_globals.py
              locations of the storages       values, StoredTensors (stored_tensor.py) and Placeholders (inert.py)

A StoredTensor holds a tensor's location; its bytes are read only on request.
"""

from moulin.bundle.torch_file.file import TorchFile, open_torch_file
from moulin.bundle.torch_file.inert import Placeholder
from moulin.bundle.torch_file.stored_tensor import StoredTensor

__all__ = ["Placeholder", "StoredTensor", "TorchFile", "open_torch_file"]
