"""Beam search in its kernel with hotwords, language models and several hypotheses against the searches on the host."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from moulin.decoding.context_graph import ContextGraph
from moulin.decoding.found import Found, Hypothesis
from moulin.decoding.hypotheses import OpenHypotheses
from moulin.decoding.language_model import Fusion
from moulin.decoding.options import DecodingOptions
from moulin.decoding.reference import search_reference
from moulin.decoding.row_graphs import NO_GRAPHS, Graphs
from moulin.decoding.row_options import RowOptions
from moulin.decoding.search import Continuation, Searches, search
from moulin.encoders.decoder import Decoder
from moulin.encoders.joiner import Joiner
from moulin.gpu.arena import AutomatonArena
from moulin.gpu.graphs import power_of_two
from moulin.gpu.kernels.beam import beam_search, stream_beam_search
from moulin.gpu.kernels.greedy import greedy
from moulin.gpu.kernels.searches import FoundTensors, SlotMemory
from tests.decoding.test_search_with_language_model import both

from .test_searches import Network, frames_of, on_card, on_card_at, on_device, tensor

LENGTHS = [12, 10, 11, 12, 0, 9]
VOCABULARY = 11  # that of the tests of language models
BEAM = DecodingOptions("modified_beam_search")


@pytest.fixture
def network() -> Network:
    decoder, joiner = Decoder(VOCABULARY, 8, 2, groups=8), Joiner(20, 8, 16, VOCABULARY)
    for parameter in [*decoder.parameters(), *joiner.parameters()]:
        nn.init.normal_(parameter, std=0.5)
    joiner.output_linear.bias[0] += 1.5
    return Network(decoder, joiner, (0, 2))


@pytest.fixture
def encoder_out(network: Network) -> torch.Tensor:
    return frames_of(network, len(LENGTHS), max(LENGTHS))


def searched(
    encoder_out: torch.Tensor,
    options: RowOptions,
    network: Network,
    device: torch.device,
    *,
    server: ContextGraph | None = None,
    fusion: Fusion | None = None,
) -> Found:
    """By both kernels, with all hypotheses, the best first."""
    batch, frames, _ = encoder_out.shape
    places = power_of_two(options.places) if options.wants_others.any() else 1
    found = FoundTensors.empty(batch, frames, places, device)
    found.memory.fill_(77)
    arena = AutomatonArena(device, rows=4000, server=server, fusion=fusion)
    at = on_card(options, device, arena)
    arguments = encoder_out.to(device), tensor(LENGTHS, device), at, on_device(network, device), found
    greedy(*arguments)
    beam_search(*arguments, arena.tables, beam=options.places)
    read = FoundTensors.of(found.memory.cpu(), batch, frames).read(options.beams)
    return read.ranked(network.context_size)


def equal(ours: Sequence[Hypothesis], wanted: Sequence[Hypothesis]) -> None:
    assert len(ours) == len(wanted)
    for one, other in zip(ours, wanted, strict=True):
        assert (one.tokens, one.frames) == (other.tokens, other.frames)
        np.testing.assert_allclose(one.log_probs, other.log_probs, atol=1e-4)
        assert one.score == pytest.approx(other.score, abs=1e-4)
        equal(one.others, other.others)


def said(network: Network, encoder_out: torch.Tensor, options: RowOptions) -> list[tuple[int, ...]]:
    """What is heard without hotwords."""
    plain = replace(options, graphs=np.full_like(options.graphs, None))
    found = search_reference(network, encoder_out.numpy(), np.array(LENGTHS), plain)
    return [one.tokens for one in found.hypotheses()]


def phrases(kind: str, tokens: tuple[int, ...], seed: int) -> dict[tuple[int, ...], float]:
    """Hotwords for a text of `tokens`, which is at hand or nearly so."""
    chosen = random.Random(seed)
    some = [3, *tokens, 4, 5, 6]
    begin = chosen.randrange(len(some) - 3)
    a, b, c, d = some[begin : begin + 4]
    match kind:
        case "one":
            return {(a, b, c): 1.5}
        case "overlapping":
            return {(a, b, c): 1.0, (b, c, d): 2.0, (c, d, a): 3.0, (d, b): 1.0}
        case "shared beginnings":
            return {(a, b, 7): 2.0, (a, b, 8): 1.0, (a, 9): 3.0, (a, b, c, d): 0.5}
        case "one within another":
            return {(a, b, c, d): 1.0, (b, c): 2.0, (c,): 0.5, (d, d, d): 4.0}
    return {
        tuple(chosen.choices(range(3, VOCABULARY), k=chosen.randint(1, 4))): chosen.choice([0.5, 1.5, 4.0])
        for _ in range(30)
    }


KINDS = ["one", "overlapping", "shared beginnings", "one within another", "many", "many"]


@pytest.mark.parametrize("beam", [1, 2, 4, 8])
def test_hotwords(beam: int, network: Network, encoder_out: torch.Tensor, device: torch.device) -> None:
    options = RowOptions.of([replace(BEAM, beam=beam)] * len(LENGTHS))
    texts = said(network, encoder_out, options)
    for row, (kind, text) in enumerate(zip(KINDS, texts, strict=True)):
        options.graphs[row, 1] = ContextGraph.of(phrases(kind, text, 10 * beam + row))
    wanted = search_reference(network, encoder_out.numpy(), np.array(LENGTHS), options).hypotheses()
    if beam > 2:
        assert [one.tokens for one in wanted] != texts
    equal(searched(encoder_out, options, network, device).hypotheses(), wanted)


def test_each_row_has_its_own(network: Network, encoder_out: torch.Tensor, device: torch.device) -> None:
    """The server's and its own, one of them, or none, with beams and options of all kinds; some want several texts."""
    asked = [
        BEAM,
        replace(BEAM, beam=2),
        DecodingOptions(),
        replace(BEAM, beam=7, nbest=5, temperature=1.5),
        replace(BEAM, beam=3),
        replace(BEAM, beam=1, nbest=3, blank_penalty=1.0),
    ]
    server = ContextGraph.of(phrases("many", (), 1))
    own = [ContextGraph.of(phrases("many", (), 10 + row)) for row in range(len(LENGTHS))]
    graphs: list[Graphs] = [
        (server, own[0]),
        (None, own[1]),
        NO_GRAPHS,
        (None, own[3]),
        (server, None),
        (server, own[5]),
    ]
    options = RowOptions.of(asked, graphs)
    wanted = search_reference(network, encoder_out.numpy(), np.array(LENGTHS), options)
    found = searched(encoder_out, options, network, device, server=server)
    texts = found.hypotheses(options.wants_others)
    equal(texts, wanted.hypotheses(options.wants_others))
    assert [len(one.others) for one in texts][3:] == [6, 0, 2]
    alone = [searched_row(row, encoder_out, options, network, device, server) for row in (0, 3)]
    equal([texts[0], texts[3]], alone)


def searched_row(
    row: int,
    encoder_out: torch.Tensor,
    options: RowOptions,
    network: Network,
    device: torch.device,
    server: ContextGraph,
) -> Hypothesis:
    """The row in a batch whose others are its copies without hotwords."""
    rows = np.full(len(LENGTHS), row)
    same = options.take(rows)
    same.graphs[np.arange(len(rows)) != row] = None
    found = searched(encoder_out, same, network, device, server=server)
    return found.hypotheses(same.wants_others)[row]


def test_rows_without_are_the_same_to_the_bit(
    network: Network, encoder_out: torch.Tensor, device: torch.device
) -> None:
    """By the kernel that knows of hotwords and language models as by the one that does not."""
    fusion, _ = both("words", 0)
    options = RowOptions.of([BEAM] * len(LENGTHS))
    plain = FoundTensors.empty(len(LENGTHS), max(LENGTHS), 1, device)
    at = on_card(options, device)
    beam_search(encoder_out.to(device), tensor(LENGTHS, device), at, on_device(network, device), plain, beam=4)
    wanted = FoundTensors.of(plain.memory.cpu(), len(LENGTHS), max(LENGTHS)).read(options.beams).hypotheses()
    assert searched(encoder_out, options, network, device, fusion=fusion).hypotheses() == wanted
    options.lm_scales[3], options.graphs[1, 1] = 0.5, ContextGraph.of({(3,): 1.0})
    beside = searched(encoder_out, options, network, device, fusion=fusion).hypotheses()
    assert [beside[row] for row in (0, 2, 4, 5)] == [wanted[row] for row in (0, 2, 4, 5)]
    assert beside[3].score != wanted[3].score


@pytest.mark.parametrize("kind", ["tokens", "words", "with lodr"])
def test_language_models(kind: str, network: Network, encoder_out: torch.Tensor, device: torch.device) -> None:
    """Rows with several weights, with and without hotwords beside it, and without."""
    fusion, plain = both(kind, 5)
    lodr = 0.2 if fusion.lodr is not None else None
    asked = [
        replace(BEAM, lm_scale=0.5, lodr_scale=lodr),
        replace(BEAM, beam=2, lm_scale=1.0),
        DecodingOptions(),
        replace(BEAM, beam=8, lm_scale=0.25, lodr_scale=lodr, nbest=4),
        BEAM,
        replace(BEAM, lm_scale=0.4, lodr_scale=lodr),
    ]
    graph = ContextGraph.of(phrases("many", (), 3))
    graphs: list[Graphs] = [NO_GRAPHS, (None, graph), NO_GRAPHS, NO_GRAPHS, NO_GRAPHS, (None, graph)]
    options = RowOptions.of(asked, graphs)
    wanted = search_reference(network, encoder_out.numpy(), np.array(LENGTHS), options, language_model=plain)
    found = searched(encoder_out, options, network, device, fusion=fusion)
    equal(found.hypotheses(options.wants_others), wanted.hypotheses(options.wants_others))


def test_256_rows_with_as_many_graphs(network: Network, device: torch.device) -> None:
    rows, frames = (256, 12) if device.type == "cuda" else (6, 6)
    encoder_out, lengths = frames_of(network, rows, frames), np.full(rows, frames)
    options = RowOptions.of([BEAM] * rows)
    for row in range(rows):
        options.graphs[row, 1] = ContextGraph.of(phrases("many", (), row))
    arena = AutomatonArena(device, rows=rows * 100)
    found = FoundTensors.empty(rows, frames, 1, device)
    at = on_card(options, device, arena)
    beam_search(
        encoder_out.to(device), tensor(lengths, device), at, on_device(network, device), found, arena.tables, beam=4
    )
    ours = FoundTensors.of(found.memory.cpu(), rows, frames).read(options.beams).hypotheses()
    wanted = search(network, encoder_out.numpy(), lengths, options).hypotheses()
    equal(ours, wanted)
    plain = search(network, encoder_out.numpy(), lengths, RowOptions.of([BEAM] * rows)).hypotheses()
    assert sum(one.tokens != other.tokens for one, other in zip(wanted, plain, strict=True)) > rows / 4


@pytest.mark.parametrize("kind", ["tokens", "words", "with lodr"])
def test_streams(kind: str, network: Network, device: torch.device) -> None:
    """Streams with different graphs and weights in one step. Between steps their graphs lose their places in the arena;
    segments close, after all words and before the last ones, and a search begins anew with another graph."""
    fusion, _ = both(kind, 2)
    server = ContextGraph.of(phrases("many", (), 1))
    own = [ContextGraph.of(phrases("many", (), 20 + row)) for row in range(6)]
    each = RowOptions.of(
        [
            replace(BEAM, lm_scale=0.5, temperature=1.5),
            DecodingOptions(temperature=2.0),
            replace(BEAM, beam=2),
            replace(BEAM, beam=4, lm_scale=0.3, lodr_scale=0.1 if fusion.lodr else None),
            replace(BEAM, beam=3, blank_penalty=0.5),
        ],
        [(server, own[0]), NO_GRAPHS, (None, own[2]), NO_GRAPHS, (server, None)],
    )
    rows, chunk, places = 5, 4, 4
    slots = np.array([4, 0, 1, 6, 2])
    encoder_out = frames_of(network, rows, 6 * chunk)
    memory = SlotMemory.zeros(7, places, device)
    for part in memory:
        part.fill_(7)
    arena = AutomatonArena(device, rows=3 * max(len(graph) + 1 for graph in own), server=server, fusion=fusion)
    predictor = on_device(network, device)
    on_host = Searches(network, slots=7, places=places, joiner_dim=encoder_out.shape[2], fusion=fusion)
    ours, wanted = (OpenHypotheses(7, places, network.context_size) for _ in range(2))
    said = 0
    for number in range(6):
        fresh = np.full(rows, number == 0)
        if number == 3:
            fresh[2], each.graphs[2] = True, (server, own[5])
            ours.clear(1)
            wanted.clear(1)
        part = encoder_out[:, chunk * number : chunk * (number + 1)].contiguous()
        at = Continuation(slots, fresh, ours.decided[slots], ours.kept[slots])
        found = FoundTensors.empty(rows, chunk, places, device)
        found.memory.fill_(77)
        streams = on_card_at(at, memory, device)
        on = on_card(each, device, arena)
        arguments = part.to(device), tensor([chunk] * rows, device), on, predictor, found, streams
        stream_beam_search(*arguments, arena.tables)
        greedy(*arguments)
        first_frames = np.full(rows, chunk * number)
        ours.decided[slots] = wanted.decided[slots] = -1
        ours.advance(slots, FoundTensors.of(found.memory.cpu(), rows, chunk).read(each.beams), first_frames)
        wanted.advance(slots, on_host.advance(at, part.numpy(), np.full(rows, chunk), each), first_frames)
        for row, slot in enumerate(slots.tolist()):
            equal(ours.ranked(slot, places), wanted.ranked(slot, places))
            said += len(wanted.hypothesis(slot).tokens)
            if each.beams[row] and np.isfinite(ours.hypothesis(slot).score):
                alive = np.isfinite(on_host._beams.scores[slot])
                states = memory.context_states[slot].cpu().numpy()
                assert np.array_equal(states[alive], on_host._beams.context_states[slot][alive])
        for slot in slots[number : number + 2].tolist():
            for hypotheses in (ours, wanted):
                hypotheses.drop(slot, hypotheses.count(slot) // (1 + number % 2))
        arena.place(np.array([[None, own[3]], [None, own[4]]]))
    assert said > 60


def test_a_wider_search_than_its_own_list_needs(network: Network, device: torch.device) -> None:
    """n-best of a batch whose beams are no powers of two."""
    encoder_out = frames_of(network, len(LENGTHS), max(LENGTHS))
    options = RowOptions.of([replace(BEAM, beam=beam, nbest=2) for beam in (2, 3, 5, 6, 2, 3)])
    wanted = search_reference(network, encoder_out.numpy(), np.array(LENGTHS), options)
    found = searched(encoder_out, options, network, device)
    equal(found.hypotheses(options.wants_others), wanted.hypotheses(options.wants_others))
    assert found.scores.shape[1] == 8
