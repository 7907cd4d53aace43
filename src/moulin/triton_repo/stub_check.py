"""Whether Triton's python stub can read the arrays of the numpy in its process. Runs inside the stub process.

A stub is built with one generation of numpy's C interface. nvidia-pytriton 0.7.0's knows numpy 1: with numpy 2 it takes
every array for zero bytes long, so that every output arrives empty or as zeros, without an error.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from moulin.errors import LaunchError


def check_stub(tensor_type: Any) -> None:
    """Send values through `tensor_type` (`pb_utils.Tensor`) and back, as the stub copies outputs. Raises LaunchError
    where they do not come back. It checks behaviour, not versions: newer stubs take numpy 2.
    """
    values = np.arange(1, 65, dtype=np.int32)
    copied = tensor_type.from_dlpack("copied", tensor_type("values", values).to_dlpack()).as_numpy()
    if not np.array_equal(values, copied):
        raise LaunchError(
            f"Expected Triton's python stub to copy arrays of numpy {np.__version__}, got back other values: every "
            "transcript would be empty",
            hint="put numpy below 2 (pip install 'numpy<2') into the Python environment of this tritonserver, "
            "or let `moulin serve` find one of its own",
        )
