"""Decoding options: what a request, a flag or a caller may choose of the search."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, ClassVar, Literal, get_args

from moulin.decoding.hotwords import SCORES, Hotword, hotwords_of
from moulin.errors import OptionsError
from moulin.options import Bounds, check_options, option
from moulin.quoting import quoted
from moulin.untrusted_json import JsonError, read_json

Method = Literal["greedy", "modified_beam_search", "fast_beam_search"]
HotwordsMethod = Literal["modified_beam_search", "refuse"]
METHODS: tuple[Method, ...] = ("greedy", "modified_beam_search")
"""Those of every engine; `fast_beam_search` is of transducers that are searched on the host."""
MAX_BEAM = 32
MAX_NBEST = 10
MOST_OPTIONS_BYTES = 1 << 18
"""The limit on the JSON of one row's options: 1,000 hotwords with scores fit."""
MIN_TEMPERATURE, MAX_TEMPERATURE = 0.01, 100.0
MAX_BLANK_PENALTY = 100.0
"""Limits beyond which the arithmetic of float32 gives infinities and NaN instead of another result."""


@dataclass(frozen=True, slots=True)
class DecodingOptions:
    """`beam` is how many hypotheses modified beam search keeps; `moulin.decoding.fast_beam_search` says what it and
    `max_contexts` and `max_states` are to that search.

    Logits are divided by `temperature`: above 1 beam search weighs its hypotheses more alike, and confidences are
    lower. `blank_penalty` is subtracted from the logit of blank: more words, fewer deletions. `blank_skip` is for a
    transducer with a CTC head. `nbest` is how many texts the result has, where that is more than one as `alternatives`;
    the beam is at least as wide. `hotwords` may be given as JSON has them (`hotwords_of`). `lm_scale` None is without a
    language model. Raises OptionsError.
    """

    help_section: ClassVar[str] = "Decoding"

    method: Method = option("greedy", "Decoding method.")
    beam: int = option(4, "Beam of modified_beam_search.")
    temperature: float = 1.0
    blank_penalty: float = 0.0
    blank_skip: float | None = option(
        None,
        "Skip frames whose blank has at least this probability by the model's CTC head, say 0.95.",
        usual="off",
        bounds=Bounds(above=0, below=1),
    )
    hotwords: tuple[Hotword, ...] = ()
    hotwords_score: float = option(
        1.5, "Bonus for each token of a hotword that has no score of its own.", bounds=SCORES
    )
    hotwords_method: HotwordsMethod = option(
        "modified_beam_search", "What becomes of greedy search with hotwords or nbest, which it cannot use."
    )
    nbest: int = option(
        1, "Return up to so many different texts, the best first; widens the beam.", bounds=Bounds(1, at_most=MAX_NBEST)
    )
    lm_scale: float | None = option(
        None, "Weight of the language model; 0 is without.", usual="0.3 with --lm", bounds=Bounds(0, at_most=10)
    )
    lodr_scale: float | None = option(
        None,
        "Weight at which the bigram of --lodr is subtracted.",
        usual="0.1 with --lodr",
        bounds=Bounds(0, at_most=10),
    )
    max_contexts: int = option(4, "Contexts that fast_beam_search keeps.", bounds=Bounds(1, at_most=MAX_BEAM))
    max_states: int = option(32, "States that fast_beam_search keeps.", bounds=Bounds(1, at_most=1024))

    def __post_init__(self) -> None:
        if self.method not in (known := get_args(Method)):
            raise OptionsError(f"Expected a decoding method of {', '.join(known)}, got {quoted(self.method)}")
        if not _is_int(self.beam) or not 1 <= self.beam <= MAX_BEAM:
            raise OptionsError(f"Expected a beam of 1 to {MAX_BEAM}, got {quoted(self.beam)}")
        if not _is_number(self.temperature) or not MIN_TEMPERATURE <= self.temperature <= MAX_TEMPERATURE:
            raise OptionsError(
                f"Expected a temperature of {MIN_TEMPERATURE:g} to {MAX_TEMPERATURE:g}, got {quoted(self.temperature)}"
            )
        if not _is_number(self.blank_penalty) or not abs(self.blank_penalty) <= MAX_BLANK_PENALTY:
            raise OptionsError(
                f"Expected a blank_penalty of {-MAX_BLANK_PENALTY:g} to {MAX_BLANK_PENALTY:g}, "
                f"got {quoted(self.blank_penalty)}"
            )
        object.__setattr__(self, "hotwords", hotwords_of(self.hotwords))
        check_options(self)
        if self.max_states < self.max_contexts:  # where all tokens may follow, each context has one state
            raise OptionsError(
                f"Expected max-states of at least max-contexts, {self.max_contexts}, got {self.max_states}"
            )

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def updated(self, changes: Mapping[str, Any]) -> DecodingOptions:
        """These options with `changes`; unknown names are refused."""
        known = [field.name for field in fields(self)]
        for name in changes:
            if name not in known:
                raise OptionsError(
                    f"There is no decoding option {quoted(name)}", hint=f"the options are {', '.join(known)}"
                )
        return replace(self, **changes)

    def updated_from_json(self, text: str | bytes) -> DecodingOptions:
        """These options with the changes of a JSON object such as `{"method": "modified_beam_search"}`."""
        return self.updated(json_object(text))


def json_object(text: str | bytes) -> dict[str, Any]:
    """The JSON object in `text`, an empty one where `text` is empty. Raises OptionsError."""
    try:
        value = read_json(text or "{}", most_bytes=MOST_OPTIONS_BYTES)
    except JsonError as error:
        raise OptionsError(f"The options are not JSON: {error}") from None
    if not isinstance(value, dict):
        raise OptionsError(f"Expected a JSON object of options, got {type(value).__name__}")
    return value


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
