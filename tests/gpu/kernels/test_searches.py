"""Greedy and beam search in one kernel against the definitions, token for token."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import nn

from moulin.arrays import Floats, Ints
from moulin.decoding.options import DecodingOptions
from moulin.decoding.search import REFERENCE_SEARCHES, SEARCHES
from moulin.encoders.decoder import Decoder
from moulin.encoders.joiner import Joiner
from moulin.gpu.kernels.beam import Beams, beam_search, stream_beam_search
from moulin.gpu.kernels.greedy import Found, GoingOn, greedy
from moulin.gpu.predictor import Predictor

LENGTHS = [20, 1, 11, 15, 6]


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
# <unk>. The second vocabulary is larger than what a kernel holds at once.
CASES = [
    (37, 21, 10, 2, True, 4.0, 2),
    (600, 32, 24, 2, True, 5.0, -1),
    (20, 16, 8, 1, True, 1.0, -1),
    (20, 16, 9, 1, False, 1.0, -1),
]


@pytest.fixture(params=CASES, ids=["odd", "large vocabulary", "one token of context", "one token without a ReLU"])
def network(request: pytest.FixtureRequest) -> Network:
    vocab_size, joiner_dim, dim, context_size, relu, blank, unk = request.param
    decoder = Decoder(vocab_size, dim, context_size, groups=dim if context_size > 1 else 1, bigram_relu=relu)
    joiner = Joiner(20, dim, joiner_dim, vocab_size)
    for parameter in [*decoder.parameters(), *joiner.parameters()]:
        nn.init.normal_(parameter, std=0.5)
    joiner.output_linear.bias[0] += blank
    return Network(decoder, joiner, (0,) if unk < 0 else (0, unk))


@pytest.fixture(params=[1 << 30, 0], ids=["table", "no table"])
def predictor(request: pytest.FixtureRequest, network: Network, device: torch.device) -> Predictor:
    predictor = Predictor.of(
        network.decoder_module,
        network.joiner_module,
        device=device,
        dtype=torch.float32,
        max_table_bytes=request.param,
    )
    assert (predictor.hidden is None) == (request.param > 0)
    return predictor


def check(found: Found, network: Network, encoder_out: torch.Tensor, options: DecodingOptions) -> None:
    search = REFERENCE_SEARCHES[options.method]
    wanted = search(network, encoder_out.numpy(), np.array(LENGTHS, dtype=np.int64), options)
    assert sum(len(hypothesis.tokens) for hypothesis in wanted) > 20
    for row, hypothesis in enumerate(wanted):
        count = int(found.counts[row])
        assert tuple(found.tokens[row, :count].tolist()) == hypothesis.tokens
        assert tuple(found.frames[row, :count].tolist()) == hypothesis.frames
        np.testing.assert_allclose(found.log_probs[row, :count].cpu(), hypothesis.log_probs, atol=1e-4)
        assert float(found.scores[row]) == pytest.approx(hypothesis.score, abs=1e-3)


def inputs(network: Network, device: torch.device) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    encoder_out = torch.randn(len(LENGTHS), max(LENGTHS), network.joiner_module.joiner_dim) * 1.5
    return encoder_out, encoder_out.to(device), torch.tensor(LENGTHS, dtype=torch.int32, device=device)


@pytest.mark.parametrize(("blank_penalty", "temperature"), [(0.0, 1.0), (1.5, 2.0)])
def test_greedy(
    network: Network, predictor: Predictor, blank_penalty: float, temperature: float, device: torch.device
) -> None:
    options = DecodingOptions(blank_penalty=blank_penalty, temperature=temperature)
    encoder_out, on_device, lengths = inputs(network, device)
    unk = network.skipped_ids[1] if len(network.skipped_ids) > 1 else -1
    found = greedy(on_device, lengths, predictor, unk_id=unk, blank_penalty=blank_penalty, temperature=temperature)
    check(found, network, encoder_out, options)


def test_greedy_in_chunks(network: Network, predictor: Predictor, device: torch.device) -> None:
    """Three streams in slots of their own, each with its options; the slot of the last has another's context in it."""
    each = [DecodingOptions(), DecodingOptions(blank_penalty=1.5), DecodingOptions(temperature=2.0)]
    encoder_out = torch.randn(3, 24, network.joiner_module.joiner_dim) * 1.5
    slots, contexts = [4, 0, 2], torch.full((5, 2), 3, dtype=torch.int32, device=device)
    lengths = torch.full((3,), 8, dtype=torch.int32, device=device)

    def tensor(values: Sequence[float], dtype: torch.dtype = torch.float32) -> torch.Tensor:
        return torch.tensor(values, dtype=dtype, device=device)

    said: list[list[tuple[int, int]]] = [[], [], []]
    for chunk in range(3):
        at = GoingOn(
            tensor(slots, torch.int32),
            tensor([chunk == 0] * 3, torch.int32),
            tensor([options.blank_penalty for options in each]),
            tensor([1 / options.temperature for options in each]),
        )
        part = encoder_out[:, 8 * chunk : 8 * chunk + 8].contiguous().to(device)
        unk = network.skipped_ids[1] if len(network.skipped_ids) > 1 else -1
        found = greedy(part, lengths, predictor, unk_id=unk, going_on=at, contexts=contexts)
        for row, tokens in enumerate(said):
            for index in range(int(found.counts[row])):
                tokens.append((int(found.tokens[row, index]), 8 * chunk + int(found.frames[row, index])))
    for row, options in enumerate(each):
        wanted = REFERENCE_SEARCHES["greedy"](
            network, encoder_out[row : row + 1].numpy(), np.array([24], dtype=np.int64), options
        )[0]
        assert said[row] == list(zip(wanted.tokens, wanted.frames, strict=True))
    assert sum(map(len, said)) > 10
    assert contexts[[1, 3]].tolist() == [[3, 3], [3, 3]]


@pytest.mark.parametrize(("beam", "blank_penalty", "temperature"), [(1, 0.0, 1.0), (4, 1.5, 2.0), (6, 0.0, 1.0)])
def test_modified_beam_search(
    network: Network, predictor: Predictor, beam: int, blank_penalty: float, temperature: float, device: torch.device
) -> None:
    options = DecodingOptions("modified_beam_search", beam, temperature, blank_penalty)
    encoder_out, on_device, lengths = inputs(network, device)
    unk = network.skipped_ids[1] if len(network.skipped_ids) > 1 else -1
    found = beam_search(
        on_device,
        lengths,
        predictor,
        beam=beam,
        unk_id=unk,
        blank_penalty=blank_penalty,
        temperature=temperature,
    )
    check(found, network, encoder_out, options)


def test_beams_in_chunks(network: Network, predictor: Predictor, device: torch.device) -> None:
    """Streams in slots of their own, with beams of their own, beside one that is left alone; the slots hold what others
    have left. The second stream's best hypothesis is decided for after its first chunk."""
    sizes, slots, places = [4, 2, 0, 3], [4, 0, 1, 2], 4
    each = [DecodingOptions("modified_beam_search", size or 1, 1.5, 1.0) for size in sizes]
    encoder_out = torch.randn(4, 24, network.joiner_module.joiner_dim) * 1.5

    def tensor(values: Sequence[float], dtype: torch.dtype = torch.int32) -> torch.Tensor:
        return torch.tensor(values, dtype=dtype, device=device)

    memory = Beams.memory(5, places, device)
    for tensor_of_slots in memory:
        tensor_of_slots.fill_(7)
    states = [SEARCHES["modified_beam_search"].start(network, 1, options)[0] for options in each]
    said: list[list[list[tuple[int, int]]]] = [[[] for _ in range(places)] for _ in sizes]
    scores = np.zeros((4, places))
    decided, kept = [-1] * 4, [0] * 4
    unk = network.skipped_ids[1] if len(network.skipped_ids) > 1 else -1
    for chunk in range(3):
        part = encoder_out[:, 8 * chunk : 8 * chunk + 8].contiguous()
        going_on = GoingOn(
            tensor(slots),
            tensor([chunk == 0] * 4),
            tensor([options.blank_penalty for options in each], torch.float32),
            tensor([1 / options.temperature for options in each], torch.float32),
        )
        beams = Beams(*memory, tensor(sizes), tensor(decided), tensor(kept))
        found = stream_beam_search(part.to(device), tensor([8] * 4), predictor, going_on, beams, unk_id=unk)
        for row in (0, 1, 3):
            SEARCHES["modified_beam_search"].advance(
                network, [states[row]], part[row : row + 1].numpy(), np.array([8], dtype=np.int64), each[row]
            )
            before = said[row]
            said[row] = [before[int(found.origins[row, place])].copy() for place in range(places)]
            scores[row] = found.scores[row].cpu()
            for place in range(places):
                for index in range(int(found.counts[row, place])):
                    at = 8 * chunk + int(found.frames[row, place, index])
                    said[row][place].append((int(found.tokens[row, place, index]), at))
            assert (scores[row, sizes[row] :] == -np.inf).all()
            best = int((scores[row] / ([len(tokens) + network.context_size for tokens in said[row]])).argmax())
            wanted = states[row].hypothesis()
            assert said[row][best] == list(zip(wanted.tokens, wanted.frames, strict=True))
            assert scores[row, best] == pytest.approx(wanted.score, abs=1e-3)
        decided, kept = [-1] * 4, [0] * 4
        if chunk == 0:
            count = len(said[1][0]) // 2
            row_best = int((scores[1] / ([len(tokens) + network.context_size for tokens in said[1]])).argmax())
            said[1] = [said[1][row_best][count:]] * places
            states[1].drop(count)
            decided[1], kept[1] = row_best, len(said[1][0])
    assert sum(len(tokens[0]) for tokens in said) > 20
    assert all((of_slots[[1, 3]] == 7).all() for of_slots in memory)


def test_a_wide_beam(device: torch.device) -> None:
    decoder, joiner = Decoder(9, 8, 2, groups=8), Joiner(8, 8, 16, 9)
    network = Network(decoder, joiner, (0,))
    predictor = Predictor.of(decoder, joiner, device=device, dtype=torch.float32)
    encoder_out, on_device, lengths = inputs(network, device)
    found = beam_search(on_device, lengths, predictor, beam=10, unk_id=-1)
    check(found, network, encoder_out, DecodingOptions("modified_beam_search", 10))


def test_contexts_of_three_tokens_are_refused(device: torch.device) -> None:
    with pytest.raises(ValueError, match="sees 1 or 2 tokens, got one that sees 3"):
        Predictor.of(Decoder(9, 8, 3, groups=8), Joiner(8, 8, 16, 9), device=device, dtype=torch.float32)
