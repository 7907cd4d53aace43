"""Decoded sound of any rates and channel counts to the blocks of a recording: one rate, one channel."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from moulin.arrays import Floats
from moulin.audio.channels import MOST_MIXED, ChannelMixer
from moulin.audio.decoded import Gap, Sound, check_rate
from moulin.audio.faults import Faults
from moulin.audio.timeline import MAX_SILENCE_SEC, Skip
from moulin.audio.waveform import check_waveform
from moulin.errors import AudioError

_SILENCE_BLOCK = 16_000


class Mono:
    """Sound of any rate and number of channels to blocks of one rate and channel."""

    def __init__(self, name: str, channel: int | None, sample_rate: int, faults: Faults) -> None:
        self._name, self._channel, self._rate, self._faults = name, channel, sample_rate, faults
        self._has_channel = False

    def blocks(self, sounds: Iterator[Sound | Gap]) -> Iterator[Floats | Skip]:
        run: _Run | None = None
        for sound in sounds:
            if isinstance(sound, Gap):
                if run is not None:
                    yield from run.rest()
                    run = None
                yield from _silence(round(sound.seconds * self._rate), self._rate)
                continue
            kind = sound.rate, sound.samples.shape[1]
            if run is not None and run.kind != kind:
                yield from run.rest()
                run = None
            if run is None:
                check_rate(sound.rate, self._name)
                self._check_channel(kind[1])
                run = _Run(self._name, kind, self._channel, self._rate, self._faults)
            yield from run.taken(sound.samples)
        if run is not None:
            yield from run.rest()

    def _check_channel(self, channels: int) -> None:
        """Raises AudioError where a file does not have the channel, or too many for a mix; a later part without it is
        silent."""
        if self._channel is None and channels > MOST_MIXED:
            raise AudioError(
                f"{self._name} has {channels} channels, expected at most {MOST_MIXED} to be mixed",
                hint="choose one by its number",
            )
        if self._channel is None or self._channel <= channels:
            self._has_channel = True
            return
        if not self._has_channel:
            check_channel(self._name, channels, self._channel)
        self._faults.add(f"a part of the file has no channel {self._channel}")


class _Run:
    """Sound of one rate and number of channels on its way."""

    def __init__(self, name: str, kind: tuple[int, int], channel: int | None, sample_rate: int, faults: Faults) -> None:
        self.kind = kind
        self._name, self._channel, self._frames = name, channel, 0
        rate, channels = kind
        self._mixer = ChannelMixer(channels, rate, faults) if channel is None and channels > 1 else None
        self._resampler = None
        if rate != sample_rate:
            import soxr

            self._resampler = soxr.ResampleStream(rate, sample_rate, 1, dtype="float32", quality="HQ")

    def taken(self, samples: Floats) -> Iterator[Floats]:
        _check_finite(self._name, samples, self._frames, self.kind[0])
        self._frames += len(samples)
        if self._mixer is not None:
            yield from self._resampled(self._mixer.mixed(samples))
        elif self._channel is None or self._channel <= self.kind[1]:
            yield from self._resampled(samples[:, (self._channel or 1) - 1])
        else:
            yield from self._resampled(np.zeros(len(samples), np.float32))

    def rest(self) -> Iterator[Floats]:
        rest = self._mixer.rest() if self._mixer is not None else np.zeros(0, np.float32)
        yield from self._resampled(rest, last=True)

    def _resampled(self, mono: Floats, *, last: bool = False) -> Iterator[Floats]:
        if self._resampler is not None and (last or len(mono)):
            mono = self._resampler.resample_chunk(mono, last=last)
        if len(mono):
            yield check_waveform(mono, what=self._name)


def check_channel(name: str, channels: int, channel: int) -> None:
    """Raises AudioError for a `channel`, from 1, that is not one of `channels`."""
    if channel > channels:
        raise AudioError(f"{name} has {channels} channel{'s'[: channels > 1]}, expected channel {channel}")


def _silence(samples: int, sample_rate: int) -> Iterator[Floats | Skip]:
    if samples > MAX_SILENCE_SEC * sample_rate:
        yield Skip(samples)
        return
    for at in range(0, samples, _SILENCE_BLOCK):
        yield np.zeros(min(_SILENCE_BLOCK, samples - at), np.float32)


def _check_finite(name: str, block: Floats, first_frame: int, rate: int) -> None:
    finite = np.isfinite(block)
    if not finite.all():
        frame, channel = np.argwhere(~finite)[0]
        raise AudioError(
            f"{name}: expected finite samples, got {block[frame, channel]} at sample {first_frame + frame}"
            f" ({(first_frame + frame) / rate:.3f} s)",
            hint="the program that made this file divided by zero or overflowed",
        )
