"""Networks that are open in this process: a recognizer of recordings and one of streams share the parameters."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

from moulin.errors import BundleError

if TYPE_CHECKING:
    from moulin.bundle.spec import ModelSpec
    from moulin.encoders.ctc_model import CtcModel
    from moulin.encoders.transducer import Transducer

_open: WeakValueDictionary[tuple[Path, int, int, str], Transducer | CtcModel] = WeakValueDictionary()
_lock = threading.Lock()


def shared_model(spec: ModelSpec, device: str) -> Transducer | CtcModel:
    """The network of `spec` for PyTorch's runners on `device`, loaded once while anyone uses it.

    Its encoder is moved to the device; nothing else of it may be changed. Raises as `model_of` does.
    """
    from moulin.bundle.transducer import model_of

    file = spec.file.resolve()
    stat = file.stat()
    key = file, stat.st_mtime_ns, stat.st_size, device
    with _lock:
        model = _open.get(key)
        if model is None:
            model = _open[key] = model_of(spec)
        return model


def shared_ctc_model(spec: ModelSpec) -> CtcModel:
    """`shared_transducer` for a CTC head, of a model that may have a transducer too."""
    from moulin.encoders.ctc_model import CtcModel

    model = shared_model(spec, "cpu")
    if isinstance(model, CtcModel):
        return model
    assert model.ctc is not None  # `load_checkpoint_spec` has looked
    return CtcModel(model.encoder, model.ctc)


def shared_transducer(spec: ModelSpec) -> Transducer:
    """`shared_model` for our GPU engine, which makes forms of its own of the parameters on the card
    (`moulin.gpu.shared_parameters`) and changes nothing. Raises BundleError for a model with a CTC head alone too."""
    from moulin.encoders.transducer import Transducer

    model = shared_model(spec, "cpu")
    if not isinstance(model, Transducer):
        raise BundleError(f"Expected a transducer in {spec.file}, got a model with a CTC head alone")
    return model
