"""Reading of ONNX files by the head that is asked for: a transducer's three, or one file with a CTC head."""

from __future__ import annotations

from pathlib import Path

from moulin.bundle.choice import Head, Mode, Wish
from moulin.bundle.files import choose_on_disk, vocabulary_on_disk
from moulin.bundle.foreign import gives_log_probs_alone, refuse_other_kinds
from moulin.bundle.load import FAMILIES, check_input, expect_mode, load_bundle, streaming_spec
from moulin.bundle.onnx_files import CTC_OUTPUT
from moulin.bundle.onnx_graph import read_onnx_graph
from moulin.bundle.precision import Precision
from moulin.bundle.spec import CtcModelSpec, ModelSpec
from moulin.bundle.tokens import MOST_TOKENS, read_tokens
from moulin.bundle.untrusted_file import errors_of
from moulin.errors import BundleError
from moulin.quoting import listed, quoted

_SUFFIX = "_ctc"
_KEPT_BY_EXPORT = "`moulin export` keeps the head of a checkpoint that was trained with --use-ctc"


def load_onnx_model(
    model: Path, *, precision: Precision | None = None, expect: Mode | None = None, head: Head | None = None
) -> ModelSpec:
    """The model in `model`, a folder or a file in it. Without `head` a transducer where there is one.

    Raises BundleError as `load_bundle` does, and where there is no such head.
    """
    if head == "transducer":
        return load_bundle(model, precision=precision, expect=expect)
    with errors_of(model):
        choice = choose_on_disk(model, Wish(precision, expect, form="onnx", head=head))
        if choice.head == "ctc":
            return _load(Path(choice.file), choice.precision or "fp32", expect)
    spec = load_bundle(model, precision=precision, expect=expect)
    if head is None:
        return spec
    if not spec.has_ctc_head:
        raise BundleError(
            f"{spec.name} has no CTC head: {spec.file.name} is a transducer's encoder, beside it no model.onnx or "
            "ctc-*.onnx",
            hint=_KEPT_BY_EXPORT,
        )
    with errors_of(model):
        return _load(spec.file, spec.precision, expect)


def _load(file: Path, precision: Precision, expect: Mode | None) -> CtcModelSpec:
    graph = read_onnx_graph(file)
    refuse_other_kinds(graph)
    log_probs = next((tensor for tensor in graph.outputs if tensor.name == CTC_OUTPUT), None)
    if log_probs is None:
        if not gives_log_probs_alone(graph):
            raise BundleError(
                f"{file} has no CTC head: it gives {listed(tensor.name for tensor in graph.outputs)}",
                hint=_KEPT_BY_EXPORT,
            )
        log_probs = graph.output("log_probs", 0)
    family = graph.metadata.get("model_type", "unknown").removesuffix(_SUFFIX)
    if family not in FAMILIES:
        raise BundleError(
            f"{file} is a CTC model of another kind than Icefall's: expected model_type {', '.join(FAMILIES)} in its "
            f"metadata, got {quoted(family)}",
            hint="sherpa-onnx runs it; moulin decodes the CTC heads of the encoders that it knows",
        )
    shape = quoted(list(log_probs.shape))
    vocab_size = log_probs.shape[-1] if log_probs.shape else "?"
    if not isinstance(vocab_size, int) or not 0 < vocab_size <= MOST_TOKENS:
        raise BundleError(f"Expected {log_probs.name} of {file} to be [N, T, vocab_size], got {shape}")
    tokens, _ = vocabulary_on_disk(file)
    spec = CtcModelSpec(
        family=family,
        tokens=read_tokens(tokens, vocab_size),
        feature_dim=check_input(graph),
        vocab_size=vocab_size,
        context_size=0,
        joiner_dim=0,
        streaming=streaming_spec(graph, family, log_probs.name),
        encoder=graph,
        out=log_probs.name,
        tokens_file=tokens,
        file_precision=precision,
        head="ctc",
    )
    expect_mode(spec, expect, f"CTC model {file}")
    return spec
