"""The files that are taken of real repositories, and why of some none are. What is expected is what a person would take
who read the publisher's page."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import pytest

from moulin.bundle.choice import NO_WISH, Form, Wish
from moulin.bundle.files import choose_on_disk, vocabulary_on_disk
from moulin.errors import MoulinError
from moulin.fetch.choose_files import PublishedFile, choose_files
from moulin.fetch.errors import FetchError
from moulin.fetch.hub import HubModel
from moulin.fetch.known_models import KNOWN_MODELS, KnownModel
from moulin.fetch.resolve import parse_source

from .listings import LISTINGS

GPU = Wish(form="checkpoint")
OFFLINE = Wish(mode="offline")
STREAMING = Wish(mode="streaming")
INT8 = Wish(precision="int8")
FP16 = Wish(precision="fp16")


def onnx(label: str = "", folder: str = "", *, prefix: str = "") -> tuple[str, ...]:
    return tuple(f"{folder}{prefix}{role}{label}.onnx" for role in ("encoder", "decoder", "joiner"))


def without_decoder(label: str, variant: str) -> tuple[str, ...]:
    """The three of a variant that the decoder does not have."""
    return f"encoder{label}{variant}.onnx", f"decoder{label}.onnx", f"joiner{label}{variant}.onnx"


@dataclass(frozen=True)
class Taken:
    """`files` of `repository`, as `wish` has it; each of `said` is part of a line that is said."""

    repository: str
    wish: Wish
    files: tuple[str, ...]
    said: tuple[str, ...] = ()
    mode: str | None = None
    inside: str = ""


@dataclass(frozen=True)
class Refused:
    repository: str
    wish: Wish
    message: str
    hint: str = ""
    inside: str = ""


EN = "csukuangfj/sherpa-onnx-streaming-zipformer-en-2023-06-26"
XL = "soundsgoodai/Zipformer-transducer-XL-290M"
CR_CTC = "soundsgoodai/Zipformer-CR-CTC-transducer-XL-290M"
VOSK = "alphacep/vosk-model-ru"
WENETSPEECH = "pkufool/icefall-asr-zipformer-wenetspeech-20230615"
MEDIUM = "pkufool/zipformer-medium"
MEDIUM_STREAMING = "pkufool/zipformer-medium-streaming"
STATELESS3 = "csukuangfj/icefall-asr-librispeech-pruned-transducer-stateless3-2022-05-13"
WENETSPEECH_STREAMING = "pkufool/icefall-asr-zipformer-streaming-wenetspeech-20230615"
KROKO = "Banafo/Kroko-ASR (several languages in one folder)"
STATELESS5 = "luomingshuang/icefall_asr_wenetspeech_pruned_transducer_stateless5_streaming"
STATELESS7 = "csukuangfj/icefall-asr-librispeech-pruned-transducer-stateless7-2022-11-11"
NEMO = "a NeMo export (to be refused by name)"
SMALL = "sherpa-onnx-streaming-zipformer-small-bilingual-zh-en-2023-02-16"
GIGASPEECH = "k2-fsa/sherpa-onnx-zipformer-gigaspeech-2023-12-12"
MULTIDATASET = "yfyeung/icefall-asr-multidataset-pruned_transducer_stateless7-2023-05-04"
REAZON = "csukuangfj/reazonspeech-k2-v2-ja-en"
CONFORMER_ZH = "csukuangfj/sherpa-onnx-conformer-zh-stateless2-2023-05-23"
MULTI_ZH = "k2-fsa/sherpa-onnx-streaming-zipformer-multi-zh-hans-2023-12-12"
SMALL_6M = "marcoyang/icefall-libri-giga-pruned-transducer-stateless7-streaming-6M-2023-04-03"
STATELESS8 = "WeijiZhuang/icefall-asr-librispeech-pruned-transducer-stateless8-2022-12-02"
GIGA_09 = "pkufool/icefall_librispeech_streaming_pruned_transducer_stateless3_giga_0.9_20220625"
VOSK_SMALL = "alphacep/vosk-model-small-ru"
X_ASR = "GilgameshWind/X-ASR-zh-en"
SMALL_STREAMING = "pkufool/zipformer-small-streaming"
KROKO_2025 = "Banafo/Kroko-ASR (since 2025)"
PARAFORMER = "Paraformer for streams, as sherpa-onnx has it"
NEMO_JOINT = "a NeMo export of another tool"
WHISPER = "Whisper tiny, as sherpa-onnx has it"

REAZON_JA = "csukuangfj/reazonspeech-k2-v2"
REAZON_JA_EN = "reazon-research/reazonspeech-k2-v2-ja-en"

BPE = ("tokens.txt", "bpe.model")
LANG_BPE = ("data/lang_bpe_500/tokens.txt", "data/lang_bpe_500/bpe.model")
VOSK_LANG = ("lang/tokens.txt", "lang/bpe.model")
CHARS = ("data/lang_char/tokens.txt",)
LEFT_128 = "-epoch-99-avg-1-chunk-16-left-128"
OTHER_FORM = "holds one model in 2 forms; taking encoder-epoch-99-avg-1-chunk-16-left-128"
ON_GPU = "has ONNX files and a checkpoint; taking "
FOUR = tuple(f"deployment/models/chunk-{ms}ms-model" for ms in (160, 1920, 480, 960))
CHUNK_480 = "deployment/models/chunk-480ms-model/"

TAKEN = [
    # The smallest chunk with the largest left context; the other one by its name.
    *(
        Taken(EN, wish, (*onnx(LEFT_128), *BPE), (OTHER_FORM,), "streaming")
        for wish in (NO_WISH, STREAMING, OFFLINE, GPU)
    ),
    Taken(EN, INT8, (*onnx(f"{LEFT_128}.int8"), *BPE), (f"{OTHER_FORM}.int8.onnx",), "streaming"),
    Taken(
        EN,
        NO_WISH,
        (*onnx("-epoch-99-avg-1-chunk-16-left-64"), *BPE),
        mode="streaming",
        inside="encoder-epoch-99-avg-1-chunk-16-left-64.onnx",
    ),
    # A checkpoint alone, also without tokens.txt.
    *(Taken(XL, wish, ("model.pt", *BPE)) for wish in (NO_WISH, GPU)),
    *(Taken(CR_CTC, wish, ("model.pt", "bpe.model")) for wish in (NO_WISH, GPU)),
    # ONNX files on a CPU and the checkpoint on a GPU, whose engine runs checkpoints.
    Taken(VOSK, NO_WISH, (*onnx("", "am-onnx/"), *VOSK_LANG)),
    Taken(VOSK, INT8, (*onnx(".int8", "am-onnx/"), *VOSK_LANG)),
    Taken(VOSK, GPU, ("am/pretrained.pt", *VOSK_LANG), (f"{ON_GPU}am/pretrained.pt",)),
    Taken(WENETSPEECH, NO_WISH, (*onnx("-epoch-12-avg-4", "exp/"), *CHARS)),
    Taken(WENETSPEECH, INT8, (*onnx("-epoch-12-avg-4.int8", "exp/"), *CHARS)),
    Taken(WENETSPEECH, GPU, ("exp/pretrained.pt", *CHARS), (f"{ON_GPU}exp/pretrained.pt",)),
    # No checkpoint runs in int8.
    Taken(WENETSPEECH, Wish("int8", form="checkpoint"), (*onnx("-epoch-12-avg-4.int8", "exp/"), *CHARS)),
    # The decoder has no variants; the CTC head beside is not asked for.
    Taken(MEDIUM, NO_WISH, (*onnx(), "data/tokens.txt")),
    Taken(MEDIUM, FP16, ("encoder.fp16.onnx", "joiner.fp16.onnx", "decoder.onnx", "data/tokens.txt")),
    Taken(MEDIUM, INT8, ("encoder.int8.onnx", "joiner.int8.onnx", "decoder.onnx", "data/tokens.txt")),
    Taken(MEDIUM, GPU, ("model.pt", "data/tokens.txt"), (f"{ON_GPU}model.pt",)),
    Taken(
        MEDIUM_STREAMING,
        NO_WISH,
        (*onnx("-chunk-16-left-64"), "data/tokens.txt"),
        ("in 3 forms; taking encoder-chunk-16-left-64.onnx",),
        "streaming",
    ),
    Taken(
        MEDIUM_STREAMING,
        FP16,
        (*without_decoder("-chunk-16-left-64", ".fp16"), "data/tokens.txt"),
        ("in 3 forms",),
        "streaming",
    ),
    Taken(MEDIUM_STREAMING, GPU, ("model.pt", "data/tokens.txt"), (f"{ON_GPU}model.pt",), "streaming"),
    # What was exported for streams does not take whole utterances; the checkpoint does.
    Taken(
        MEDIUM_STREAMING,
        OFFLINE,
        ("model.pt", "data/tokens.txt"),
        ("Taking the checkpoint model.pt for whole utterances",),
        "offline",
    ),
    Taken(
        SMALL_STREAMING,
        INT8,
        (*without_decoder("-chunk-16-left-64", ".int8"), "data/tokens.txt"),
        mode="streaming",
    ),
    # Five files of 2022 are passed over for the checkpoint beside them, of which the last is taken.
    *(
        Taken(
            STATELESS3,
            wish,
            ("exp/pretrained-iter-1224000-avg-14.pt", *LANG_BPE),
            ("exp/onnx has an export of 2022 in five files", "(others: exp/pretrained-iter-824000-avg-18.pt)"),
        )
        for wish in (NO_WISH, GPU)
    ),
    # Offline and streaming exports in one folder.
    Taken(
        WENETSPEECH_STREAMING,
        NO_WISH,
        (*onnx("-epoch-12-avg-4-chunk-16-left-256", "exp/"), *CHARS),
        ("holds an offline export (encoder-epoch-12-avg-4.onnx) and streaming ones", "in 3 forms; taking "),
        "streaming",
    ),
    Taken(
        WENETSPEECH_STREAMING,
        Wish("int8", "streaming"),
        (*onnx("-epoch-12-avg-4-chunk-16-left-256.int8", "exp/"), *CHARS),
        ("in 3 forms; taking ",),
        "streaming",
    ),
    Taken(WENETSPEECH_STREAMING, OFFLINE, (*onnx("-epoch-12-avg-4", "exp/"), *CHARS), mode="offline"),
    Taken(WENETSPEECH_STREAMING, GPU, ("exp/pretrained.pt", *CHARS), (ON_GPU,), "streaming"),
    Taken(
        WENETSPEECH_STREAMING,
        Wish(mode="offline", form="checkpoint"),
        ("exp/pretrained.pt", *CHARS),
        (ON_GPU,),
        "offline",
    ),
    Taken(KROKO, Wish(language="de"), (*onnx(prefix="de_"), "de_tokens.txt")),
    Taken(KROKO, Wish(language="FR", form="checkpoint"), (*onnx(prefix="fr_"), "fr_tokens.txt")),
    *(Taken(STATELESS5, wish, ("exp/pretrained_epoch_7_avg_1.pt", *CHARS)) for wish in (NO_WISH, GPU)),
    Taken(
        STATELESS7,
        NO_WISH,
        ("exp/pretrained.pt", LANG_BPE[0]),
        ("taking exp/pretrained.pt, the usual name (others: exp/pretrained-epoch-30-avg-9.pt)",),
    ),
    Taken(STATELESS7, NO_WISH, ("exp/epoch-30.pt", LANG_BPE[0]), inside="exp/epoch-30.pt"),
    # Its names are a transducer's; what it is shows after the download (tests/bundle/test_foreign.py).
    Taken(NEMO, NO_WISH, (*onnx(".int8"), "tokens.txt")),
    Taken(SMALL, NO_WISH, (*onnx("-epoch-99-avg-1"), "tokens.txt"), ("taking the one in itself (others: 64, 96)",)),
    Taken(SMALL, INT8, (*onnx("-epoch-99-avg-1.int8"), "tokens.txt"), ("(others: 64, 96)",)),
    Taken(SMALL, NO_WISH, (*onnx("-epoch-99-avg-1", "96/"), "tokens.txt"), inside="96"),
    Taken(GIGASPEECH, NO_WISH, (*onnx("-epoch-30-avg-1"), *BPE)),
    Taken(MULTIDATASET, INT8, (*onnx("-epoch-30-avg-4.int8", "exp/"), LANG_BPE[0])),
    Taken(REAZON, FP16, (*onnx("-epoch-35-avg-1.fp16"), "tokens.txt")),
    Taken(REAZON_JA, NO_WISH, (*onnx("-epoch-99-avg-1"), "tokens.txt")),
    Taken(REAZON_JA_EN, INT8, (*onnx("-epoch-35-avg-1.int8"), "tokens.txt")),
    Taken(CONFORMER_ZH, NO_WISH, (*onnx("-epoch-99-avg-1"), "tokens.txt")),
    Taken(MULTI_ZH, NO_WISH, (*onnx("-epoch-20-avg-1-chunk-16-left-128"), *BPE), mode="streaming"),
    Taken(SMALL_6M, NO_WISH, ("exp/pretrained-epoch-30-avg-1.pt", *LANG_BPE)),
    Taken(STATELESS8, GPU, ("exp/pretrained.pt", *LANG_BPE)),
    Taken(GIGA_09, STREAMING, ("exp/pretrained-epoch-25-avg-12.pt", LANG_BPE[1]), mode="streaming"),
    Taken(VOSK_SMALL, GPU, (*onnx("", "am/"), *VOSK_LANG)),
    *(
        Taken(X_ASR, wish, (*onnx("-480ms", CHUNK_480), f"{CHUNK_480}tokens.txt"), (), "streaming", CHUNK_480[:-1])
        for wish in (NO_WISH, GPU)
    ),
]

REFUSED = [
    Refused(EN, FP16, "has no fp16 encoder, only fp32, int8", "leave out --precision"),
    Refused(EN, Wish(language="de"), "has no files for the language de: its files name no language", "leave out"),
    Refused(STATELESS3, NO_WISH, "/exp/onnx has an export of 2022 in five files", "moulin export", inside="exp/onnx"),
    Refused(
        STATELESS3, NO_WISH, "has an export of 2022 in five files", "moulin export", inside="exp/onnx/encoder.onnx"
    ),
    Refused(KROKO, NO_WISH, "holds models of 4 languages: de, en, es, fr", "say --language de"),
    Refused(KROKO, Wish(language="it"), "has no files for the language it, only de, en, es, fr", "--language"),
    Refused(X_ASR, NO_WISH, f"holds 4 models: {', '.join(FOUR)}", f"name one: hf://a/b/{FOUR[0]}"),
    # The checkpoint has another vocabulary than the exports beside it.
    Refused(X_ASR, GPU, "has 4 vocabularies: ", "copy the one"),
    Refused(KROKO_2025, NO_WISH, "holds no transducer", "CTC or attention"),
    Refused(PARAFORMER, NO_WISH, r"has no joiner*.onnx", "Paraformer"),
    Refused(NEMO_JOINT, NO_WISH, r"has no joiner*.onnx", "NeMo"),
    Refused(WHISPER, NO_WISH, "holds no transducer", "attention"),
]


def published(repository: str) -> list[PublishedFile]:
    return [PublishedFile(PurePosixPath(name)) for name in LISTINGS[repository]]


def test_every_listing_has_an_expectation() -> None:
    assert {case.repository for case in TAKEN} | {case.repository for case in REFUSED} == LISTINGS.keys()


@pytest.mark.parametrize("case", TAKEN, ids=lambda case: f"{case.repository}-{case.wish}-{case.inside}")
def test_what_is_taken(case: Taken, tmp_path: Path) -> None:
    choice = choose_files(published(case.repository), "hf://a/b", inside=PurePosixPath(case.inside), wish=case.wish)
    assert {str(file.path) for file in choice.files} == set(case.files)
    assert choice.mode == case.mode
    for said in case.said:
        assert any(said in note for note in choice.notes), choice.notes
    if not case.said and case.mode is None:
        assert choice.notes == ()
    on_disk(case, tmp_path)


def on_disk(case: Taken, folder: Path) -> None:
    """A clone of the repository gives the same files, also when the one that was chosen is named again."""
    clone(case.repository, folder)
    choice = choose_on_disk(folder / case.inside, case.wish)
    tokens, bpe_model = vocabulary_on_disk(Path(choice.file), choice.language)
    files = {*map(Path, choice.networks), tokens, *([bpe_model] if bpe_model else [])}
    assert {str(file.relative_to(folder)) for file in files} == set(case.files)
    again = choose_on_disk(Path(choice.file), case.wish)
    assert (again.networks, again.language, again.notes) == (choice.networks, choice.language, ())


def clone(repository: str, folder: Path) -> None:
    for name in LISTINGS[repository]:
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()


def found_on_disk(model: Path, wish: Wish) -> Path:
    choice = choose_on_disk(model, wish)
    return vocabulary_on_disk(Path(choice.file), choice.language)[0]


@pytest.mark.parametrize("case", REFUSED, ids=lambda case: f"{case.repository}-{case.wish}-{case.inside}")
def test_what_is_refused(case: Refused, tmp_path: Path) -> None:
    with pytest.raises(FetchError) as caught:
        choose_files(published(case.repository), "hf://a/b", inside=PurePosixPath(case.inside), wish=case.wish)
    assert case.message in caught.value.message
    assert case.hint in str(caught.value.hint)
    clone(case.repository, tmp_path)
    with pytest.raises(MoulinError):
        found_on_disk(tmp_path / case.inside, case.wish)


WITH_A_LISTING = [model for model in KNOWN_MODELS if model.page.removeprefix("https://huggingface.co/") in LISTINGS]


@pytest.mark.parametrize("model", WITH_A_LISTING, ids=lambda model: model.name)
@pytest.mark.parametrize("form", [None, "checkpoint"])
def test_known_models(model: KnownModel, form: Form | None) -> None:
    source = parse_source(model.name)
    assert isinstance(source, HubModel)
    wish = Wish(mode=model.mode, form=form)
    choice = choose_files(published(source.repository), str(source), inside=source.inside, wish=wish)
    assert choice.mode == model.mode
    assert any(file.path.name.startswith(("tokens", "bpe")) for file in choice.files)
    if form is None and model.int8_size_mb is not None:
        choose_files(published(source.repository), str(source), inside=source.inside, wish=Wish("int8", model.mode))


def test_most_known_models_have_a_listing() -> None:
    """All but those whose files we know by their sizes alone."""
    without = {model.name for model in KNOWN_MODELS} - {model.name for model in WITH_A_LISTING}
    assert without == {"zipformer-zh-en-streaming"}
