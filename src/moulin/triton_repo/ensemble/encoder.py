"""The component `encoder` in python: x, x_lens to encoder_out, encoder_out_lens, and of a transducer with a CTC head
blank_log_probs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from moulin.arrays import Floats
from moulin.engine.encoding import BatchedEncoder
from moulin.engine.together import answer_together
from moulin.errors import MoulinError, OptionsError
from moulin.onnx_rewrites.ctc_head import BLANK_OUTPUT
from moulin.triton_repo.ensemble.part import Tensors


@dataclass(frozen=True)
class EncoderPart:
    """Cuts the padding off, sorts the utterances of all requests and forms batches of its own."""

    encoder: BatchedEncoder
    channels: int
    """Those of encoder_out; one more is that of blank (`moulin.decoding.blank_skip`)."""

    def answer(self, requests: Sequence[Tensors]) -> list[Tensors | MoulinError]:
        checked = [_features(request) for request in requests]
        good = [features for features in checked if not isinstance(features, MoulinError)]
        answers = iter(answer_together(good, self._encode, what="The encoder"))
        return [answer if isinstance(answer, MoulinError) else next(answers) for answer in checked]

    def close(self) -> None:
        self.encoder.close()

    def _encode(self, requests: Sequence[list[Floats]]) -> list[Tensors]:
        encoder_out, lengths = self.encoder([features for request in requests for features in request])
        answers: list[Tensors] = []
        first = 0
        for request in requests:
            rows = slice(first, first + len(request))
            frames = encoder_out[rows, : int(lengths[rows].max())]
            answer: dict[str, NDArray[Any]] = {
                "encoder_out": frames[..., : self.channels],
                "encoder_out_lens": lengths[rows, None],
            }
            if frames.shape[2] > self.channels:
                answer[BLANK_OUTPUT] = frames[..., self.channels :]
            answers.append(answer)
            first += len(request)
        return answers


def _features(request: Tensors) -> list[Floats] | MoulinError:
    x, x_lens = request["x"], request["x_lens"].ravel().tolist()
    if len(x_lens) != len(x) or not all(0 <= length <= x.shape[1] for length in x_lens):
        return OptionsError(f"Expected x_lens of 0 to {x.shape[1]}, the frames of x, for {len(x)} rows, got {x_lens}")
    return [row[:length] for row, length in zip(x, x_lens, strict=True)]
