"""Published models with short names.

Each exists, under the licence given on its source page when it was added; a commit is pinned where known. moulin
promises no more: these are other people's models, described on their pages.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class KnownModel:
    """A published model. Sizes are of the download in megabytes, of the fp32 and the int8 variant; None where there is
    no such variant, or its page does not state it."""

    name: str
    source: str
    license: str
    languages: str
    mode: Literal["offline", "streaming"]
    size_mb: int | None
    int8_size_mb: int | None
    about: str

    @property
    def page(self) -> str:
        """The web page with its description and licence."""
        owner, name = self.source.removeprefix("hf://").partition("@")[0].split("/")[:2]
        return f"https://huggingface.co/{owner}/{name}"


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
    KnownModel(
        name="zipformer-zh",
        source="hf://pkufool/icefall-asr-zipformer-wenetspeech-20230615",
        license="Apache-2.0",
        languages="Chinese",
        mode="offline",
        size_mb=284,
        int8_size_mb=75,
        about="Zipformer trained on WenetSpeech; with its checkpoint",
    ),
    KnownModel(
        name="wenetspeech-zh-streaming",
        source="hf://pkufool/icefall-asr-zipformer-streaming-wenetspeech-20230615",
        license="Apache-2.0",
        languages="Chinese",
        mode="streaming",
        size_mb=286,
        int8_size_mb=86,
        about="Zipformer trained on WenetSpeech, 320 ms chunks; with its checkpoint",
    ),
    KnownModel(
        name="conformer-zh",
        source="hf://csukuangfj/sherpa-onnx-conformer-zh-stateless2-2023-05-23",
        license="Apache-2.0",
        languages="Chinese",
        mode="offline",
        size_mb=354,
        int8_size_mb=141,
        about="Conformer",
    ),
    KnownModel(
        name="zipformer-medium-streaming",
        source="hf://pkufool/zipformer-medium-streaming",
        license="Apache-2.0",
        languages="Chinese, English",
        mode="streaming",
        size_mb=None,
        int8_size_mb=None,
        about="Zipformer of 65 M parameters, 2026, 320 ms chunks; with its checkpoint",
    ),
    KnownModel(
        name="x-asr-zh-en",
        source="hf://GilgameshWind/X-ASR-zh-en/deployment/models/chunk-480ms-model",
        license="Apache-2.0",
        languages="Chinese, English",
        mode="streaming",
        size_mb=None,
        int8_size_mb=None,
        about="X-ASR with punctuation and casing, 480 ms chunks (also chunk-160ms-model, 960ms, 1920ms)",
    ),
    KnownModel(
        name="vosk-model-ru",
        source="hf://alphacep/vosk-model-ru",
        license="Apache-2.0",
        languages="Russian",
        mode="offline",
        size_mb=262,
        int8_size_mb=70,
        about="Zipformer by Alpha Cephei; with its checkpoint",
    ),
    KnownModel(
        name="vosk-model-small-ru",
        source="hf://alphacep/vosk-model-small-ru@4d68c4017bcfa44e2a79581f7933339e916a35da",
        license="Apache-2.0",
        languages="Russian",
        mode="offline",
        size_mb=94,
        int8_size_mb=27,
        about="small Zipformer by Alpha Cephei",
    ),
    KnownModel(
        name="conformer-en-streaming",
        source="hf://pkufool/icefall_librispeech_streaming_pruned_transducer_stateless3_giga_0.9_20220625",
        license="Apache-2.0",
        languages="English",
        mode="streaming",
        size_mb=321,
        int8_size_mb=None,
        about="Conformer trained on LibriSpeech and GigaSpeech, as a checkpoint",
    ),
)


def known_model(name: str) -> KnownModel | None:
    return next((model for model in KNOWN_MODELS if model.name == name), None)
