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
    transducer = loaded.transducer
    tokens, bpe_model = vocabulary_on_disk(checkpoint)
    vocab_size = transducer.joiner.vocab_size
    return CheckpointSpec(
        family=transducer.encoder.family,
        tokens=read_tokens(tokens, vocab_size, bpe_model),
        feature_dim=transducer.encoder.feature_dim,
        vocab_size=vocab_size,
        context_size=transducer.decoder.context_size,
        joiner_dim=transducer.joiner.joiner_dim,
        streaming=_streaming_spec(layout_of(transducer, checkpoint)) if streaming else None,
        checkpoint=checkpoint,
        tokens_file=tokens,
        doubts=tuple(loaded.doubts(streaming=streaming)),
        has_ctc_head=transducer.ctc is not None,
    )


def layout_of(transducer: Transducer, checkpoint: Path) -> StreamingLayout:
    """The window, chunk and states of `transducer` in streaming. Raises BundleError where it was not trained for it."""
    try:
        return transducer.encoder.streaming_layout()
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
