from __future__ import annotations

import pytest

from moulin.bundle.load import load_bundle
from moulin.engine.onnxruntime.runner import OnnxRuntimeRunner
from tests.bundles import BUNDLES, OFFLINE


@pytest.fixture(scope="module", params=OFFLINE)
def offline_runner(request: pytest.FixtureRequest) -> OnnxRuntimeRunner:
    return OnnxRuntimeRunner(load_bundle(BUNDLES / request.param), threads=2)
