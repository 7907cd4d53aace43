"""Options that several verbs share, so that they are spelled and explained alike."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from moulin.decoding.options import METHODS, DecodingOptions

# Literals are spelled out again because typer reads them when the command is built.
Precision = Literal["fp32", "fp16", "bf16", "int8"]
Method = Literal["greedy", "modified_beam_search"]
EngineName = Literal["onnxruntime", "torch", "tensorrt"]


PrecisionOption = Annotated[
    Precision | None,
    typer.Option(
        help="Which variant of the ONNX files to take; in what to run a checkpoint or an engine of TensorRT.  "
        "[default: the most exact file there is; a checkpoint in fp32, on a GPU in fp16; TensorRT in fp16]",
    ),
]
LanguageOption = Annotated[
    str | None,
    typer.Option(
        help="Which one, where a model's files are there for several languages (de_encoder.onnx, or a folder de).",
        is_eager=True,  # as --precision
    ),
]
MethodOption = Annotated[Method | None, typer.Option(help=f"Decoding method.  [default: {METHODS[0]}]")]
BeamOption = Annotated[
    int | None, typer.Option(help=f"Beam of modified_beam_search.  [default: {DecodingOptions().beam}]")
]
PortOption = Annotated[int, typer.Option(min=0, max=65535)]
EngineOption = Annotated[
    EngineName | None,
    typer.Option(help="What runs the model.  [default: onnxruntime for ONNX files, torch for a checkpoint]"),
]
DeviceOption = Annotated[str, typer.Option(help="cpu, cuda or cuda:N; with TensorRT always a GPU.")]


def decoding_changes(method: str | None, beam: int | None) -> dict[str, str | int]:
    """The options that were given, checked; what was not given is left to the server or the defaults."""
    changes = {name: value for name, value in (("method", method), ("beam", beam)) if value is not None}
    DecodingOptions().updated(changes)
    return changes
