"""The networks of a transducer with the inputs and outputs of Icefall's exports, as `torch.nn.Module`s."""

from __future__ import annotations

from torch import Tensor, nn

from moulin.encoders.ctc_model import CtcModel
from moulin.encoders.encoder import StreamingLayout
from moulin.encoders.transducer import Transducer


class OfflineEncoder(nn.Module):
    """x [N, T, feature_dim] and x_lens [N] to encoder_out [N, T', joiner_dim] and encoder_out_lens [N], and with a CTC
    head to its log-probabilities [N, T', vocab_size]."""

    def __init__(self, transducer: Transducer) -> None:
        super().__init__()
        self._transducer = transducer

    def forward(self, x: Tensor, x_lens: Tensor) -> tuple[Tensor, ...]:
        transducer = self._transducer
        return transducer.encode_with_log_probs(x, x_lens) if transducer.ctc else transducer.encode(x, x_lens)


class StreamingEncoder(nn.Module):
    """x [N, window_frames, feature_dim] and the states to encoder_out [N, T', joiner_dim] and the next states, with
    Icefall's batch axes and without the counters that Icefall leaves to the caller; at last, with a CTC head, its
    log-probabilities [N, T', vocab_size]. Of a CTC model these stand in the place of encoder_out."""

    def __init__(self, model: Transducer | CtcModel, layout: StreamingLayout) -> None:
        super().__init__()
        self._model, self._layout = model, layout

    def forward(self, x: Tensor, *states: Tensor) -> tuple[Tensor, ...]:
        layout = self._layout.states
        ours = [state.movedim(spec.batch_axis, 0) for state, spec in zip(states, layout, strict=True)]
        encoder_out, following = self._model.encoder.streaming_forward(x, ours)
        returned = [
            state.movedim(0, spec.batch_axis)
            for state, spec in zip(following, layout, strict=True)
            if not spec.increment
        ]
        model = self._model
        log_probs = [model.ctc(encoder_out)] if model.ctc else []
        if isinstance(model, CtcModel):
            return *log_probs, *returned
        return model.joiner.encoder_proj(encoder_out), *returned, *log_probs


class OfflineCtc(nn.Module):
    """x [N, T, feature_dim] and x_lens [N] to log_probs [N, T', vocab_size] and log_probs_len [N]."""

    def __init__(self, model: CtcModel) -> None:
        super().__init__()
        self._model = model

    def forward(self, x: Tensor, x_lens: Tensor) -> tuple[Tensor, Tensor]:
        return self._model.log_probs(x, x_lens)


class ProjectedDecoder(nn.Module):
    """y [N, context_size] to decoder_out [N, joiner_dim]."""

    def __init__(self, transducer: Transducer) -> None:
        super().__init__()
        self._transducer = transducer

    def forward(self, y: Tensor) -> Tensor:
        return self._transducer.predict(y)
