"""Export of a checkpoint to ONNX files with Icefall's names, order and metadata."""
