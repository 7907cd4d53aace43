from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moulin.decoding.network import log_softmax
from moulin.decoding.options import MAX_BEAM, METHODS, DecodingOptions
from moulin.decoding.row_options import RowOptions
from moulin.errors import OptionsError


def test_defaults() -> None:
    usual = {
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
    }
    assert DecodingOptions().to_dict() == usual


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("method", "beam_search"),
        ("method", None),
        ("method", ["greedy"]),
        ("beam", 0),
        ("beam", MAX_BEAM + 1),
        ("beam", 4.0),
        ("beam", "4"),
        ("beam", True),
        ("beam", None),
        ("temperature", 0),
        ("temperature", -1.0),
        ("temperature", 1e-30),
        ("temperature", math.nan),
        ("temperature", math.inf),
        ("temperature", 10**400),
        ("temperature", "1"),
        ("temperature", True),
        ("blank_penalty", math.nan),
        ("blank_penalty", -math.inf),
        ("blank_penalty", 1e300),
        ("blank_penalty", -(10**400)),
        ("blank_penalty", None),
        ("blank_penalty", False),
        ("blank_penalty", [0.0]),
    ],
    ids=lambda value: str(value)[:12],
)
def test_values_that_make_no_sense(name: str, value: Any) -> None:
    with pytest.raises(OptionsError, match=r"Expected a .*, got ") as caught:
        DecodingOptions(**{name: value})
    assert repr(value) in caught.value.message
    with pytest.raises(OptionsError):
        DecodingOptions().updated_from_json(json.dumps({name: value}))


@given(
    st.sampled_from(METHODS),
    st.integers(1, MAX_BEAM),
    st.floats(0.01, 100),
    st.floats(-100, 100),
)
def test_whatever_is_accepted_gives_finite_probabilities(
    method: Any, beam: int, temperature: float, blank_penalty: float
) -> None:
    options = DecodingOptions(method, beam, temperature, blank_penalty)
    assert DecodingOptions().updated_from_json(json.dumps(options.to_dict())) == options
    logits = np.linspace(-60, 60, 24, dtype=np.float32).reshape(2, 12)
    rows = RowOptions.of([options] * 2)
    assert np.isfinite(log_softmax(logits, rows.blank_penalties, rows.sharpness)).all()


def test_json_changes_only_what_it_names() -> None:
    base = DecodingOptions("modified_beam_search", beam=8, blank_penalty=0.5)
    assert base.updated_from_json('{"beam": 2}') == DecodingOptions("modified_beam_search", 2, 1.0, 0.5)
    assert base.updated_from_json(b'{"temperature": 2}').temperature == 2
    assert base == DecodingOptions("modified_beam_search", beam=8, blank_penalty=0.5)


@pytest.mark.parametrize("nothing", ["", b"", "{}", b"{}", " {} "])
def test_no_changes(nothing: str | bytes) -> None:
    assert DecodingOptions().updated_from_json(nothing) == DecodingOptions()


def test_an_unknown_option_is_refused_with_the_known_ones() -> None:
    with pytest.raises(OptionsError, match="There is no decoding option 'beem'") as caught:
        DecodingOptions().updated_from_json('{"beem": 4}')
    known = "method, beam, temperature, blank_penalty, blank_skip, hotwords, hotwords_score, hotwords_method"
    known += ", nbest, lm_scale, lodr_scale, max_contexts, max_states"
    assert caught.value.hint == f"the options are {known}"


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("greedy", "are not JSON"),
        ('{"beam": 4', "are not JSON"),
        (" ", "are not JSON"),
        (b"\xff\xfe{}", "are not JSON"),
        ("[" * 200_000, "are not JSON"),
        ("[]", "Expected a JSON object of options, got list"),
        ('"greedy"', "got str"),
        ("null", "got NoneType"),
        ("4", "got int"),
    ],
    ids=lambda value: str(value)[:12],
)
def test_what_is_no_object(text: str | bytes, match: str) -> None:
    with pytest.raises(OptionsError, match=match):
        DecodingOptions().updated_from_json(text)


@given(st.dictionaries(st.text(max_size=5), st.none() | st.booleans() | st.floats() | st.text(max_size=3), max_size=3))
def test_any_json_is_options_or_an_error(changes: dict[str, Any]) -> None:
    try:
        assert DecodingOptions().updated_from_json(json.dumps(changes)) == DecodingOptions()
    except OptionsError:
        assert changes
