"""Flags made of fields: in toy commands, and of the options that operators have."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import Field, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, get_args, get_origin

import pytest
import typer
from typer.testing import CliRunner

from moulin.cli.flags import ChangesOf, flag_names, only, option_of, with_flags, without
from moulin.cli.model_options import ModelOptions
from moulin.cli.models import Services
from moulin.cli.serve import RunningOptions
from moulin.cli.verbs import VerbApp
from moulin.decoding.options import DecodingOptions
from moulin.options import Bounds, check_options, facts_of, held, option, plain_type, spelled, types_of
from moulin.streaming.options import StreamOptions
from moulin.triton_repo.offline_options import OfflineOptions
from moulin.triton_repo.repository import HOTWORDS_NAME
from moulin.triton_repo.shim_parameters import ShimParameters
from moulin.triton_repo.streaming_options import StreamingOptions
from tests.bundles import BUNDLES
from tests.triton_repo.shim_args import shim_args

from .command import moulin_here


@dataclass(frozen=True)
class Oven:
    degrees: int = option(180, "How hot.", bounds=Bounds(at_least=50, at_most=250))
    fan: bool = option(True, "Move the air.")
    light: bool = option(False, "To look in.")
    timer_min: float | None = option(None, "When it rings.", usual="never")
    pause_min: float = option(0.0, "Before it heats.")
    program: Literal["bake", "grill"] | None = option(None, "What for.", flag="--task")
    serial: str = "unknown"

    def __post_init__(self) -> None:
        check_options(self)


@dataclass(frozen=True)
class Kitchen:
    oven: Oven = held(Oven)
    degrees: int | None = option(None, "how warm it is.", usual="20")
    cook: Path | None = option(None, "Whose recipe.", metavar="FILE")


def run(command: Any, *arguments: str) -> list[Any]:
    """What `command` gets for `arguments`."""
    got: list[Any] = []
    app = typer.Typer(rich_markup_mode=None, add_completion=False)
    app.command()(with_flags(command(got)))
    done = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return got or [done.output]


def kitchen(got: list[Any]) -> Any:
    def command(dish: str = "bread", *, place: Kitchen) -> None:
        got.append((dish, place))

    return command


def test_nothing_given_is_the_dataclass_as_it_is_by_default() -> None:
    assert run(kitchen) == [("bread", Kitchen())]


def test_a_flag_goes_to_every_field_of_its_name() -> None:
    given = ("--degrees", "90", "--no-fan", "--light", "--timer-min", "2.5", "--task", "grill", "--cook", "x.md")
    oven = Oven(90, fan=False, light=True, timer_min=2.5, program="grill")
    assert run(kitchen, *given) == [("bread", Kitchen(oven, 90, Path("x.md")))]


def test_help_says_what_the_fields_say() -> None:
    (said,) = run(kitchen, "--help")
    lines = " ".join(said.split())
    assert "How hot.; how warm it is. [default: 180; 20] [50<=x<=250]" in lines
    assert "--fan / --no-fan Move the air. [default: fan]" in lines
    assert "--light To look in. --timer-min" in lines
    assert "When it rings. [default: never]" in lines
    assert "Before it heats. [default: 0.0]" in lines
    assert "--task <bake|grill> What for." in lines or "--task [bake|grill] What for." in lines
    assert "--cook FILE Whose recipe." in lines
    assert "serial" not in lines


def test_only_and_without_reach_into_what_is_held() -> None:
    def command(got: list[Any]) -> Any:
        def inner(
            a: Annotated[Kitchen, only("fan")],
            b: Annotated[Oven, without("degrees", "fan", "timer_min", "pause_min", "program")],
        ) -> None:
            got.append((a, b))

        return inner

    assert run(command, "--no-fan", "--light") == [(Kitchen(Oven(fan=False)), Oven(light=True))]
    assert "--degrees" not in run(command, "--help")[0]


@dataclass(frozen=True)
class Bread:
    help_section: ClassVar[str] = "Bread"

    minutes: int = option(40, "How long")
    seeds: bool = option(False, "Put some on it.")


@dataclass(frozen=True)
class Cake:
    help_section: ClassVar[str] = "Cakes"

    minutes: int = option(30, "until it is brown.")
    oven: Oven = held(Oven)


@dataclass(frozen=True)
class Bakery:
    help_section: ClassVar[str] = "Bakery"

    bread: Bread = held(Bread)
    cake: Cake = held(Cake)


def test_flags_stand_below_the_headings_of_their_dataclasses() -> None:
    def command(shop: Bakery, day: Annotated[str, typer.Option(help="Which day.")] = "Monday") -> None: ...

    app = VerbApp(add_completion=False)
    app.command()(with_flags(command))
    lines = CliRunner().invoke(app, ["--help"], catch_exceptions=False).output.splitlines()
    below: dict[str, list[str]] = {}
    for line in lines:
        if line.endswith(":") and not line.startswith(" "):
            heading = line.removesuffix(":")
        elif line.startswith("  --"):
            below.setdefault(heading, []).append(line.split()[0])
    assert below == {
        "Options": ["--day", "--help"],
        "Bakery": ["--minutes"],
        "Bread": ["--seeds"],
        "Cakes": ["--degrees", "--fan", "--light", "--timer-min", "--pause-min", "--task"],
    }
    assert "How long; until it is brown. [default: 40 for bread; 30 for cakes]" in " ".join(" ".join(lines).split())


def test_changes_are_what_was_given() -> None:
    def command(got: list[Any]) -> Any:
        def inner(changes: Annotated[dict[str, Any], ChangesOf(StreamOptions, "the server's")]) -> None:
            got.append(changes)

        return inner

    assert run(command) == [{}]
    assert run(command, "--no-endpoint", "--beam", "4") == [{"endpoint": False, "beam": 4}]
    said = " ".join(run(command, "--help")[0].split())
    assert "[default: the server's, or greedy]" in said
    assert "[default: the server's, or endpoint]" in said


def test_one_field_alone() -> None:
    def command(got: list[Any]) -> Any:
        def inner(beam: Annotated[int | None, option_of(DecodingOptions, "beam")] = None) -> None:
            got.append(beam)

        return inner

    assert run(command, "--beam", "7") == [7]
    assert "Beam of modified_beam_search.  [default: 4]" in run(command, "--help")[0]


# ------------------------------------------------------------------------------------------------- what operators have


def walk(options: type) -> Iterator[tuple[Field[Any], Any]]:
    """The fields that hold no other options, at any depth, with their types."""
    for one in fields(options):
        kind, _ = plain_type(types_of(options)[one.name])
        if is_dataclass(kind):
            yield from walk(kind)  # type: ignore[arg-type]
        else:
            yield one, kind


SAID_BY_OTHERS = {"model_name", "encoder"}  # --name and --streaming-name; the model's files
OF_A_REQUEST = {
    *("temperature", "blank_penalty"),
    "hotwords",  # --hotwords of serve are the server's own
    *("rule1_min_trailing_silence_sec", "rule2_min_trailing_silence_sec", "rule3_min_utterance_length_sec"),
}
OF_THE_LIBRARY = {
    *("workers", "plan", "max_queue", "queue_delay_ms"),
    *("gpus", "log_verbose", "auto_complete_config", "extra_args"),
}


@pytest.mark.parametrize("options", [ModelOptions, Services, RunningOptions])
def test_every_option_is_a_flag_of_serve(options: type) -> None:
    """Who adds a field with help finds it in `--help`; a field without is one of those named here."""
    said = moulin_here("serve", "--help").expect(0).out
    without_flag = set()
    for one, _ in walk(options):
        facts = facts_of(one)
        if facts is None or facts.help is None:
            without_flag.add(one.name)
            continue
        assert facts.help, one.name
        assert f"--{spelled(one)} " in said.replace("\n", " "), one.name
        assert spelled(one).replace("-", "_") in flag_names(options)
    assert without_flag <= SAID_BY_OTHERS | OF_A_REQUEST | OF_THE_LIBRARY


NGRAMS = Path(__file__).parent.parent / "data" / "ngrams" / "any.arpa"
ODD: dict[str, Any] = {
    "kind": "torch",
    "device": "cpu",
    "precision": "fp32",
    "blank_skip": 0.5,
    "head": "transducer",
    "hotwords": "a b, c :2",
    "lm": NGRAMS,
    "lodr": NGRAMS,
}
"""What a checkpoint can be built with where there is no GPU; other options get a value by their type."""


def odd_value(one: Field[Any], kind: Any) -> Any:
    """Another than the default."""
    if one.name in ODD:
        return ODD[one.name]
    if kind is bool:
        return not one.default
    if get_origin(kind) is Literal:
        return next(value for value in get_args(kind) if value != one.default)
    usual: Any = one.default
    return kind((usual or 0) + 3)


@pytest.mark.needs("torch")
@pytest.mark.parametrize(
    ("bundle", "options"), [("zipformer2-ctc-offline", OfflineOptions), ("zipformer2-ctc-streaming", StreamingOptions)]
)
def test_every_flag_of_repo_build_arrives_in_the_shim(bundle: str, options: Any, tmp_path: Path) -> None:
    """Made of the fields: a new option is covered as it is."""
    arguments: list[object] = ["--streaming" if "streaming" in bundle else "--offline"]
    expected = {}
    for one, kind in walk(options):
        facts = facts_of(one)
        if facts is None or facts.help is None or one.name == "threads":  # the machine that serves has its own
            continue
        value = expected[one.name] = odd_value(one, kind)
        flag = spelled(one)
        expected |= {"hotwords": HOTWORDS_NAME} if one.name == "hotwords" else {}
        expected |= {one.name: Path(f"{one.name}.arpa")} if value == NGRAMS else {}
        arguments += [f"--{flag}" if value else f"--no-{flag}"] if kind is bool else [f"--{flag}", value]
    moulin_here("repo", "build", BUNDLES / bundle / "epoch-1.pt", "--to", tmp_path, *arguments).expect(0)
    told = ShimParameters.read(shim_args(tmp_path / "transducer"), options).options
    arrived = {name: value for name, value in values_of(told) if value != ()}  # a request's hotwords have no flag
    assert len(expected) >= 8
    assert {name: arrived[name] for name in expected} == expected


def values_of(options: Any) -> Iterator[tuple[str, Any]]:
    for one in fields(options):
        value = getattr(options, one.name)
        if is_dataclass(value):
            yield from values_of(value)
        else:
            yield one.name, value


def test_what_is_out_of_bounds_is_refused_alike_by_command_and_library(tmp_path: Path) -> None:
    for options in (OfflineOptions, StreamingOptions):
        for one, kind in walk(options):
            facts = facts_of(one)
            if facts is None or facts.help is None or facts.bounds == Bounds() or one.name == "threads":
                continue
            done = moulin_here("repo", "build", BUNDLES, "--to", tmp_path, f"--{spelled(one)}", kind(-1)).expect(1)
            assert done.err == f"moulin: Expected {spelled(one)} {facts.bounds}, got -1\n"
