"""The error of hotwords where nothing uses them."""

from __future__ import annotations

from moulin.errors import OptionsError


def no_hotwords(*, ctc: bool = False) -> OptionsError:
    """`ctc` says that a CTC head is decoded."""
    if ctc:
        return OptionsError(
            "Expected no hotwords: they are for a transducer's search, and here a CTC head is decoded",
            hint="leave out --head ctc, or the hotwords",
        )
    return OptionsError(
        "Expected no hotwords: what runs this model does not use them yet",
        hint="ONNX Runtime, TensorRT, and PyTorch in fp32 do; our GPU engine and the layout ensemble do not",
    )
