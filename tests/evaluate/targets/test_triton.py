"""Options of moulin's service by name, for a run."""

from __future__ import annotations

import pytest

from moulin.errors import OptionsError
from moulin.evaluate.targets.triton import with_options
from moulin.models.engine_choice import EngineChoice
from moulin.triton_repo.offline_options import OfflineOptions
from moulin.triton_repo.streaming_options import StreamingOptions


def test_options_are_changed_by_name() -> None:
    changed = with_options(
        StreamingOptions(engine=EngineChoice(threads=2)), {"instances": "4", "max-streams": "8000", "linger-ms": "1.5"}
    )
    assert (changed.engine.threads, changed.instances, changed.max_streams, changed.linger_ms) == (2, 4, 8000, 1.5)
    assert with_options(OfflineOptions(), {"cuda-graphs": "false"}).engine.cuda_graphs is False


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"max-streams": "many"}, "Expected numbers for the options of moulin's service, got max-streams=many"),
        ({"speed": "9"}, "moulin's service has no option 'speed'"),
        ({"instances": "0"}, "instances"),
    ],
)
def test_options_that_are_none(changes: dict[str, str], message: str) -> None:
    with pytest.raises(OptionsError, match=message):
        with_options(StreamingOptions(), changes)
