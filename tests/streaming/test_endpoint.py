from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moulin.errors import OptionsError
from moulin.streaming.endpoint import Cut, EndpointTable
from moulin.streaming.endpoint_rules import EndpointRules

SECONDS = st.floats(0.01, 100)


def test_the_defaults_are_sherpa_onnx_s() -> None:
    assert EndpointRules() == EndpointRules(2.4, 1.2, 20.0)


def cut(rules: EndpointRules, silence_sec: float, length_sec: float, *, said: bool) -> Cut:
    """The cut of one stream among others without endpoints."""
    table = EndpointTable(3)
    table.set(1, rules)
    cuts = table.cuts(np.arange(3), np.full(3, silence_sec), np.full(3, length_sec), np.full(3, said))
    assert cuts[[0, 2]].tolist() == [Cut.NONE, Cut.NONE]
    return Cut(cuts[1])


@pytest.mark.parametrize(
    ("silence_sec", "anything_said", "paused"),
    [
        (0.0, False, False),
        (2.36, False, False),
        (2.4, False, True),
        (0.0, True, False),
        (1.16, True, False),
        (1.2, True, True),
        (1.2, False, False),
        (3.0, True, True),
    ],
)
def test_rules_1_and_2(silence_sec: float, anything_said: bool, paused: bool) -> None:
    found = cut(EndpointRules(), silence_sec, 0.0, said=anything_said)
    assert found == (Cut.PAUSED if paused else Cut.NONE)


@pytest.mark.parametrize(("length_sec", "too_long"), [(0.0, False), (19.96, False), (20.0, True), (100.0, True)])
def test_rule_3(length_sec: float, too_long: bool) -> None:
    assert cut(EndpointRules(), 0.0, length_sec, said=True) == (Cut.TOO_LONG if too_long else Cut.NONE)


@given(rule1=SECONDS, rule2=SECONDS, rule3=SECONDS, silence_sec=SECONDS, length_sec=SECONDS, said=st.booleans())
def test_as_sherpa_onnx_writes_it(
    rule1: float, rule2: float, rule3: float, silence_sec: float, length_sec: float, said: bool
) -> None:
    """Each rule requires speech or not, a length of silence, and a length of the segment. Rule 1 applies also after
    speech, which matters where its time is shorter than that of rule 2."""
    rules = EndpointRules(rule1, rule2, rule3)
    by_rule_1 = silence_sec >= rule1
    by_rule_2 = said and silence_sec >= rule2
    wanted = Cut.PAUSED if by_rule_1 or by_rule_2 else Cut.TOO_LONG if length_sec >= rule3 else Cut.NONE
    assert cut(rules, silence_sec, length_sec, said=said) == wanted


@given(frames=st.integers(1, 5000), rule=st.integers(1, 5000))
def test_whole_frames_lose_nothing_to_rounding(frames: int, rule: int) -> None:
    """A pause of n frames of 40 ms is as long as a rule of 0.04 n seconds, however that is written."""
    rules = EndpointRules(rule2_min_trailing_silence_sec=round(rule * 0.04, 2), rule1_min_trailing_silence_sec=1e9)
    wanted = Cut.PAUSED if frames >= rule else Cut.NONE
    assert cut(rules, frames * 0.04, 0.0, said=True) == wanted


@pytest.mark.parametrize("rule", ["rule1_min_trailing_silence_sec", "rule3_min_utterance_length_sec"])
@pytest.mark.parametrize("value", [0, 0.0, -1, -0.1, math.nan, -math.inf, True, None, "2.4", [2.4]])
def test_what_is_no_time(rule: str, value: Any) -> None:
    with pytest.raises(OptionsError, match=f"Expected {rule} to be a number of seconds above 0, got") as caught:
        EndpointRules(**{rule: value})
    assert repr(value) in caught.value.message


@pytest.mark.parametrize("value", [math.inf, 10**400])
def test_a_rule_may_be_put_out_of_reach(value: float) -> None:
    rules = EndpointRules(rule3_min_utterance_length_sec=value)
    assert cut(rules, 0.0, 1e9, said=True) == Cut.NONE


def test_many_streams_at_once() -> None:
    each = [EndpointRules(), EndpointRules(0.5, 0.9, 2.0), None, EndpointRules(1.0, 0.2, 0.7)]
    table = EndpointTable(len(each))
    for slot, rules in enumerate(each):
        table.set(slot, rules)
    slots = np.array([3, 0, 1, 2])
    for silence_sec in (0.1, 0.2, 0.6, 1.2, 2.4, 99.0):
        for length_sec in (0.3, 0.7, 2.5, 20.0):
            for said in (False, True):
                cuts = table.cuts(slots, np.full(4, silence_sec), np.full(4, length_sec), np.full(4, said))
                alone = [
                    Cut.NONE if rules is None else cut(rules, silence_sec, length_sec, said=said)
                    for rules in (each[slot] for slot in slots)
                ]
                assert cuts.tolist() == alone
