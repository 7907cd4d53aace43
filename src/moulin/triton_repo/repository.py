"""Writing of a Triton model repository: config.pbtxt, the shim that Triton loads, warm-up data and the model's files.

DIR/transducer/config.pbtxt
DIR/transducer/1/model.py         imports moulin, nothing else
DIR/transducer/1/bundle/          the model's files (copied, or a link to where they are)
DIR/transducer/1/hotwords.txt     the server's own hotwords, if any
DIR/transducer/1/lm.arpa          its language model, or lm.onnx, and lodr.arpa, if any; n-grams may be gzipped
DIR/transducer/warmup/            tensors that Triton sends before it reports ready (offline)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np

from moulin.bundle.rnn_lm import is_rnn_lm
from moulin.bundle.spec import ModelSpec
from moulin.decoding.hotwords import MOST_SERVER_HOTWORDS, Hotword, given_hotwords, hotwords_text
from moulin.engine.blank_skip import check_blank_skip
from moulin.engine.features import model_max_sec
from moulin.engine.lm_scales import check_scales
from moulin.engine.nbest import check_nbest
from moulin.models.host_search import check_rnn_lm
from moulin.models.hotwords import hotword_graphs, uses_hotwords
from moulin.models.language_model import open_fusion
from moulin.models.language_model_files import LanguageModelFiles, with_scales
from moulin.models.precisions import settled
from moulin.tensorrt_engine.plan_file import facts_file
from moulin.triton_repo import contract
from moulin.triton_repo.model_config import PLAN_NAME, with_facts
from moulin.triton_repo.model_folder import new_model, place_file, write_config, write_shim
from moulin.triton_repo.offline_config import WARMUP_SAMPLES, offline_config
from moulin.triton_repo.offline_options import OfflineOptions
from moulin.triton_repo.streaming_config import streaming_config
from moulin.triton_repo.streaming_options import StreamingOptions

_Options = TypeVar("_Options", OfflineOptions, StreamingOptions)

HOTWORDS_NAME = "hotwords.txt"
"""The file of the server's hotwords in a version's folder."""


def build_offline_repository(spec: ModelSpec, to: Path, options: OfflineOptions, *, link: bool = False) -> Path:
    """Write the repository for the offline model `spec` into `to`, replacing that model there and no other.

    With `link` the files stay where they are; without, the repository can be moved to another machine. Returns the
    model's folder. The old model stays as it is until the new one is complete, so that `spec` may lie inside it.
    Raises OptionsError where `to` cannot be written or the model's folder holds something else, and as `settled` does.
    """
    placed = _placed(options, spec)
    with _new_model(spec, to / options.model_name, "offline_shim", placed, link=link) as model_dir:
        longest_sec = min(model_max_sec(spec), options.max_audio_sec)
        config = offline_config(placed.options, max_utterance_sec=longest_sec)
        write_config(model_dir, placed.with_facts(config, spec))
        warmup = model_dir / "warmup"
        warmup.mkdir()
        noise = np.random.default_rng(0).normal(0, 0.01, WARMUP_SAMPLES).astype("<f4")
        (warmup / contract.WAV).write_bytes(noise.tobytes())
        (warmup / contract.WAV_LENS).write_bytes(np.array([WARMUP_SAMPLES], dtype="<i4").tobytes())
    return to / options.model_name


def build_streaming_repository(spec: ModelSpec, to: Path, options: StreamingOptions, *, link: bool = False) -> Path:
    """`build_offline_repository` for the streaming model `spec`, without warm-up data: Triton's warm-up knows no
    sequences, so the shim warms up by itself."""
    placed = _placed(options, spec)
    with _new_model(spec, to / options.model_name, "streaming_shim", placed, link=link) as model_dir:
        write_config(model_dir, placed.with_facts(streaming_config(placed.options), spec))
    return to / options.model_name


@dataclass(frozen=True, slots=True)
class _Placed(Generic[_Options]):
    """What a model's folder holds beside the model."""

    options: _Options
    """The settled engine, and paths in the version's folder."""
    plan: Path | None
    hotwords: Sequence[Hotword]
    lm: LanguageModelFiles
    uses_hotwords: bool

    def with_facts(self, config: Any, spec: ModelSpec) -> Any:
        return with_facts(config, spec, hotwords=self.uses_hotwords, alternatives=True, engine=self.options.engine)


@contextmanager
def _new_model(
    spec: ModelSpec,
    model_dir: Path,
    shim: str,
    placed: _Placed[OfflineOptions] | _Placed[StreamingOptions],
    *,
    link: bool,
) -> Iterator[Path]:
    """A folder with the model's files and code, which takes the place of `model_dir` on leaving."""
    with new_model(model_dir, linked=spec.path if link else None) as new:
        _place_bundle(spec, new / "1" / "bundle", link=link)
        if placed.plan is not None:
            place_file(placed.plan, new / "1" / PLAN_NAME, link=link)
            place_file(facts_file(placed.plan), facts_file(new / "1" / PLAN_NAME), link=link)
        if placed.hotwords:
            (new / "1" / HOTWORDS_NAME).write_text(hotwords_text(placed.hotwords), encoding="utf-8")
        of_lm = placed.options.lm
        for file, name in ((placed.lm.lm, of_lm.lm), (placed.lm.lodr, of_lm.lodr)):
            if file is not None and name is not None:
                place_file(file, new / "1" / name, link=link)
        write_shim(new, shim)
        yield new


def _placed(options: _Options, spec: ModelSpec) -> _Placed[_Options]:
    """Raises OptionsError where the engine does not run the model, or not in that precision, and for hotwords and a
    language model that it does not use or that do not fit its vocabulary."""
    _, engine = settled(spec, options.engine)
    check_blank_skip(spec, options.decoding)
    check_nbest(options.decoding)
    hotwords = given_hotwords(options.hotwords, MOST_SERVER_HOTWORDS) if options.hotwords is not None else ()
    hotword_graphs(spec, hotwords, options.decoding)
    lm = options.lm
    check_rnn_lm(spec, engine, lm)
    check_scales(with_scales(options.decoding, lm), open_fusion(spec, lm))
    in_folder = replace(
        options,
        engine=replace(engine, plan=Path(PLAN_NAME) if engine.plan else None),
        encoder=f"bundle/{spec.file.name}",
        hotwords=HOTWORDS_NAME if hotwords else None,
        lm=LanguageModelFiles(
            lm.lm and Path("lm.onnx" if is_rnn_lm(lm.lm) else "lm.arpa"), lm.lodr and Path("lodr.arpa")
        ),
    )
    return _Placed(in_folder, engine.plan, hotwords, lm, uses_hotwords(spec))


def _place_bundle(spec: ModelSpec, to: Path, *, link: bool) -> None:
    if link and all(file.parent == spec.path for file in spec.all_files):
        to.symlink_to(spec.path.resolve(), target_is_directory=True)
        return
    to.mkdir()
    for file in spec.all_files:  # also of a clone, where the vocabulary is in another folder
        place_file(file, to / file.name, link=link)
