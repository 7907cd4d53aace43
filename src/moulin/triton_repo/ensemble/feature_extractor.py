"""The component `feature_extractor`: wav, wav_lens to x, x_lens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from moulin.arrays import Floats
from moulin.audio.fbank import PADDING_VALUE, pad_features
from moulin.bundle.spec import MIN_FRAMES
from moulin.engine.features import FeatureExtractor
from moulin.engine.together import answer_together
from moulin.errors import EngineError, MoulinError
from moulin.triton_repo.ensemble.part import Tensors
from moulin.triton_repo.offline_service import read_waveforms


@dataclass(frozen=True)
class FeatureExtractorPart:
    """Computes features, padded behind the given lengths to `min_frames`, which the encoder needs at least.

    With `pad_together` all requests of a call are padded to the same length, so that Triton can batch them for the
    encoder.
    """

    extractor: FeatureExtractor
    min_frames: int
    pad_together: bool
    x_dtype: str = "float32"
    x_lens_dtype: str = "int64"

    def answer(self, requests: Sequence[Tensors]) -> list[Tensors | MoulinError]:
        checked = [self._waveforms(request) for request in requests]
        good = [waveforms for waveforms in checked if not isinstance(waveforms, MoulinError)]
        features = answer_together(good, self._features, what="Computing features")
        longest = max((len(rows) for found in features if isinstance(found, list) for rows in found), default=0)
        num_frames = max(self.min_frames, longest if self.pad_together else 0)
        found = iter(features)
        answers = [answer if isinstance(answer, MoulinError) else next(found) for answer in checked]
        return [answer if isinstance(answer, MoulinError) else self._padded(answer, num_frames) for answer in answers]

    def close(self) -> None:
        self.extractor.close()

    def _waveforms(self, request: Tensors) -> list[Floats] | MoulinError:
        try:
            return read_waveforms(request["wav"], request["wav_lens"], self.extractor.check)
        except MoulinError as error:
            return error
        except Exception as error:  # whatever a request makes fail must stay its own failure
            return EngineError(f"The request cannot be read: {type(error).__name__}: {error}")

    def _features(self, requests: Sequence[list[Floats]]) -> list[list[Floats]]:
        features = iter(self.extractor([waveform for request in requests for waveform in request]))
        return [[next(features) for _ in request] for request in requests]

    def _padded(self, features: Sequence[Floats], num_frames: int) -> Tensors:
        x, x_lens = pad_features(features, MIN_FRAMES)
        missing = max(0, num_frames - x.shape[1])
        x = np.pad(x, ((0, 0), (0, missing), (0, 0)), constant_values=PADDING_VALUE)
        return {
            "x": x.astype(self.x_dtype, copy=False),
            "x_lens": x_lens[:, None].astype(self.x_lens_dtype, copy=False),
        }
