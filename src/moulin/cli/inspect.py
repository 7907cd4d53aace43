"""`moulin inspect`: what a model is."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from moulin.bundle.checkpoint_choice import ChosenCheckpoints, choose_checkpoints
from moulin.cli.arguments import PrecisionOption
from moulin.cli.flags import with_flags
from moulin.cli.model_options import ModelOptions
from moulin.errors import BundleError, OptionsError

if TYPE_CHECKING:
    from moulin.bundle.spec import ModelSpec, OnnxModelSpec
    from moulin.encoders.acoustic_model import AcousticModel
    from moulin.encoders.recipe import Recipe


def add_to(app: typer.Typer) -> None:
    app.command(name="inspect", epilog="Example: moulin inspect models/zipformer --json | jq .vocab_size")(inspect)


@with_flags
def inspect(
    models: Annotated[
        list[Path],
        typer.Argument(
            metavar="MODEL",
            help="A folder with ONNX files and tokens.txt, the encoder file in one, or what `moulin fetch` takes. A "
            "checkpoint, or a folder of them; several files are averaged.",
        ),
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON object instead of a table.")] = False,
    precision: PrecisionOption = None,
    *,
    said: ModelOptions,
) -> None:
    """Print what a model is, after checking that its files are complete and fit together.

    Of a checkpoint each fact with where it comes from: its own parameters, the shapes of its tensors, a flag, or the
    recipe's default.
    """
    recipe = said.recipe.recipe(streaming=True)
    from moulin.bundle.checkpoint_files import is_checkpoint
    from moulin.bundle.choice import Wish
    from moulin.bundle.ctc_model import load_onnx_model
    from moulin.cli.fetch import local_model

    wish, choice, tokens = Wish(precision, language=said.language), said.checkpoint, said.tokens
    local = [local_model(model, wish).path for model in models]
    if choice.is_made or tokens is not None or len(local) > 1 or is_checkpoint(local[0]):
        facts = _checkpoint_facts(choose_checkpoints(local, choice), tokens, recipe)
    elif recipe is None:
        facts = _facts(load_onnx_model(local[0], precision=precision))
    else:
        raise OptionsError(f"What a checkpoint does not tell was given, and {local[0]} holds ONNX files")
    if as_json:
        typer.echo(json.dumps(facts, indent=2, ensure_ascii=False))
        return
    # In the table a checkpoint's facts are lines of their own.
    origins = facts.pop("facts", {})
    if origins:
        facts = {name: value for name, value in facts.items() if name not in origins and name != "encoder"}
    facts |= {name: f"{_joined(fact['value'])}  ({fact['source']})" for name, fact in origins.items()}
    width = max(len(name) for name in facts)
    for name, value in facts.items():
        typer.echo(f"{name.replace('_', ' '):{width}}  {_shown(value)}")


def _facts(spec: ModelSpec) -> dict[str, Any]:
    from moulin.bundle.spec import FRAME_SHIFT_SEC, ExportedSpec, OnnxModelSpec

    assert isinstance(spec, ExportedSpec)

    streaming = spec.streaming
    facts: dict[str, Any] = {
        "name": spec.name,
        "path": str(spec.path),
        "family": spec.family,
        "heads": ["ctc"] if spec.head == "ctc" else _heads(has_ctc=spec.has_ctc_head),
        "mode": spec.mode,
        "precision": spec.precision,
        "size_mb": round(spec.size_bytes / 1e6, 1),
        "feature_dim": spec.feature_dim,
        "vocab_size": spec.vocab_size,
        "vocabulary": spec.tokens.kind,
        **({} if spec.head == "ctc" else {"context_size": spec.context_size, "joiner_dim": spec.joiner_dim}),
        "frame_ms": round(spec.encoder_frame_sec * 1000),
    }
    if spec.max_frames is not None:
        facts["max_audio_sec"] = round(spec.max_frames * FRAME_SHIFT_SEC, 2)
    if streaming:
        facts |= {
            "window_frames": streaming.window_frames,
            "chunk_frames": streaming.chunk_frames,
            "chunk_ms": round(streaming.chunk_sec * 1000),
            "num_states": len(streaming.states),
            "state_kb_per_stream": round(streaming.state_bytes / 1e3, 1),
        }
    if isinstance(spec, OnnxModelSpec):
        facts["cpu_engines"] = _on_cpu(spec)
        facts["auto_engine"] = _auto(spec)
        facts["gpu_engine"] = _on_gpu_engine(spec)
        facts["files"] = {
            "encoder": spec.files.encoder.name,
            "decoder": spec.files.decoder.name,
            "joiner": spec.files.joiner.name,
            "tokens": spec.files.tokens.name,
            "bpe_model": spec.files.bpe_model.name if spec.files.bpe_model else None,
        }
    else:
        facts["gpu_engine"] = "no: of ONNX files it takes a transducer's"
        facts["files"] = {"model": spec.file.name, "tokens": spec.tokens_file.name}
    facts["metadata"] = dict(spec.encoder.metadata)
    return facts


def _checkpoint_facts(chosen: ChosenCheckpoints, tokens: Path | None, recipe: Recipe | None) -> dict[str, Any]:
    from moulin.bundle.checkpoint_files import require_torch

    require_torch()
    from moulin.bundle.spec import name_of
    from moulin.bundle.tokens import read_tokens
    from moulin.bundle.transducer import load_with_facts
    from moulin.cli.chosen_model import vocabulary_of
    from moulin.cli.messages import warn
    from moulin.encoders.recipe import NOTHING_SAID
    from moulin.encoders.transducer import Transducer

    file = chosen.files[-1]
    loaded = load_with_facts(chosen.files, use_averaged_model=chosen.use_averaged_model, recipe=recipe or NOTHING_SAID)
    for doubt in loaded.doubts(streaming=False):
        warn(doubt)
    model, encoder = loaded.model, loaded.model.encoder
    said_of_tokens = {}
    try:
        vocabulary = vocabulary_of(file, tokens)
    except BundleError as error:  # a checkpoint can be inspected without a vocabulary
        if tokens is not None:
            raise
        warn(f"{error.message}: serve and export need it")
    else:
        kind = read_tokens(vocabulary, model.vocab_size).kind
        said_of_tokens = {"vocabulary": kind, "tokens": str(vocabulary)}
    average = {"average": chosen.label, "averaged": [part.name for part in chosen.files]}
    return {
        "name": name_of(file.parent),
        "path": str(file),
        **(average if chosen.is_average else {}),
        "family": encoder.family,
        "heads": _heads(has_ctc=model.ctc is not None) if isinstance(model, Transducer) else ["ctc"],
        "mode": "checkpoint",
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "feature_dim": encoder.feature_dim,
        "vocab_size": model.vocab_size,
        **said_of_tokens,
        **_sizes_of_transducer(model),
        "encoder": dataclasses.asdict(encoder.config),
        "facts": {fact.name: {"value": fact.value, "source": fact.source} for fact in loaded.facts},
    }


def _sizes_of_transducer(model: AcousticModel) -> dict[str, int]:
    """Those of decoder and joiner, where there are any."""
    from moulin.encoders.transducer import Transducer

    if not isinstance(model, Transducer):
        return {}
    decoder, joiner = model.decoder, model.joiner
    return {"context_size": decoder.context_size, "decoder_dim": decoder.dim, "joiner_dim": joiner.joiner_dim}


def _on_cpu(spec: OnnxModelSpec) -> str:
    """The engines and precisions that run the files on this CPU, the usual one first."""
    from importlib.util import find_spec

    from moulin.models.auto_engine import ways

    absent = spec.precision in ("fp32", "int8") and find_spec("openvino") is None
    return ", ".join(map(str, ways(spec))) + ("; openvino, which would too, is not installed" if absent else "")


def _auto(spec: OnnxModelSpec) -> str:
    """What `--engine auto` means here."""
    from moulin.models.auto_engine import fastest

    way, how = fastest(spec)
    return f"{way}, {how}"


def _on_gpu_engine(spec: OnnxModelSpec) -> str:
    """Whether our GPU engine runs the files, and if not why."""
    from moulin.models.files_on_gpu import why_not_its_network

    reason = why_not_its_network(spec)
    return "yes, with the weights in these files" if reason is None else f"no: {reason}"


def _heads(*, has_ctc: bool) -> list[str]:
    """What the encoder's frames can be decoded by; with both, frames can be skipped too."""
    return ["transducer", "ctc"] if has_ctc else ["transducer"]


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {item}" for name, item in value.items() if item is not None) or "none"
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return str(value)


def _joined(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
