"""Parsing of model file names: Icefall's own, and those of published models.

An ONNX file's name is `encoder`, `decoder` or `joiner`, a label (`-epoch-99-avg-1-chunk-16-left-128`) and a variant
(`.int8`, `.fp16`); where one folder has several languages, each name begins (`de_encoder.onnx`) or ends with one
(`encoder-de.onnx`). A checkpoint is any `.pt` that is neither TorchScript nor a k2 graph.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import PurePosixPath

from moulin.bundle.precision import Precision

STORED_NAME = "model.safetensors"
ROLES = ("encoder", "decoder", "joiner")

_LANGUAGE = r"[A-Za-z]{2,3}(?:[-_](?:[A-Za-z]{2,3}|[A-Z][a-z]{3}))*"
_ONNX = re.compile(
    rf"(?:(?P<language>{_LANGUAGE})[-_])?(?P<role>encoder|decoder|joiner)(?P<label>.*?)"
    r"(?:[._-](?P<precision>int8|fp16|fp32))?\.onnx"
)
# ISO 639-1, and the codes of ISO 639-3 that published speech models use.
_CODES = (
    "af am ar as az ba be bg bn bo br bs ca cs cy da de el en eo es et eu fa fi fo fr fy ga gd gl gu ha he hi hr ht hu "
    "hy id ig is it ja jv ka kk km kn ko ku ky la lb lo lt lv mg mi mk ml mn mr ms mt my nb ne nl nn no oc om or pa pl "
    "ps pt ro ru rw sa sd si sk sl sn so sq sr su sv sw ta te tg th ti tk tl tr tt ug uk ur uz vi wo xh yi yo zh zu "
    "ara ceb cmn deu eng fil fra hak haw hin ita jpn kor nan nld pol por rus spa tha tur ukr vie wuu yue zho"
)
_LANGUAGES = frozenset(_CODES.split())
_WORDS = "am as az be el ha he hi id is it la lo ms my no oc om or pa ps sd si so to wo"
"""Codes that occur in names for other reasons."""
_LANGUAGE_LABEL = re.compile(rf"[-_](?P<language>{_LANGUAGE}?)(?P<rest>(?:[-_](?:epoch|iter|chunk|\d+ms).*)?)")
_CHUNK = re.compile(r"[-_]chunk[-_](?P<frames>-?\d+)")
_CHUNK_MS = re.compile(r"[-_](?:chunk[-_])?(?P<ms>\d+)ms")
_LEFT = re.compile(r"[-_]left[-_](?P<frames>-?\d+)")
_TRAINED = re.compile(r"(?P<kind>epoch|iter|checkpoint)[-_](?P<number>\d+)")
_AVERAGE = re.compile(r"avg[-_](?P<number>\d+)")
_SUFFIXES = (".pt", ".safetensors")
_TORCHSCRIPT = re.compile(r"(?:^|[-_.])(?:jit|traced?|scripted|torchscript)(?:[-_.]|$)|jit[-_](?:script|model|trace)")
_GRAPH = re.compile(
    r"[HLG]+|L_?disambig|Linv|H?LG[-_].*|G[-_]\d.*|.*[-_]gram|optimizer|scheduler|sampler", re.IGNORECASE
)


# Icefall's offline CTC export is model.onnx, its streaming one ctc-epoch-99-avg-1-chunk-16-left-128.onnx.
_CTC = re.compile(r"(?:model|ctc)(?P<label>(?:[-_.].*?)??)(?:[._-](?P<precision>int8|fp16|fp32))?\.onnx")


@dataclass(frozen=True, slots=True)
class OnnxName:
    """The parsed file name of one of a transducer's three networks, or of a CTC model (role ctc). `key` is equal for
    the three of one export."""

    path: PurePosixPath
    role: str
    language: str | None
    label: str
    precision: Precision

    @property
    def key(self) -> tuple[str | None, str]:
        return self.language, self.label

    @property
    def chunk(self) -> float | None:
        """The chunk of a streaming export as a number to compare (ms, or 20 times its frames); None without one."""
        if match := _CHUNK_MS.search(self.label):
            return float(match["ms"])
        if (match := _CHUNK.search(self.label)) and int(match["frames"]) > 0:
            return 20.0 * int(match["frames"])
        return None

    @property
    def left_context(self) -> float:
        """The left context as a number to compare; infinite for an unlimited one (-1 in the name), -1 without one."""
        match = _LEFT.search(self.label)
        if match is None:
            return -1.0
        return math.inf if int(match["frames"]) < 0 else float(match["frames"])

    @property
    def training(self) -> str:
        """The label without chunk and left context: training, epoch and average."""
        return _LEFT.sub("", _CHUNK_MS.sub("", _CHUNK.sub("", self.label)))


def parse_onnx_name(path: PurePosixPath) -> OnnxName | None:
    """The parsed name of an encoder, decoder or joiner; None for any other file."""
    match = _ONNX.fullmatch(path.name)
    if match is None or is_projection(path):
        return None
    language, label = match["language"], match["label"]
    if language is not None and not is_language(language):
        return None
    if language is None and (named := _LANGUAGE_LABEL.fullmatch(label)) and is_language(named["language"]):
        language, label = named["language"], named["rest"]
    return OnnxName(path, match["role"], language, label, _precision(match))


def parse_ctc_name(path: PurePosixPath) -> OnnxName | None:
    """The parsed name of a CTC model; None for any other file."""
    match = _CTC.fullmatch(path.name)
    if match is None:
        return None
    return OnnxName(path, "ctc", None, match["label"], _precision(match))


def _precision(name: re.Match[str]) -> Precision:
    match name["precision"]:
        case "int8" | "fp16" as marked:
            return marked
    return "fp32"


def is_language(code: str) -> bool:
    """Whether `code` (`de`, `zh-en`, `pt_BR`, `yue`) begins with the code of a language."""
    return re.split("[-_]", code.lower())[0] in _LANGUAGES


def languages_of(name: str) -> tuple[str, ...]:
    """The languages that a model's name says, as of `zipformer-zh-en-streaming`, by the codes of ISO 639 that stand in
    it and are no English words."""
    words = re.split(r"[^a-z]+", name.lower())
    return tuple(dict.fromkeys(word for word in words if word in _LANGUAGES.difference(_WORDS.split())))


def is_projection(path: PurePosixPath) -> bool:
    """Whether the file is one of the two projections that only Icefall's exports of 2022 have beside the joiner."""
    return path.suffix == ".onnx" and path.name.startswith(("joiner_encoder_proj", "joiner_decoder_proj"))


def is_checkpoint_name(path: PurePosixPath) -> bool:
    """Whether the file may hold a checkpoint's tensors: neither TorchScript (`cpu_jit.pt`, `jit_script.pt`), nor a k2
    graph (`HLG.pt`, `L_disambig.pt`) or other training state."""
    return (
        path.suffix in _SUFFIXES
        and not _TORCHSCRIPT.search(path.stem.lower())
        and not (path.suffix == ".pt" and _GRAPH.fullmatch(path.stem))
    )


def checkpoint_rank(path: PurePosixPath) -> tuple[int, ...] | None:
    """The preference for a checkpoint by its name, largest first; None for an unknown name.

    `model.safetensors`, `pretrained.pt`, `model.pt`, then named averages (`pretrained-…`, `finetuned_…`), then training
    checkpoints (`epoch-N.pt`, `checkpoint-N.pt`), then training's best (`best-…`). Within a kind: the last epoch, then
    the last iteration, then the longest average.
    """
    name, stem = path.name, path.stem.lower()
    if name == STORED_NAME:
        return (9,)
    if path.suffix != ".pt":
        return None
    if stem in ("pretrained", "model"):
        return (8 if stem == "pretrained" else 7,)
    if re.match(r"pre_?trained|fine?[-_]?tuned?", stem):
        return (6, *training_rank(stem))
    if re.fullmatch(r"epoch-\d+", stem):
        return (5, *training_rank(stem))
    if re.fullmatch(r"checkpoint-\d+", stem):
        return (4, *training_rank(stem))
    if re.search(r"epoch[-_]\d|iter[-_]\d", stem):
        return (3, *training_rank(stem))
    if stem in ("best-valid-loss", "best-train-loss"):
        return (2 if stem == "best-valid-loss" else 1,)
    return None


def training_rank(label: str) -> tuple[int, int, int]:
    """A sort key: epochs above iterations, then the number, then the length of the average."""
    trained, average = _TRAINED.search(label), _AVERAGE.search(label)
    return (
        int(trained is not None and trained["kind"] == "epoch"),
        int(trained["number"]) if trained else -1,
        int(average["number"]) if average else 0,
    )


def names_a_training(label: str) -> bool:
    """Whether the label states an epoch or iteration, so that it can be compared with others."""
    return _TRAINED.search(label) is not None


def what_was_trained(label: str) -> str:
    """The label without epoch, iteration and average, equal for all checkpoints of one training."""
    rest = _AVERAGE.sub("", _TRAINED.sub("", label)).replace("with-averaged-model", "")
    return re.sub(r"[-_]+", "-", rest).strip("-")


def names_language(path: PurePosixPath, language: str) -> bool:
    """Whether a word of the file's name, or of its folder's, is `language`."""
    wanted = language.lower().replace("_", "-")
    words = f"{path.parent.name}-{path.stem}".lower().replace("_", "-")
    return f"-{wanted}-" in f"-{words}-"
