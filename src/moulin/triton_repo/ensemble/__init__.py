"""The layout `ensemble`: sherpa's, with a Triton model for each part of a transducer and one that ties them together.

    transducer            WAV, WAV_LENS, OPTIONS to TRANSCRIPTS, RESULT (Triton's own scheduler, no code)
    ├── feature_extractor   waveforms to features, on the CPU
    ├── encoder             features to encoder frames: python (ONNX Runtime), onnxruntime or tensorrt
    └── scorer              encoder frames to text; asks for batches of rows from
        ├── decoder
        └── joiner

A streaming model has encoder, decoder and joiner, and a python model (`streaming_shim`) that asks them.

The parts are those of `engine.host_pipeline` and `engine.host_stepper`, so that the text is the same. The layout is for
running the encoder with Triton's own backends; the layout `fused` has one process and no copies between its parts.
"""
