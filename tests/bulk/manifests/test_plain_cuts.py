"""The fast reading of Lhotse's usual entries gives what the general one does, or nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from moulin.bulk.manifests.lhotse import _row
from moulin.bulk.manifests.plain_cuts import plain_row

SOURCE = {"type": "file", "channels": [0], "source": "/a.wav"}
RECORDING = {"id": "r", "sources": [SOURCE], "sampling_rate": 16000, "num_samples": 160000, "duration": 10.0}
CUT = {"id": "c", "start": 0, "duration": 10, "channel": 0, "type": "MonoCut", "recording": RECORDING}


@pytest.mark.parametrize(
    "entry",
    [
        CUT,
        {**CUT, "start": 1.25, "duration": 2},
        {**CUT, "duration": 9.9995},
        {**CUT, "supervisions": [{"text": "a"}], "custom": {"type": "x"}},
        {**CUT, "recording": {**RECORDING, "sources": [{**SOURCE, "type": "url", "source": "s3://b/a.wav"}]}},
        {**CUT, "channel": 3, "recording": {**RECORDING, "sources": [{**SOURCE, "channels": [3]}]}},
        RECORDING,
        {**RECORDING, "transforms": None},
    ],
)
def test_usual_entries(entry: dict[str, Any]) -> None:
    general = _row(Path("cuts.jsonl"), "line 1", entry)
    assert plain_row(json.dumps(entry)) == {name: value for name, value in general.items() if value is not None}


@pytest.mark.parametrize(
    "entry",
    [
        [1],
        {**CUT, "id": 7},
        {**CUT, "type": "MultiCut", "channel": [0]},
        {**CUT, "channel": 1, "recording": {**RECORDING, "sources": [{**SOURCE, "channels": [0, 1]}]}},
        {**CUT, "start": float("nan")},
        {**CUT, "recording": {**RECORDING, "transforms": [{"name": "Speed"}]}},
        {**RECORDING, "sources": [SOURCE, SOURCE]},
        {**RECORDING, "sources": [{**SOURCE, "type": "command"}]},
        {**RECORDING, "id": "\ud800"},
    ],
)
def test_all_others_are_left_to_the_general_reading(entry: Any) -> None:
    assert plain_row(json.dumps(entry)) is None
