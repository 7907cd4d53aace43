"""TensorRT: engines built from ONNX files (`build.py` is the main path), and the runners on them.

sanitise.py      rewriting of a graph to a form that TensorRT accepts
operators.py     the check for operators that TensorRT's documented parser refuses
profiles.py      the input shapes that an engine is built for, from the `ModelSpec`
plan_file.py     the machine and model that an engine was built for
builders.py      the seam: TensorRT's Python API, or trtexec
drift.py         the check of an engine against ONNX Runtime
ready_plan.py    an engine from the cache, or built
loaded_plan.py   TensorRT's runtime API; runner.py and stream_runner.py run models with it
"""
