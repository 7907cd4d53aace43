"""Reading of a checkpoint as a checked `CheckpointSpec`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from moulin.bundle.checkpoint_files import find_checkpoint
from moulin.bundle.choice import Head
from moulin.bundle.files import vocabulary_on_disk
from moulin.bundle.spec import CheckpointSpec, StateSpec, StreamingSpec
from moulin.bundle.tokens import read_tokens
from moulin.bundle.transducer import load_with_facts
from moulin.bundle.untrusted_file import errors_of
from moulin.encoders.acoustic_model import AcousticModel
from moulin.encoders.encoder import StreamingLayout
from moulin.encoders.transducer import Transducer
from moulin.errors import BundleError


def load_checkpoint_spec(model: Path, *, streaming: bool, head: Head | None = None) -> CheckpointSpec:
    """Read and check the checkpoint at `model`, and its tokens.txt or bpe.model, to be decoded by `head`.

    Chunk and left context of streaming are those of its parameters, else the recipe's. Raises BundleError.
    """
    checkpoint = find_checkpoint(model)
    with errors_of(checkpoint):
        spec = _read(checkpoint, streaming=streaming)
    if spec.head == "ctc":
        if head == "transducer":
            raise BundleError(
                f"{checkpoint} has a CTC head alone, and no transducer",
                hint="leave out --head: it was trained with --use-transducer 0",
            )
        return spec
    if head != "ctc":
        return spec
    if not spec.has_ctc_head:
        raise BundleError(
            f"{checkpoint} has no CTC head, only a transducer's joiner",
            hint="leave out --head: it was not trained with --use-ctc",
        )
    return replace(spec, head="ctc", has_ctc_head=False, context_size=0, joiner_dim=0)


def _read(checkpoint: Path, *, streaming: bool) -> CheckpointSpec:
    loaded = load_with_facts([checkpoint])
    model = loaded.model
    transducer = model if isinstance(model, Transducer) else None
    tokens, bpe_model = vocabulary_on_disk(checkpoint)
    return CheckpointSpec(
        family=model.encoder.family,
        tokens=read_tokens(tokens, model.vocab_size, bpe_model),
        feature_dim=model.encoder.feature_dim,
        vocab_size=model.vocab_size,
        context_size=transducer.decoder.context_size if transducer else 0,
        joiner_dim=transducer.joiner.joiner_dim if transducer else 0,
        streaming=_streaming_spec(layout_of(model, checkpoint)) if streaming else None,
        checkpoint=checkpoint,
        tokens_file=tokens,
        doubts=tuple(loaded.doubts(streaming=streaming)),
        head="transducer" if transducer else "ctc",
        has_ctc_head=transducer is not None and transducer.ctc is not None,
    )


def layout_of(model: AcousticModel, checkpoint: Path) -> StreamingLayout:
    """The window, chunk and states of `model` in streaming. Raises BundleError where it was not trained for it."""
    try:
        return model.encoder.streaming_layout()
    except ValueError as error:
        raise BundleError(
            f"{checkpoint} cannot stream: {error}",
            hint="use it for whole utterances: without --streaming, or with moulin transcribe",
        ) from error


def _streaming_spec(layout: StreamingLayout) -> StreamingSpec:
    states = (
        StateSpec(state.name, str(state.dtype).removeprefix("torch."), (1, *state.shape), batch_axis=0)
        for state in layout.states
    )
    return StreamingSpec(layout.window_frames, layout.chunk_frames, tuple(states))
