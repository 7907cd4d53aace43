"""Facts about a checkpoint's model, each with its source.

Sources in order of precedence: the checkpoint's parameters, the shapes of its tensors, the recipe's default. Command
line flags (`FLAGS`) set facts that the parameters leave open.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Literal

from torch import Tensor

from moulin.bundle.parameters import Parameters, is_trained_by, recipe_of, sizes_of
from moulin.encoders.acoustic_model import AcousticModel
from moulin.encoders.conformer import CHUNK_SIZE as CONFORMER_CHUNK_SIZE
from moulin.encoders.conformer import LEFT_CONTEXT, RIGHT_CONTEXT
from moulin.encoders.head_split import told_by_shapes
from moulin.encoders.recipe import Recipe
from moulin.encoders.zipformer import DECODE_CHUNK_LEN, NUM_LEFT_CHUNKS
from moulin.encoders.zipformer2 import CHUNK_SIZE, LEFT_CONTEXT_FRAMES, head_products
from moulin.errors import OptionsError

Source = Literal["flag", "parameters", "shapes", "recipe's default"]
Value = int | bool | tuple[int, ...]

FLAGS = {
    "causal": "--causal",
    "num_heads": "--num-heads",
    "pos_head_dim": "--pos-head-dim",
    "chunk_size": "--chunk-size",
    "left_context_frames": "--left-context-frames",
    "right_context": "--right-context",
}
"""The command line flag of each field of `Recipe`."""

_STREAMING = ("chunk_size", "left_context_frames", "right_context")


@dataclass(frozen=True, slots=True)
class Fact:
    """One fact; `name` is the recipe's option."""

    name: str
    value: Value
    source: Source


@dataclass(frozen=True, slots=True)
class Said:
    """Information about a model beside its tensors."""

    recipe: Recipe
    """Parameters and flags combined."""
    flags: Recipe
    parameters: Parameters

    @classmethod
    def by(cls, parameters: Parameters, flags: Recipe, family: str) -> Said:
        """Combine parameters and flags: flags set what parameters leave open, and choose among the trained chunk sizes.

        Raises OptionsError where a flag contradicts the parameters or does not apply to the `family`, and BundleError
        for parameters of wrong types.
        """
        recipe = recipe_of(parameters, family)
        for name, flag in FLAGS.items():
            said, asked = getattr(recipe, name), getattr(flags, name)
            if asked is None:
                continue
            if name == "right_context" and family != "conformer":
                raise OptionsError(f"{flag} is for a Conformer, and this is a {family}")
            if family == "lstm" and name != "causal":
                raise OptionsError(f"{flag} does not apply to an LSTM")
            if name not in _STREAMING and said is not None and not _same(said, asked):
                raise OptionsError(
                    f"{flag} says {shown(asked)}, the checkpoint's own parameters say {shown(said)}",
                    hint=f"leave out {flag}",
                )
        asked_for = {field.name: getattr(flags, field.name) for field in fields(flags)}
        return cls(
            replace(recipe, **{name: value for name, value in asked_for.items() if value is not None}),
            flags,
            parameters,
        )

    def source(self, *names: str, otherwise: Source) -> Source:
        """The source of a fact, known under `names`."""
        if any(getattr(self.flags, name, None) is not None for name in names):
            return "flag"
        if any(self.parameters.get(name) is not None for name in names):
            return "parameters"
        return otherwise


def facts_of(model: AcousticModel, tensors: Mapping[str, Tensor], said: Said) -> list[Fact]:
    """Every fact of `model`, which was built from `tensors` and `said`."""
    family = model.encoder.family
    split = _source_of_heads(tensors, said) if family == "zipformer2" else "shapes"
    facts = []
    for name, value in sizes_of(model).items():
        names = ("nhead", "num_heads") if name == "nhead" else (name,)
        in_heads = family == "zipformer2" and name in ("num_heads", "query_head_dim", "pos_head_dim", "value_head_dim")
        otherwise: Source = split if in_heads else "shapes"
        if family == "zipformer" and name == "pos_head_dim":
            otherwise = "recipe's default"
        facts.append(Fact(name, value, said.source(*names, otherwise=otherwise)))
    return [*facts, *_of_streaming(model, said)]


def doubts(model: AcousticModel, tensors: Mapping[str, Tensor], said: Said, *, streaming: bool) -> list[str]:
    """Assumptions that neither parameters nor shapes confirm, one sentence each."""
    found = []
    encoder = model.encoder
    if unknown := model.unknown(tensors):
        more = f" and {len(unknown) - 1} more" if len(unknown) > 1 else ""
        found.append(
            f"'{unknown[0]}'{more} of its tensors are of no {encoder.family} that moulin knows, and left out: where "
            "it was trained with them, transcripts are wrong"
        )
    if encoder.family == "zipformer2" and _source_of_heads(tensors, said) == "recipe's default":
        products = head_products(tensors)
        if not all(stack.is_usual for stack in products):
            config = encoder.config
            found.append(
                f"Its shapes do not tell how many heads share their channels; moulin takes num_heads "
                f"{shown(config.num_heads)} with pos_head_dim {shown(config.pos_head_dims)}: if it was trained with "
                "others, tell moulin export or serve with --num-heads or --pos-head-dim"
            )
    if encoder.family in ("conformer", "zipformer") and said.recipe.causal is None:
        trained = is_trained_by(said.parameters, encoder.family)
        if streaming and trained:
            found.append("Its parameters do not say that it was trained for streaming")
        elif not streaming and not trained:
            found.append(
                "Nothing in it says whether it was trained for streaming, and moulin takes it that it was not: tell "
                "moulin export or serve --causal if it was, or --no-causal to leave this warning out"
            )
    return found


def shown(value: object) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _of_streaming(model: AcousticModel, said: Said) -> list[Fact]:
    encoder, recipe = model.encoder, model.encoder.recipe
    default: dict[str, int]
    match encoder.family:
        case "zipformer2":
            causal = Fact("causal", encoder.config.causal, said.source("causal", otherwise="shapes"))
            default = {"chunk_size": CHUNK_SIZE, "left_context_frames": LEFT_CONTEXT_FRAMES}
        case "zipformer":
            names = ("causal", "decode_chunk_len")
            causal = Fact("causal", bool(recipe.causal), said.source(*names, otherwise="recipe's default"))
            chunk = DECODE_CHUNK_LEN if recipe.chunk_size is None else recipe.chunk_size
            default = {"chunk_size": chunk, "left_context_frames": NUM_LEFT_CHUNKS * chunk // 2}
        case "conformer":
            names = ("causal", "causal_convolution")
            causal = Fact("causal", bool(recipe.causal), said.source(*names, otherwise="recipe's default"))
            default = {
                "chunk_size": CONFORMER_CHUNK_SIZE,
                "left_context_frames": LEFT_CONTEXT,
                "right_context": RIGHT_CONTEXT,
            }
        case _:  # an LSTM always streams, frame by frame
            return []
    if causal.value is False and (encoder.family == "zipformer2" or recipe.causal is False):
        return [causal]
    other_names = {"chunk_size": ("decode_chunk_len",), "left_context_frames": ("num_left_chunks",)}
    facts = [causal]
    for name, usual in default.items():
        value = getattr(recipe, name)
        source = said.source(name, *other_names.get(name, ()), otherwise="recipe's default")
        facts.append(Fact(name, usual, "recipe's default") if value is None else Fact(name, value, source))
    return facts


def _source_of_heads(tensors: Mapping[str, Tensor], said: Said) -> Source:
    """The source of a Zipformer2's head counts where they are not given: any one head size determines the others."""
    recipe = said.recipe
    if any((recipe.num_heads, recipe.pos_head_dim, recipe.query_head_dim, recipe.value_head_dim)):
        return "shapes"
    return "shapes" if told_by_shapes(head_products(tensors)) else "recipe's default"


def _same(one: object, other: object) -> bool:
    """Whether two values of a `Recipe` are equal; a single number stands for all stacks."""
    if isinstance(one, tuple) and isinstance(other, tuple) and 1 in (len(one), len(other)):
        values: Sequence[int] = (*one, *other)
        return len(set(values)) == 1
    return one == other
