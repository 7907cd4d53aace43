"""ONNX files as graphs. The weights stay on disk: each is a view of a mapped file, and is read when it is used."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from moulin.bundle.onnx_without_weights import parse_without_weights
from moulin.errors import BundleError

if TYPE_CHECKING:
    import onnx

Array = NDArray[Any]


class WeightFile:
    """The graph of an ONNX file, and views of its weights."""

    def __init__(self, file: Path) -> None:
        """`file` is one that `read_onnx_graph` accepts, which has checked its external files."""
        self.file = file
        self.model: onnx.ModelProto = parse_without_weights(file, with_places=True)
        self._mapped: dict[Path, NDArray[np.uint8]] = {}

    def array(self, tensor: onnx.TensorProto) -> Array:
        """The values of `tensor`; writing to them leaves the file as it is. Raises BundleError where they do not fit
        its shape."""
        import onnx
        from onnx import numpy_helper

        if tensor.data_location != onnx.TensorProto.EXTERNAL:
            return numpy_helper.to_array(tensor)
        fields = {entry.key: entry.value for entry in tensor.external_data}
        path = self.file.parent / fields["location"]
        mapped = self._mapped.get(path)
        if mapped is None:
            mapped = self._mapped[path] = np.memmap(path, np.uint8, "c")
        dtype = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type))
        offset = int(fields.get("offset", 0))
        count = int(np.prod(tensor.dims, dtype=np.int64))
        if offset + count * dtype.itemsize > mapped.nbytes:
            raise BundleError(f"Expected '{tensor.name}' of {self.file} to have {count:,} values, got fewer")
        return np.ndarray(tuple(tensor.dims), dtype, buffer=mapped, offset=offset)  # it need not be aligned
