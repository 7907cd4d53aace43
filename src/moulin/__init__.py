"""moulin serves transducer speech recognition on NVIDIA Triton Inference Server."""

import os

__version__ = "0.1.0"

# ONNX Runtime's wheels for Linux (1.32) send usage data to Microsoft and keep a database of it in the cache folder,
# unless this is set before they are imported; `disable_telemetry_events()` comes too late. A value that is set holds.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
