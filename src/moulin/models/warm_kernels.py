"""Compilation of a model's GPU kernels into the cache, before anything is served and without a card."""

from __future__ import annotations

from moulin.bundle.spec import ModelSpec
from moulin.decoding.options import DecodingOptions
from moulin.engine.device import gpu_index
from moulin.engine.features import TAIL_PADDING_SEC
from moulin.engine.limits import MAX_AUDIO_SEC
from moulin.errors import EngineError, OptionsError, first_line
from moulin.models.precisions import runs_on_gpu_engine


def warm_kernels(
    spec: ModelSpec,
    capability: int,
    *,
    max_audio_sec: float = MAX_AUDIO_SEC,
    max_batch: int | None = None,
    beam: int = DecodingOptions().beam,
) -> int:
    """Compile the kernels of `spec`, one that `settled` has completed for a GPU, for cards of the compute `capability`
    (90 for 9.0), as its openers with the same options would.

    Returns their number; 0 where they were in the cache. Raises BundleError, OptionsError where our GPU engine does
    not run it in its precision, and EngineError where the engine does not know the model or a kernel cannot be
    compiled.
    """
    if spec.head == "ctc":
        raise OptionsError(
            f"The kernels of a transducer are compiled ahead, and of {spec.name} the CTC head is decoded",
            hint="leave out --head; its kernels are compiled when they are first launched",
        )
    if not runs_on_gpu_engine("cuda", spec.precision):
        raise OptionsError(
            f"{spec.name} runs in {spec.precision} as plain modules, for which no kernels are compiled",
            hint="leave out --precision",
        )
    from moulin.bundle.transducer import transducer_of
    from moulin.engine.gpu.kernels import stream_kernels, utterance_kernels
    from moulin.gpu.kernel_cache import complete_kernels
    from moulin.gpu.kernel_compiler import compiles_ahead

    if not compiles_ahead():
        raise EngineError("Expected Triton-lang 3.4 or newer, which compiles kernels ahead", hint="a newer PyTorch")
    transducer = transducer_of(spec)
    kernels = (
        stream_kernels(spec, transducer, max_batch=max_batch, beam=max(beam, DecodingOptions().beam))
        if spec.streaming
        else utterance_kernels(spec, transducer, max_audio_sec=max_audio_sec, tail_padding_sec=TAIL_PADDING_SEC)
    )
    try:
        return complete_kernels(kernels, capability)
    except (OSError, RuntimeError) as error:
        raise EngineError(f"The GPU kernels of {spec.name} cannot be compiled: {first_line(error)}") from error


def compute_capability(said: str | None, device: str) -> int:
    """The compute capability `said`, "9.0", or that of the card `device`: 90. Raises OptionsError."""
    if said is not None:
        major, dot, minor = said.partition(".")
        if not (dot and major.isdecimal() and minor.isdecimal() and len(minor) == 1 and int(major) >= 7):
            raise OptionsError(
                f"Expected a compute capability of 7.0 or more, such as 9.0, got {said!r}",
                hint="nvidia-smi --query-gpu=compute_cap --format=csv says a card's; an H100's and H200's is 9.0",
            )
        return 10 * int(major) + int(minor)
    import torch

    if not torch.cuda.is_available():
        raise OptionsError(
            "Expected --compute-capability of the card that will serve, for there is no GPU here",
            hint="nvidia-smi --query-gpu=compute_cap --format=csv says it there; an H100's and H200's is 9.0",
        )
    major_here, minor_here = torch.cuda.get_device_capability(gpu_index(device) or 0)
    return 10 * major_here + minor_here
