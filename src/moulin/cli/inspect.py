"""`moulin inspect`: what a model is."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from moulin.cli.arguments import LanguageOption, ModelArgument, PrecisionOption

if TYPE_CHECKING:
    from moulin.bundle.spec import OnnxModelSpec


def add_to(app: typer.Typer) -> None:
    app.command(name="inspect", epilog="Example: moulin inspect models/zipformer --json | jq .vocab_size")(inspect)


def inspect(
    model: ModelArgument,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON object instead of a table.")] = False,
    precision: PrecisionOption = None,
    language: LanguageOption = None,  # noqa: ARG001 (MODEL's callback reads it)
) -> None:
    """Print what a model is, after checking that its files are complete and fit together."""
    from moulin.bundle.checkpoint_files import is_checkpoint
    from moulin.bundle.load import load_bundle

    facts = _checkpoint_facts(model) if is_checkpoint(model) else _facts(load_bundle(model, precision=precision))
    if as_json:
        typer.echo(json.dumps(facts, indent=2, ensure_ascii=False))
        return
    width = max(len(name) for name in facts)
    for name, value in facts.items():
        typer.echo(f"{name.replace('_', ' '):{width}}  {_shown(value)}")


def _facts(spec: OnnxModelSpec) -> dict[str, Any]:
    from moulin.bundle.spec import FRAME_SHIFT_SEC

    streaming = spec.streaming
    facts: dict[str, Any] = {
        "name": spec.name,
        "path": str(spec.path),
        "family": spec.family,
        "mode": spec.mode,
        "precision": spec.precision,
        "size_mb": round(spec.size_bytes / 1e6, 1),
        "feature_dim": spec.feature_dim,
        "vocab_size": spec.vocab_size,
        "vocabulary": spec.tokens.kind,
        "context_size": spec.context_size,
        "joiner_dim": spec.joiner_dim,
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
    facts["files"] = {
        "encoder": spec.files.encoder.name,
        "decoder": spec.files.decoder.name,
        "joiner": spec.files.joiner.name,
        "tokens": spec.files.tokens.name,
        "bpe_model": spec.files.bpe_model.name if spec.files.bpe_model else None,
    }
    facts["metadata"] = dict(spec.encoder.metadata)
    return facts


def _checkpoint_facts(path: Path) -> dict[str, Any]:
    from moulin.bundle.checkpoint_files import find_checkpoint, require_torch

    require_torch()
    from moulin.bundle.spec import name_of
    from moulin.bundle.transducer import load_transducer

    file = find_checkpoint(path)
    transducer = load_transducer([file])
    encoder = transducer.encoder
    return {
        "name": name_of(file.parent),
        "path": str(file),
        "family": encoder.family,
        "mode": "checkpoint",
        "parameters": sum(parameter.numel() for parameter in transducer.parameters()),
        "feature_dim": encoder.feature_dim,
        "vocab_size": transducer.joiner.vocab_size,
        "context_size": transducer.decoder.context_size,
        "decoder_dim": transducer.decoder.dim,
        "joiner_dim": transducer.joiner.joiner_dim,
        "encoder": dataclasses.asdict(encoder.config),
    }


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {item}" for name, item in value.items() if item is not None) or "none"
    return str(value)
