"""The automata of a model's server and of its requests in the GPU's memory, placed by their content.

The server's stay. Those of requests lie in a ring: a new one takes the place of the oldest, so thousands are there at
once, and however many come, the memory is the same. A graph that a batch needs and the ring has no longer is copied
again; numbers within automata do not depend on where they lie, so streams do not notice.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from moulin.arrays import Ints32
from moulin.decoding.context_graph import ContextGraph
from moulin.decoding.language_model import Fusion, TokenModel, WordModel
from moulin.gpu.automata import Automaton
from moulin.gpu.kernels.automata import AutomatonTables, LanguageModelTables, WordTables

ROWS = 8 << 20
"""Rows of an arena for requests, 24 bytes each: 200 MB. A list of 100 phrases of four tokens has some 400, and none has
more than 400,000: 1,000 phrases of 100 letters, of which each is at most four tokens."""

_EMPTY_ROWS = 2  # of an automaton without arcs: the first arc of its root, and the end of these


class Moment(Protocol):
    """A `torch.cuda.Event`: a moment that a stream waits for."""

    def wait(self) -> None:
        """Let the current stream wait."""


@dataclass(slots=True)
class _Placed:
    content: bytes
    begin: int
    end: int
    used_until: Moment | None = None


class AutomatonArena:
    """Not thread-safe. Copies run on the current stream, in the order of the calls."""

    def __init__(
        self,
        device: torch.device,
        *,
        rows: int = ROWS,
        server: ContextGraph | None = None,
        fusion: Fusion | None = None,
    ) -> None:
        """`rows` are for requests; the hotwords of the `server` and its language model, if any, lie before them."""
        lasting = [] if server is None else [Automaton.of_context_graph(server)]
        models = [] if fusion is None else _automata(fusion)
        lasting += models
        roots = np.cumsum([_EMPTY_ROWS, *(automaton.rows for automaton in lasting)]).tolist()
        self._first = int(roots.pop())
        self._end = self._first + rows
        self._memory = torch.zeros(len(AutomatonTables._fields) - 1, self._end, dtype=torch.int32, device=device)
        for root, automaton in zip(roots, lasting, strict=True):
            self._memory[:, root : root + automaton.rows] = _block([automaton], automaton.rows).to(device)
        self._lasting = {} if server is None else {server.content: roots.pop(0)}
        places = [value for root, model in zip(roots, models, strict=True) for value in (root, model.start)]
        self.tables = AutomatonTables.of(self._memory, None if fusion is None else _tables(fusion, places, device))
        """What kernels take; at the same addresses for ever."""
        if self._memory.is_cuda:
            torch.cuda.synchronize(device)  # other streams use it
        self._begin_ring()

    @property
    def rows(self) -> int:
        """All graphs of requests of a batch may have so many rows together, each as many as states and one more."""
        return self._end - self._first

    def place(self, graphs: NDArray[np.object_], until: Moment | None = None) -> Ints32:
        """The roots, int32 [N, 2], of `graphs` [N, 2], ContextGraph or None, of which those are copied that are not
        there. `until` is the moment, recorded before the next call, after which their memory may be used again, no
        earlier than that of any call before; None where all work on it is on the current stream. Raises ValueError for
        more than `rows`."""
        roots = np.zeros(graphs.shape, np.int32)
        where = np.flatnonzero(graphs)
        if not where.size:
            return roots
        each = graphs.ravel()[where].tolist()
        wanted = {graph.content: graph for graph in each if graph.content not in self._lasting}
        self._bring(wanted)
        for content in wanted:
            self._placed[content].used_until = until
        found = self._lasting | {content: self._placed[content].begin for content in wanted}
        roots.ravel()[where] = [found[graph.content] for graph in each]
        return roots

    def _bring(self, wanted: Mapping[bytes, ContextGraph]) -> None:
        new = [(content, graph) for content, graph in wanted.items() if content not in self._placed]
        begins = self._reserve([(content, len(graph) + 1) for content, graph in new], wanted)
        if begins is None:  # scattered: all of this batch side by side are sure to fit
            for placed in self._ring:
                _wait_for(placed)
            self._begin_ring()
            new = list(wanted.items())
            begins = self._reserve([(content, len(graph) + 1) for content, graph in new], wanted)
            if begins is None:
                self._begin_ring()
                raise ValueError(f"expected graphs of at most {self.rows:,} rows together")
        self._copy([graph for _, graph in new], begins)

    def _reserve(self, sizes: Sequence[tuple[bytes, int]], wanted: Collection[bytes]) -> list[int] | None:
        """Where new graphs of (content, rows) begin, none in the place of one that is `wanted`; None where there is no
        such place."""
        begins = []
        for content, rows in sizes:
            begin = self._room_for(rows, wanted)
            if begin is None:
                return None
            placed = _Placed(content, begin, begin + rows)
            self._head = placed.end
            self._ring.append(placed)
            self._placed[content] = placed
            begins.append(begin)
        return begins

    def _room_for(self, rows: int, wanted: Collection[bytes]) -> int | None:
        """The ring's head, once `rows` behind it are free. The graphs in `_ring` are in the order in which the head
        meets them."""
        rounds = 0
        while True:
            ahead = bool(self._ring) and self._ring[0].begin >= self._head
            if (self._ring[0].begin if ahead else self._end) - self._head >= rows:
                return self._head
            if ahead:
                met = self._ring.popleft()
                if met.content in wanted:  # stays; the head goes on behind it
                    self._ring.append(met)
                    self._head = met.end
                else:
                    _wait_for(met)
                    del self._placed[met.content]
            else:
                rounds += 1
                if rounds > 2:
                    return None
                self._head = self._first

    def _copy(self, graphs: Sequence[ContextGraph], begins: Sequence[int]) -> None:
        """Copy graphs to where they begin, those side by side at once."""
        at = 0
        while at < len(graphs):
            last = at + 1
            while last < len(graphs) and begins[last] == begins[last - 1] + len(graphs[last - 1]) + 1:
                last += 1
            rows = begins[last - 1] + len(graphs[last - 1]) + 1 - begins[at]
            block = _block(map(Automaton.of_context_graph, graphs[at:last]), rows)
            if self._memory.is_cuda:
                block = block.pin_memory()
            self._memory[:, begins[at] : begins[at] + rows].copy_(block, non_blocking=True)
            at = last

    def _begin_ring(self) -> None:
        self._head = self._first
        self._ring: deque[_Placed] = deque()
        self._placed: dict[bytes, _Placed] = {}


def _automata(fusion: Fusion) -> list[Automaton]:
    model = fusion.model
    assert isinstance(model, TokenModel | WordModel)
    found = [Automaton.of_ngrams(model.ngrams, model.words if isinstance(model, TokenModel) else None)]
    return found if fusion.lodr is None else [*found, Automaton.of_ngrams(fusion.lodr.ngrams, fusion.lodr.words)]


def _tables(fusion: Fusion, places: Sequence[int], device: torch.device) -> LanguageModelTables:
    """`places` are root and start of each of the models."""

    def on_card(values: NDArray[Any], dtype: torch.dtype) -> torch.Tensor:
        return torch.from_numpy(values.copy()).to(device, dtype)

    where = on_card(np.array([*places, 0, 0][:4]), torch.int32)
    model = fusion.model
    if not isinstance(model, WordModel):
        return LanguageModelTables(where, None)
    known_hashes = model.known_hashes.view(np.int64)  # as kernels compare them
    order = np.argsort(known_hashes)
    words = WordTables(
        on_card(model.begins, torch.int32),
        on_card(model.hashes.view(np.int64), torch.int64),
        on_card(model.factors.view(np.int64), torch.int64),
        on_card(known_hashes[order], torch.int64),
        on_card(model.known[order], torch.int32),
        on_card(np.array([len(order), model.unknown]), torch.int32),
    )
    return LanguageModelTables(where, words)


def _block(automata: Iterable[Automaton], rows: int) -> torch.Tensor:
    """int32 [6, rows]: automata one behind the other."""
    block, begin = np.zeros((len(AutomatonTables._fields) - 1, rows), np.int32), 0
    for automaton in automata:
        for column, values in zip(block, automaton.columns, strict=True):
            column[begin : begin + len(values)] = values.view(np.int32)
        begin += automaton.rows
    return torch.from_numpy(block)


def _wait_for(placed: _Placed) -> None:
    if placed.used_until is not None:
        placed.used_until.wait()
