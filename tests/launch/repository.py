"""Tiny model repositories for the real tritonserver."""

from __future__ import annotations

from pathlib import Path

CONFIG = """
backend: "python"
max_batch_size: 4
input [{name: "X" data_type: TYPE_FP32 dims: [-1]}]
output [{name: "Y" data_type: TYPE_FP32 dims: [-1]}]
instance_group [{kind: KIND_CPU count: 1}]
"""

ECHO = """
import triton_python_backend_utils as pb_utils
import moulin  # the stub must see the environment of the process that started the server


class TritonPythonModel:
    def execute(self, requests):
        return [
            pb_utils.InferenceResponse(
                [pb_utils.Tensor("Y", pb_utils.get_input_tensor_by_name(request, "X").as_numpy())]
            )
            for request in requests
        ]
"""


def write_model(repository: Path, name: str, code: str = ECHO, config: str = CONFIG) -> Path:
    """Add a python model to `repository`; return the repository."""
    version = repository / name / "1"
    version.mkdir(parents=True)
    (repository / name / "config.pbtxt").write_text(config)
    (version / "model.py").write_text(code)
    return repository


def initialize_with(body: str) -> str:
    """Code of a model whose `initialize` runs `body`."""
    return f"""
class TritonPythonModel:
    def initialize(self, args):
        {body}

    def execute(self, requests):
        return []
"""
