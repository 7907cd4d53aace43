"""The files of a folder, an archive or a repository that make up the requested model.

The rules use names alone, so that they serve local folders and remote listings alike; docs/models.md has them as a
table. Paths are all absolute, or all relative to the repository.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Literal, get_args

from moulin.bundle.file_names import (
    ROLES,
    OnnxName,
    checkpoint_rank,
    is_checkpoint_name,
    is_projection,
    names_a_training,
    names_language,
    parse_ctc_name,
    parse_onnx_name,
    training_rank,
    what_was_trained,
)
from moulin.bundle.precision import PRECISIONS, Precision
from moulin.errors import BundleError

Mode = Literal["offline", "streaming"]
Form = Literal["onnx", "checkpoint"]
Head = Literal["transducer", "ctc"]
HEADS: tuple[Head, ...] = get_args(Head)

_OF_FP32 = " and --engine tensorrt: it and bf16 on OpenVINO take fp32 files"
# Folders of a recipe that hold no acoustic model, although their files may have a model's name.
_ASIDE = ("data", "lang", "lm", "rnn_lm", "rnnlm", "log", "tensorboard", "test_wavs", "decoding")


class MissingNetworkError(BundleError):
    """A model without an encoder, decoder or joiner; `missing` has the roles that no file has."""

    def __init__(self, about: str, missing: Sequence[str], *, hint: str | None = None) -> None:
        super().__init__(f"{about} has no {' and no '.join(f'{role}*.onnx' for role in missing)}", hint=hint)
        self.missing = tuple(missing)


@dataclass(frozen=True, slots=True)
class Wish:
    """The requested properties of a model; None leaves one to the rules. `form` decides between ONNX files and a
    checkpoint where both exist; the default is ONNX files."""

    precision: Precision | None = None
    mode: Mode | None = None
    language: str | None = None
    form: Form | None = None
    head: Head | None = None
    """The head to decode where a folder has a file for each; the default is the transducer's."""


NO_WISH = Wish()


@dataclass(frozen=True, slots=True)
class Choice:
    """The files of one model. `networks` has the encoder, the decoder and the joiner in this order, or one checkpoint;
    `precision` is the encoder's, None for a checkpoint.

    `mode` comes from the names or the wish, `language` from the files' names. Each of `notes` is a line for the user
    about files that were not chosen.
    """

    form: Form
    networks: tuple[PurePosixPath, ...]
    precision: Precision | None = None
    mode: Mode | None = None
    language: str | None = None
    notes: tuple[str, ...] = ()
    head: Head = "transducer"
    """`ctc` for a file that has a CTC head alone."""

    @property
    def file(self) -> PurePosixPath:
        """The encoder or the checkpoint: the file by which the model can be named."""
        return self.networks[0]


def choose_model(paths: Collection[PurePosixPath], inside: PurePosixPath, about: str, wish: Wish = NO_WISH) -> Choice:
    """The model at `inside`: a folder, an encoder or a checkpoint among `paths`.

    `about` is the folder's or repository's name for messages. Raises BundleError where there is no model, or where the
    rules cannot decide between several.
    """
    if inside in paths and wish.head != "transducer" and (named := parse_ctc_name(inside)):
        return _ctc_choice(named, wish, ())
    if inside in paths and wish.head == "ctc" and (named := parse_onnx_name(inside)) and named.role == "encoder":
        return _ctc_choice(named, wish, ())  # an encoder with both heads needs no decoder and joiner then
    if inside in paths and inside.suffix == ".onnx":
        return _named_encoder(paths, inside, about, wish)
    if inside in paths and inside.suffix in (".pt", ".safetensors"):
        return Choice("checkpoint", (inside,), mode=wish.mode)
    return _Folder(paths, inside, about).choose(wish)


def is_aside(path: PurePosixPath, top: PurePosixPath) -> bool:
    """Whether `path` lies in a folder below `top` that holds no acoustic model, such as a language model's."""
    folders = path.relative_to(top).parts[:-1]
    return any(part.lower() == aside or part.lower().startswith(f"{aside}_") for part in folders for aside in _ASIDE)


class _Folder:
    """The models in a folder and its subfolders."""

    def __init__(self, paths: Collection[PurePosixPath], top: PurePosixPath, about: str) -> None:
        self._top, self._about = top, about
        below = sorted(path for path in paths if path.is_relative_to(top))
        self._names = [name for path in below if (name := parse_onnx_name(path))]
        self._ctc = [name for path in below if not is_aside(path, top) and (name := parse_ctc_name(path))]
        self._of_2022 = {path.parent for path in below if is_projection(path)}
        self._checkpoints = [path for path in below if is_checkpoint_name(path) and not is_aside(path, top)]

    def choose(self, wish: Wish) -> Choice:
        exports = self._folders_with_exports()
        if self._ctc and self._prefers_ctc(exports, wish):
            return self._ctc_model(wish)
        if self._checkpoints and (not exports or self._prefers_checkpoint(exports, wish)):
            choice = self._checkpoint(wish)
            notes = self._why_no_onnx(choice, exports, wish)
            return Choice("checkpoint", choice.networks, mode=choice.mode, notes=(*notes, *choice.notes))
        if exports:
            return self._onnx(exports, wish)
        raise self._nothing()

    def _prefers_ctc(self, exports: Sequence[PurePosixPath], wish: Wish) -> bool:
        """Whether a CTC export is taken: where it is asked for, or where there is nothing else."""
        if wish.head == "ctc":
            return wish.form != "checkpoint" or not self._checkpoints
        return wish.head is None and not exports and not self._names and not self._checkpoints

    def _ctc_model(self, wish: Wish) -> Choice:
        folder, notes = self._one_folder(sorted({name.path.parent for name in self._ctc}), wish)
        names = [name for name in self._ctc if name.path.parent == folder]
        names = self._of_precision(names, wish.precision, folder)
        names = self._of_mode(names, wish.mode, folder, notes)
        names = self._of_training(names, folder, notes)
        names = self._of_form(names, folder, notes)
        precision = wish.precision or next(p for p in PRECISIONS if any(name.precision == p for name in names))
        return _ctc_choice(next(name for name in names if name.precision == precision), wish, tuple(notes))

    def _folders_with_exports(self) -> list[PurePosixPath]:
        """The folders with encoders, only the complete ones if there are any; without exports in the form of 2022."""
        roles: dict[PurePosixPath, set[str]] = {}
        for name in self._names:
            roles.setdefault(name.path.parent, set()).add(name.role)
        found = [folder for folder in roles if "encoder" in roles[folder] and folder not in self._of_2022]
        return sorted(folder for folder in found if roles[folder] == set(ROLES)) or sorted(found)

    def _prefers_checkpoint(self, exports: Sequence[PurePosixPath], wish: Wish) -> bool:
        if wish.precision == "int8":
            return False  # no engine runs a checkpoint in int8
        if all(checkpoint_rank(path) is None for path in self._checkpoints):
            return False  # a checkpoint with an unknown name beside the exports may be of another model
        if wish.language is not None and not any(names_language(path, wish.language) for path in self._checkpoints):
            return False
        return wish.form == "checkpoint" or (wish.form is None and wish.mode == "offline" and self._all_stream(exports))

    def _all_stream(self, folders: Collection[PurePosixPath]) -> bool:
        return all(
            name.chunk is not None for name in self._names if name.role == "encoder" and name.path.parent in folders
        )

    def _why_no_onnx(self, choice: Choice, exports: Sequence[PurePosixPath], wish: Wish) -> list[str]:
        shown = self._shown(choice.file)
        if not exports and self._of_2022:
            folder = self._shown(sorted(self._of_2022)[0])
            return [f"Taking the checkpoint {shown}: {folder} has an export of 2022 in five files, an older form"]
        if not exports:
            return []
        if wish.form == "checkpoint":
            return [
                f"{self._about} has ONNX files and a checkpoint; taking {shown} for PyTorch and the GPU engine "
                "(--engine onnxruntime takes the ONNX files)"
            ]
        return [
            f"Taking the checkpoint {shown} for whole utterances: the ONNX files of {self._about} are streaming exports"
        ]

    # ------------------------------------------------------------------------------------------------- ONNX files

    def _onnx(self, exports: Sequence[PurePosixPath], wish: Wish) -> Choice:
        folder, notes = self._one_folder(exports, wish)
        names = [name for name in self._names if name.path.parent == folder]
        missing = [role for role in ROLES if not any(name.role == role for name in names)]
        if missing:
            hint = _without_joiner(names) if missing == ["joiner"] else None
            raise MissingNetworkError(self._about_folder(folder), missing, hint=hint)
        encoders = [name for name in names if name.role == "encoder"]
        encoders = self._of_language(encoders, wish.language, folder, notes)
        encoders = self._of_precision(encoders, wish.precision, folder)
        encoders = self._of_mode(encoders, wish.mode, folder, notes)
        encoders = self._of_training(encoders, folder, notes)
        encoders = self._of_form(encoders, folder, notes)
        precision = wish.precision or next(p for p in PRECISIONS if any(name.precision == p for name in encoders))
        encoder = next(name for name in encoders if name.precision == precision)
        return _with_companions(encoder, names, self._about, wish, tuple(notes))

    def _one_folder(self, folders: Sequence[PurePosixPath], wish: Wish) -> tuple[PurePosixPath, list[str]]:
        """The folder with the model: the top or its `exp`, the one named after the requested language or mode, or the
        only one."""
        if len(folders) == 1:
            return folders[0], []
        fitting = list(folders)
        if wish.language is not None:
            fitting = [folder for folder in folders if wish.language.lower() in self._words(folder)] or fitting
        if wish.mode is not None and len(fitting) > 1:
            fitting = [folder for folder in fitting if self._mode_of(folder) == wish.mode] or fitting
        usual = next(
            (f for f in (self._top, self._top / "exp", self._top / "onnx", self._top / "exp/onnx") if f in fitting),
            None,
        )
        chosen = fitting[0] if len(fitting) == 1 else usual
        if chosen is None:
            found = ", ".join(self._shown(folder) for folder in fitting)
            raise BundleError(
                f"{self._about} holds {len(fitting)} models: {found}",
                hint=f"name one: {self._path_of(fitting[0])}",
            )
        others = ", ".join(self._shown(folder) for folder in folders if folder != chosen)
        where = "itself" if chosen == self._top else self._shown(chosen)
        return chosen, [f"{self._about} holds models in several folders; taking the one in {where} (others: {others})"]

    def _of_language(
        self, encoders: list[OnnxName], wanted: str | None, folder: PurePosixPath, notes: list[str]
    ) -> list[OnnxName]:
        languages = sorted({name.language for name in encoders if name.language is not None})
        if wanted is not None:
            found = [name for name in encoders if name.language is not None and _same(name.language, wanted)]
            if found or wanted.lower() in self._words(folder):
                return found or encoders
            raise BundleError(
                f"{self._about_folder(folder)} has no files for the language {wanted}"
                + (f", only {', '.join(languages)}" if languages else ": its files name no language"),
                hint="name one of these with --language" if languages else "leave out --language",
            )
        plain = [name for name in encoders if name.language is None]
        if languages and plain:
            notes.append(f"{self._about} also has files for single languages ({', '.join(languages)}): --language")
            return plain
        if len(languages) > 1:
            raise BundleError(
                f"{self._about_folder(folder)} holds models of {len(languages)} languages: {', '.join(languages)}",
                hint=f"choose one, say --language {languages[0]}",
            )
        return encoders

    def _of_precision(
        self, encoders: list[OnnxName], wanted: Precision | None, folder: PurePosixPath
    ) -> list[OnnxName]:
        if wanted is None:
            return encoders
        found = [name for name in encoders if name.precision == wanted]
        if not found:
            raise _no_precision(self._about_folder(folder), encoders, wanted)
        return found

    def _of_mode(
        self, encoders: list[OnnxName], wanted: Mode | None, folder: PurePosixPath, notes: list[str]
    ) -> list[OnnxName]:
        """The encoders of the requested mode. A chunk in the name marks a streaming export; without one it is open."""
        streaming = [name for name in encoders if name.chunk is not None]
        plain = [name for name in encoders if name.chunk is None]
        if not streaming or not plain:
            return encoders
        if wanted is None:
            notes.append(
                f"{self._about_folder(folder)} holds an offline export ({_one_a_label(plain)[0]}) and streaming ones; "
                "taking a streaming one (for whole utterances --offline, or name that file)"
            )
        return plain if wanted == "offline" else streaming

    def _of_training(self, encoders: list[OnnxName], folder: PurePosixPath, notes: list[str]) -> list[OnnxName]:
        """Among several epochs and averages of one training, the last epoch with the longest average."""
        trainings = sorted({name.training for name in encoders})
        if len(trainings) == 1:
            return encoders
        one = len({what_was_trained(training) for training in trainings if training}) == 1
        if not one or not all(names_a_training(training) for training in trainings if training):
            names = ", ".join(_one_a_label(encoders))
            raise BundleError(
                f"{self._about_folder(folder)} holds {len(_one_a_label(encoders))} models: {names}",
                hint=f"name the encoder file instead: {self._path_of(encoders[0].path)}",
            )
        best = "" if "" in trainings else max(trainings, key=training_rank)
        chosen = [name for name in encoders if name.training == best]
        what = "the one without a label" if not best else "the last of the training"
        self._note(notes, folder, "exports", chosen, encoders, what)
        return chosen

    def _of_form(self, encoders: list[OnnxName], folder: PurePosixPath, notes: list[str]) -> list[OnnxName]:
        """Among several exports of one streaming model, the smallest chunk with the largest left context."""
        if len({name.label for name in encoders}) == 1:
            return encoders
        best = min(encoders, key=lambda name: (name.chunk or 0.0, -name.left_context, name.label))
        chosen = [name for name in encoders if name.label == best.label]
        what = "the smallest chunk with the largest left context"
        self._note(notes, folder, "forms", chosen, encoders, what)
        return chosen

    def _note(
        self,
        notes: list[str],
        folder: PurePosixPath,
        kind: str,
        chosen: Sequence[OnnxName],
        encoders: Sequence[OnnxName],
        what: str,
    ) -> None:
        names = _one_a_label(encoders)
        taken = _one_a_label(chosen)
        others = [name for name in names if name not in taken]
        notes.append(
            f"{self._about_folder(folder)} holds one model in {len(names)} {kind}; taking {taken[0]}, {what} "
            f"(others: {', '.join(others)}; to take one: {self._path_of(folder / others[0])})"
        )

    # ------------------------------------------------------------------------------------------------- checkpoints

    def _checkpoint(self, wish: Wish) -> Choice:
        checkpoints = self._checkpoints
        if wish.language is not None:
            checkpoints = [path for path in checkpoints if names_language(path, wish.language)]
            if not checkpoints:
                raise BundleError(
                    f"{self._about} has no checkpoint for the language {wish.language}: no name says so",
                    hint="leave out --language",
                )
        folders = sorted({path.parent for path in checkpoints})
        ranked = [path for path in checkpoints if checkpoint_rank(path) is not None]
        folder, notes = self._one_folder(sorted({path.parent for path in ranked}) or folders, wish)
        here = [path for path in checkpoints if path.parent == folder]
        known = sorted((rank, path) for path in here if (rank := checkpoint_rank(path)) is not None)
        tied = [path for rank, path in known if rank == known[-1][0]] if known else here
        if len(tied) > 1:
            found = ", ".join(self._shown(path) for path in here)
            raise BundleError(
                f"{self._about} holds {len(here)} checkpoints: {found}", hint=f"name one: {self._path_of(here[0])}"
            )
        if not known:
            return Choice("checkpoint", (here[0],), mode=self._mode(wish), notes=tuple(notes))
        best_rank, best = known[-1]
        # Notes name other averages (rank 6 and above) only; training's own checkpoints are passed over silently.
        rivals = [self._shown(path) for rank, path in known[:-1] if rank[0] >= 6]
        if rivals:
            why = _WHY[best_rank[0]]
            notes.append(f"Of several checkpoints taking {self._shown(best)}, {why} (others: {', '.join(rivals)})")
        return Choice("checkpoint", (best,), mode=self._mode(wish), notes=tuple(notes))

    def _mode(self, wish: Wish) -> Mode | None:
        """A checkpoint's mode: the requested one, else that of the exports beside it."""
        encoders = [name for name in self._names if name.role == "encoder"]
        if wish.mode is None and any(name.chunk is not None for name in encoders):
            return "streaming"
        return wish.mode

    # ----------------------------------------------------------------------------------------- errors and paths

    def _nothing(self) -> BundleError:
        if self._of_2022:
            return BundleError(
                f"{self._about} has an export of 2022 in five files (joiner_encoder_proj.onnx and "
                "joiner_decoder_proj.onnx beside the joiner), a form that is no longer served",
                hint="`moulin export` the checkpoint that it was made from, or use a newer model",
            )
        roles = {name.role for name in self._names}
        if roles:
            missing = " and no ".join(f"{role}*.onnx" for role in ROLES if role not in roles)
            return BundleError(f"{self._about} has no {missing}")
        return BundleError(
            f"{self._about} holds no transducer: expected encoder*.onnx, decoder*.onnx and joiner*.onnx, or a "
            "checkpoint",
            hint="a CTC or attention model is another kind of model, of which moulin serves Icefall's CTC exports "
            "(model.onnx, ctc-*.onnx), and TorchScript files (jit_script.pt) are no checkpoints",
        )

    def _words(self, folder: PurePosixPath) -> list[str]:
        return [part.lower() for part in folder.relative_to(self._top).parts]

    def _mode_of(self, folder: PurePosixPath) -> Mode | None:
        words = " ".join(self._words(folder)).replace("_", "-")
        if "streaming" in words and "non-streaming" not in words and "offline" not in words:
            return "streaming"
        return "offline" if "offline" in words or "non-streaming" in words else None

    def _shown(self, path: PurePosixPath) -> str:
        return str(path.relative_to(self._top))

    def _path_of(self, path: PurePosixPath) -> str:
        """`path` as the user could name it instead."""
        return f"{self._about}/{self._shown(path)}" if path != self._top else self._about

    def _about_folder(self, folder: PurePosixPath) -> str:
        return self._path_of(folder)


_WHY = {9: "moulin's stored form", 8: "the usual name", 7: "the usual name", 6: "the last of the training"}


def _ctc_choice(name: OnnxName, wish: Wish, notes: tuple[str, ...]) -> Choice:
    mode: Mode | None = "streaming" if name.chunk is not None else wish.mode
    return Choice("onnx", (name.path,), name.precision, mode, notes=notes, head="ctc")


def _named_encoder(paths: Collection[PurePosixPath], encoder: PurePosixPath, about: str, wish: Wish) -> Choice:
    name = parse_onnx_name(encoder)
    if name is None or name.role != "encoder":
        raise BundleError(f"Expected a model folder or an encoder*.onnx file, got {encoder}")
    if any(is_projection(path) for path in paths if path.parent == encoder.parent):
        raise BundleError(
            f"{about} has an export of 2022 in five files (joiner_encoder_proj.onnx beside the joiner), a form that is "
            "no longer served",
            hint="`moulin export` the checkpoint that it was made from, or use a newer model",
        )
    names = [other for path in sorted(paths) if path.parent == encoder.parent and (other := parse_onnx_name(path))]
    missing = [role for role in ROLES if not any(other.role == role for other in names)]
    if missing:
        raise MissingNetworkError(about, missing)
    alike = [other for other in names if other.role == "encoder" and other.key == name.key]
    precision = wish.precision or name.precision
    if found := [other for other in alike if other.precision == precision]:
        return _with_companions(name if name in found else found[0], names, about, wish, ())
    raise _no_precision(about, alike, precision)


def _with_companions(
    encoder: OnnxName, names: Sequence[OnnxName], about: str, wish: Wish, notes: tuple[str, ...]
) -> Choice:
    decoder, joiner = (
        _companion(encoder, [name for name in names if name.role == role], about) for role in ("decoder", "joiner")
    )
    return Choice(
        "onnx",
        (encoder.path, decoder, joiner),
        encoder.precision,
        "streaming" if encoder.chunk is not None else wish.mode,
        encoder.language,
        notes,
    )


def _companion(encoder: OnnxName, candidates: Sequence[OnnxName], about: str) -> PurePosixPath:
    """The decoder or joiner of `encoder`, in its precision where possible: the one with the same label, else the one of
    the same training, else the only one whose name does not state another training."""
    same_language = [name for name in candidates if name.language == encoder.language]
    tests: tuple[Callable[[OnnxName], bool], ...] = (
        lambda name: name.label == encoder.label,
        lambda name: name.training == encoder.training and name.chunk is None,
        lambda name: not _other_training(name, encoder),
    )
    pool = same_language or [name for name in candidates if name.language is None]
    for test in tests:
        found = [name for name in pool if test(name)]
        if found and len({name.key for name in found}) == 1:
            order = (encoder.precision, *PRECISIONS)
            return min(found, key=lambda name: order.index(name.precision)).path
    names = ", ".join(_one_a_label(candidates))
    label = f"{encoder.language}_" if encoder.language else encoder.label
    raise BundleError(f"None of {names} has the label '{label}' of the encoder", hint=f"look at the files of {about}")


def _other_training(one: OnnxName, other: OnnxName) -> bool:
    """Whether both names state an epoch or iteration, and different ones."""
    return one.training != other.training and names_a_training(one.training) and names_a_training(other.training)


def _without_joiner(names: Sequence[OnnxName]) -> str:
    """A hint about the likely kind of a model with encoder and decoder but no joiner."""
    if any(name.role == "decoder" and name.label.startswith(("_joint", "-joint")) for name in names):
        return "an encoder and a decoder_joint are a NeMo export, which other runtimes serve"
    return (
        "an encoder and a decoder without a joiner are an attention model (Whisper, Paraformer, Moonshine, FireRedASR, "
        "…), which sherpa-onnx runs; moulin serves transducers"
    )


def _no_precision(about: str, encoders: Iterable[OnnxName], wanted: Precision) -> BundleError:
    there = [p for p in PRECISIONS if p in {name.precision for name in encoders}]
    return BundleError(
        f"{about} has no {wanted} encoder, only {', '.join(there)}",
        hint=f"leave out --precision{_OF_FP32 if wanted == 'fp32' else ''}, or name another model",
    )


def _one_a_label(names: Iterable[OnnxName]) -> list[str]:
    """One file name for each label: that of the highest precision."""
    by_key: dict[tuple[str | None, str], OnnxName] = {}
    for name in sorted(names, key=lambda name: (name.path.name, PRECISIONS.index(name.precision))):
        kept = by_key.setdefault(name.key, name)
        if PRECISIONS.index(name.precision) < PRECISIONS.index(kept.precision):
            by_key[name.key] = name
    return [name.path.name for name in by_key.values()]


def _same(one: str, other: str) -> bool:
    return one.lower().replace("_", "-") == other.lower().replace("_", "-")
