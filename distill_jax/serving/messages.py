"""What is sent and what comes back, as models of pydantic: checks, and the OpenAPI page."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model
from pydantic.types import FailFast
from pydantic_core import from_json

from distill_jax.core.errors import UserError, printable, unknown
from distill_jax.serving.classifier import Texts
from distill_jax.serving.settings import Settings

_SHOWN = 80
"""Characters of what a caller wrote that a message repeats."""


class Answer(BaseModel):
    """What the model says of a text."""

    label: str = Field(description="the likeliest class")
    probability: float = Field(description="of that class")
    probabilities: dict[str, float] = Field(description="of every class")
    truncated: bool = Field(description="whether the text was cut at the model's max_length")


class Answers(BaseModel):
    """One answer a text, in the order of the request."""

    answers: list[Answer | None] = Field(description="null for a blank text")
    temperature: float = Field(description="by which logits were divided before the softmax")
    model: str = Field(description="the run that the model comes from, or the model's digest")


class Problem(BaseModel):
    """Why there is no answer."""

    detail: str


def request_model(settings: Settings, *, pairs: bool) -> type[BaseModel]:
    """The body of a request, with the limits in its schema."""
    text = Annotated[str, Field(max_length=settings.max_characters)]
    texts = Annotated[list[text], FailFast(), Field(max_length=settings.max_texts)]
    single = {
        "text": _optional(text, "one text"),
        "texts": _optional(texts, "or several"),
    }
    second = {
        "text_b": _optional(text, "the second text of a pair"),
        "texts_b": _optional(texts, "the second texts of several pairs"),
    }
    raw = Field(False, description="probabilities without the temperature fitted on validation")
    example: dict[str, Any] = {"texts": ["a gripping, clever film", "dull"]}
    if pairs:
        example = {"texts": ["a man sleeps"], "texts_b": ["somebody is awake"]}
    fields: dict[str, Any] = {**single, **(second if pairs else {}), "raw": (bool, raw)}
    return create_model(
        "Request",
        __config__=ConfigDict(extra="forbid", strict=True, json_schema_extra={"example": example}),
        __doc__="One text or several, or pairs of texts where the model reads pairs.",
        **fields,
    )


def _optional(kind: Any, description: str) -> tuple[Any, Any]:
    """A field that may be left out, and has no default that could be written."""
    return kind, Field(default_factory=lambda: None, description=description)


def read_request(model: type[BaseModel], body: bytes) -> tuple[list[Texts], bool]:
    """The texts, or pairs, of a request's body, and whether probabilities are to be raw.

    Raises:
      UserError: in plain words, where the body is none of the model.
    """
    try:
        fields = from_json(body)
        if not isinstance(fields, dict):
            raise UserError('expected a JSON object: {"text": "..."} or {"texts": [...]}')
        if more := fields.keys() - model.model_fields.keys():
            raise unknown("field", min(more), model.model_fields)  # before a fault for each is kept
        asked: Any = model.model_validate(fields)
    except ValidationError as error:
        raise UserError(_in_words(error)) from None
    except ValueError as error:
        raise UserError(f"no JSON: {error}") from None
    columns = [_column(asked, "text")]
    if "text_b" in model.model_fields:
        columns.append(_column(asked, "text_b"))
        if len(columns[1]) != len(columns[0]) or (asked.text is None) != (asked.text_b is None):
            raise UserError(
                "this model reads pairs of texts: text_b goes with text, and texts_b, as long, "
                "with texts"
            )
    return list(zip(*columns, strict=True)), asked.raw


def _column(asked: Any, name: str) -> list[str]:
    """The texts of a field or of its plural, one of which is due."""
    plural = name.replace("text", "texts")
    one, several = getattr(asked, name), getattr(asked, plural)
    if (one is None) == (several is None):
        raise UserError(f"give {name!r}, one text, or {plural!r}, a list of them")
    return [one] if several is None else several


def _in_words(error: ValidationError) -> str:
    """The first fault, where it is and what was expected."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    place = ".".join(map(str, first["loc"]))[:_SHOWN]
    said = first["msg"][: 4 * _SHOWN]
    return printable(f"{place}: {said}" if place else said)
