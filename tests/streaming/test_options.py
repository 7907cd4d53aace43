from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moulin.decoding.options import DecodingOptions
from moulin.errors import OptionsError
from moulin.streaming.endpoint import Cut
from moulin.streaming.endpoint_rules import EndpointRules
from moulin.streaming.options import StreamOptions

from .test_endpoint import cut

SECONDS = st.floats(0.01, 1000) | st.integers(1, 100)
OPTIONS = st.builds(
    StreamOptions,
    st.builds(DecodingOptions, st.sampled_from(["greedy", "modified_beam_search"]), st.integers(1, 32)),
    st.booleans(),
    st.builds(EndpointRules, SECONDS, SECONDS, SECONDS),
)


def test_defaults() -> None:
    assert StreamOptions().to_dict() == {
        "method": "greedy",
        "beam": 4,
        "max_contexts": 4,
        "max_states": 32,
        "temperature": 1.0,
        "blank_penalty": 0.0,
        "blank_skip": None,
        "hotwords": (),
        "hotwords_score": 1.5,
        "hotwords_method": "modified_beam_search",
        "nbest": 1,
        "lm_scale": None,
        "lodr_scale": None,
        "endpoint": True,
        "rule1_min_trailing_silence_sec": 2.4,
        "rule2_min_trailing_silence_sec": 1.2,
        "rule3_min_utterance_length_sec": 20.0,
    }


@given(OPTIONS, OPTIONS)
def test_through_json_and_back(options: StreamOptions, others: StreamOptions) -> None:
    assert others.updated_from_json(json.dumps(options.to_dict())) == options
    assert others.updated(options.to_dict()) == options


def test_what_is_not_named_stays() -> None:
    options = StreamOptions(DecodingOptions("modified_beam_search", beam=7), rules=EndpointRules(5.0))
    changed = options.updated({"beam": 3, "endpoint": False, "rule3_min_utterance_length_sec": 9})
    assert changed == StreamOptions(DecodingOptions("modified_beam_search", beam=3), False, EndpointRules(5.0, 1.2, 9))
    assert options.updated({}) == options
    assert options.updated_from_json("") == options.updated_from_json(b"{}") == options


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"endpoint": 1}, "Expected endpoint to be true or false, got 1"),
        ({"endpoint": None}, "Expected endpoint to be true or false, got None"),
        ({"beam": 0}, "Expected a beam of 1 to 32, got 0"),
        ({"rule1_min_trailing_silence_sec": 0}, "Expected rule1_min_trailing_silence_sec to be a number of seconds"),
        ({"rule2_min_trailing_silence_sec": "x"}, "above 0, got 'x'"),
    ],
)
def test_values_that_make_no_sense(changes: dict[str, Any], match: str) -> None:
    with pytest.raises(OptionsError, match=match):
        StreamOptions().updated(changes)
    with pytest.raises(OptionsError, match=match):
        StreamOptions().updated_from_json(json.dumps(changes))


@pytest.mark.parametrize("name", ["rule4", "endpoints", "rules", "decoding", ""])
def test_unknown_names_are_refused_with_all_that_there_are(name: str) -> None:
    with pytest.raises(OptionsError, match=f"There is no option '{name}'") as caught:
        StreamOptions().updated({name: 1})
    for known in StreamOptions().to_dict():
        assert known in str(caught.value.hint)


@pytest.mark.parametrize("text", ["[]", "null", "{", '"greedy"', "[" * 100_000])
def test_what_is_no_json_object(text: str) -> None:
    with pytest.raises(OptionsError):
        StreamOptions().updated_from_json(text)


def test_a_number_too_large_for_a_float_is_no_accident() -> None:
    """Python reads an integer of any length from JSON."""
    text = f'{{"rule3_min_utterance_length_sec": 1{"0" * 400}}}'
    rules = StreamOptions().updated_from_json(text).rules
    assert cut(rules, 0.0, 1e300, said=True) == Cut.NONE
