"""The options of its recipe that Icefall's training stores beside a model's tensors.

They are untrusted: sizes are compared with the tensors (`check_sizes`). Options that no tensor determines go into a
`Recipe`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any, NamedTuple

from moulin.bundle.spec import SUBSAMPLING_FACTOR
from moulin.encoders.acoustic_model import AcousticModel
from moulin.encoders.recipe import Recipe, per_stack
from moulin.encoders.transducer import Transducer
from moulin.encoders.zipformer import DECODE_CHUNK_LEN, NUM_LEFT_CHUNKS
from moulin.encoders.zipformer2 import CHUNK_SIZE, LEFT_CONTEXT_FRAMES
from moulin.errors import BundleError

Parameters = Mapping[str, Any]

_ALIASES: dict[str, dict[str, str]] = {
    "conformer": {"num_heads": "nhead", "causal": "causal_convolution"},
    "zipformer": {"num_heads": "nhead"},
}
"""The names of fields of `Recipe` in a family's recipes."""


class Size(NamedTuple):
    """A size determined by tensor shapes: the option's name, and its value in an encoder's config (one number, or one
    for each stack)."""

    name: str
    of: Callable[[Any], int | tuple[int, ...]]


SIZES: dict[str, tuple[Size, ...]] = {
    "zipformer2": (
        Size("num_encoder_layers", lambda config: config.num_layers),
        Size("downsampling_factor", lambda config: config.downsampling_factors),
        Size("encoder_dim", lambda config: config.encoder_dims),
        Size("feedforward_dim", lambda config: config.feedforward_dims),
        Size("num_heads", lambda config: config.num_heads),
        Size("query_head_dim", lambda config: config.query_head_dims),
        Size("pos_head_dim", lambda config: config.pos_head_dims),
        Size("value_head_dim", lambda config: config.value_head_dims),
        Size("pos_dim", lambda config: config.pos_dim),
        Size("cnn_module_kernel", lambda config: config.conv_kernels),
    ),
    "zipformer": (
        Size("num_encoder_layers", lambda config: config.num_encoder_layers),
        Size("zipformer_downsampling_factors", lambda config: config.downsampling_factors),
        Size("encoder_dims", lambda config: config.encoder_dims),
        Size("feedforward_dims", lambda config: config.feedforward_dims),
        Size("attention_dims", lambda config: config.attention_dims),
        Size("nhead", lambda config: config.nhead),
        Size("pos_head_dim", lambda config: config.pos_dim),
        Size("cnn_module_kernels", lambda config: config.cnn_module_kernels),
    ),
    "conformer": (
        Size("num_encoder_layers", lambda config: config.num_layers),
        Size("encoder_dim", lambda config: config.dim),
        Size("dim_feedforward", lambda config: config.hidden),
        Size("nhead", lambda config: config.num_heads),
    ),
    "lstm": (
        Size("num_encoder_layers", lambda config: config.num_layers),
        Size("encoder_dim", lambda config: config.dim),
        Size("rnn_hidden_size", lambda config: config.cells),
        Size("dim_feedforward", lambda config: config.hidden),
    ),
}


def sizes_of(model: AcousticModel) -> dict[str, int | tuple[int, ...]]:
    """Every size of `model` under its option's name."""
    encoder = model.encoder
    of_transducer = {}
    if isinstance(model, Transducer):
        of_transducer = {
            "context_size": model.decoder.context_size,
            "decoder_dim": model.decoder.dim,
            "joiner_dim": model.joiner.joiner_dim,
        }
    return {
        "feature_dim": encoder.feature_dim,
        **{size.name: size.of(encoder.config) for size in SIZES[encoder.family]},
        **of_transducer,
        "vocab_size": model.vocab_size,
    }


def recipe_of(parameters: Parameters, family: str) -> Recipe:
    """The options in `parameters` that the tensors of a `family` do not determine. Raises BundleError for wrong
    types."""
    names = _ALIASES.get(family, {})
    feature_dim = _number(parameters, "feature_dim")
    if family == "lstm":
        return Recipe(feature_dim=feature_dim)
    chunk, left, right = _streaming_sizes(parameters, family)
    return Recipe(
        causal=_causal(parameters, family),
        num_heads=_numbers(parameters, names.get("num_heads", "num_heads"), "num_heads"),
        query_head_dim=_numbers(parameters, "query_head_dim"),
        pos_head_dim=_numbers(parameters, "pos_head_dim"),
        value_head_dim=_numbers(parameters, "value_head_dim"),
        feature_dim=feature_dim,
        chunk_size=chunk,
        left_context_frames=left,
        right_context=right,
    )


def is_trained_by(parameters: Parameters, family: str) -> bool:
    """Whether `parameters` come from a recipe of this family, so that the recipe lacks every option not in them."""
    return any(parameters.get(size.name) is not None for size in SIZES[family])


def check_sizes(parameters: Parameters, model: AcousticModel) -> None:
    """Raise BundleError where `parameters` contradict the tensors, or a fixed size of moulin's."""
    for name, told in sizes_of(model).items():
        said = _numbers(parameters, name)
        if said is None:
            continue
        wanted = told if isinstance(told, tuple) else (told,)
        try:
            fits = per_stack(name, said, len(wanted)) == wanted
        except ValueError:
            fits = False
        if not fits:
            raise BundleError(
                f"The checkpoint's parameters say {name} {_listed(said)}, the shapes of its tensors say "
                f"{_listed(wanted)}",
                hint="its tensors and its parameters are not of one model",
            )
    factor = _number(parameters, "subsampling_factor")
    if factor not in (None, SUBSAMPLING_FACTOR):
        raise BundleError(
            f"Expected a subsampling_factor of {SUBSAMPLING_FACTOR}, the checkpoint's parameters say {factor}"
        )


def as_parameters(recipe: Recipe) -> dict[str, Any]:
    """`recipe` as plain values, from which `recipe_of` makes the same recipe again."""
    said = {field.name: getattr(recipe, field.name) for field in fields(recipe)}
    return {
        name: list(value) if isinstance(value, tuple) else value for name, value in said.items() if value is not None
    }


def _causal(parameters: Parameters, family: str) -> bool | None:
    for name in ("causal", _ALIASES.get(family, {}).get("causal", "causal")):
        said = _truth(parameters, name)
        if said is not None:
            return said
    # Only the streaming recipe of the first Zipformer has this option.
    return True if family == "zipformer" and parameters.get("decode_chunk_len") is not None else None


def _streaming_sizes(parameters: Parameters, family: str) -> tuple[int | None, int | None, int | None]:
    """Chunk, left and right context for streaming, in encoder frames.

    A Zipformer2 is trained with several of each (-1 is unlimited): the usual one if it is among them, else the smallest
    chunk and the longest left context.
    """
    chunks, lefts = _numbers(parameters, "chunk_size") or (), _numbers(parameters, "left_context_frames") or ()
    chunk = _preferred(chunks, CHUNK_SIZE, min)
    left = _preferred(lefts, LEFT_CONTEXT_FRAMES, max)
    if family == "zipformer":
        trained, num_chunks = _number(parameters, "decode_chunk_len"), _number(parameters, "num_left_chunks")
        chunk = trained if chunk is None else chunk
        if left is None and num_chunks is not None and num_chunks != NUM_LEFT_CHUNKS:
            left = num_chunks * (DECODE_CHUNK_LEN if chunk is None else chunk) // 2
    right = _number(parameters, "right_context") if family == "conformer" else None
    return chunk, left, right


def _preferred(sizes: tuple[int, ...], usual: int, choose: Callable[[list[int]], int]) -> int | None:
    possible = [size for size in sizes if size > 0]
    if not possible:
        return None
    return usual if usual in possible else choose(possible)


def _numbers(parameters: Parameters, *names: str) -> tuple[int, ...] | None:
    """The first of `names` present, as a tuple of numbers: from a number, a sequence, or text such as "4,2,4"."""
    for name in names:
        value = parameters.get(name)
        if value is None:
            continue
        items = value.split(",") if isinstance(value, str) else value if isinstance(value, list | tuple) else [value]
        try:
            if not items or any(isinstance(item, bool) or not isinstance(item, str | int) for item in items):
                raise ValueError
            return tuple(int(item) for item in items)
        except ValueError:
            raise BundleError(
                f"Expected {name} of the checkpoint's parameters to be a number, or several joined by commas, got "
                f"{_shown(value)}"
            ) from None
    return None


def _number(parameters: Parameters, name: str) -> int | None:
    numbers = _numbers(parameters, name)
    if numbers is None:
        return None
    if len(numbers) != 1:
        raise BundleError(
            f"Expected {name} of the checkpoint's parameters to be one number, got {_shown(parameters[name])}"
        )
    return numbers[0]


_TRUE, _FALSE = ("yes", "true", "t", "y", "1"), ("no", "false", "f", "n", "0")
"""The values of Icefall's `str2bool`."""


def _truth(parameters: Parameters, name: str) -> bool | None:
    value = parameters.get(name)
    if value is None:
        return None
    if isinstance(value, str | int) and str(value).lower() in (*_TRUE, *_FALSE):
        return str(value).lower() in _TRUE
    raise BundleError(f"Expected {name} of the checkpoint's parameters to be True or False, got {_shown(value)}")


def _shown(value: object) -> str:
    """An untrusted value, shortened for an error message."""
    if not isinstance(value, str | int | float | list | tuple | dict):
        return f"a {type(value).__name__}"
    text = repr(value[:20] if isinstance(value, str | list | tuple) else value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _listed(numbers: tuple[int, ...]) -> str:
    return ",".join(map(str, numbers[:12])) + (",..." if len(numbers) > 12 else "")
