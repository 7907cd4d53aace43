"""Options that a stream may choose when it starts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, ClassVar

from moulin.decoding.options import DecodingOptions, json_object
from moulin.errors import OptionsError
from moulin.options import option
from moulin.quoting import quoted
from moulin.streaming.endpoint_rules import EndpointRules


@dataclass(frozen=True, slots=True)
class StreamOptions:
    """Options of the search, and whether and when pauses cut the stream into segments."""

    help_section: ClassVar[str] = "Live streams"

    decoding: DecodingOptions = field(default_factory=DecodingOptions)
    endpoint: bool = option(True, "Cut streams into segments at pauses; a stream may choose.")
    rules: EndpointRules = field(default_factory=EndpointRules)

    def __post_init__(self) -> None:
        if not isinstance(self.endpoint, bool):
            raise OptionsError(f"Expected endpoint to be true or false, got {quoted(self.endpoint)}")

    def to_dict(self) -> dict[str, Any]:
        """All options by name, as `updated` takes them."""
        return {**self.decoding.to_dict(), "endpoint": self.endpoint, **asdict(self.rules)}

    def updated(self, changes: Mapping[str, Any]) -> StreamOptions:
        """These options with `changes`: those of `DecodingOptions`, `endpoint`, and those of `EndpointRules`.

        Raises OptionsError, also for unknown names.
        """
        known = self.to_dict()
        for name in changes:
            if name not in known:
                raise OptionsError(f"There is no option {quoted(name)}", hint=f"the options are {', '.join(known)}")
        rules = {name: changes[name] for name in changes if name in _RULES}
        decoding = {name: changes[name] for name in changes if name not in _RULES and name != "endpoint"}
        return StreamOptions(
            decoding=self.decoding.updated(decoding),
            endpoint=changes.get("endpoint", self.endpoint),
            rules=replace(self.rules, **rules),
        )

    def updated_from_json(self, text: str | bytes) -> StreamOptions:
        """These options with the changes of a JSON object."""
        return self.updated(json_object(text))


_RULES = tuple(field.name for field in fields(EndpointRules))
