"""Requests of clients written for sherpa and their reading of the answer, with tritonclient and nothing of ours."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
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


FIRST_SEQUENCE_ID = 10086
"""Triton-ASR-Client: plus the task's number, for all the utterances of the task one after the other."""

FIRST_CHUNK_SAMPLES, CHUNK_SAMPLES = 13_600, 10_240
"""0.85 s and 0.64 s: a decoding window of 83 frames and two more, and then 16 encoder frames."""


def chunks(waveform: NDArray[np.float32]) -> Iterator[tuple[Tensors, bool, bool]]:
    """Triton-ASR-Client's `send_streaming`: requests of always the same size with whether each is the first or last.

    The last is padded with zeros, and WAV_LENS has its true length.
    """
    start, size = 0, FIRST_CHUNK_SAMPLES
    while start < len(waveform):
        piece = waveform[start : start + size]
        wav = np.zeros((1, size), np.float32)
        wav[0, : len(piece)] = piece
        last = start + size >= len(waveform)
        yield {"WAV": wav, "WAV_LENS": np.array([[len(piece)]], np.int32)}, start == 0, last
        start, size = start + size, CHUNK_SAMPLES


async def send_streaming(
    client: Any, waveform: NDArray[np.float32], sequence_id: int, *, model: str, simulate_streaming: bool = False
) -> list[str]:
    """The text after each chunk; `client` is of tritonclient.grpc.aio. With `simulate_streaming` as fast as speech."""
    texts = []
    for request, first, last in chunks(waveform):
        if simulate_streaming:
            await asyncio.sleep(int(request["WAV_LENS"][0, 0]) / 16000)
        result = await client.infer(
            model,
            inputs(request),
            outputs=[grpc.InferRequestedOutput("TRANSCRIPTS")],
            sequence_id=sequence_id,
            sequence_start=first,
            sequence_end=last,
        )
        texts.append(streaming_text(result))
    return texts


def streaming_text(result: Any) -> str:
    """All clients: the whole array joined, which for an array of two dimensions would be pointers as bytes."""
    return b" ".join(result.as_numpy("TRANSCRIPTS")).decode()


def perf_input(waveform: NDArray[np.float32], *, streaming: bool) -> dict[str, Any]:
    """What sherpa's generate_perf_input.py writes for perf_analyzer: a request, or the chunks of one sequence.

    Its first streaming chunk is that of another model, 0.96 s; later ones have 0.64 s.
    """
    if not streaming:
        content = {"shape": [len(waveform)], "content": waveform.tolist()}
        return {"data": [{"WAV_LENS": [len(waveform)], "WAV": content}]}
    start, size, chunks = 0, PERF_FIRST_CHUNK_SAMPLES, []
    while start < len(waveform):
        piece = waveform[start : start + size]
        padded = np.pad(piece, (0, size - len(piece)))
        chunks.append({"WAV": {"content": padded.tolist(), "shape": [size]}, "WAV_LENS": [len(piece)]})
        start, size = start + size, CHUNK_SAMPLES
    return {"data": [chunks]}


PERF_FIRST_CHUNK_SAMPLES = 15_360
PERF_SEQUENCE_ID = 1
"""perf_analyzer counts its sequences from 1."""


def replay(url: str, written: dict[str, Any], *, model: str = "transducer") -> list[str]:
    """The last text of each request or sequence in `written`, sent as perf_analyzer sends them: with a batch of one."""
    found = []
    with grpc.InferenceServerClient(url) as client:
        for number, item in enumerate(written["data"]):
            steps = item if isinstance(item, list) else [item]
            for index, step in enumerate(steps):
                wav = np.array(step["WAV"]["content"], np.float32).reshape(1, *step["WAV"]["shape"])
                request = {"WAV": wav, "WAV_LENS": np.array([step["WAV_LENS"]], np.int32)}
                sequence = {
                    "sequence_id": PERF_SEQUENCE_ID + number,
                    "sequence_start": index == 0,
                    "sequence_end": index == len(steps) - 1,
                }
                result = infer(client, request, model=model, **(sequence if isinstance(item, list) else {}))
            found.append(streaming_text(result) if isinstance(item, list) else first_text(result))
    return found
