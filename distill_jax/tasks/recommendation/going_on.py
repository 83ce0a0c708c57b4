"""A finished run with new interactions behind its own: the data, and the table of one row."""

from __future__ import annotations

from distill_jax.data.build_interactions import Preparation
from distill_jax.data.column_names import parse_columns
from distill_jax.data.continual_splits import ContinualRule, ContinualSplit
from distill_jax.data.continued_splits import Arrived, continued
from distill_jax.data.load_interactions import load_with_parts, short_name
from distill_jax.engine.sweep import Point, Sweep
from distill_jax.tasks.recommendation.cells import RecData, RecommenderCell, Update
from distill_jax.tasks.recommendation.continual import Continual
from distill_jax.tasks.recommendation.finished_runs import FinishedRun
from distill_jax.tasks.recommendation.old_and_new import COLUMNS
from distill_jax.tasks.recommendation.taught import Kept

EXPERIMENT = "update"
RULE = ContinualRule(targets=10)


def with_new(run: FinishedRun, update: Update) -> tuple[ContinualSplit, Arrived]:
    """The interactions of a run and the new ones, which are prepared alike, but for rare users and
    items, who may have become less rare.

    Raises:
      UserError: for data that cannot be learned from.
    """
    own, old = run.cell.setup.data, run.split.asked_data
    kinds = old.kind_names or own.preparation.kinds
    files = update.data.partition(":")[0] == "files"
    new, parts_N = load_with_parts(
        update.data,
        preparation=Preparation(own.repeats, own.min_rating, kinds=kinds, kinds_occur=False),
        columns=parse_columns(update.columns) if files else None,
    )
    return continued(run.split, new, parts_N, RULE, run.last_U)


def applied(data: RecData) -> tuple[str, ...]:
    """What of a run's own preparation new interactions get, and what not, a sentence each."""
    told = []
    if data.min_rating is not None:
        told.append(f"new interactions rated below {data.min_rating:g} are dropped, as the run's")
    if data.repeats == "last":
        told.append(
            "of new interactions that repeat each other the last counts, as in the run; one that "
            "repeats an old one is left out"
        )
    if data.k_core > 1:
        told.append(
            f"the run's --k-core {data.k_core} is not applied to new interactions: users and "
            "items with fewer stay"
        )
    if data.asked is not None:
        told.append(f"the run's --asked {data.asked} holds for its own test alone")
    return tuple(told)


def update_of(
    run: FinishedRun, cell: RecommenderCell, split: ContinualSplit, kept: Kept | None = None
) -> Continual:
    """What carries an update out.

    Args:
      run: that it begins with.
      cell: of what comes out.
      split: see ``with_new``.
      kept: what is left of it, where it has been carried out before.
    """
    update, teacher = cell.setup.update, cell.setup.teacher
    assert update is not None, "a cell of an update"
    training = teacher.training if teacher is not None and update.teacher_too else None
    sweep = Sweep(
        name=EXPERIMENT,
        title=f"{run.cell.hash} brought up to date",
        base=cell,
        rows=(Point(f"update({short_name(update.data)})"),),
        groups=(Point(cell.setup.model.name),),
        seeds=(cell.seed,),
        columns=COLUMNS,
        row_title="update",
    )
    return Continual(sweep, split, training, run, kept)
