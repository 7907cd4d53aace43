"""From a checkpoint to ONNX files with Icefall's names, order and metadata."""
