"""What clients written for sherpa send and how they read the answer, with tritonclient and nothing of ours."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import tritonclient.grpc as grpc
from numpy.typing import NDArray

Tensors = dict[str, NDArray[Any]]
_DTYPES = {"f4": "FP32", "f8": "FP64", "f2": "FP16", "i4": "INT32", "i8": "INT64"}


def tensors(waveforms: Sequence[NDArray[np.float32]], *, pad_to_10_sec: bool = False) -> Tensors:
    """WAV and WAV_LENS, padded to the longest or, as Triton-ASR-Client does, to the next multiple of ten seconds."""
    longest = max(len(waveform) for waveform in waveforms)
    if pad_to_10_sec:
        longest = 16000 * 10 * (longest // 16000 // 10 + 1)
    wav = np.zeros((len(waveforms), longest), np.float32)
    for row, waveform in enumerate(waveforms):
        wav[row, : len(waveform)] = waveform
    return {"WAV": wav, "WAV_LENS": np.array([[len(waveform)] for waveform in waveforms], np.int32)}


def with_options(request: Tensors, *options: bytes) -> Tensors:
    """`request` with moulin's OPTIONS, one for each row."""
    return {**request, "OPTIONS": np.array([[option] for option in options], np.object_)}


def inputs(request: Tensors, client: Any = grpc) -> list[Any]:
    """`request` as the inputs of `client`: tritonclient.grpc, tritonclient.grpc.aio or tritonclient.http."""
    found = []
    for name, tensor in request.items():
        datatype = "BYTES" if tensor.dtype == np.object_ else _DTYPES[tensor.dtype.str[1:]]
        item = client.InferInput(name, list(tensor.shape), datatype)
        item.set_data_from_numpy(tensor)
        found.append(item)
    return found


def infer(client: Any, request: Tensors, *, model: str = "transducer", **arguments: Any) -> Any:
    """One call that asks for TRANSCRIPTS, as all of them do."""
    outputs = [grpc.InferRequestedOutput("TRANSCRIPTS")]
    return client.infer(model, inputs(request), **{"outputs": outputs, **arguments})


def first_text(result: Any) -> str:
    """sherpa's speech_client.py and client.py: the first row only, joined from its words."""
    return b" ".join(result.as_numpy("TRANSCRIPTS")[0]).decode()


def texts(result: Any) -> list[str]:
    """Triton-ASR-Client: every row, of words or as a whole."""
    rows = result.as_numpy("TRANSCRIPTS")
    return [b" ".join(row).decode() if isinstance(row, np.ndarray) else row.decode() for row in rows]
