"""Measures forms of the modified beam search on a GPU against each other, and checks them against the definition.

    python scripts/benchmark-beam-search.py > results.json

500 tokens, 512 channels, fp16, a beam of 4; random weights with blank favoured so far that the greedy search emits a
token every nine frames. Microseconds of the GPU, medians of 9.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
import triton
from torch import Tensor

from moulin.decoding.modified_beam_search import modified_beam_search_reference
from moulin.decoding.network import Floats, Ints
from moulin.decoding.options import DecodingOptions
from moulin.encoders.decoder import Decoder
from moulin.encoders.joiner import Joiner
from moulin.gpu.kernels.beam import beam_search
from moulin.gpu.kernels.beam2 import beam_search as second_beam_search
from moulin.gpu.kernels.greedy import Found, greedy
from moulin.gpu.kernels.window_beam import window_beam_search
from moulin.gpu.predictor import Predictor

FRAMES, VOCAB, WIDTH, UNK = 275, 500, 512, 2
TOKENS_A_FRAME = 0.11
BATCHES = (1, 8, 64, 256)
CHECKED = 4


class Network:
    """What the kernels compute, in numpy, from the same rounded numbers."""

    context_size, skipped_ids = 2, (0, UNK)

    def __init__(self, predictor: Predictor) -> None:
        self._table = predictor.table.cpu()
        self._weight = predictor.weight[:, :VOCAB].float().cpu()
        self._bias = predictor.bias[:VOCAB].cpu()

    def decoder(self, y: Ints) -> Floats:
        a, b = torch.from_numpy(y).T + 1
        out: Floats = self._table[a * (VOCAB + 1) + b].float().numpy()
        return out

    def joiner(self, encoder_out: Floats, decoder_out: Floats) -> Floats:
        x = torch.from_numpy(encoder_out) + torch.from_numpy(decoder_out)
        joined = (2 * torch.sigmoid(2 * x) - 1).half().float()
        out: Floats = (joined @ self._weight + self._bias).numpy()
        return out


def random_predictor(device: torch.device) -> Predictor:
    torch.manual_seed(0)
    decoder, joiner = Decoder(VOCAB, WIDTH, 2, WIDTH // 4), Joiner(WIDTH, WIDTH, WIDTH, VOCAB)
    torch.nn.init.normal_(joiner.output_linear.weight, std=0.15)
    torch.nn.init.normal_(joiner.output_linear.weight[:1], std=0.6)
    return Predictor.of(decoder.eval(), joiner.eval(), device=device, dtype=torch.float16)


def utterances(device: torch.device) -> Tensor:
    """Frames that resemble the ones before."""
    torch.manual_seed(1)
    x = torch.randn(max(BATCHES), FRAMES, WIDTH)
    for t in range(1, FRAMES):
        x[:, t] = 0.7 * x[:, t - 1] + 0.714 * x[:, t]
    return x.to(device, torch.float16)


def found_tokens(found: Found) -> list[tuple[list[int], list[int]]]:
    rows = zip(found.tokens.tolist(), found.frames.tolist(), found.counts.tolist(), strict=True)
    return [(tokens[:count], frames[:count]) for tokens, frames, count in rows]


def microseconds(work: Callable[[], object]) -> float:
    times = []
    for _ in range(3):
        work()
    for _ in range(9):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda._sleep(400_000)
        begin.record()
        work()
        end.record()
        torch.cuda.synchronize()
        times.append(begin.elapsed_time(end) * 1e3)
    return round(statistics.median(times), 1)


def variants() -> Iterator[tuple[str, int, Any]]:
    """Name, beam and search."""
    yield "current", 4, beam_search
    yield "window 8 64x8x3", 4, window_beam_search
    for text in (
        "",
        "argmax=True",
        "num_stages=2",
        "num_stages=4",
        "block_j=128,num_stages=2",
        "resident=64",
        "resident=64,num_stages=2",
        "resident=128,block_j=32",
        "resident=128,num_stages=2",
        "product_rows=16",
        "resident=128,block_j=32,product_rows=16",
    ):
        yield f"second {text}", 4, partial(second_beam_search, **eval(f"dict({text})"))
    yield "current", 6, beam_search
    yield "window 4", 6, partial(window_beam_search, window=4)
    yield "second", 6, second_beam_search
    yield "second argmax", 6, partial(second_beam_search, argmax=True)


def main() -> None:
    begin = time.perf_counter()
    device = torch.device("cuda")
    predictor, x = random_predictor(device), utterances(device)
    lengths = torch.full((len(x),), FRAMES, dtype=torch.int32, device=device)
    low, high = -60.0, 60.0
    for _ in range(16):
        middle = (low + high) / 2
        counts = greedy(x[:16], lengths[:16], predictor, unk_id=UNK, blank_penalty=middle).counts
        low, high = (low, middle) if float(counts.float().mean()) > TOKENS_A_FRAME * FRAMES else (middle, high)
    wanted = {
        beam: modified_beam_search_reference(
            Network(predictor),
            x[:CHECKED].float().cpu().numpy(),
            np.full(CHECKED, FRAMES),
            DecodingOptions("modified_beam_search", beam, 1.0, low),
        )
        for beam in (4, 6)
    }
    result: dict[str, Any] = {
        "device": torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "triton": triton.__version__,
        "blank_penalty": low,
        "tokens": [len(hypothesis.tokens) for hypothesis in wanted[4]],
        "greedy_us": {n: microseconds(lambda: greedy(x[:n], lengths[:n], predictor, unk_id=UNK, blank_penalty=low))
                      for n in BATCHES},
        "variants": {},
    }  # fmt: skip
    current: dict[int, list[Any]] = {}
    for name, beam, search in variants():
        name = f"beam {beam}: {name}"
        search = partial(search, predictor=predictor, beam=beam, unk_id=UNK)
        measured: dict[str, Any] = {}
        result["variants"][name] = measured
        start = time.perf_counter()
        try:
            usual = partial(search, blank_penalty=low)
            most = 64
            found = found_tokens(usual(x[:most], lengths[:most]))
            measured["compile_s"] = round(time.perf_counter() - start, 2)
            again = found_tokens(usual(x[:most], lengths[:most]))
            current.setdefault(beam, found)
            measured["like_definition"] = sum(
                (list(hypothesis.tokens), list(hypothesis.frames)) == one
                for hypothesis, one in zip(wanted[beam], found, strict=False)
            )
            measured["like_current"] = f"{sum(map(list.__eq__, map(list, found), map(list, current[beam])))} of {len(found)}"
            measured["the_same_again"] = again == found
            measured["us"] = {n: microseconds(partial(usual, x[:n], lengths[:n])) for n in BATCHES}
            measured["us_of_one_all_blank"] = microseconds(partial(search, x[:1], lengths[:1], blank_penalty=low - 100))
            measured["us_of_one_many_tokens"] = microseconds(partial(search, x[:1], lengths[:1], blank_penalty=low + 9))
        except Exception as error:
            measured["error"] = repr(error)[:500]
        measured["s"] = round(time.perf_counter() - start, 2)
        print(name, json.dumps(measured), file=sys.stderr, flush=True)
    result["s"] = round(time.perf_counter() - begin, 1)
    print(json.dumps(result))


if __name__ == "__main__":
    with torch.inference_mode():
        main()
