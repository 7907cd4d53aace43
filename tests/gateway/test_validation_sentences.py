from __future__ import annotations

from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, Field, ValidationError

from moulin.gateway.validation_sentences import sentence_about


class Kind(BaseModel):
    type: Literal["a"]


class Other(BaseModel):
    type: Literal["b"]


class Said(BaseModel):
    choice: Literal["red", "blue"] = "red"
    number: float = Field(0, ge=0, le=1)
    count: int = Field(1000, ge=1000)
    text: str = Field("", max_length=3)
    some: list[str] = Field([], max_length=2)
    on: bool = False
    inner: Kind | None = None
    tagged: Annotated[Kind | Other, Field(discriminator="type")] | None = None


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"choice": "green"}, "Expected choice to be 'red' or 'blue', got 'green'"),
        ({"number": 2}, "Expected number to be at most 1, got 2"),
        ({"number": "x"}, "Expected number to be a number, got 'x'"),
        ({"count": 3}, "Expected count to be at least 1,000, got 3"),
        ({"count": 3.5}, "Expected count to be a whole number, got 3.5"),
        ({"text": 3}, "Expected text to be a string, got 3"),
        ({"text": "abcd"}, "Expected text to have at most 3 characters, got 'abcd'"),
        ({"some": ["a", "b", "c"]}, "Expected some to have at most 2 entries, got ['a', 'b', 'c']"),
        ({"some": "a"}, "Expected some to be a list, got 'a'"),
        ({"on": "perhaps"}, "Expected on to be true or false, got 'perhaps'"),
        ({"inner": 7}, "Expected inner to be an object, got 7"),
        ({"inner": {}}, "Expected a field 'inner', got none"),
        ({"tagged": {}}, "Expected tagged to have a type, got {}"),
        ({"tagged": {"type": "c"}}, "Expected tagged to have a type of 'a', 'b', got 'c'"),
        ({"tagged": 7}, "Expected tagged to be an object, got 7"),
    ],
)
def test_sentences(fields: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Said.model_validate(fields)
    (name,) = fields
    assert sentence_about(name, caught.value.errors()[0]) == sentence
