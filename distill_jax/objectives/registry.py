"""Losses by name: the function, how it is fed, which arguments it takes.

The arguments are read off the function's signature: a keyword with a float default is a dynamic
number, one with a tuple a fixed list of numbers, one annotated with ``Literal`` a static choice,
``where`` is the mask.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import keyword
import typing
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from distill_jax.core.errors import UserError, unknown
from distill_jax.core.sources import caller_outside, code_digest
from distill_jax.losses.teachers import TRUSTS
from distill_jax.objectives.feeds import Feed
from distill_jax.objectives.library import LIBRARY
from distill_jax.objectives.schedules import KINDS
from distill_jax.objectives.terms import NOT_NEGATIVE, POSITIVE, Interval, Option

Loss = Callable[..., Any]

OUTPUTS = {
    "classes": "classification",
    "items": "recommendation",
    "lists": "search",
    "heads": "several labels",
}
"""What models say (classes, a catalogue of items, lists of products, a head a label), and in which
tasks: a loss can be used wherever it finds what it reads."""

_SPECS: dict[str, Spec] = {}

ALIKE = "alike"
"""Of ``trust``: whatever they say."""

TEACHER_OPTIONS = {
    "teacher": Option(-1, interval=NOT_NEGATIVE),
    "teachers": Option("each", choices=("each", "mean_probabilities", "mean_logits")),
    "teacher_weights": Option((), interval=NOT_NEGATIVE, sequence=True),
    "trust": Option(ALIKE, choices=(ALIKE, *TRUSTS)),
}
"""For objectives with several teachers: one of them by number (from 0), or how they are combined:
the weighted mean of the loss against each, or the loss against the mean of their probabilities or
of their logits. ``trust``: on each example they count as much as each is sure of it, or right, see
``losses.teachers.trust``."""


@dataclasses.dataclass(frozen=True)
class Spec:
    """A loss as objectives know it.

    Attributes:
      name: what the text calls it.
      function: the pure loss.
      feed: how it gets its arrays.
      own: the options that are the function's keywords.
      code: digest of the user's code it stands in, see ``code_digest``; "" for the library's.
      options: all options, the feed's among them.
    """

    name: str
    function: Loss
    feed: Feed
    own: dict[str, Option]
    code: str = ""

    @property
    def options(self) -> dict[str, Option]:
        """Every argument that the text may give of a loss on classes."""
        return self.with_options(self.feed.options())

    def with_options(self, of_feed: Mapping[str, Option]) -> dict[str, Option]:
        """Every argument, where the feed has these."""
        return {**self.own, **of_feed, **(TEACHER_OPTIONS if self.feed.needs_teacher else {})}

    @property
    def doc(self) -> str:
        """The loss's docstring, without indentation."""
        return inspect.getdoc(self.function) or ""

    @property
    def summary(self) -> str:
        """The docstring's first line."""
        return self.doc.partition("\n")[0]

    @property
    def source(self) -> str:
        """The paper, from the docstring's paragraph that starts with ``Source:``."""
        for paragraph in self.doc.split("\n\n"):
            if paragraph.startswith("Source:"):
                return " ".join(paragraph.removeprefix("Source:").split())
        return ""


def register(
    function: Loss | None = None,
    *,
    feed: Feed,
    name: str | None = None,
    ranges: Mapping[str, Interval] | None = None,
) -> Any:
    """Makes a loss known to objectives; also a decorator: ``@register(feed=LogitFeed())``.

    Args:
      function: a loss in the library's contract.
      feed: how it is fed.
      name: what the text calls it; the function's name if left out.
      ranges: the allowed numbers of its arguments; ``T`` is above 0 unless said otherwise.

    Raises:
      UserError: if the name is taken.
    """
    if function is None:
        return lambda decorated: register(decorated, feed=feed, name=name, ranges=ranges)
    _add(function, feed, name, ranges, code_digest(function, caller_outside(__file__)))
    return function


def _add(
    function: Loss,
    feed: Feed,
    name: str | None,
    ranges: Mapping[str, Interval] | None,
    code: str,
) -> None:
    label = str(name or getattr(function, "__name__", ""))
    free = label.isidentifier() and not keyword.iskeyword(label) and label not in (*_SPECS, *KINDS)
    if not free:
        raise UserError(f"cannot register a loss as {label!r}: not a free name.")
    own = _options(function, {"T": POSITIVE, **(ranges or {})})
    _SPECS[label] = Spec(label, function, feed, own, code)


def names(outputs: str | None = None) -> tuple[str, ...]:
    """Every loss, in the order of registration: the library's first.

    Args:
      outputs: one of ``OUTPUTS``, for the losses that can be read there alone.
    """
    _load_library()
    return tuple(
        name for name, spec in _SPECS.items() if outputs is None or outputs in spec.feed.outputs
    )


def lookup(name: str) -> Spec:
    """The loss of that name.

    Raises:
      UserError: if there is none.
    """
    _load_library()
    if name not in _SPECS:
        raise unknown("loss", name, _SPECS)
    return _SPECS[name]


def forget(forgotten: Iterable[str]) -> None:
    """Takes losses out again, as if they had never been registered."""
    for name in forgotten:
        _SPECS.pop(name, None)


@functools.cache
def _load_library() -> None:
    for fed in LIBRARY:
        _add(fed.function, fed.feed, fed.name, fed.ranges, code="")


def _options(function: Loss, ranges: Mapping[str, Interval]) -> dict[str, Option]:
    """The options that a loss's keywords make."""
    hints = typing.get_type_hints(function)
    options = {}
    for key, parameter in inspect.signature(function).parameters.items():
        said = parameter.default not in (None, parameter.empty)
        if parameter.kind is not parameter.KEYWORD_ONLY or not said:
            continue
        default, interval = parameter.default, ranges.get(key, Interval())
        if isinstance(default, bool):
            options[key] = Option(default, choices=(False, True))
        elif isinstance(default, tuple):
            options[key] = Option(default, interval=ranges.get(key, NOT_NEGATIVE), sequence=True)
        elif isinstance(default, (int, float)):
            options[key] = Option(default, interval=interval)
        else:
            options[key] = Option(default, choices=typing.get_args(hints[key]))
    return options
