"""Models that have a short name here.

Each exists and has the licence given on the page named as its source, read when it was added; a commit is pinned where
we know it. That is all that is promised: they are other people's models, and what is right for you is on their pages.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class KnownModel:
    """Sizes are of a download, in megabytes: of the fp32 variant, and of the int8 one."""

    name: str
    source: str
    license: str
    languages: str
    mode: Literal["offline", "streaming"]
    size_mb: int
    int8_size_mb: int
    about: str

    @property
    def page(self) -> str:
        """Where people read about it, its licence included."""
        return f"https://huggingface.co/{self.source.removeprefix('hf://').partition('@')[0]}"


KNOWN_MODELS = (
    KnownModel(
        name="zipformer-en",
        source="hf://k2-fsa/sherpa-onnx-zipformer-gigaspeech-2023-12-12@0604144f6ca4425bfd99adf1120452877d7c8650",
        license="Apache-2.0",
        languages="English",
        mode="offline",
        size_mb=264,
        int8_size_mb=72,
        about="Zipformer trained on GigaSpeech",
    ),
    KnownModel(
        name="zipformer-en-streaming",
        source="hf://csukuangfj/sherpa-onnx-streaming-zipformer-en-2023-06-26@672fbf1b30579d6585301139bb363f42a0ad4a24",
        license="Apache-2.0",
        languages="English",
        mode="streaming",
        size_mb=265,
        int8_size_mb=73,
        about="Zipformer, 320 ms chunks",
    ),
    KnownModel(
        name="zipformer-zh-en-streaming",
        source="hf://csukuangfj/sherpa-onnx-streaming-zipformer-bilingual-zh-en-2023-02-20"
        "@98590b7ed6443e77b714204da2757d75e1a642f4",
        license="Apache-2.0",
        languages="Chinese, English",
        mode="streaming",
        size_mb=357,
        int8_size_mb=198,
        about="Zipformer of the first generation",
    ),
    KnownModel(
        name="zipformer-zh-streaming",
        source="hf://k2-fsa/sherpa-onnx-streaming-zipformer-multi-zh-hans-2023-12-12",
        license="Apache-2.0",
        languages="Chinese",
        mode="streaming",
        size_mb=270,
        int8_size_mb=73,
        about="Zipformer, 320 ms chunks",
    ),
    KnownModel(
        name="reazonspeech-ja",
        source="hf://csukuangfj/reazonspeech-k2-v2@5c4873eea74b01a6567b4622fa4cca4e87225ab7",
        license="Apache-2.0",
        languages="Japanese",
        mode="offline",
        size_mb=615,
        int8_size_mb=161,
        about="large Zipformer trained on ReazonSpeech 2.0",
    ),
    KnownModel(
        name="reazonspeech-ja-en",
        source="hf://reazon-research/reazonspeech-k2-v2-ja-en",
        license="Apache-2.0",
        languages="Japanese, English",
        mode="offline",
        size_mb=270,
        int8_size_mb=73,
        about="Zipformer by Reazon",
    ),
)


def known_model(name: str) -> KnownModel | None:
    return next((model for model in KNOWN_MODELS if model.name == name), None)
