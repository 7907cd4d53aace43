"""Every bundle's checkpoint, exported by moulin in the form in which Icefall's own scripts exported it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from moulin.bundle.files import find_bundle_files
from moulin.bundle.onnx_files import OnnxFiles
from moulin.bundle.transducer import load_transducer
from moulin.encoders.encoder import StreamingLayout
from moulin.encoders.transducer import Transducer
from moulin.export.to_onnx import export_onnx
from tests.bundles import BUNDLES, OFFLINE, STREAMING

SIZES = {"zipformer2-streaming": (16, 64)}
"""Chunk and left context of the streaming bundles, where they are not the recipe's default."""


@dataclass(frozen=True)
class Exported:
    bundle: str
    transducer: Transducer
    layout: StreamingLayout | None
    files: OnnxFiles

    @property
    def icefalls(self) -> OnnxFiles:
        files = find_bundle_files(BUNDLES / self.bundle, "fp32")
        return OnnxFiles(files.encoder, files.decoder, files.joiner)


@pytest.fixture(scope="package", params=[*OFFLINE, *STREAMING])
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    bundle: str = request.param
    folder = tmp_path_factory.mktemp(bundle)
    transducer = load_transducer([BUNDLES / bundle / "epoch-1.pt"])
    layout = transducer.encoder.streaming_layout(*SIZES.get(bundle, ())) if bundle in STREAMING else None
    (folder / "tokens.txt").write_bytes((BUNDLES / bundle / "tokens.txt").read_bytes())
    return Exported(bundle, transducer, layout, export_onnx(transducer, folder, "epoch-1-avg-1", layout))


def folder_of(exported: Exported) -> Path:
    return exported.files.encoder.parent
