"""Arguments of Triton's python backend for the shim of a built model."""

from __future__ import annotations

import json
from pathlib import Path

from google.protobuf import json_format, text_format
from tritonclient.grpc import model_config_pb2 as pb


def shim_args(model_dir: Path) -> dict[str, str]:
    """The `args` of `initialize` for the model in `model_dir`, its config.pbtxt parsed by Triton's own protobuf."""
    config = text_format.Parse((model_dir / "config.pbtxt").read_text(), pb.ModelConfig())
    fields = json_format.MessageToDict(config, preserving_proto_field_name=True)
    return {
        "model_config": json.dumps(fields),
        "model_instance_name": f"{model_dir.name}_0_0",
        "model_repository": str(model_dir),
        "model_version": "1",
    }
