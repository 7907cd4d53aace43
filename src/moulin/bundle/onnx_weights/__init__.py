"""The parameters of a transducer from the ONNX files that Icefall exported it to."""
