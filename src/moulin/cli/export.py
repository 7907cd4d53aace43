"""`moulin export`: Icefall checkpoints to ONNX."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from moulin.cli.interrupt import unfinished
from moulin.errors import BundleError, EngineError, OptionsError

if TYPE_CHECKING:
    from moulin.bundle.files import Precision
    from moulin.decoding.network import Floats
    from moulin.encoders.encoder import StreamingLayout
    from moulin.encoders.transducer import Transducer
    from moulin.export.to_onnx import OnnxFiles


def add_to(app: typer.Typer) -> None:
    app.command(
        name="export",
        epilog="Example: moulin export exp/epoch-30.pt --tokens data/lang_bpe_500/tokens.txt --to model --streaming",
    )(export)


def export(
    checkpoints: Annotated[
        list[Path],
        typer.Argument(metavar="CHECKPOINT", help="epoch-N.pt, checkpoint-N.pt, pretrained.pt; several are averaged."),
    ],
    to: Annotated[Path, typer.Option(help="The folder to write into.")],
    tokens: Annotated[Path | None, typer.Option(help="tokens.txt.  [default: the one beside the checkpoint]")] = None,
    streaming: Annotated[bool, typer.Option("--streaming", help="For live audio, chunk by chunk.")] = False,
    chunk_size: Annotated[
        int | None, typer.Option(help="Chunk of a streaming model, as its recipe counts it.  [default: the recipe's]")
    ] = None,
    left_context_frames: Annotated[
        int | None, typer.Option(help="What a chunk sees of the ones before.  [default: the recipe's]")
    ] = None,
    causal: Annotated[
        bool,
        typer.Option(
            "--causal",
            help="A Conformer or Zipformer (version 1) that was trained for streaming, exported for whole utterances: "
            "its checkpoint does not tell.",
        ),
    ] = False,
    use_averaged_model: Annotated[
        bool,
        typer.Option(
            "--use-averaged-model", help="Of two checkpoints, average over all of training between them (model_avg)."
        ),
    ] = False,
    safetensors: Annotated[
        bool,
        typer.Option(
            "--safetensors", help="Also write model.safetensors: the parameters (averaged) in moulin's stored form."
        ),
    ] = False,
    fp16: Annotated[bool, typer.Option("--fp16", help="Also write *.fp16.onnx.")] = False,
    int8: Annotated[bool, typer.Option("--int8", help="Also write *.int8.onnx.")] = False,
) -> None:
    """Export an Icefall checkpoint to ONNX and check the files against it.

    Names, order and metadata are those of Icefall's own export scripts, so that Icefall's tools and sherpa-onnx load
    the files too.
    """
    if not streaming and (chunk_size is not None or left_context_frames is not None):
        raise OptionsError("--chunk-size and --left-context-frames are for --streaming")
    from moulin.bundle.checkpoint_files import find_checkpoint, require_torch

    require_torch()
    from moulin.bundle.load import load_bundle
    from moulin.bundle.tokens import read_tokens
    from moulin.bundle.transducer import load_transducer
    from moulin.export.to_onnx import OnnxFiles, export_onnx

    checkpoints = [find_checkpoint(checkpoint) for checkpoint in checkpoints]
    _say("Reading " + ", ".join(map(str, checkpoints)))
    transducer = load_transducer(checkpoints, use_averaged_model=use_averaged_model, causal=causal)
    tokens = tokens or checkpoints[-1].parent / "tokens.txt"
    if not tokens.is_file():
        raise BundleError(f"There is no {tokens}", hint="name the file with --tokens")
    read_tokens(tokens, transducer.joiner.vocab_size)
    layout = _layout(transducer, chunk_size, left_context_frames) if streaming else None

    to.mkdir(parents=True, exist_ok=True)
    label = _label(checkpoints, layout)
    _say(f"Writing a {'streaming' if layout else 'whole-utterance'} {transducer.encoder.family} into {to}")
    with unfinished(to / f".{label}.part") as new:
        new.mkdir(exist_ok=True)
        written = export_onnx(transducer, new, label, layout)
        _copy_beside(tokens, new)
        if safetensors:
            from moulin.bundle.checkpoint_files import STORED_NAME
            from moulin.bundle.stored import write_stored

            write_stored(transducer, new / STORED_NAME)
        _write_variants(written, fp16=fp16, int8=int8)
        for file in new.iterdir():
            file.replace(to / file.name)
        new.rmdir()
    files = OnnxFiles(*(to / file.name for file in (written.encoder, written.decoder, written.joiner)))
    _check(transducer, files, layout)
    load_bundle(files.encoder)
    typer.echo(to)


def exported_model(model: Path, *, streaming: bool, precision: Precision | None = None) -> Path:
    """A folder in the cache with ONNX files of the checkpoint `model`, or of the one in that folder.

    For engines that run no checkpoints. The files are written, and compared with the checkpoint, the first time; where
    `precision` is fp16 or int8, those too. Raises BundleError, EngineError and OptionsError.
    """
    from moulin.bundle.checkpoint_files import find_checkpoint, require_torch

    require_torch()
    from moulin.bundle.spec import name_of
    from moulin.bundle.transducer import load_transducer
    from moulin.export.tensorrt.plan import file_hash
    from moulin.export.to_onnx import export_onnx
    from moulin.launch.cache import cache_dir

    checkpoint = find_checkpoint(model)
    tokens = checkpoint.parent / "tokens.txt"
    if not tokens.is_file():
        raise BundleError(f"There is no {tokens}", hint="put the vocabulary beside the checkpoint")
    fp16, int8 = precision == "fp16", precision == "int8"
    form = ("-streaming" if streaming else "") + (f"-{precision}" if fp16 or int8 else "")
    key = file_hash(checkpoint, tokens)[:16] + form
    to = cache_dir() / "exported" / key / name_of(checkpoint.parent).replace("/", "-")
    if to.is_dir():
        return to
    _say(f"Writing ONNX files of {checkpoint} for the engine, into {to}")
    transducer = load_transducer([checkpoint])
    layout = _layout(transducer, None, None) if streaming else None
    to.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=to.parent, prefix=".new-") as folder, unfinished(Path(folder)):
        new = Path(folder) / "model"
        new.mkdir()
        files = export_onnx(transducer, new, _label([checkpoint], layout), layout)
        _copy_beside(tokens, new)
        _check(transducer, files, layout)
        _write_variants(files, fp16=fp16, int8=int8)
        new.rename(to)
    return to


def _layout(transducer: Transducer, chunk_size: int | None, left_context_frames: int | None) -> StreamingLayout:
    try:
        return transducer.encoder.streaming_layout(chunk_size, left_context_frames)
    except ValueError as error:
        raise OptionsError(f"This {transducer.encoder.family} cannot be exported so: {error}") from error


def _label(checkpoints: Sequence[Path], layout: StreamingLayout | None) -> str:
    """What Icefall's scripts put into the files' names, say epoch-30-avg-9-chunk-16-left-128."""
    label = f"{checkpoints[-1].stem}-avg-{len(checkpoints)}"
    if layout is None:
        return label
    left = layout.metadata.get("left_context_len", layout.metadata.get("left_context", "")).split(",")[0]
    return f"{label}-chunk-{layout.chunk_frames // 2}" + (f"-left-{left}" if left else "")


def _copy_beside(tokens: Path, to: Path) -> None:
    """tokens.txt, and the bpe.model that it was made from."""
    for source, name in ((tokens, "tokens.txt"), (tokens.parent / "bpe.model", "bpe.model")):
        if source.is_file() and source.resolve() != (to / name).resolve():
            (to / name).write_bytes(source.read_bytes())


def _check(transducer: Transducer, files: OnnxFiles, layout: StreamingLayout | None) -> None:
    """Compare the files with the checkpoint. Raises EngineError, and deletes nothing, where they differ."""
    from moulin.export.parity import TOLERANCE, compare

    failed: list[str] = []
    for comparison in compare(transducer, files, layout, _speech(transducer.encoder.feature_dim)):
        _say(f"  {comparison.what}: largest error {comparison.largest_error:.1e}")
        if not comparison.holds:
            failed.append(comparison.what)
    if failed:
        raise EngineError(
            f"The exported {' and '.join(failed)} differ from the checkpoint by more than {TOLERANCE:g}",
            hint=f"the files are in {files.encoder.parent}; do not serve them, and report it with the recipe's name",
        )


def _speech(num_mel_bins: int) -> list[Floats]:
    """Features of real speech: two of the demo's recordings."""
    from moulin.audio.decode import read_audio
    from moulin.audio.fbank import Fbank, FbankOptions
    from moulin.demo.files import demo_clips

    fbank = Fbank(FbankOptions(num_mel_bins=num_mel_bins))
    return [fbank(read_audio(clip.audio)) for clip in demo_clips()[:2]]


def _write_variants(files: OnnxFiles, *, fp16: bool, int8: bool) -> None:
    from moulin.export.variants import write_fp16, write_int8

    for wanted, write, what in ((fp16, write_fp16, "fp16"), (int8, write_int8, "int8")):
        if wanted:
            written = write(files)
            size = sum(file.stat().st_size for file in (written.encoder, written.decoder, written.joiner))
            _say(f"  {what}: {size / 1e6:.1f} MB")


def _say(text: str) -> None:
    typer.echo(text, err=True)
