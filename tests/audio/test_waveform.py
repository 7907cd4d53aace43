from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from numpy.typing import ArrayLike, NDArray

from moulin.audio.waveform import check_waveform, check_waveforms
from moulin.errors import AudioError


def test_a_good_waveform_is_returned_without_a_copy() -> None:
    samples = np.linspace(-1, 1, 100, dtype=np.float32)
    assert check_waveform(samples) is samples


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_other_floats_become_float32(dtype: type) -> None:
    checked = check_waveform(np.array([0.5, -1.0], dtype))
    assert checked.dtype == np.float32
    assert checked.tolist() == [0.5, -1.0]


def test_a_strided_view_becomes_contiguous() -> None:
    checked = check_waveform(np.zeros((10, 2), np.float32)[:, 1])
    assert checked.flags.c_contiguous


def test_int16_is_scaled() -> None:
    assert check_waveform(np.array([-32768, 0, 16384], np.int16)).tolist() == [-1.0, 0.0, 0.5]


@pytest.mark.parametrize("samples", [[], np.zeros(0, np.float32), np.zeros(0, np.int16)])
def test_no_samples_are_a_waveform(samples: ArrayLike) -> None:
    checked = check_waveform(samples)
    assert checked.shape == (0,)
    assert checked.dtype == np.float32


def test_overshoot_is_kept() -> None:
    assert check_waveform(np.array([1.25], np.float32)).tolist() == [1.25]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_says_where_a_sample_is_not_finite(bad: float, dtype: type) -> None:
    samples: NDArray[np.generic] = np.zeros(1000, dtype)
    samples[[417, 900]] = bad
    with pytest.raises(AudioError, match=f"x.wav: expected finite samples, got {bad} at sample 417 of 1000"):
        check_waveform(samples, what="x.wav")


@pytest.mark.parametrize("peak", [20134.0, -20134.0])
def test_says_how_to_scale_integers_that_became_floats(peak: float) -> None:
    with pytest.raises(AudioError, match=r"floats in \[-1, 1\], got a peak of 20134") as caught:
        check_waveform(np.array([0, peak], np.float32))
    assert caught.value.hint == "divide 16-bit samples by 32768"


def test_a_double_beyond_float32_is_refused_not_overflowed() -> None:
    with pytest.raises(AudioError, match="peak of 1e"):
        check_waveform(np.array([1e300]))


@pytest.mark.parametrize("shape", [(), (1, 10), (10, 2)])
def test_refuses_other_shapes(shape: tuple[int, ...]) -> None:
    with pytest.raises(AudioError, match="shape \\[N\\], got shape"):
        check_waveform(np.zeros(shape, np.float32))


@pytest.mark.parametrize("dtype", [np.int32, np.uint8, np.complex64, np.bool_, np.str_])
def test_refuses_other_dtypes(dtype: type) -> None:
    with pytest.raises(AudioError, match="expected float32 or int16 samples"):
        check_waveform(np.zeros(3, dtype))


def test_importing_the_room_imports_no_audio_library() -> None:
    program = (
        "import sys, moulin.audio.decode, moulin.audio.fbank;"
        "print([m for m in ('soundfile', 'soxr', 'av', 'kaldi_native_fbank') if m in sys.modules])"
    )
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"


def test_many_waveforms_at_once() -> None:
    loud = np.full((3, 5000), 0.9, np.float32)
    assert check_waveforms(loud) is loud
    assert check_waveforms(np.zeros((0, 5), np.float32)).shape == (0, 5)
    integers = np.array([[1, -2]], np.int16)
    assert check_waveforms(integers) is integers
    doubles = check_waveforms(np.full((2, 3), 0.5))
    assert doubles.dtype == np.float32
    for value, message in ((np.nan, "got nan at sample 7"), (np.inf, "got inf"), (17.0, "got a peak of 17")):
        broken = loud.copy()
        broken[2, 7] = value
        with pytest.raises(AudioError, match=f"waveform 2: .*{message}"):
            check_waveforms(broken)
    with pytest.raises(AudioError, match=r"shape \[N, n\], got \[4\]"):
        check_waveforms(np.zeros(4, np.float32))
    with pytest.raises(AudioError, match="expected float32 or int16 samples, got int32"):
        check_waveforms(np.zeros((1, 4), np.int32))
