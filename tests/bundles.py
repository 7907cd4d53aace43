"""The tiny models in tests/data/bundles, one an architecture, with random weights and odd sizes on purpose.

Each is one archive there, and a folder of `BUNDLES` as soon as this module is imported.
"""

from __future__ import annotations

import shutil
import tarfile
from pathlib import Path
from tempfile import mkdtemp

_DATA = Path(__file__).parent / "data"


def unpacked(archives: Path) -> Path:
    """A folder, which git ignores, with the contents of every `*.tar.xz` in the folder `archives`.

    An archive is unpacked when it is newer than its folder. Several processes may do so at once: a folder appears
    by one rename, complete.
    """
    into = _DATA / "unpacked" / archives.name
    into.mkdir(parents=True, exist_ok=True)
    for archive in sorted(archives.glob("*.tar.xz")):
        folder = into / archive.name.removesuffix(".tar.xz")
        stamp = f"{archive.stat().st_size} {archive.stat().st_mtime_ns}"
        if _stamp(folder).is_file() and _stamp(folder).read_text() == stamp:
            continue
        fresh = Path(mkdtemp(dir=into.parent, prefix=".fresh-"))
        try:
            with tarfile.open(archive) as tar:
                tar.extractall(fresh, filter="data")
            if folder.exists():
                folder.rename(fresh / "old")
            (fresh / folder.name).rename(folder)
            _stamp(folder).write_text(stamp)
        except OSError:  # another process was first
            if not folder.is_dir():
                raise
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
    return into


def _stamp(folder: Path) -> Path:
    return folder.parent.with_name(f".{folder.parent.name}.{folder.name}")


BUNDLES = unpacked(_DATA / "bundles")
TRAINING = unpacked(_DATA / "checkpoints")
"""Checkpoints that Icefall's training wrote, with most of their values zero; tests/data/README.md says more."""
OFFLINE = ("conformer-offline", "zipformer-offline", "zipformer2-offline")
STREAMING = ("conformer-streaming", "lstm-streaming", "zipformer-streaming", "zipformer2-streaming")
MORE_OFFLINE = ("zipformer2-offline-pos8", "zipformer2-ctc-offline")
MORE_STREAMING = ("conformer-streaming-right2", "zipformer2-streaming-context1", "zipformer2-ctc-streaming")
"""Other sizes and options of the recipes, and a CTC head beside the transducer."""
