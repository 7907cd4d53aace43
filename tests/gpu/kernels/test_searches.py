"""Greedy and beam search in one kernel each against the definition, token for token."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from numpy.typing import ArrayLike
from torch import nn

from moulin.arrays import Floats, Ints
from moulin.decoding.found import Found
from moulin.decoding.hypotheses import OpenHypotheses
from moulin.decoding.options import METHODS, DecodingOptions, Method
from moulin.decoding.reference import search_reference
from moulin.decoding.row_options import RowOptions
from moulin.decoding.search import Continuation, Searches
from moulin.encoders.decoder import Decoder
from moulin.encoders.joiner import Joiner
from moulin.gpu.arena import AutomatonArena
from moulin.gpu.kernels.beam import beam_search, stream_beam_search
from moulin.gpu.kernels.greedy import greedy
from moulin.gpu.kernels.searches import (
    NUM_OPTIONS,
    FoundTensors,
    SearchOptions,
    SlotMemory,
    StreamSearches,
    write_options,
)
from moulin.gpu.predictor import Predictor

TABLE_BYTES, NO_TABLE = 1 << 30, 0
LENGTHS = [20, 1, 11, 15, 6, 0]
BEAM: Method = "modified_beam_search"


@dataclass(frozen=True)
class Network:
    """The plain form, as the reference searches take it."""

    decoder_module: Decoder
    joiner_module: Joiner
    skipped_ids: tuple[int, ...]

    @property
    def context_size(self) -> int:
        return self.decoder_module.context_size

    def decoder(self, y: Ints) -> Floats:
        out: Floats = self.joiner_module.decoder_proj(self.decoder_module(torch.from_numpy(y))).numpy()
        return out

    def joiner(self, encoder_out: Floats, decoder_out: Floats) -> Floats:
        out: Floats = self.joiner_module(torch.from_numpy(encoder_out), torch.from_numpy(decoder_out)).numpy()
        return out


# Vocabulary, joiner and decoder channels, context, whether one token of context has a ReLU, what blank is favoured by,
# <unk>. The large vocabularies are larger than what a kernel holds at once; four tokens of one have 2^37 contexts.
Sizes = tuple[int, int, int, int, bool, float, int]
CASES: dict[str, Sizes] = {
    "odd": (37, 21, 10, 2, True, 4.0, 2),
    "large vocabulary": (600, 32, 24, 2, True, 5.0, -1),
    "two tokens in all": (2, 19, 7, 2, True, 0.5, -1),
    "one token of context": (20, 16, 8, 1, True, 1.0, -1),
    "one token without a ReLU": (20, 16, 9, 1, False, 1.0, -1),
    "three tokens of context": (29, 13, 11, 3, True, 3.0, 2),
    "four of a large vocabulary": (600, 27, 13, 4, True, 5.0, -1),
}


@pytest.fixture(params=list(CASES.values()), ids=list(CASES))
def network(request: pytest.FixtureRequest) -> Network:
    return random_network(request.param)


def random_network(sizes: Sizes) -> Network:
    vocab_size, joiner_dim, dim, context_size, relu, blank, unk = sizes
    decoder = Decoder(vocab_size, dim, context_size, groups=dim if context_size > 1 else 1, bigram_relu=relu)
    joiner = Joiner(20, dim, joiner_dim, vocab_size)
    for parameter in [*decoder.parameters(), *joiner.parameters()]:
        nn.init.normal_(parameter, std=0.5)
    joiner.output_linear.bias[0] += blank
    return Network(decoder, joiner, (0,) if unk < 0 else (0, unk))


@pytest.fixture(params=[TABLE_BYTES, NO_TABLE], ids=["table", "no table"])
def predictor(request: pytest.FixtureRequest, network: Network, device: torch.device) -> Predictor:
    predictor = on_device(network, device, max_table_bytes=request.param)
    if predictor.histories > 1 << 20 and request.param:
        pytest.skip("too many contexts for a table")
    assert (predictor.scratch(1) is None) == (request.param > 0)
    return predictor


def on_device(network: Network, device: torch.device, max_table_bytes: int = 1 << 30) -> Predictor:
    return Predictor.of(
        network.decoder_module,
        network.joiner_module,
        device=device,
        dtype=torch.float32,
        unk_id=network.skipped_ids[1] if len(network.skipped_ids) > 1 else -1,
        max_table_bytes=max_table_bytes,
    )


def tensor(values: ArrayLike, device: torch.device, dtype: torch.dtype = torch.int32) -> torch.Tensor:
    return torch.tensor(np.asarray(values), dtype=dtype, device=device)


def on_card(options: RowOptions, device: torch.device, arena: AutomatonArena | None = None) -> SearchOptions:
    roots = np.zeros((len(options), 2), np.int32) if arena is None else arena.place(options.graphs)
    memory = np.zeros((NUM_OPTIONS, len(options)), np.int32)
    write_options(memory, options, roots)
    return SearchOptions.of(torch.from_numpy(memory).to(device))


def on_card_at(at: Continuation, memory: SlotMemory, device: torch.device) -> StreamSearches:
    slots, fresh, decided, kept = (tensor(values, device) for values in (at.slots, at.fresh, at.decided, at.kept))
    return StreamSearches(slots, fresh, decided, kept, memory)


def searched(
    encoder_out: torch.Tensor, lengths: Sequence[int], options: RowOptions, predictor: Predictor, device: torch.device
) -> Found:
    """By both kernels, each of which finds the other's rows beside its own, and memory full of something else."""
    batch, frames, _ = encoder_out.shape
    found = FoundTensors.empty(batch, frames, 1, device)
    found.memory.fill_(77)
    arguments = encoder_out.to(device), tensor(lengths, device), on_card(options, device), predictor, found
    greedy(*arguments)
    beam_search(*arguments, beam=options.places)
    return FoundTensors.of(found.memory.cpu(), batch, frames).read(options.beams)


def check(found: Found, network: Network, encoder_out: torch.Tensor, options: RowOptions, *, least: int = 15) -> None:
    wanted = search_reference(network, encoder_out.numpy(), np.array(LENGTHS, dtype=np.int64), options).hypotheses()
    assert sum(len(hypothesis.tokens) for hypothesis in wanted) > least
    for hypothesis, ours in zip(wanted, found.hypotheses(), strict=True):
        assert ours.tokens == hypothesis.tokens
        assert ours.frames == hypothesis.frames
        np.testing.assert_allclose(ours.log_probs, hypothesis.log_probs, atol=1e-4)
        assert ours.score == pytest.approx(hypothesis.score, abs=1e-3)
    assert not found.origins.any()


def frames_of(network: Network, rows: int, frames: int) -> torch.Tensor:
    return torch.randn(rows, frames, network.joiner_module.joiner_dim) * 1.5


# All options for every network; greedy search and beams both with a table and without.
@pytest.mark.parametrize(
    ("predictor", "options"),
    [
        pytest.param(TABLE_BYTES, DecodingOptions(), id="greedy, table"),
        pytest.param(NO_TABLE, DecodingOptions(blank_penalty=1.5, temperature=2.0), id="greedy, no table"),
        pytest.param(NO_TABLE, DecodingOptions(BEAM, 1), id="beam 1, no table"),
        pytest.param(TABLE_BYTES, DecodingOptions(BEAM, 4, temperature=2.0, blank_penalty=1.5), id="beam 4, table"),
        pytest.param(NO_TABLE, DecodingOptions(BEAM, 6), id="beam 6, no table"),
    ],
    indirect=["predictor"],
)
def test_one_set_of_options(
    network: Network, predictor: Predictor, options: DecodingOptions, device: torch.device
) -> None:
    encoder_out, rows = frames_of(network, len(LENGTHS), max(LENGTHS)), RowOptions.of([options] * len(LENGTHS))
    check(searched(encoder_out, LENGTHS, rows, predictor, device), network, encoder_out, rows)


@pytest.mark.parametrize("options", [DecodingOptions(), DecodingOptions(BEAM, 4, temperature=2.0, blank_penalty=1.5)])
def test_more_contexts_than_a_table_has(options: DecodingOptions, device: torch.device) -> None:
    network = random_network(CASES["four of a large vocabulary"])
    encoder_out, rows = frames_of(network, len(LENGTHS), max(LENGTHS)), RowOptions.of([options] * len(LENGTHS))
    predictor = on_device(network, device, max_table_bytes=NO_TABLE)
    check(searched(encoder_out, LENGTHS, rows, predictor, device), network, encoder_out, rows)


def test_options_of_their_own(network: Network, predictor: Predictor, device: torch.device) -> None:
    encoder_out = frames_of(network, len(LENGTHS), max(LENGTHS))
    rows = RowOptions.of(
        [
            DecodingOptions(BEAM, 5, temperature=2.0),
            DecodingOptions(BEAM, 1, blank_penalty=2.0),
            DecodingOptions(temperature=3.0, blank_penalty=1.0),
            DecodingOptions(BEAM, 2, blank_penalty=1.5),
            DecodingOptions(),
            DecodingOptions(BEAM, 3),
        ]
    )
    check(searched(encoder_out, LENGTHS, rows, predictor, device), network, encoder_out, rows)


@pytest.mark.parametrize("beam", [10, 32])
def test_a_beam_larger_than_the_vocabulary(beam: int, device: torch.device) -> None:
    decoder, joiner = Decoder(9, 8, 2, groups=8), Joiner(8, 8, 16, 9)
    network = Network(decoder, joiner, (0,))
    encoder_out = frames_of(network, len(LENGTHS), max(LENGTHS))
    rows = RowOptions.of([DecodingOptions(BEAM, beam), DecodingOptions(), *[DecodingOptions(BEAM, beam)] * 4])
    found = searched(encoder_out, LENGTHS, rows, on_device(network, device), device)
    check(found, network, encoder_out, rows)


@pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")  # the interpreter's, of NaN
@pytest.mark.filterwarnings("ignore:All-NaN slice encountered:RuntimeWarning")
def test_nan_stays_in_its_row(network: Network, device: torch.device) -> None:
    encoder_out = frames_of(network, 6, max(LENGTHS))
    rows = RowOptions.of([DecodingOptions(), DecodingOptions(BEAM)] * 3)
    predictor = on_device(network, device)
    wanted = searched(encoder_out, LENGTHS, rows, predictor, device).hypotheses()
    encoder_out[2:4, 3:] = torch.nan
    found = searched(encoder_out, LENGTHS, rows, predictor, device)
    assert np.isfinite(found.scores[:, 0]).tolist() == [True, True, False, False, True, True]
    for row in (0, 1, 4, 5):
        ours = found.hypotheses()[row]
        assert (ours.tokens, ours.frames) == (wanted[row].tokens, wanted[row].frames)
        assert ours.score == pytest.approx(wanted[row].score, abs=1e-4)


def test_streams(network: Network, predictor: Predictor, device: torch.device) -> None:
    """Searches that go on in slots of their own, each with its options, against the searches on the host. The slots
    hold what others have left. After the first and the third chunk it is decided for the best hypotheses of some."""
    each = RowOptions.of(
        [
            DecodingOptions(BEAM, 4, temperature=1.5, blank_penalty=1.0),
            DecodingOptions(temperature=2.0),
            DecodingOptions(BEAM, 2, temperature=1.5, blank_penalty=1.0),
            DecodingOptions(blank_penalty=1.5),
            DecodingOptions(BEAM, 3, temperature=1.5, blank_penalty=1.0),
        ]
    )
    chunk = 8 if device.type == "cuda" else 4  # the interpreter takes its time
    slots, places, rows = np.array([4, 0, 1, 6, 2]), 4, 5
    encoder_out = frames_of(network, rows, 5 * chunk)
    memory = SlotMemory.zeros(7, places, device, predictor.context_dtype)
    for part in memory:
        part.fill_(7)
    on_host = Searches(network, slots=7, places=places, joiner_dim=encoder_out.shape[2])
    ours, wanted = (OpenHypotheses(7, places, network.context_size) for _ in range(2))
    for number in range(5):
        fresh = np.full(rows, number == 0)
        # The fourth stream's search begins anew.
        fresh[3] |= number == 2
        if number == 2:
            ours.clear(6)
            wanted.clear(6)
        part = encoder_out[:, chunk * number : chunk * (number + 1)].contiguous()
        at = Continuation(slots, fresh, ours.decided[slots], ours.kept[slots])
        found = FoundTensors.empty(rows, chunk, places, device)
        found.memory.fill_(77)
        streams = on_card_at(at, memory, device)
        arguments = part.to(device), tensor([chunk] * rows, device), on_card(each, device), predictor, found, streams
        stream_beam_search(*arguments)
        greedy(*arguments)
        lengths = np.full(rows, chunk)
        first_frames = np.full(rows, chunk * number)
        ours.decided[slots] = wanted.decided[slots] = -1
        ours.advance(slots, FoundTensors.of(found.memory.cpu(), rows, chunk).read(each.beams), first_frames)
        wanted.advance(slots, on_host.advance(at, part.numpy(), lengths, each), first_frames)
        for slot in slots.tolist():
            heard, plain = ours.hypothesis(slot), wanted.hypothesis(slot)
            assert (heard.tokens, heard.frames) == (plain.tokens, plain.frames)
            np.testing.assert_allclose(heard.log_probs, plain.log_probs, atol=1e-4)
            assert heard.score == pytest.approx(plain.score, abs=1e-3)
        if number in (0, 2):
            for slot in slots[number : number + 3].tolist():
                for hypotheses in (ours, wanted):
                    hypotheses.drop(slot, hypotheses.count(slot) // 2)
    assert sum(wanted.count(slot) for slot in slots.tolist()) > 20
    assert all((part[[3, 5]] == 7).all() for part in memory)


@pytest.mark.parametrize("method", METHODS)
def test_a_streams_score_is_since_the_decision(method: Method, network: Network, device: torch.device) -> None:
    encoder_out = frames_of(network, 1, 24)
    options = RowOptions.of([DecodingOptions(method)])
    predictor, scores = on_device(network, device), []
    memory = SlotMemory.zeros(1, 4, device, predictor.context_dtype)
    for number, decided in enumerate([-1, -1, 0]):
        found = FoundTensors.empty(1, 8, 4, device)
        at = Continuation(np.zeros(1, np.int64), *(np.array([value]) for value in (number == 0, decided, 0)))
        streams = on_card_at(at, memory, device)
        part = encoder_out[:, 8 * number : 8 * number + 8].contiguous().to(device)
        search = greedy if method == "greedy" else stream_beam_search
        search(part, tensor([8], device), on_card(options, device), predictor, found, streams)
        scores.append(float(FoundTensors.of(found.memory.cpu(), 1, 8).read(options.beams).scores.max()))
    one = [search_reference(network, encoder_out[:, :end].numpy(), np.array([end]), options) for end in (8, 16)]
    if method == "greedy":
        assert scores[:2] == pytest.approx([float(found.scores[0, 0]) for found in one], abs=1e-3)
    assert scores[1] < scores[0] < 0
    assert scores[1] < scores[2] < 0


@pytest.mark.parametrize("sizes", [(5_003, 21, 10, 1, True, 6.0, 2), (20_000, 18, 9, 2, True, 5.0, -1)])
def test_a_vocabulary_of_thousands(sizes: Sizes, device: torch.device) -> None:
    network = random_network(sizes)
    encoder_out = frames_of(network, len(LENGTHS), max(LENGTHS))
    rows = RowOptions.of([DecodingOptions(BEAM, 3), DecodingOptions(), *[DecodingOptions(BEAM, 2)] * 4])
    check(searched(encoder_out, LENGTHS, rows, on_device(network, device), device), network, encoder_out, rows)


def test_more_contexts_than_64_bits_number(device: torch.device) -> None:
    with pytest.raises(ValueError, match="got one that sees 16 of 17 tokens"):
        Predictor.of(Decoder(17, 8, 16, groups=8), Joiner(8, 8, 16, 17), device=device, dtype=torch.float32)
