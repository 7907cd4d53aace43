from __future__ import annotations

from dataclasses import dataclass
from math import inf, nan
from pathlib import Path
from typing import Any

import pytest

from moulin.errors import OptionsError
from moulin.options import Bounds, check_options, from_json, held, option, setting, to_json
from moulin.triton_repo.offline_options import OfflineOptions
from moulin.triton_repo.streaming_options import StreamingOptions


@pytest.mark.parametrize(
    ("bounds", "text", "inside", "outside"),
    [
        (Bounds(at_least=1), "of at least 1", [1, 1e9, inf], [0, -1, nan, -inf]),
        (Bounds(above=0), "above 0", [1e-9, inf], [0, nan]),
        (Bounds(at_least=0, at_most=65535), "of 0 to 65535", [0, 65535], [-1, 65536, nan]),
        (Bounds(above=0, below=1e6), "above 0 and below 1e6", [1e-9, 999_999], [0, 1e6, inf, nan]),
        (Bounds(at_least=0, below=0.5), "of at least 0 and below 0.5", [0, 0.4], [0.5, nan]),
        (Bounds(), "", [0, inf, -inf], []),
    ],
)
def test_bounds(bounds: Bounds, text: str, inside: list[float], outside: list[float]) -> None:
    assert str(bounds) == text
    assert all(bounds.hold(value) for value in inside)
    assert not any(bounds.hold(value) for value in outside)


@dataclass(frozen=True)
class Wheel:
    spokes: int = setting(32, bounds=Bounds(at_least=1))


@dataclass(frozen=True)
class Bicycle:
    gears: int = option(3, "How many.", flag="--gear-count", bounds=Bounds(at_least=1, at_most=30))
    weight_kg: float | None = option(None, "How heavy.", bounds=Bounds(above=0))
    lock: bool = option(False, "Whether it has one.")
    manual: Path | None = None
    wheel: Wheel = held(Wheel)

    def __post_init__(self) -> None:
        check_options(self)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"gears": 31}, "Expected gear-count of 1 to 30, got 31"),
        ({"gears": None}, "Expected gear-count to be a whole number, got None"),
        ({"gears": 2.0}, "Expected gear-count to be a whole number, got 2.0"),
        ({"weight_kg": "9"}, "Expected weight-kg to be a number, got '9'"),
        ({"weight_kg": nan}, "Expected weight-kg above 0, got nan"),
        ({"lock": 0}, "Expected lock to be true or false, got 0"),
        ({"manual": "x"}, "Expected manual to be a path, got 'x'"),
    ],
)
def test_what_is_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionsError) as refused:
        Bicycle(**wrong)
    assert refused.value.message == message


def test_a_whole_number_is_a_number() -> None:
    assert Bicycle(weight_kg=9) == from_json(Bicycle, to_json(Bicycle(weight_kg=9)))


def test_there_and_back() -> None:
    bicycle = Bicycle(7, 12.25, lock=True, manual=Path("a/b"), wheel=Wheel(36))
    assert from_json(Bicycle, to_json(bicycle)) == bicycle
    assert from_json(Bicycle, "{}") == Bicycle()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "The options are not JSON"),
        ("[" * 100_000, "The options are not JSON"),
        ("[1]", "Expected the options to be a JSON object, got list"),
        ('{"bell": 1}', "There is no option 'bell' in the options"),
        ('{"wheel": {"rim": 1}}', "There is no option 'rim' in wheel"),
        ('{"wheel": null}', "Expected wheel to be a JSON object, got NoneType"),
        ('{"gears": 0}', "Expected gear-count of 1 to 30, got 0"),
    ],
)
def test_what_is_read_is_checked(text: str, message: str) -> None:
    with pytest.raises(OptionsError, match=message):
        from_json(Bicycle, text)


def test_an_integer_beyond_all_floats_is_refused_by_its_digits() -> None:
    with pytest.raises(OptionsError, match="Expected instances of 1 to 1024, got -1000"):
        OfflineOptions(instances=-(10**400))
    with pytest.raises(OptionsError, match="Expected max-streams of 1 to 1e6, got 99999999999999999999"):
        StreamingOptions(max_streams=99999999999999999999)
