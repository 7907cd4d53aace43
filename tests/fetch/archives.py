"""Archives with a model, and fetching them."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

from moulin.fetch.archive import fetch_archive, parse_archive_url
from tests.bundles import BUNDLES

NAME = "sherpa-onnx-tiny-2026.tar.bz2"


PATH = f"/releases/download/asr-models/{NAME}"


def tar_of(*members: tuple[tarfile.TarInfo, bytes], mode: str = "w:bz2") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as tar:  # type: ignore[call-overload]
        for member, content in members:
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def a_file(name: str, content: bytes = b"x") -> tuple[tarfile.TarInfo, bytes]:
    return tarfile.TarInfo(name), content


def model_members(
    top: str = "sherpa-onnx-tiny-2026", bundle: str = "lstm-streaming"
) -> list[tuple[tarfile.TarInfo, bytes]]:
    return [
        *(a_file(f"{top}/{file.name}", file.read_bytes()) for file in (BUNDLES / bundle).iterdir()),
        a_file(f"{top}/test_wavs/0.wav", b"RIFF"),
    ]


def fetch(url: str, cache: Path) -> tuple[Path, int]:
    fetched = fetch_archive(parse_archive_url(url), cache)
    return fetched.folder, fetched.received_bytes
