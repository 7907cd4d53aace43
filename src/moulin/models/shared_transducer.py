"""Networks that are open in this process: a recognizer of recordings and one of streams share the parameters."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

if TYPE_CHECKING:
    from moulin.bundle.spec import ModelSpec
    from moulin.encoders.transducer import Transducer

_open: WeakValueDictionary[tuple[Path, int, int, str], Transducer] = WeakValueDictionary()
_lock = threading.Lock()


def shared_transducer(spec: ModelSpec, device: str) -> Transducer:
    """The transducer of `spec` for PyTorch's runners on `device`, loaded once while anyone uses it.

    Its encoder is moved to the device; nothing else of it may be changed. Raises as `transducer_of` does.
    """
    from moulin.bundle.transducer import transducer_of

    file = spec.file.resolve()
    stat = file.stat()
    key = file, stat.st_mtime_ns, stat.st_size, device
    with _lock:
        transducer = _open.get(key)
        if transducer is None:
            transducer = _open[key] = transducer_of(spec)
        return transducer
