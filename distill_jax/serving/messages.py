"""What is sent and what comes back, as models of pydantic: checks, and the OpenAPI page."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model
from pydantic.types import FailFast
from pydantic_core import from_json

from distill_jax.core.errors import UserError, printable, unknown
from distill_jax.evaluation.answers import TEXT_B, Form
from distill_jax.serving.model import Texts
from distill_jax.serving.settings import Settings

RAW = "raw"
_SHOWN = 80
"""Characters of what a caller wrote that a message repeats."""


def answers_model(form: Form) -> type[BaseModel]:
    """What comes back: for each example the answer that ``predict`` gives, and a little more."""
    label = (str, Field(description="the answer in one word or line"))
    told = "whether the text, of a question about a context the question, was cut at max_length"
    cut = (bool, Field(description=told))
    own = {name: (kind, Field(description=told)) for name, (kind, told) in form.fields.items()}
    answer = create_model(
        "Answer",
        __doc__="What the model says of an example.",
        **{"label": label, **own, "truncated": cut},
    )  # type: ignore[call-overload]
    fields: dict[str, Any] = {
        "answers": (list[answer | None], Field(description="null for a blank text")),  # type: ignore[valid-type]
        "model": (str, Field(description="the run of the model, or the model's digest")),
    }
    if form.divisor is not None:
        told = "by which logits were divided before the softmax"
        fields["temperature"] = (float, Field(description=told))
    return create_model(
        "Answers", __doc__="One answer an example, in the order of the request.", **fields
    )


def answer_of(form: Form, answer: Any, *, cut: bool) -> dict[str, Any]:
    """One of ``Answers``, as plain values."""
    return {"label": answer.label, **form.data(answer), "truncated": cut}


class Problem(BaseModel):
    """Why there is no answer."""

    detail: str


@dataclass(frozen=True)
class Requests:
    """What may be asked of a model.

    Attributes:
      form: of its answers.
      columns: the texts of an example and what they are, see ``Form.asked``.
      body: of a request, with the limits in its schema.
    """

    form: Form
    columns: Mapping[str, str]
    body: type[BaseModel]

    def read(self, body: bytes) -> tuple[list[Texts], bool]:
        """The texts of every example in a request's body, and whether answers are to be raw.

        Raises:
          UserError: in plain words, where the body is none of the model.
        """
        try:
            fields = from_json(body)
            if not isinstance(fields, dict):
                first = next(iter(self.columns))
                told = f'{{"{first}": "..."}} or {{"{plural(first)}": [...]}}'
                raise UserError(f"expected a JSON object: {told}")
            if more := fields.keys() - self.body.model_fields.keys():  # before a fault for each
                raise unknown("field", min(more), self.body.model_fields)
            asked: Any = self.body.model_validate(fields)
        except ValidationError as error:
            raise UserError(_in_words(error)) from None
        except ValueError as error:
            raise UserError(f"no JSON: {error}") from None
        rows, several = self._rows(asked)
        texts = [self._texts(row, n if several else None) for n, row in enumerate(rows)]
        return texts, getattr(asked, RAW, False)

    def _rows(self, asked: Any) -> tuple[list[dict[str, Any]], bool]:
        """The cells of each example by column, and whether there are several.

        Raises:
          UserError: what belongs together is not all there.
        """
        one = next(iter(self.columns))
        several = getattr(asked, one) is None
        if several == (getattr(asked, plural(one)) is None):
            raise UserError(f"give {one!r}, one {one}, or {plural(one)!r}, a list of them")
        count = len(getattr(asked, plural(one))) if several else 1
        found: dict[str, list[Any]] = {}
        for name in (*self.columns, *self.form.beside):
            here, elsewhere = (plural(name), name) if several else (name, plural(name))
            value, fits = getattr(asked, here), name not in self.columns
            if value is not None:
                found[name] = value if several else [value]
                fits = len(found[name]) == count
            if not fits or getattr(asked, elsewhere) is not None:
                raise UserError(self._together(one, name))
        rows = [dict(zip(found, cells, strict=True)) for cells in zip(*found.values(), strict=True)]
        return rows, several

    def _together(self, one: str, name: str) -> str:
        whose = "reads pairs of texts" if name == TEXT_B else "reads more than a text"
        return (
            f"this model {whose}: {name} goes with {one}, and {plural(name)}, as long, with "
            f"{plural(one)}"
        )

    def _texts(self, row: Mapping[str, Any], number: int | None) -> Texts:
        """The texts of an example.

        Args:
          number: its place, where there are several.
        """
        try:
            return tuple(self.form.text_of(row, name) for name in self.columns)
        except UserError as error:
            first = next(iter(self.columns))
            place = first if number is None else f"{plural(first)}.{number}"
            raise UserError(printable(f"{place}: {error}")) from None


def requests_of(form: Form, columns: Mapping[str, str], settings: Settings) -> Requests:
    """What may be asked of a model, with the limits of the settings."""
    text = Annotated[str, Field(max_length=settings.max_characters)]
    kinds = {**{name: (text, told) for name, told in columns.items()}, **form.beside}
    fields: dict[str, Any] = {}
    for name, (kind, told) in kinds.items():
        many = Annotated[list[kind], FailFast(), Field(max_length=settings.max_texts)]  # type: ignore[valid-type]
        fields[name] = _optional(kind, told)
        fields[plural(name)] = _optional(many, f"or several: a list of what {name} is")
    if form.divisor is not None:
        told = "probabilities without the temperature fitted on validation"
        fields[RAW] = (bool, Field(False, description=told))
    example: dict[str, Any] = {plural(name): [f"{told} ..."] for name, told in columns.items()}
    body = create_model(
        "Request",
        __config__=ConfigDict(extra="forbid", strict=True, json_schema_extra={"example": example}),
        __doc__="One example or several.",
        **fields,
    )
    return Requests(form, columns, body)


def plural(name: str) -> str:
    """Of a field, that of a list: ``text_b`` and ``texts_b``."""
    word, line, rest = name.partition("_")
    return f"{word}s{line}{rest}"


def _optional(kind: Any, description: str) -> tuple[Any, Any]:
    """A field that may be left out, and has no default that could be written."""
    return kind, Field(default_factory=lambda: None, description=description)


def _in_words(error: ValidationError) -> str:
    """The first fault, where it is and what was expected."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    place = ".".join(map(str, first["loc"]))[:_SHOWN]
    said = first["msg"][: 4 * _SHOWN]
    return printable(f"{place}: {said}" if place else said)
