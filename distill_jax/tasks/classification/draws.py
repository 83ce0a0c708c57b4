"""What the seeds of a table vary beside the student: teachers, draws of the labels."""

from collections.abc import Sequence

from distill_jax.core.errors import UserError
from distill_jax.tasks.classification.cells import ClassifierCell


def check_label_seeds(cells: Sequence[ClassifierCell]) -> None:
    """Raises ``UserError`` for seeds of draws where nothing is drawn."""
    data = [cell.setup.data for cell in cells]
    if any(each.label_seed for each in data) and not any(each.draws_labels for each in data):
        raise UserError(
            "label seeds are for draws of labels: here all labels are used, as they are"
        )


def what_was_fixed(cells: Sequence[ClassifierCell]) -> str:
    """A sentence of protocol: what all seeds share, so that no interval speaks of it.

    Args:
      cells: of all entries of a table.
    """
    teachers = [cell.setup.teacher for cell in cells if not cell.setup.teacher.is_nobody]
    tuned = _unique([each.seed for each in teachers if each.varies])
    drawn = _unique([cell.setup.data.label_seed for cell in cells if cell.setup.data.draws_labels])
    shared, uncovered, varied = [], [], []
    if len(tuned) > 1:
        varied.append(f"one of {len(tuned)} teachers (seeds {_listed(tuned)})")
    elif teachers:
        shared.append(f"one teacher (seed {tuned[0]})" if tuned else "one teacher, as it came,")
        uncovered.append("another teacher")
    if len(drawn) > 1:
        varied.append(f"one of {len(drawn)} draws of the labels (seeds {_listed(drawn)})")
    elif drawn:
        shared.append("one draw of the labels" + (f" (seed {drawn[0]})" if drawn[0] else ""))
        uncovered.append("other labels")
    sentences = []
    if varied:
        sentences.append(f"Each seed has, in turn, {' and '.join(varied)}.")
    if shared:
        which = " and ".join(shared)
        sentences.append(
            f"{which[0].upper()}{which[1:]} for all seeds: the intervals do not cover "
            f"{' or '.join(uncovered)}."
        )
    return " ".join(sentences)


def _unique(seeds: Sequence[int]) -> list[int]:
    return list(dict.fromkeys(seeds))


def _listed(seeds: Sequence[int]) -> str:
    return ", ".join(map(str, seeds))
