"""ONNX files to TensorRT engines: `build.py` is the main path.

sanitise.py    a graph that says the same with what TensorRT takes
operators.py   is there anything left that its documented parser refuses?
profiles.py    which shapes the engine is made for, from the `ModelSpec`
plan.py        what an engine was made of and on, and whether that is what is there
builders.py    the seam: TensorRT's Python API, or trtexec
"""
