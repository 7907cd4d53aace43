"""CTC heads for which blank is the best token of 0 to 100 % of the frames: greedy as sherpa-onnx decodes Icefall's
exports with the same bias, prefix beam search against PyTorch's sum over all paths."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
import sherpa_onnx
import torch

from moulin.arrays import Floats
from moulin.decoding.ctc import search_ctc
from moulin.decoding.options import MAX_BEAM, DecodingOptions
from moulin.decoding.row_options import RowOptions
from moulin.models.open_recognizer import open_recognizer
from moulin.models.open_stream_recognizer import open_stream_recognizer
from moulin.streaming.options import StreamOptions
from tests.engine.blank_bias import OFFLINE, SHARES, STREAMING, Utterance, raised
from tests.engine.test_blank_skip import found_by
from tests.engine.test_blank_skip_in_streams import Recording, hear
from tests.engine.test_ctc_models import STREAMING_NAME, heard_by_peer

pytestmark = pytest.mark.needs("torch")


def raised_ctc(bundle: Path, name: str, bias: float, to: Path) -> Path:
    """A folder with Icefall's CTC export `name` alone, `bias` added to its blank."""
    to.mkdir()
    model = onnx.load(bundle / name)
    (parameter,) = (tensor for tensor in model.graph.initializer if tensor.name == "ctc_output.1.bias")
    values = onnx.numpy_helper.to_array(parameter).copy()
    values[0] += bias
    parameter.CopyFrom(onnx.numpy_helper.from_array(values, parameter.name))
    onnx.save(model, to / name)
    shutil.copyfile(bundle / "tokens.txt", to / "tokens.txt")
    return to


def bias_for(share: float, log_probs: Floats) -> float:
    """The bias with which blank is the best token of `share` of the frames of `log_probs` [T, vocab_size]."""
    lead = np.sort((log_probs[:, 1:].max(axis=1) - log_probs[:, 0]).astype(np.float64))
    count = round(share * len(lead))
    if count in (0, len(lead)):
        return float(lead[0] - 1 if count == 0 else lead[-1] + 1)
    return float(lead[count - 1] + lead[count]) / 2  # between two frames, so that rounding decides nothing


def share_of(log_probs: Floats, bias: float) -> float:
    return float((raised(log_probs, bias).argmax(axis=1) == 0).mean())


@pytest.mark.parametrize("share", SHARES)
def test_greedy_offline_is_sherpa_onnxs(
    share: float, clips: list[Floats], noises: list[Floats], tmp_path: Path
) -> None:
    utterances = [Utterance(waveform) for waveform in (clips[0], clips[3][:50_001], *noises)]
    log_probs = np.concatenate([utterance.log_probs for utterance in utterances])
    bias = bias_for(share, log_probs)
    assert share_of(log_probs, bias) == pytest.approx(share, abs=0.01)
    model = raised_ctc(OFFLINE, "model.onnx", bias, tmp_path / "model")
    theirs = sherpa_onnx.OfflineRecognizer.from_zipformer_ctc(
        model=str(model / "model.onnx"), tokens=str(model / "tokens.txt"), num_threads=1
    )
    waveforms = [utterance.waveform for utterance in utterances]
    said = 0
    with open_recognizer(model, tail_padding_sec=0.0) as ours:
        symbols = ours.spec.tokens.symbols
        for waveform, found in zip(
            waveforms, found_by(ours, waveforms, [DecodingOptions()] * len(waveforms)), strict=True
        ):
            stream = theirs.create_stream()
            stream.accept_waveform(16_000, waveform)
            theirs.decode_stream(stream)
            heard = zip(stream.result.tokens, stream.result.timestamps, strict=True)
            wanted = [(token, round(time / 0.04)) for token, time in heard if token != "<unk>"]
            tokens = [symbols[token].replace("▁", " ") for token in found.tokens]
            assert list(zip(tokens, found.frames, strict=True)) == wanted
            said += len(wanted)
    assert (said == 0) == (share == 1.0)


@pytest.mark.parametrize("share", SHARES)
def test_greedy_in_streams_is_sherpa_onnxs(
    share: float, clips: list[Floats], noises: list[Floats], tmp_path: Path
) -> None:
    recordings = [Recording(waveform) for waveform in (clips[0][8_000:40_000], noises[0])]
    log_probs = np.concatenate([recording.log_probs for recording in recordings])
    bias = bias_for(share, log_probs)
    assert share_of(log_probs, bias) == pytest.approx(share, abs=0.01)
    model = raised_ctc(STREAMING, STREAMING_NAME, bias, tmp_path / "model")
    recognizer = open_stream_recognizer(model, max_streams=2)
    symbols = recognizer.spec.tokens.symbols
    found = hear(recognizer, recordings, [StreamOptions(endpoint=False)] * 2, 5_120)
    for recording, (tokens, frames) in zip(recordings, found, strict=True):
        theirs, times = heard_by_peer(recording, model / STREAMING_NAME)
        assert [symbols[token].replace("▁", " ") for token in tokens] == theirs
        np.testing.assert_allclose([frame * 0.04 for frame in frames], times, atol=1e-5)
    assert all(not tokens for tokens, _ in found) == (share == 1.0)


@pytest.mark.parametrize("share", SHARES)
def test_prefix_beam_search_by_the_sum_over_all_paths(share: float, clips: list[Floats]) -> None:
    """PyTorch's CTC loss sums over all paths of a text: of what the beam found it is at least the beam's own score, and
    no less than of what greedy search found."""
    log_probs = Utterance(clips[0]).log_probs
    log_probs = raised(log_probs, bias_for(share, log_probs)).astype(np.float32)
    found = {}
    for options in (DecodingOptions(), DecodingOptions("modified_beam_search", beam=MAX_BEAM)):
        [found[options.method]] = search_ctc(
            log_probs[None], np.array([len(log_probs)]), RowOptions.of([options]), (0,)
        ).hypotheses()
    greedy, beam = found["greedy"], found["modified_beam_search"]
    assert beam.score <= of_all_paths(log_probs, beam.tokens) + 1e-2
    assert of_all_paths(log_probs, beam.tokens) >= of_all_paths(log_probs, greedy.tokens) - 1e-2
    assert beam.score >= greedy.score - 1e-2  # which is of one path
    assert (greedy.tokens == ()) == (share == 1.0)


def of_all_paths(log_probs: Floats, tokens: tuple[int, ...]) -> float:
    loss = torch.nn.functional.ctc_loss(
        torch.from_numpy(log_probs).double()[:, None],
        torch.tensor([tokens], dtype=torch.long).view(1, -1),
        torch.tensor([len(log_probs)]),
        torch.tensor([len(tokens)]),
        reduction="none",
    )
    return -float(loss)
