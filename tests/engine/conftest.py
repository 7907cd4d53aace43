from __future__ import annotations

import numpy as np
import pytest
import soundfile

from moulin.arrays import Floats
from moulin.evaluate.manifest import demo_clips


@pytest.fixture(scope="session")
def clips() -> list[Floats]:
    """The demo recordings as waveforms, 5 to 9 seconds each."""
    return [soundfile.read(clip.audio, dtype="float32")[0] for clip in demo_clips()]


@pytest.fixture(scope="session")
def noises() -> list[Floats]:
    """1.3 to 3 seconds of noise, of odd lengths that no frame shift divides."""
    rng = np.random.default_rng(0)
    return [0.1 * rng.standard_normal(num, dtype=np.float32) for num in (20_011, 25_007, 47_321, 31_234)]
