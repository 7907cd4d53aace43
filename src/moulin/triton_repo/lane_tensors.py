"""The tensors of a lane's requests, checked, and of its replies."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moulin.arrays import Bools, Ints
from moulin.audio.runs import starts_of
from moulin.errors import MoulinError, StreamError
from moulin.triton_repo import contract
from moulin.triton_repo.contract import Event, Kind

Array = NDArray[Any]

_ALL_EVENTS = int(~Event(0))


@dataclass(frozen=True, slots=True)
class Bundle:
    """A checked request of a lane: M rows, each of another stream. `Triton`'s memory is not used after `read`."""

    number: int
    streams: NDArray[np.uint64]
    """[M]"""
    events: Ints
    """[M]: bits of `Event`, 0 for mere audio."""
    options: Sequence[bytes]
    """The JSON of each row with `Event.OPTIONS`, in their order."""
    lengths: Ints
    """[M]: samples."""
    samples: NDArray[np.int16]
    """[sum of `lengths`]"""

    @classmethod
    def read(cls, tensors: dict[str, Array]) -> Bundle:
        """Raises StreamError where the tensors contradict each other: then no row is looked at."""
        rows = {name: _row(name, tensors[name]) for name in _INPUTS if name in tensors}
        number = rows.get(contract.BUNDLE)
        if number is None or len(number) != 1:
            raise StreamError(f"Expected {contract.BUNDLE} [1, 1], got {_shape(tensors.get(contract.BUNDLE))}")
        streams = rows.get(contract.STREAMS, np.zeros(0, np.uint64))
        events = rows.get(contract.EVENTS, np.zeros(len(streams), np.uint8)).astype(np.int64)
        lengths = rows.get(contract.CHUNK_LENS, np.zeros(len(streams), np.int32)).astype(np.int64)
        samples = rows.get(contract.CHUNKS, np.zeros(0, np.int16))
        options = rows.get(contract.STREAM_OPTIONS, np.zeros(0, np.object_)).tolist()
        for name, some in ((contract.EVENTS, events), (contract.CHUNK_LENS, lengths)):
            if len(some) != len(streams):
                raise StreamError(f"Expected as many {name} as {contract.STREAMS}, {len(streams)}, got {len(some)}")
        if len(np.unique(streams)) != len(streams):
            raise StreamError(
                f"Expected every stream once in {contract.STREAMS}, got one twice", hint="join its chunks in one row"
            )
        if (lengths < 0).any() or lengths.sum() != len(samples):
            raise StreamError(
                f"Expected {contract.CHUNK_LENS} of 0 or more that add up to the samples in {contract.CHUNKS}, "
                f"{len(samples)}; got a sum of {lengths.sum()}, the smallest {lengths.min(initial=0)}"
            )
        if (wanted := int(np.count_nonzero(events & Event.OPTIONS))) != len(options):
            raise StreamError(
                f"Expected as many {contract.STREAM_OPTIONS} as rows with the event {Event.OPTIONS}, {wanted}, "
                f"got {len(options)}"
            )
        return cls(int(number[0]), streams, events, options, lengths, samples)

    def options_of_rows(self) -> dict[int, bytes]:
        """The JSON by row."""
        rows = np.flatnonzero(self.events & Event.OPTIONS)
        return dict(zip(rows.tolist(), self.options, strict=True))

    def samples_of(self, rows: Bools) -> NDArray[np.int16]:
        """The samples of the rows that are true in `rows` [M]."""
        return self.samples if rows.all() else self.samples[np.repeat(rows, self.lengths)]

    def chunk(self, row: int) -> NDArray[np.int16]:
        """The samples of one row."""
        begin = int(starts_of(self.lengths)[row])
        return self.samples[begin : begin + int(self.lengths[row])]


def unknown_events(events: Ints) -> Bools:
    """Whether each of `events` has bits that are no `Event`."""
    unknown: Bools = (events & ~_ALL_EVENTS) != 0
    return unknown


@dataclass(slots=True)
class LaneReply:
    """A lane's reply before it becomes tensors."""

    lane: bytes
    decoded_streams: NDArray[np.uint64]
    decoded: Ints
    streams: list[int] = field(default_factory=list)
    kinds: list[Kind] = field(default_factory=list)
    updates: list[bytes] = field(default_factory=list)

    def tensors(self) -> dict[str, Array]:
        """The outputs by name, each [1, n]; those without elements are left out, for Triton has no empty tensors."""
        arrays: dict[str, Array] = {
            contract.UPDATE_STREAMS: np.array(self.streams, np.uint64),
            contract.UPDATE_KINDS: np.array(self.kinds, np.uint8),
            contract.UPDATE_LENS: np.array([len(update) for update in self.updates], np.int32),
            contract.UPDATES: np.frombuffer(b"".join(self.updates), np.uint8),
            contract.DECODED_STREAMS: self.decoded_streams,
            contract.DECODED: self.decoded.astype(np.uint64),
            contract.LANE: np.frombuffer(self.lane, np.uint8),
        }
        return {name: array[None] for name, array in arrays.items() if len(array)}


def error_json(code: str, error: MoulinError) -> bytes:
    """The JSON of `Kind.FAILED` and `Kind.REFUSED`."""
    return json.dumps({"code": code, "error": error.message, "hint": error.hint}).encode()


def is_bundle(tensors: dict[str, Array]) -> bool:
    """Whether a request is one of a lane."""
    return not _INPUTS.isdisjoint(tensors)


_INPUTS = frozenset(
    {
        contract.BUNDLE,
        contract.STREAMS,
        contract.EVENTS,
        contract.STREAM_OPTIONS,
        contract.CHUNK_LENS,
        contract.CHUNKS,
    }
)


def _row(name: str, tensor: Array) -> Array:
    if tensor.ndim != 2 or len(tensor) != 1:
        raise StreamError(f"Expected {name} [1, N], got {_shape(tensor)}", hint="the first dimension of all is 1")
    row: Array = tensor[0]
    return row


def _shape(tensor: Array | None) -> str:
    return "none" if tensor is None else str(list(tensor.shape))
