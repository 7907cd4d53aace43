"""Copies without a limit of length of published ONNX files, whose position encodings end after 20 or 40 s."""

from __future__ import annotations

import tempfile
from pathlib import Path

from moulin.bundle.spec import FRAME_SHIFT_SEC, ModelSpec, OnnxModelSpec
from moulin.cli.interrupt import unfinished
from moulin.cli.steps import step


def of_any_length(spec: ModelSpec) -> Path | None:
    """The encoder file of a copy of `spec` in the cache that takes utterances of any length, made the first time.

    None where the model has no limit, or where its table of positions is not Zipformer2's; of int8 files too, whose
    rounding turns differences in the last digit into whole steps.
    """
    if not isinstance(spec, OnnxModelSpec) or spec.max_frames is None or spec.encoder.external_files:
        return None
    if spec.precision == "int8" or spec.family not in ("zipformer2", "unknown"):
        return None
    import onnx

    from moulin.bundle.spec import name_of
    from moulin.launch.cache import cache_dir
    from moulin.onnx_rewrites.positions import compute_positions
    from moulin.tensorrt_engine.plan_file import file_hash

    key = file_hash(*spec.all_files)[:16]
    to = cache_dir() / "any-length" / key / name_of(spec.path).replace("/", "-")
    encoder = to / spec.file.name
    if to.is_dir():
        return encoder
    model = onnx.load(spec.file)
    if not compute_positions(model):
        return None
    limit = f"{spec.max_frames * FRAME_SHIFT_SEC:.0f} s at once"
    to.parent.mkdir(parents=True, exist_ok=True)
    with (
        step(f"{spec.name} was exported for {limit}; writing it for any length, into {to}"),
        tempfile.TemporaryDirectory(dir=to.parent, prefix=".new-") as folder,
        unfinished(Path(folder)),
    ):
        new = Path(folder) / "model"
        new.mkdir()
        for file in spec.all_files:
            if file != spec.file:
                (new / file.name).write_bytes(file.read_bytes())
        onnx.save(model, new / spec.file.name)
        try:
            new.rename(to)
        except OSError:  # another process was first
            if not to.is_dir():
                raise
    return encoder
