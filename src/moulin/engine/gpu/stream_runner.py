"""What streams of causal Zipformer2 checkpoints run on with a GPU: `moulin.gpu.stream_pipeline`, in half precision."""

from __future__ import annotations

import logging

import torch

from moulin.arrays import Floats, Ints
from moulin.audio.fbank import FbankOptions
from moulin.bundle.checkpoint_spec import layout_of
from moulin.bundle.spec import CheckpointSpec
from moulin.bundle.transducer import load_transducer
from moulin.decoding.options import DecodingOptions
from moulin.encoders.zipformer2 import Zipformer2
from moulin.engine.gpu.model import open_predictor, unk_id
from moulin.engine.stream_runner import check_counts
from moulin.engine.torch.prediction import DTYPES, TorchPrediction
from moulin.errors import EngineError
from moulin.gpu.graphs import most_rows
from moulin.gpu.stream_pipeline import GpuStreamPipeline
from moulin.gpu.stream_zipformer2 import GpuStreamZipformer2, values_a_stream
from moulin.streaming.turns import Said, Turns
from moulin.streaming.window_layout import WindowLayout

logger = logging.getLogger(__name__)

MAX_BATCH = 1024
_STEP_BYTES = 5_500_000
"""What a step works in for each of its streams, graphs of all sizes together: 4.4 GB for 1,024, 21.2 GB for 4,096."""

DEFAULT_BEAM = DecodingOptions().beam


class GpuStreamRunner(TorchPrediction):
    """A `StreamStepper`. Decoder and joiner are there twice: on the card, and on the CPU for beams that are too wide
    for it.
    """

    def __init__(
        self,
        spec: CheckpointSpec,
        *,
        capacity: int,
        device: str = "cuda",
        threads: int | None = None,
        max_batch: int | None = None,
        beam: int = DEFAULT_BEAM,
        cuda_graphs: bool = True,
    ) -> None:
        """In the spec's precision. `capacity` streams may be open, and `max_batch` of them go through the encoder
        together. Beams up to `beam`, or a little more, are searched on the card.

        Raises BundleError for the checkpoint, EngineError where the device does not work or the model has a form that
        the GPU engine does not know, and OptionsError.
        """
        check_counts({"streams": capacity, "streams in a batch": max_batch})
        super().__init__(spec, load_transducer([spec.checkpoint]), device=device, threads=threads)
        # What is made of it goes to the device, in another form; the projection is part of it.
        plain, _ = self._encoder.cpu(), self._joiner.cpu()
        if not isinstance(plain, Zipformer2):
            raise EngineError(f"The GPU engine does not know the {plain.family} encoder of streams")
        self._capacity, self._beam_places = capacity, 1 << (beam - 1).bit_length()
        largest = most_rows(max_batch or MAX_BATCH)
        layout = layout_of(self._transducer, spec.checkpoint)
        fbank = FbankOptions(num_mel_bins=spec.feature_dim)
        self._windows = WindowLayout.of(fbank, layout.window_frames, layout.chunk_frames)
        dtype = DTYPES[spec.precision]
        stream_bytes = values_a_stream(plain.config, plain.chunk_size, plain.left_context_frames) * dtype.itemsize
        if self.device.type == "cuda":
            free, _ = torch.cuda.mem_get_info(self.device)
            check_memory(free, capacity, stream_bytes, largest)
        logger.info("%d streams of %.2f MB on %s", capacity, stream_bytes / 1e6, self.device)
        with self._computing():
            encoder = GpuStreamZipformer2(
                plain,
                self._joiner,
                capacity=capacity + 1,
                max_batch=largest,
                device=self.device,
                dtype=dtype,
                chunk_size=plain.chunk_size,
                left_context_frames=plain.left_context_frames,
            )
            self.pipeline = GpuStreamPipeline(
                encoder,
                open_predictor(spec, self._transducer, device=self.device, dtype=dtype),
                self._windows,
                feature_dim=spec.feature_dim,
                capacity=capacity,
                max_batch=largest,
                device=self.device,
                unk_id=unk_id(spec),
                beam_places=self._beam_places,
                cuda_graphs=cuda_graphs,
            )
        self._chunk_encoder_frames = encoder.out_frames

    @property
    def capacity(self) -> int:
        return self._capacity

    @property
    def max_batch(self) -> int:
        return self.pipeline.max_batch

    @property
    def inbox(self) -> Floats:
        return self.pipeline.inbox

    @property
    def windows(self) -> WindowLayout:
        return self._windows

    @property
    def chunk_encoder_frames(self) -> int:
        return self._chunk_encoder_frames

    @property
    def beam_places(self) -> int:
        return self._beam_places

    def step(self, turns: Turns, encoder_out_of: Ints) -> Said:
        with self._computing():
            return self.pipeline.step(turns, encoder_out_of)


def check_memory(free: int, capacity: int, stream_bytes: int, max_batch: int) -> None:
    """Raises EngineError where `free` bytes do not hold so many streams and what steps work in."""
    steps = max_batch * _STEP_BYTES
    if capacity * stream_bytes + steps <= free:
        return
    fitting = (free - steps) // stream_bytes
    raise EngineError(
        f"{capacity:,} streams of {stream_bytes / 1e6:.2f} MB and steps of {max_batch:,} streams need "
        f"{(capacity * stream_bytes + steps) / 1e9:.1f} GB of the GPU's memory, of which {free / 1e9:.1f} GB are free",
        hint=f"--max-streams {fitting}" if fitting > 0 else "a smaller --max-batch, or fewer --instances",
    )
