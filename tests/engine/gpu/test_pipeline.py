"""The GPU engine from waveform to transcript; kernels by themselves are tested in tests/gpu, without a GPU too."""

from __future__ import annotations

import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from moulin.arrays import Floats
from moulin.decoding.hotwords import Hotword
from moulin.decoding.options import DecodingOptions
from moulin.engine.recognizer import Recognizer
from moulin.errors import AudioError, EngineError, MoulinError, OptionsError
from moulin.language_models.arpa import write_arpa
from moulin.language_models.kneser_ney import kneser_ney
from moulin.models.engine_choice import EngineChoice
from moulin.models.language_model_files import LanguageModelFiles
from moulin.models.open_recognizer import open_recognizer
from tests.bundles import BUNDLES

DIGIT_WORDS = ["ZERO", "ONE", "TWO", "THREE", "FOUR", "FIVE", "SIX", "SEVEN", "EIGHT", "NINE"]
DIGITS = Path(__file__).parents[2] / "data" / "digits-en"
BEAM = DecodingOptions("modified_beam_search")

on_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU: PyTorch sees none")


@pytest.fixture(scope="module")
def clips() -> list[Floats]:
    """Real speech, 14 recordings."""
    from moulin.audio.decode import read_audio
    from moulin.evaluate.manifest import demo_clips

    return [read_audio(clip.audio) for clip in demo_clips()]


@pytest.fixture(scope="module", params=["fp16", "bf16"])
def ours(request: pytest.FixtureRequest) -> Iterator[Recognizer]:
    with open_recognizer(DIGITS, EngineChoice(device="cuda", precision=request.param)) as recognizer:
        yield recognizer


@pytest.fixture(scope="module")
def plain() -> Iterator[Recognizer]:
    with open_recognizer(DIGITS) as recognizer:
        yield recognizer


def test_half_precision_needs_a_gpu() -> None:
    with pytest.raises(OptionsError, match="run in fp32 on a CPU, not in fp16"):
        open_recognizer(DIGITS, EngineChoice(precision="fp16"))


@on_gpu
@pytest.mark.parametrize("options", [DecodingOptions(), BEAM], ids=["greedy", "beam"])
def test_hears_what_the_plain_engine_hears(
    options: DecodingOptions, ours: Recognizer, plain: Recognizer, clips: list[Floats]
) -> None:
    chosen = [options] * len(clips)
    heard, wanted = ours.transcribe(clips, chosen), plain.transcribe(clips, chosen)
    assert [transcript.text for transcript in heard] == [transcript.text for transcript in wanted]
    if options.method == "modified_beam_search":
        return  # of merged paths that differ by a hair, either one's times may stay
    for transcript, other in zip(heard, wanted, strict=True):
        for word, plain_word in zip(transcript.words, other.words, strict=True):
            assert word.start_sec == pytest.approx(plain_word.start_sec, abs=0.041)
            assert word.confidence == pytest.approx(plain_word.confidence, abs=0.05)


@on_gpu
def test_batches_and_graphs_change_nothing(ours: Recognizer, clips: list[Floats]) -> None:
    """The second pass of a size is captured, the third is a replay."""
    texts = [[transcript.text for transcript in ours.transcribe(clips)] for _ in range(3)]
    alone = [ours.transcribe([clip])[0].text for clip in clips]
    assert texts == [alone] * 3


@on_gpu
def test_without_graphs(clips: list[Floats], ours: Recognizer) -> None:
    with open_recognizer(DIGITS, EngineChoice(device="cuda", cuda_graphs=False)) as recognizer:
        heard = [transcript.text for transcript in recognizer.transcribe(clips)]
    assert heard == [transcript.text for transcript in ours.transcribe(clips)]


@on_gpu
def test_int16_nothing_and_hardly_anything_in_one_batch(ours: Recognizer, clips: list[Floats]) -> None:
    scaled = (clips[0] * 32767).astype(np.int16)
    long = np.tile(clips[1], 12)  # 80 s and more
    mixed = [clips[0], np.zeros(0, np.float32), scaled, np.full(160, 0.1, np.float32), long, clips[1]]
    options = [DecodingOptions(), DecodingOptions(), DecodingOptions(), BEAM, DecodingOptions(), BEAM]
    heard = ours.transcribe(mixed, options)  # type: ignore[arg-type]
    first, second = (transcript.text for transcript in ours.transcribe(clips[:2]))
    assert [heard[0].text, heard[1].text, heard[2].text] == [first, "", first]
    assert heard[3].duration_sec == 0.01
    assert len(heard[4].words) > 100
    assert heard[5].text == second


@on_gpu
def test_options_of_their_own_in_one_batch(ours: Recognizer, clips: list[Floats]) -> None:
    """Each clip as with its options alone: 14 sets, greedy search among them, three times for the graphs."""
    options = [
        DecodingOptions() if at % 6 == 3 else DecodingOptions(BEAM.method, 2 + at % 7, 0.8 + 0.05 * at, 0.1 * at)
        for at in range(len(clips))
    ]
    wanted = [ours.transcribe([clip], [each])[0].text for clip, each in zip(clips, options, strict=True)]
    for _ in range(3):
        assert [transcript.text for transcript in ours.transcribe(clips, options)] == wanted


@on_gpu
def test_hotwords_a_language_model_and_several_texts(plain: Recognizer, clips: list[Floats], tmp_path: Path) -> None:
    """The server's and each clip's own, in one batch with clips without, as on the host."""
    chosen = random.Random(0)
    lines = [chosen.choices(DIGIT_WORDS, k=10) for _ in range(500)]
    write_arpa(kneser_ney(lines, 2), tmp_path / "words.arpa")
    server, lm = [Hotword("seven three", 2.0)], LanguageModelFiles(tmp_path / "words.arpa")
    options = [
        DecodingOptions(
            hotwords=()
            if at % 3 == 0
            else tuple(Hotword(" ".join(chosen.choices(DIGIT_WORDS, k=3))) for _ in range(50)),
            hotwords_score=3.0,
            lm_scale=0.3 if at % 4 == 0 else 0.0,
            nbest=1 + at % 3,
        )
        for at in range(len(clips))
    ]
    with (
        open_recognizer(DIGITS, hotwords=server, lm=lm) as on_host,
        open_recognizer(DIGITS, EngineChoice(device="cuda"), hotwords=server, lm=lm) as on_card,
    ):
        wanted = on_host.transcribe(clips, options)
        for _ in range(3):
            heard = on_card.transcribe(clips, options)
            assert [one.text for one in heard] == [one.text for one in wanted]
            assert [len(one.alternatives) > 1 for one in heard] == [each.nbest > 1 for each in options]
    without = [one.text for one in plain.transcribe(clips, [BEAM] * len(clips))]
    assert [one.text for one in wanted] != without


@on_gpu
def test_any_number_of_lists_in_the_same_memory(
    ours: Recognizer, clips: list[Floats], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lists of which a small arena holds those of one or two calls, from three threads: the same is heard as with an
    arena that holds all of them, and the memory stays as it is."""
    from moulin.gpu.arena import AutomatonArena

    def heard(number: int) -> list[str]:
        chosen = random.Random(number % 8)
        others = [["".join(chosen.choices("XZVWGU", k=5)) for _ in range(400)] for _ in clips[:8]]
        options = [DecodingOptions(hotwords=(*map(Hotword, words), Hotword("zero", 8.0))) for words in others]
        return [one.text for one in ours.transcribe(clips[:8], options)]

    wanted = [heard(number) for number in range(8)]
    assert any("ZERO" in text for text in wanted[0])
    monkeypatch.setattr(ours.pipeline._pipeline, "_arena", AutomatonArena(torch.device("cuda"), rows=30_000))  # type: ignore[attr-defined]
    assert [heard(number) for number in range(3)] == wanted[:3]
    before = torch.cuda.memory_reserved()
    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(heard, range(40))) == wanted * 5
    assert torch.cuda.memory_reserved() <= before * 1.2


@on_gpu
def test_what_is_wrong_is_refused(ours: Recognizer) -> None:
    with pytest.raises(AudioError, match="expected finite samples"):
        ours.transcribe([np.array([0.0, np.nan], np.float32)])
    with pytest.raises(AudioError, match="at most 120 s"):
        ours.transcribe([np.zeros(121 * 16000, np.float32)])


@on_gpu
def test_what_is_wrong_with_one_harms_no_other(ours: Recognizer, clips: list[Floats]) -> None:
    """All in one micro-batch; the GPU finds it, and the next batch works in the same memory."""
    nan, loud, infinite = (clip.copy() for clip in clips[:3])
    nan[1000], loud[-1], infinite[0] = np.nan, 17.0, -np.inf
    mixed = [nan, *clips[3:], loud, infinite, (clips[0] * 32767).astype(np.float32)]
    options, names = [DecodingOptions()] * len(mixed), [f"number {at}" for at in range(len(mixed))]
    wanted = [transcript.text for transcript in ours.transcribe(clips)]
    for _ in range(3):
        answers = ours.transcribe_each(mixed, options, names)
        errors = [answer for answer in answers if isinstance(answer, AudioError)]
        assert [error.message.partition(", got")[0] for error in errors] == [
            "number 0: expected finite samples",
            "number 12: expected floats in [-1, 1]",
            "number 13: expected finite samples",
            "number 14: expected floats in [-1, 1]",
        ]
        assert [answer.text for answer in answers if not isinstance(answer, MoulinError)] == wanted[3:]
    assert [transcript.text for transcript in ours.transcribe(clips)] == wanted


@on_gpu
def test_too_little_precision_is_said(clips: list[Floats], tmp_path: Path) -> None:
    """What goes into the first layer is more than fp16 can be."""
    bundle = BUNDLES / "zipformer2-offline"
    checkpoint = torch.load(bundle / "epoch-1.pt", weights_only=True)
    checkpoint["model"]["encoder_embed.out.bias"] += 1e6
    torch.save(checkpoint, tmp_path / "epoch-1.pt")
    (tmp_path / "tokens.txt").symlink_to(bundle / "tokens.txt")
    with pytest.raises(EngineError, match=r"needs more than fp16 .*--precision bf16"):
        open_recognizer(tmp_path, EngineChoice(device="cuda"))
    with open_recognizer(tmp_path, EngineChoice(device="cuda", precision="bf16")) as recognizer:
        recognizer.transcribe(clips[:1])


@on_gpu
def test_several_threads_at_once(ours: Recognizer, clips: list[Floats]) -> None:
    wanted = [transcript.text for transcript in ours.transcribe(clips)]
    with ThreadPoolExecutor(8) as pool:
        heard = list(pool.map(lambda clip: ours.transcribe([clip])[0].text, clips * 8))
    assert heard == wanted * 8


@on_gpu
def test_memory_stays_flat(ours: Recognizer) -> None:
    random = np.random.default_rng(0)

    def some() -> list[Floats]:
        return [random.normal(0, 0.1, int(random.integers(2000, 300_000))).astype(np.float32) for _ in range(64)]

    for _ in range(30):
        ours.transcribe(some())
    before = torch.cuda.memory_reserved()
    for _ in range(30):
        ours.transcribe(some())
    assert torch.cuda.memory_reserved() <= before * 1.1


@on_gpu
@pytest.mark.parametrize("name", ["conformer-offline", "zipformer-offline", "zipformer2-offline"])
def test_every_family(name: str, clips: list[Floats], tmp_path: Path) -> None:
    """Random weights decide by a hair, so that not every token is the same in half precision."""
    for file in ("epoch-1.pt", "tokens.txt"):
        (tmp_path / file).symlink_to(BUNDLES / name / file)
    with open_recognizer(tmp_path) as plain, open_recognizer(tmp_path, EngineChoice(device="cuda")) as ours:
        wanted, heard = plain.transcribe(clips[:2]), ours.transcribe(clips[:2])
    for transcript, other in zip(heard, wanted, strict=True):
        assert len(transcript.text) == pytest.approx(len(other.text), rel=0.1)
