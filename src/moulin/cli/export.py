"""`moulin export`: Icefall checkpoints to ONNX."""

from __future__ import annotations

import secrets
import shlex
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from moulin.cli.flags import with_flags, without
from moulin.cli.interrupt import unfinished
from moulin.cli.messages import say
from moulin.cli.model_options import ModelOptions
from moulin.cli.steps import step
from moulin.errors import EngineError, OptionsError

if TYPE_CHECKING:
    from moulin.arrays import Floats
    from moulin.bundle.files import Precision
    from moulin.encoders.acoustic_model import AcousticModel
    from moulin.encoders.ctc_model import CtcModel
    from moulin.encoders.encoder import StreamingLayout
    from moulin.encoders.transducer import Transducer


def add_to(app: typer.Typer) -> None:
    app.command(
        name="export",
        epilog="Example: moulin export exp --epoch 30 --avg 9 --use-averaged-model --to model --streaming",
    )(export)


@with_flags
def export(
    checkpoints: Annotated[
        list[Path],
        typer.Argument(
            metavar="CHECKPOINT",
            help="epoch-N.pt, checkpoint-N.pt, pretrained.pt; several are averaged. Or a folder of them.",
        ),
    ],
    to: Annotated[Path, typer.Option(help="The folder to write into.")],
    streaming: Annotated[bool, typer.Option("--streaming", help="For live audio, chunk by chunk.")] = False,
    safetensors: Annotated[
        bool,
        typer.Option(
            "--safetensors", help="Also write model.safetensors: the parameters (averaged) in moulin's stored form."
        ),
    ] = False,
    fp16: Annotated[bool, typer.Option("--fp16", help="Also write *.fp16.onnx.")] = False,
    int8: Annotated[bool, typer.Option("--int8", help="Also write *.int8.onnx.")] = False,
    *,
    said: Annotated[ModelOptions, without("language")],
) -> None:
    """Export an Icefall checkpoint to ONNX, and compare the files with the PyTorch modules they were made from.

    Names, order and metadata are those of Icefall's own export scripts, so that Icefall's tools and sherpa-onnx load
    the files too.
    """
    recipe = said.recipe.recipe(streaming=streaming)
    from moulin.bundle.checkpoint_choice import choose_checkpoints
    from moulin.bundle.checkpoint_files import require_torch
    from moulin.bundle.tokens import read_tokens
    from moulin.cli.chosen_model import copy_vocabulary, vocabulary_of
    from moulin.cli.messages import warn

    chosen = choose_checkpoints(checkpoints, said.checkpoint)
    last = chosen.files[-1]
    with step("Reading " + ", ".join(map(str, chosen.files))):
        require_torch()  # seconds already
        from moulin.bundle.ctc_model import load_onnx_model
        from moulin.bundle.transducer import load_with_facts
        from moulin.encoders.recipe import NOTHING_SAID

        loaded = load_with_facts(
            chosen.files, use_averaged_model=chosen.use_averaged_model, recipe=recipe or NOTHING_SAID
        )
    model = loaded.model
    for doubt in loaded.doubts(streaming=streaming):
        warn(doubt)
    vocabulary = vocabulary_of(last, said.tokens)
    table = read_tokens(vocabulary, model.vocab_size)
    layout = _layout(model) if streaming else None

    to.mkdir(parents=True, exist_ok=True)
    label = _label(chosen.label, layout)
    writing = f"Writing a {'streaming' if layout else 'whole-utterance'} {model.encoder.family} into {to}"
    # A name of its own: another process may be writing the same export.
    with unfinished(to / f".{label}-{secrets.token_hex(4)}.part") as new:
        new.mkdir()
        with step(writing):
            written = _written(model, new, label, layout)
        copy_vocabulary(vocabulary, new, table)
        if safetensors:
            from moulin.bundle.checkpoint_files import STORED_NAME
            from moulin.bundle.stored import write_stored

            write_stored(model, new / STORED_NAME)
        _write_variants(written, fp16=fp16, int8=int8)
        for file in new.iterdir():
            file.replace(to / file.name)
        new.rmdir()
    files = tuple(to / file.name for file in written)
    _check(model, files, layout)
    load_onnx_model(files[0])
    say(f"Serve it: moulin serve {shlex.quote(str(to))}")
    typer.echo(to)


def exported_model(model: Path, *, streaming: bool, precision: Precision | None = None) -> Path:
    """A folder in the cache with ONNX files of the checkpoint `model`, or of the one in that folder.

    For engines that run no checkpoints. The files are written, and compared with the checkpoint, the first time; where
    `precision` is fp16 or int8, those too. Raises BundleError, EngineError and OptionsError.
    """
    from moulin.bundle.checkpoint_files import find_checkpoint, require_torch

    require_torch()
    from moulin.bundle.files import vocabulary_on_disk
    from moulin.bundle.spec import name_of
    from moulin.bundle.tokens import read_tokens
    from moulin.bundle.transducer import load_with_facts
    from moulin.cli.chosen_model import copy_vocabulary
    from moulin.cli.messages import warn
    from moulin.launch.cache import cache_dir
    from moulin.tensorrt_engine.plan_file import file_hash

    checkpoint = find_checkpoint(model)
    tokens, _ = vocabulary_on_disk(checkpoint)
    fp16, int8 = precision == "fp16", precision == "int8"
    form = ("-streaming" if streaming else "") + (f"-{precision}" if fp16 or int8 else "")
    # Files of earlier versions lack the CTC head of a checkpoint that has one: theirs had no number.
    key = f"{file_hash(checkpoint, tokens)[:16]}-2{form}"
    to = cache_dir() / "exported" / key / name_of(checkpoint.parent).replace("/", "-")
    if to.is_dir():
        return to
    loaded = load_with_facts([checkpoint])
    for doubt in loaded.doubts(streaming=streaming):
        warn(doubt)
    layout = _layout(loaded.model) if streaming else None
    to.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=to.parent, prefix=".new-") as folder, unfinished(Path(folder)):
        new = Path(folder) / "model"
        new.mkdir()
        with step(f"Writing ONNX files of {checkpoint} for the engine, into {to}"):
            files = _written(loaded.model, new, _label(f"{checkpoint.stem}-avg-1", layout), layout)
        copy_vocabulary(tokens, new, read_tokens(tokens, loaded.model.vocab_size))
        _check(loaded.model, files, layout)
        _write_variants(files, fp16=fp16, int8=int8)
        try:
            new.rename(to)
        except OSError:  # another process was first
            if not to.is_dir():
                raise
    return to


def _written(
    model: Transducer | CtcModel, folder: Path, label: str, layout: StreamingLayout | None
) -> tuple[Path, ...]:
    """The files of `model`, written into `folder`: encoder, decoder and joiner, or one of a CTC model."""
    from moulin.encoders.ctc_model import CtcModel
    from moulin.export.to_onnx import export_ctc, export_onnx

    if isinstance(model, CtcModel):
        return (export_ctc(model, folder, label, layout),)
    files = export_onnx(model, folder, label, layout)
    return files.encoder, files.decoder, files.joiner


def _layout(model: AcousticModel) -> StreamingLayout:
    try:
        return model.encoder.streaming_layout()
    except ValueError as error:
        raise OptionsError(
            f"This {model.encoder.family} cannot be exported for streams: {error}",
            hint="export it for whole utterances, without --streaming",
        ) from error


def _label(label: str, layout: StreamingLayout | None) -> str:
    """The part of file names that Icefall's scripts write, say epoch-30-avg-9-chunk-16-left-128."""
    if layout is None:
        return label
    left = layout.metadata.get("left_context_len", layout.metadata.get("left_context", "")).split(",")[0]
    right = layout.metadata.get("right_context", "0")
    label += f"-chunk-{layout.chunk_frames // 2}" + (f"-left-{left}" if left else "")
    return label if right == "0" else f"{label}-right-{right}"


def _check(model: Transducer | CtcModel, files: Sequence[Path], layout: StreamingLayout | None) -> None:
    """Compare the files with the modules that they were traced from. Raises EngineError, and deletes nothing, where
    they differ."""
    from moulin.bundle.onnx_files import OnnxFiles
    from moulin.encoders.ctc_model import CtcModel
    from moulin.export.parity import TOLERANCE, compare, compare_ctc

    failed: list[str] = []
    speech = _speech(model.encoder.feature_dim)
    with step(
        "Comparing the ONNX files with moulin's own PyTorch modules, on noise and on two recordings of speech"
    ) as far:
        comparisons = (
            compare_ctc(model, files[0], layout, speech, far)
            if isinstance(model, CtcModel)
            else compare(model, OnnxFiles(*files), layout, speech, far)
        )
        for comparison in comparisons:
            say(f"  {comparison.what}: largest error {comparison.largest_error:.1e}")
            if not comparison.holds:
                failed.append(comparison.what)
    if failed:
        raise EngineError(
            f"The exported {' and '.join(failed)} differ from moulin's own PyTorch modules by more than {TOLERANCE:g} "
            "on noise and two recordings of speech",
            hint=f"the files are in {files[0].parent}; do not serve them, and report it with the recipe's name",
        )


def _speech(num_mel_bins: int) -> list[Floats]:
    """Features of real speech: two of the demo's recordings."""
    from moulin.audio.fbank import Fbank, FbankOptions
    from moulin.demo.files import demo_speech

    fbank = Fbank(FbankOptions(num_mel_bins=num_mel_bins))
    return [fbank(waveform) for waveform in demo_speech()[:2]]


def _write_variants(files: Sequence[Path], *, fp16: bool, int8: bool) -> None:
    from moulin.onnx_rewrites.variants import fp16_beside, int8_beside

    for wanted, write, what in ((fp16, fp16_beside, "fp16"), (int8, int8_beside, "int8")):
        if wanted:
            with step(f"Writing {what} variants"):
                size = sum(write(file).stat().st_size for file in files)
            say(f"  {what}: {size / 1e6:.1f} MB")
