"""``--task`` and what hangs on it: objectives, selection and columns of another kind of task."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

from distill_jax.core.errors import UserError

if TYPE_CHECKING:
    from distill_jax.tasks.kinds.kind import Kind

CLASSES = "classes"


class Args(Protocol):
    """Of ``compare-losses``, what is read here."""

    @property
    def task(self) -> str: ...

    @property
    def objectives(self) -> tuple[str, ...]: ...

    @property
    def baseline(self) -> str | None: ...

    @property
    def select(self) -> str | None: ...

    @property
    def class_weights(self) -> str | None: ...

    @property
    def label_map(self) -> str | None: ...

    @property
    def controls(self) -> bool: ...


def kind_of(args: Args) -> "Kind":
    """The kind that the arguments name.

    Raises:
      UserError: there is none, or a flag has no meaning there.
    """
    from distill_jax.tasks.kinds.kinds import kind_named

    kind = kind_named(args.task)
    if not kind.has_classes:
        given: dict[str, Any] = {
            "--class-weights": args.class_weights,
            "--label-map": None if kind.named else args.label_map,
            "--controls": args.controls,
        }
        for flag, value in given.items():
            if value:
                raise UserError(f"{flag} is for --task {CLASSES}, not for --task {args.task}")
    return kind


def objectives_of(args: Args, arguments: Sequence[str]) -> tuple[str, ...]:
    """The rows of the table: those that were given, or a preset's, or those that the kind has.

    Args:
      arguments: of the command line.
    """
    given = any(argument.partition("=")[0] == "--objectives" for argument in arguments)
    if given or args.task == CLASSES:
        return args.objectives
    return kind_of(args).rows


def selection(args: Args, own: bool) -> dict[str, Any]:
    """What decides on validation, as fields of ``TrainingConfig``.

    Args:
      own: whether the data are the user's.

    Raises:
      UserError: for a word that the kind does not have.
    """
    kind = kind_of(args)
    select = args.select or next(iter(kind.decides))
    metric = kind.metric_of(select)  # raises for another word
    word = next(word for word, name in kind.decides.items() if name == metric)
    by_loss = metric == kind.decides["loss"]
    return {"select": word, "ties": "loss" if own and not by_loss else "earliest"}


def baseline_of(args: Args, objectives: Sequence[str]) -> str:
    """The row that the others are tested against."""
    kind = kind_of(args)
    if args.baseline is not None:
        from distill_jax.tasks.classification.staged import canonical

        return canonical(args.baseline, kind.parse)
    return kind.alone if kind.alone in objectives else (list(objectives) or [""])[0]
