"""Several stages as one text: ``"hidden_mse for 0.5 freezing 'classifier' -> kl"``.

    stages := stage ("->" stage)*
    stage  := objective ["for" share] ["freezing" regex]

Each stage goes on from the end of the one before, with a schedule of its own. Shares are of all the
row's steps; stages without one share what is left. What a stage freezes is free again in the next;
a regular expression with blanks in it stands in quotes.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import re
from collections.abc import Callable, Sequence
from typing import Any

from distill_jax.core.errors import UserError
from distill_jax.engine.cell import Train
from distill_jax.objectives.grammar import parse
from distill_jax.objectives.terms import Objective

ARROW = "->"
Read = Callable[[str], Objective]
"""Text -> an objective."""
_STAGE = re.compile(
    r"(?P<objective>.*?)"
    r"(?:\s+for\s+(?P<share>\S+?))?"
    r"(?:\s+freezing\s+(?P<frozen>'[^']*'|\"[^\"]*\"|\S+))?\s*",
    re.DOTALL,
)


@dataclasses.dataclass(frozen=True)
class StageText:
    """One stage, as text says it.

    Attributes:
      objective: canonical.
      share: of the row's steps; None for its part of what the others leave.
      frozen: a regular expression, "" for nothing.
    """

    objective: str
    share: float | None = None
    frozen: str = ""

    def __str__(self) -> str:
        share = "" if self.share is None else f" for {self.share:g}"
        frozen = f" freezing {self.frozen!r}" if self.frozen else ""
        return f"{self.objective}{share}{frozen}"


def parse_stages(text: str, read: Read = parse) -> tuple[StageText, ...]:
    """Reads stages; ``" -> ".join(map(str, stages))`` is their canonical text.

    Args:
      read: of an objective, in the words of its task.

    Raises:
      UserError: with what is wrong and in which stage.
    """
    stages = tuple(_stage(part, read) for part in text.split(ARROW))
    given = [stage.share for stage in stages if stage.share is not None]
    rest = 1 - sum(given)
    if len(given) < len(stages) and rest <= 1e-9:
        raise UserError(f"{text!r}: the stages that say how long leave no steps to the others")
    if len(given) == len(stages) and len(stages) > 1 and abs(rest) > 1e-9:
        raise UserError(f"{text!r}: the shares of the stages come to {sum(given):g}, not to 1")
    if len(stages) == 1 and given:
        raise UserError(f"{text!r}: one stage takes all steps; leave out 'for'")
    return stages


def canonical(text: str, read: Read = parse) -> str:
    """The canonical text of an objective, or of several stages."""
    return f" {ARROW} ".join(map(str, parse_stages(text, read)))


def mapped(text: str, change: Callable[[str], str], read: Read = parse) -> str:
    """The stages with another objective each.

    Args:
      change: objective -> objective.
    """
    stages = (
        dataclasses.replace(s, objective=change(s.objective)) for s in parse_stages(text, read)
    )
    return f" {ARROW} ".join(map(str, stages))


def expanded(stage: Train, read: Read = parse) -> tuple[Train, ...]:
    """A stage whose objective names several, as these, their objectives in canonical form.

    Raises:
      UserError: too few steps for so many stages.
    """
    named = parse_stages(stage.objective, read)
    shares = _shares(named)
    trainings = _cut(stage.training, shares) if len(named) > 1 else [stage.training]
    return tuple(
        Train(each.objective, _freezing(training, each.frozen))
        for each, training in zip(named, trainings, strict=True)
    )


def layer_by_layer(
    pairs: Sequence[tuple[int, int]], *, loss: str = "hidden_mse", last: str = "kl"
) -> str:
    """A progressive training: layer after layer learns what its teacher's says, then all the last.

    Bottom up as the progressive internal distillation of Aguilar et al. 2020, "Knowledge
    Distillation from Internal Representations"; that the layers below stay as they have become is
    this library's.

    Args:
      pairs: (student layer, teacher layer), from the bottom up.
      loss: of one pair of layers; takes ``layers={student: teacher}``.
      last: the objective of the last stage, of half of all steps.
    """
    share = 0.5 / max(1, len(pairs))
    stages: list[str] = []
    below: list[str] = []
    for student, teacher in pairs:
        objective = f"{loss}(layers={{{student}: {teacher}}})"
        frozen = f"^({'|'.join(below)})/" if below else ""
        stages.append(str(StageText(objective, share, frozen)))
        below = [*(below or ["embeddings"]), f"layer_{student}"]
    return f" {ARROW} ".join([*stages, last])


def _stage(text: str, read: Read) -> StageText:
    found = _STAGE.fullmatch(text.strip())
    assert found is not None  # whatever stands there may be an objective
    objective = str(read(found["objective"]))
    frozen = (found["frozen"] or "").strip("'\"")
    if found["share"] is None:
        return StageText(objective, None, frozen)
    try:
        share = float(found["share"])
    except ValueError:
        share = math.nan
    if not 0 < share <= 1:
        raise UserError(
            f"{text.strip()!r}: a stage lasts for a share of the steps in (0, 1], not "
            f"{found['share']}"
        )
    return StageText(objective, share, frozen)


def _shares(stages: Sequence[StageText]) -> list[float]:
    given = [stage.share for stage in stages if stage.share is not None]
    others = len(stages) - len(given)
    left = (1 - sum(given)) / others if others else 0.0
    return [left if stage.share is None else stage.share for stage in stages]


def _cut(training: Any, shares: Sequence[float]) -> list[Any]:
    """Trainings of these shares of one, which together take its steps."""
    ends = [sum(shares[: place + 1]) for place in range(len(shares))]

    def parts(whole: int) -> list[int]:
        bounds = [0, *(round(end * whole) for end in ends)]
        return [after - before for before, after in itertools.pairwise(bounds)]

    steps, least = parts(training.steps), parts(training.min_steps)
    if training.steps and min(steps) < 1:
        raise UserError(f"{training.steps} steps are too few for {len(shares)} stages")
    return [
        dataclasses.replace(
            training, steps=own, min_steps=fewest, epochs=max(training.epochs * share, 1e-9)
        )
        for own, fewest, share in zip(steps, least, shares, strict=True)
    ]


def _freezing(training: Any, frozen: str) -> Any:
    if not frozen:
        return training
    optimizer = training.optimizer
    rates = (*optimizer.rates, (frozen, 0.0))
    return dataclasses.replace(training, optimizer=dataclasses.replace(optimizer, rates=rates))
