"""Engines of TensorRT and TensorRT-RTX from ONNX files (`build.py` is the main path), and the runners on them.

sanitise.py      rewriting of a graph to a form that TensorRT accepts
operators.py     the check for operators that TensorRT's documented parser refuses
profiles.py      the input shapes that an engine is built for, from the `ModelSpec`
plan_file.py     the machine and model that an engine was built for
builders.py      the seam: the Python API of TensorRT or TensorRT-RTX, or trtexec
library_log.py   the log of TensorRT, whose first error goes into messages
drift.py         the check of an engine against ONNX Runtime
ready_plan.py    an engine from the cache, or built
runtime_cache.py  the kernels that TensorRT-RTX compiles on the GPU, kept beside the plan
loaded_plan.py   the runtime API of both; runner.py and stream_runner.py run models with it
"""
