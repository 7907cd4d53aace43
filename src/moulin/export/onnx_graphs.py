"""The networks of a transducer with the inputs and outputs of Icefall's exports, as `torch.nn.Module`s."""

from __future__ import annotations

from torch import Tensor, nn

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
    log-probabilities [N, T', vocab_size]."""

    def __init__(self, transducer: Transducer, layout: StreamingLayout) -> None:
        super().__init__()
        self._transducer, self._layout = transducer, layout

    def forward(self, x: Tensor, *states: Tensor) -> tuple[Tensor, ...]:
        layout = self._layout.states
        ours = [state.movedim(spec.batch_axis, 0) for state, spec in zip(states, layout, strict=True)]
        encoder_out, following = self._transducer.encoder.streaming_forward(x, ours)
        returned = [
            state.movedim(0, spec.batch_axis)
            for state, spec in zip(following, layout, strict=True)
            if not spec.increment
        ]
        ctc = self._transducer.ctc
        log_probs = [ctc(encoder_out)] if ctc else []
        return self._transducer.joiner.encoder_proj(encoder_out), *returned, *log_probs


class ProjectedDecoder(nn.Module):
    """y [N, context_size] to decoder_out [N, joiner_dim]."""

    def __init__(self, transducer: Transducer) -> None:
        super().__init__()
        self._transducer = transducer

    def forward(self, y: Tensor) -> Tensor:
        return self._transducer.predict(y)
