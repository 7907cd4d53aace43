"""Steps of streams of a checkpoint on a GPU, in half precision: `moulin.gpu.stream_pipeline`."""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np
import torch

from moulin.arrays import Ints
from moulin.audio.fbank import FbankOptions
from moulin.bundle.spec import ModelSpec
from moulin.decoding.context_graph import ContextGraph
from moulin.decoding.found import Found
from moulin.decoding.language_model import Fusion
from moulin.decoding.options import MAX_BEAM, DecodingOptions
from moulin.decoding.row_options import RowOptions
from moulin.decoding.search import Searches
from moulin.encoders.transducer import Transducer
from moulin.engine.gpu.kernels import complete_on, step_bytes, step_limits, stream_kernels
from moulin.engine.gpu.model import open_predictor
from moulin.engine.stepper import StepLimits
from moulin.engine.stream_runner import check_counts
from moulin.engine.torch.prediction import DTYPES, TorchPrediction, computing, torch_device
from moulin.errors import BundleError, EngineError
from moulin.gpu.arena import ROWS, AutomatonArena
from moulin.gpu.open_encoder import gpu_stream_encoder, state_bytes
from moulin.gpu.stream_pipeline import GpuStreamPipeline
from moulin.streaming.inbox import Inbox
from moulin.streaming.turns import Turns
from moulin.streaming.window_layout import WindowLayout

logger = logging.getLogger(__name__)

_MOST_GRAPH_ROWS = 1 << 16
"""States of a stream's own hotwords that the card searches, at most; with many streams in a batch fewer."""

_GATHERING_SEC = 0.01

DEFAULT_BEAM = DecodingOptions().beam


class GpuStepper:
    """A `Stepper` that makes one step at a time.

    Streams whose beams are too wide for the card, or whose own hotwords too many, are searched on the host, from
    encoder frames copied there; the decoder and joiner are on the CPU too for these.
    """

    def __init__(
        self,
        spec: ModelSpec,
        transducer: Transducer,
        *,
        capacity: int,
        device: str = "cuda",
        threads: int | None = None,
        max_batch: int | None = None,
        beam: int = DEFAULT_BEAM,
        cuda_graphs: bool = True,
        hotwords: ContextGraph | None = None,
        fusion: Fusion | None = None,
    ) -> None:
        """`transducer` is the loaded one of `spec`, in whose precision it runs. `capacity` streams may be open, and
        `max_batch` of them go through the encoder together. Beams up to `beam`, rounded up to a power of two, are
        searched on the card. `threads` are PyTorch's on the CPU. `hotwords` are the server's own, and `fusion` its
        language model.

        Raises BundleError for an offline model, EngineError where the device does not work or the model has a form that
        the GPU engine does not know, and OptionsError.
        """
        check_counts({"streams": capacity, "streams in a batch": max_batch})
        if spec.streaming is None:
            raise BundleError(f"Expected a streaming model, got the {spec.mode} {spec.family} in {spec.path}")
        self._device, dtype = torch_device(device), DTYPES[spec.precision]
        largest, self._beam_places = step_limits(max_batch, beam)
        stream_bytes = state_bytes(transducer.encoder, dtype)
        self._most_graph_rows = min(_MOST_GRAPH_ROWS, ROWS // largest)
        arena = AutomatonArena(self._device, rows=largest * self._most_graph_rows, server=hotwords, fusion=fusion)
        if self._device.type == "cuda":
            free, _ = torch.cuda.mem_get_info(self._device)
            check_memory(free, capacity, stream_bytes, largest, step_bytes(spec, transducer, beam=beam))
        logger.info("%d streams of %.2f MB on %s", capacity, stream_bytes / 1e6, self._device)
        fbank = FbankOptions(num_mel_bins=spec.feature_dim)
        layout = WindowLayout.of(fbank, spec.streaming.window_frames, spec.streaming.chunk_frames)
        complete_on(self._device, stream_kernels(spec, transducer, max_batch=max_batch, beam=beam))
        with computing(self._device):
            self.pipeline = GpuStreamPipeline(
                gpu_stream_encoder(
                    transducer, capacity=capacity + 1, max_batch=largest, device=self._device, dtype=dtype
                ),
                open_predictor(spec, transducer, device=self._device, dtype=dtype),
                layout,
                capacity=capacity,
                max_batch=largest,
                beam_places=self._beam_places,
                arena=arena,
                device=self._device,
                cuda_graphs=cuda_graphs,
            )
        self.limits = StepLimits(capacity, self.pipeline.max_batch, gathering_sec=_GATHERING_SEC)
        self.inbox = Inbox(self.pipeline.rings, layout)
        network = TorchPrediction(spec, transducer, threads=threads)
        self._on_host = Searches(network, slots=capacity, places=MAX_BEAM, joiner_dim=spec.joiner_dim, fusion=fusion)

    def step(self, turns: Turns) -> Found:
        """See `Stepper`. Where a search on the host fails, the step's searches on the card have gone on."""
        wide = self._too_wide(turns.options)
        with computing(self._device):
            if not len(wide):
                found, _ = self.pipeline.step(turns, wide)
                return found
            options = turns.options.take(np.arange(len(turns.numbers)))
            options.beams[wide], options.graphs[wide] = 0, None
            on_card, encoder_out = self.pipeline.step(replace(turns, options=options), wide)
        frames = encoder_out.shape[1]
        found = Found.nothing(len(turns.numbers), turns.options.places, frames)
        found.put(np.arange(len(turns.numbers)), on_card)
        lengths = np.full(len(wide), frames)
        chosen = turns.options.take(wide)
        found.put(wide, self._on_host.advance(turns.continuation.take(wide), encoder_out, lengths, chosen))
        return found

    def _too_wide(self, options: RowOptions) -> Ints:
        """The rows that are searched on the host: the same ones in all steps of a stream's search."""
        wide = options.beams > self._beam_places
        for row in np.flatnonzero(options.graphs[:, 1]).tolist():
            wide[row] |= len(options.graphs[row, 1]) >= self._most_graph_rows
        return np.flatnonzero(wide)


def check_memory(free: int, capacity: int, stream_bytes: int, max_batch: int, step_bytes: int) -> None:
    """Raises EngineError where `free` bytes do not hold so many streams and the working memory of steps."""
    steps = max_batch * step_bytes
    if capacity * stream_bytes + steps <= free:
        return
    fitting = (free - steps) // stream_bytes
    raise EngineError(
        f"{capacity:,} streams of {stream_bytes / 1e6:.2f} MB and steps of {max_batch:,} streams need "
        f"{(capacity * stream_bytes + steps) / 1e9:.1f} GB of the GPU's memory, of which {free / 1e9:.1f} GB are free",
        hint=f"--max-streams {fitting}" if fitting > 0 else "a smaller --max-batch, or fewer --instances",
    )
