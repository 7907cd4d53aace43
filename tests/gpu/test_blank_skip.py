"""The card's skipping of blank frames against the host's, which `tests/decoding` and sherpa-onnx judge."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import pytest
import torch

from moulin.arrays import Floats, Ints
from moulin.bundle.checkpoint import read_checkpoint
from moulin.bundle.checkpoint_spec import load_checkpoint_spec
from moulin.bundle.spec import CheckpointSpec
from moulin.bundle.transducer import load_transducer, transducer_of
from moulin.decoding import blank_skip as plain
from moulin.decoding.found import Hypothesis
from moulin.decoding.options import METHODS, DecodingOptions
from moulin.decoding.row_options import RowOptions
from moulin.encoders.transducer import Transducer
from moulin.engine.gpu.stepper import GpuStepper
from moulin.engine.stepper import Stepper
from moulin.gpu.blank_skip import blank_log_probs, output_layer, skip_blanks
from moulin.gpu.kernels.searches import FoundTensors
from moulin.gpu.open_encoder import gpu_encoder
from moulin.gpu.pipeline import GpuPipeline
from moulin.gpu.predictor import Predictor
from moulin.models.open_recognizer import open_recognizer
from tests.engine.blank_bias import OFFLINE, STREAMING, bias_for, raised_checkpoint
from tests.engine.blank_bias import THRESHOLD as SURE

from .plain_stepper import PlainStepper
from .test_gpu_stepper import equal, step

AnyStepper = TypeVar("AnyStepper", bound=Stepper)
THRESHOLD = 0.9
LENGTHS = [7, 12, 0, 1, 12]


@pytest.fixture(params=["some", "all", "none", "NaN"])
def blanks(request: pytest.FixtureRequest) -> torch.Tensor:
    """Log-probabilities of blank [5, 12], never at the threshold."""
    generator = torch.Generator().manual_seed(3)
    drawn = torch.rand(5, 12, generator=generator)
    match request.param:
        case "all":
            drawn = drawn * 0.05 + 0.94
        case "none":
            drawn = drawn * 0.8
        case "NaN":
            drawn[1, ::3] = torch.nan
    return drawn.log()


def test_the_frames_that_are_left_are_the_hosts(blanks: torch.Tensor, device: torch.device) -> None:
    frames = torch.randn(5, 12, 6)
    asked = [DecodingOptions(blank_skip=THRESHOLD)] * 4 + [DecodingOptions()]
    options = RowOptions.of(asked)
    both = torch.cat([frames, blanks[..., None]], dim=2).numpy()
    wanted = plain.skip_blanks(both, np.array(LENGTHS), options, 6)
    lengths, thresholds = torch.tensor(LENGTHS, dtype=torch.int32), torch.from_numpy(options.blank_skips)
    found = skip_blanks(*(each.to(device) for each in (frames, blanks, lengths, thresholds)))
    assert found.lengths.tolist() == wanted.lengths.tolist()
    assert wanted.frames is not None
    for row, count in enumerate(wanted.lengths.tolist()):
        assert torch.equal(found.encoder_out[row, :count].cpu(), torch.from_numpy(wanted.encoder_out[row, :count]))
        assert found.frames[row, :count].tolist() == wanted.frames[row, :count].tolist()


def test_numbers_of_frames_are_the_original_ones(device: torch.device) -> None:
    blanks = torch.full((2, 8), -5.0)
    blanks[0, [0, 1, 4]] = 0.0
    lengths, thresholds = torch.tensor([8, 8], dtype=torch.int32), torch.tensor([-0.1, torch.inf])
    spoken = skip_blanks(*(each.to(device) for each in (torch.randn(2, 8, 4), blanks, lengths, thresholds)))
    found = FoundTensors.empty(2, 8, 1, device)
    found.frames.fill_(2**31 - 1)  # what no search has written
    found.frames[0, :, :3] = torch.tensor([0, 2, 4], dtype=torch.int32, device=device)
    spoken.give_their_numbers(found)
    assert found.frames[0, 0, :3].tolist() == [2, 5, 7]
    assert int(found.frames[0].max()) < 8


def test_the_layer_behind_the_encoder_is_both_heads() -> None:
    transducer = Transducer.from_tensors(read_checkpoint(OFFLINE / "epoch-1.pt").tensors)
    assert transducer.ctc is not None
    frames = torch.randn(2, 5, transducer.encoder.output_dim)
    layer, width = output_layer(transducer), transducer.joiner.joiner_dim
    with torch.inference_mode():
        both = layer(frames)
        assert torch.allclose(both[..., :width], transducer.joiner.encoder_proj(frames), atol=1e-5)
        assert torch.allclose(blank_log_probs(both[..., width:]), transducer.ctc(frames)[..., 0], atol=1e-5)


STREAMS = [
    DecodingOptions(blank_skip=SURE),
    DecodingOptions("modified_beam_search", 3, blank_skip=SURE),
    DecodingOptions("modified_beam_search", 7, blank_skip=SURE),  # too wide for the card
    DecodingOptions(),
    DecodingOptions("modified_beam_search", 2),
]


def stream_spec(bias: float, to: Path) -> CheckpointSpec:
    checkpoint = raised_checkpoint(STREAMING, bias, to) / "epoch-1.pt"
    return replace(load_checkpoint_spec(checkpoint, streaming=True), run_in="fp32")


@pytest.fixture(scope="module")
def noise() -> list[Floats]:
    generator = np.random.default_rng(3)
    return [generator.normal(0, 0.2, 17_500).astype(np.float32) for _ in STREAMS]


def with_audio(stepper: AnyStepper, waveforms: list[Floats]) -> AnyStepper:
    for slot, samples in enumerate(waveforms):
        stepper.inbox.open(slot)
        stepper.inbox.accept(slot, samples)
    return stepper


@pytest.fixture(scope="module")
def stream_blanks(noise: list[Floats], tmp_path_factory: pytest.TempPathFactory) -> Floats:
    """The log-probabilities of blank [frames, 1] of two chunks of all streams."""
    plain = with_audio(PlainStepper(stream_spec(0.0, tmp_path_factory.mktemp("plain") / "model"), 5), noise)
    seen: list[Floats] = []
    encode = plain.runner.encoder

    def keep(x: Floats, slots: Ints) -> Floats:
        seen.append(encode(x, slots))
        return seen[-1]

    plain.runner.encoder = keep  # type: ignore[method-assign]
    for _ in range(2):
        step(plain, [0, 1, 2, 3, 4], RowOptions.of(STREAMS), [-1] * 5, [0] * 5)
    blanks: Floats = np.concatenate([frames[..., -1].ravel() for frames in seen])[:, None]
    return blanks


@pytest.mark.parametrize("share", [0.0, 0.6, 1.0])
def test_streams_skip_as_on_the_host(
    share: float, noise: list[Floats], stream_blanks: Floats, device: torch.device, tmp_path: Path
) -> None:
    """Rows that skip and rows that do not, greedy and with beams, on the card and too wide for it, in one batch; some
    searches go on from a closed segment."""
    bias = bias_for(share, stream_blanks)
    spec = stream_spec(bias, tmp_path / "model")
    options = RowOptions.of(STREAMS)
    on_card = GpuStepper(spec, transducer_of(spec), capacity=5, max_batch=5, device=str(device), beam=3)
    plain = PlainStepper(spec, 5)
    for each in (on_card, plain):
        with_audio(each, noise)
    said = 0
    for slots, decided, kept in (([0, 1, 2, 3, 4], [-1] * 5, [0] * 5), ([4, 2, 0, 1, 3], [0, 0, 0, -1, -1], [0] * 5)):
        rows = options.take(np.array(slots))
        found, wanted = (step(each, slots, rows, decided, kept) for each in (on_card, plain))
        equal(found, wanted)
        said += int(found.counts[np.array(slots) < 3].sum())
    assert (said == 0) == (share == 1.0)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU: the pipeline has streams of CUDA")
@pytest.mark.parametrize("bias", [-4.0, 0.0, 1.5, 4.0, 50.0], ids=["none", "few", "half", "most", "all"])
def test_the_whole_pipeline_in_fp32(bias: float, tmp_path: Path) -> None:
    """Rows that skip and rows that do not, greedy and with beams, in one batch."""
    model = raised_checkpoint(OFFLINE, bias, tmp_path / "model")
    generator = np.random.default_rng(5)
    waveforms = [(generator.normal(0, 0.1, 16_000 * sec)).astype(np.float32) for sec in (1, 3, 2, 5, 4)]
    options = [
        DecodingOptions(METHODS[row % 2], blank_skip=THRESHOLD if row < 4 else None) for row in range(len(waveforms))
    ]
    with open_recognizer(model) as on_host:
        found: dict[int, Hypothesis | Exception] = {}
        on_host.pipeline(
            waveforms,
            RowOptions.of(options),
            [""] * len(waveforms),
            lambda rows, all_: found.update(zip(rows, all_, strict=True)),
        )
        unk_id = next((token for token in on_host.spec.tokens.skipped_ids if token != 0), -1)
    transducer, card = load_transducer([model / "epoch-1.pt"]), torch.device("cuda")
    encoder = gpu_encoder(transducer, device=card, dtype=torch.float32, max_frames=700)
    predictor = Predictor.of(transducer.decoder, transducer.joiner, device=card, dtype=torch.float32, unk_id=unk_id)
    pipeline = GpuPipeline(encoder, predictor, device=card, tail_samples=4800)
    heard: dict[int, Hypothesis] = {}

    def result(positions: Sequence[int], hypotheses: Sequence[Hypothesis], _peaks: Sequence[float]) -> None:
        heard.update(zip(positions, hypotheses, strict=True))

    for _ in range(3):  # the third as graphs
        pipeline(waveforms, RowOptions.of(options), result)
        for row, wanted in found.items():
            assert isinstance(wanted, Hypothesis)
            assert (heard[row].tokens, heard[row].frames) == (wanted.tokens, wanted.frames)
            assert heard[row].score == pytest.approx(wanted.score, abs=1e-2)
    pipeline.close()
    assert all(heard[row].tokens == () for row in range(4)) == (bias == 50.0)
