"""Loading of checkpoints, and of the weights in ONNX files, as networks of `moulin.encoders`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from moulin.bundle.checkpoint import Checkpoint, average_between, average_checkpoints, read_checkpoint
from moulin.bundle.facts import Fact, Said, doubts, facts_of
from moulin.bundle.onnx_weights.load import OnnxWeights
from moulin.bundle.parameters import check_sizes
from moulin.bundle.spec import ModelSpec, OnnxModelSpec
from moulin.bundle.stored import SUFFIX, read_stored
from moulin.bundle.untrusted_file import errors_of
from moulin.encoders.acoustic_model import family_of
from moulin.encoders.ctc_model import CtcModel, is_ctc_alone
from moulin.encoders.recipe import NOTHING_SAID, Recipe
from moulin.encoders.transducer import Transducer
from moulin.errors import BundleError, OptionsError


@dataclass(frozen=True)
class LoadedModel:
    """A transducer or CTC model, with the checkpoint and the options that it was built from."""

    model: Transducer | CtcModel
    file: Path
    checkpoint: Checkpoint
    said: Said

    @property
    def transducer(self) -> Transducer:
        """The model. Raises BundleError where it has a CTC head alone."""
        if isinstance(self.model, CtcModel):
            raise BundleError(
                f"Expected a transducer in {self.file}, got a model with a CTC head alone",
                hint="it was trained with --use-transducer 0",
            )
        return self.model

    @property
    def facts(self) -> list[Fact]:
        return facts_of(self.model, self.checkpoint.tensors, self.said)

    def doubts(self, *, streaming: bool) -> list[str]:
        """Unconfirmed assumptions, one sentence each."""
        found = doubts(self.model, self.checkpoint.tensors, self.said, streaming=streaming)
        return [f"{self.file}: {doubt}" for doubt in found]


def load_transducer(
    files: Sequence[Path], *, use_averaged_model: bool = False, recipe: Recipe = NOTHING_SAID
) -> Transducer:
    """The transducer in a checkpoint file, in moulin's stored form, or the average of several checkpoints.

    `use_averaged_model` takes two checkpoints and averages over all batches of training between them (Icefall's option
    of that name). `recipe` holds facts given as flags (`bundle.facts.Said`). Raises BundleError, for a model with a CTC
    head alone too, and OptionsError.
    """
    return load_with_facts(files, use_averaged_model=use_averaged_model, recipe=recipe).transducer


def transducer_of(spec: ModelSpec) -> Transducer:
    """The transducer of a checkpoint, or the one in ONNX files. Raises BundleError."""
    if isinstance(spec, OnnxModelSpec):
        return OnnxWeights(spec).transducer()
    return load_transducer([spec.file])


def model_of(spec: ModelSpec) -> Transducer | CtcModel:
    """`transducer_of`, or the model of a checkpoint with a CTC head alone. Raises BundleError."""
    return transducer_of(spec) if isinstance(spec, OnnxModelSpec) else load_with_facts([spec.file]).model


def load_with_facts(
    files: Sequence[Path], *, use_averaged_model: bool = False, recipe: Recipe = NOTHING_SAID
) -> LoadedModel:
    """`load_transducer`, or a model with a CTC head alone, with the sources of its facts."""
    if not files:
        raise OptionsError("Expected at least one checkpoint")
    if len(files) == 1 and files[0].suffix == SUFFIX:
        checkpoint = read_stored(files[0])
    else:
        checkpoint = _read(files, use_averaged_model)
    try:
        with errors_of(files[-1], passing=ValueError):
            said = Said.by(checkpoint.parameters, recipe, family_of(checkpoint.tensors).family)
            kind = CtcModel if is_ctc_alone(checkpoint.tensors) else Transducer
            model = kind.from_tensors(checkpoint.tensors, said.recipe)
            check_sizes(checkpoint.parameters, model)
    except ValueError as error:
        raise BundleError(f"{files[-1]} does not fit: {error}") from error
    except BundleError as error:
        raise BundleError(f"{files[-1]} does not fit: {error}", hint=error.hint) from error
    return LoadedModel(model, files[-1], checkpoint, said)


def _read(files: Sequence[Path], use_averaged_model: bool) -> Checkpoint:
    if use_averaged_model:
        if len(files) != 2:
            raise OptionsError(
                f"Expected two checkpoints, an earlier and a later one, to average between, got {len(files)}"
            )
        return average_between(*files)
    return read_checkpoint(files[0]) if len(files) == 1 else average_checkpoints(files)
