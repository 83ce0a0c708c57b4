"""Steps as text: ``"prune(0.5) -> distil -> int8"``.

    steps := step ("->" step)*

A step is a call, see ``core.calls``.
"""

from __future__ import annotations

from distill_jax.compression.kinds import kinds
from distill_jax.compression.steps import Step, check_order
from distill_jax.core.calls import MAX_CHARS, Vocabulary, parse_call
from distill_jax.core.errors import UserError

ARROW = "->"


def parse_steps(text: str) -> tuple[Step, ...]:
    """Reads steps; ``" -> ".join(map(str, steps))`` is their canonical text.

    Raises:
      UserError: with the column of the mistake and, for a name, the nearest one that exists.
    """
    if len(text) > MAX_CHARS:
        raise UserError(f"steps have at most {MAX_CHARS} characters")
    words = Vocabulary(kinds(), "step", "prune(0.5)")
    steps, column = [], 0
    for part in text.split(ARROW):
        own = part.lstrip()
        where = f"at column {column + len(part) - len(own) + 1} of {text!r}"
        if not own.strip():
            raise UserError(f"{where}: a step is missing; write them as prune(0.5) -> distil")
        steps.append(parse_call(own.rstrip(), words, where=where))
        column += len(part) + len(ARROW)
    check_order(steps)
    return tuple(steps)
