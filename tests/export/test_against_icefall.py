"""Every module and every exported file against Icefall's own ONNX exports, on real speech.

`moulin export` compares its files with the modules that they were traced from, and sees no error that both have. Here
the judge is Icefall. Each model is read twice: from its bare state dict with what a person says of it, and from the
same with its training's parameters beside it, which say it themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from moulin.bundle.transducer import LoadedModel, load_with_facts
from moulin.encoders.encoder import StreamingLayout
from moulin.export.to_onnx import export_onnx
from tests.icefall import CASES, Case, assert_equal, run, session, speech, with_parameters

LENGTHS = ([9], [10], [57], [801], [333, 9, 120])
"""Frames: the shortest, odd ones, eight seconds, and a padded batch."""
CHUNKS = 24
"""More than the left context holds."""

Network = Callable[..., Sequence[Any]]


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with torch.inference_mode():
        yield
    torch.set_num_threads(threads)


@dataclass(frozen=True)
class Read:
    case: Case
    loaded: LoadedModel
    parameters: bool
    folder: Path

    @property
    def layout(self) -> StreamingLayout | None:
        return self.loaded.transducer.encoder.streaming_layout() if self.case.streaming else None


@pytest.fixture(scope="module", params=[False, True], ids=["state dict", "parameters"])
def parameters(request: pytest.FixtureRequest) -> bool:
    found: bool = request.param
    return found


@pytest.fixture(scope="module", params=CASES, ids=str)
def read(request: pytest.FixtureRequest, parameters: bool, tmp_path_factory: pytest.TempPathFactory) -> Read:
    case: Case = request.param
    folder = tmp_path_factory.mktemp(case.bundle)
    if parameters:
        file = with_parameters(case, folder / "epoch-1.pt")
        loaded = load_with_facts([file], recipe=case.beside_parameters)
    else:
        loaded = load_with_facts([case.checkpoint], recipe=case.said)
    return Read(case, loaded, parameters, folder)


def test_modules(read: Read) -> None:
    transducer = read.loaded.transducer

    def encoder(x: Any, *others: Any) -> Sequence[Any]:
        if read.layout is None:
            return transducer.encode(torch.from_numpy(x), torch.from_numpy(others[0]))
        axes = [state.batch_axis for state in read.layout.states]
        states = [torch.from_numpy(state).movedim(axis, 0) for state, axis in zip(others, axes, strict=True)]
        out, following = transducer.encoder.streaming_forward(torch.from_numpy(x), states)
        returned = [
            state.movedim(0, spec.batch_axis)
            for state, spec in zip(following, read.layout.states, strict=True)
            if not spec.increment
        ]
        return [transducer.joiner.encoder_proj(out), *returned]

    compare(read, encoder, lambda y: [transducer.predict(torch.from_numpy(y))], _of_tensors(transducer.joiner))


def test_files(read: Read) -> None:
    if not read.parameters:
        pytest.skip("the model's modules are those with its parameters, as test_modules shows")
    files = export_onnx(read.loaded.transducer, read.folder, "epoch-1-avg-1", read.layout)
    compare(read, *(partial(run, session(file)) for file in (files.encoder, files.decoder, files.joiner)))
    for ours, icefalls in zip((files.encoder, files.decoder, files.joiner), read.case.networks.values(), strict=True):
        assert metadata(session(ours)) == metadata(icefalls)


def test_nothing_is_in_doubt_with_parameters(read: Read) -> None:
    doubts = read.loaded.doubts(streaming=read.case.streaming)
    sources = {fact.name: fact.source for fact in read.loaded.facts}
    if read.parameters:
        assert doubts == []
        assert {sources["context_size"], sources["vocab_size"], sources["feature_dim"]} == {"parameters"}
    else:
        assert not any("parameters" in source for source in sources.values())


def metadata(network: Any) -> dict[str, str]:
    found: dict[str, str] = network.get_modelmeta().custom_metadata_map
    return found


def _of_tensors(module: torch.nn.Module) -> Network:
    return lambda *arrays: [module(*map(torch.from_numpy, arrays))]


def compare(read: Read, encoder: Network, decoder: Network, joiner: Network) -> None:
    """Our three networks, which take and return what Icefall's do, with Icefall's."""
    icefalls = {name: partial(run, network) for name, network in read.case.networks.items()}
    if read.layout is None:
        encoder_out = compare_offline(encoder, icefalls["encoder"])
    else:
        encoder_out = compare_streaming(read.layout, encoder, icefalls["encoder"])
    transducer = read.loaded.transducer
    context_size, vocab_size = transducer.decoder.context_size, transducer.decoder.vocab_size
    y = np.random.default_rng(0).integers(0, vocab_size, (len(encoder_out), context_size))
    y[0, :-1] = -1
    [decoder_out] = icefalls["decoder"](y)
    assert_equal(decoder(y)[0], decoder_out)
    assert_equal(joiner(encoder_out, decoder_out)[0], icefalls["joiner"](encoder_out, decoder_out)[0])


def compare_offline(ours: Network, icefalls: Network) -> Any:
    for lengths in LENGTHS:
        x = np.full((len(lengths), max(lengths), 80), -23.025850929940457, np.float32)
        for row, length in enumerate(lengths):
            x[row, :length] = speech()[100 * row :][:length]
        out, out_lens, *_ = ours(x, np.array(lengths))  # behind them, a CTC head
        wanted, wanted_lens = icefalls(x, np.array(lengths))
        assert_equal(out_lens, wanted_lens)
        for row, length in enumerate(wanted_lens):
            assert_equal(out[row, :length], wanted[row, :length])
    return wanted[0, : wanted_lens[0]]


def compare_streaming(layout: StreamingLayout, ours: Network, icefalls: Network) -> Any:
    """Each goes on with its own states, of two streams."""
    our_states = [
        np.zeros(
            (*state.shape[: state.batch_axis], 2, *state.shape[state.batch_axis :]),
            str(state.dtype).removeprefix("torch."),
        )
        for state in layout.states
    ]
    states, outputs = our_states, []
    for chunk in range(CHUNKS):
        x = np.stack([speech()[start + chunk * layout.chunk_frames :][: layout.window_frames] for start in (0, 777)])
        if x.shape[1] < layout.window_frames:
            break
        out, *our_returned = ours(x, *our_states)
        wanted, *returned = icefalls(x, *states)
        assert_equal(out, wanted)
        del our_returned[len(returned) :]  # a CTC head
        for state, other in zip(our_returned, returned, strict=True):
            assert_equal(state, other)
        our_states = _next(layout, our_states, our_returned)
        states = _next(layout, states, returned)
        outputs.append(wanted[0])
    assert len(outputs) == CHUNKS
    return np.concatenate(outputs)


def _next(layout: StreamingLayout, states: Sequence[Any], returned: Sequence[Any]) -> list[Any]:
    following = iter(returned)
    return [
        state + spec.increment if spec.increment else np.asarray(next(following))
        for state, spec in zip(states, layout.states, strict=True)
    ]
