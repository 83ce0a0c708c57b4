"""Who teaches, from the flags of ``compare-losses``: models, files, assistants, peers, clients."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from distill_jax.cli.compare_flags import VALIDATION, CompareLosses
from distill_jax.cli.task_flags import kind_of
from distill_jax.core.errors import UserError
from distill_jax.engine.options import Pooling

if TYPE_CHECKING:
    from distill_jax.tasks.classification.cells import (
        AssistantConfig,
        DataConfig,
        TeacherConfig,
        TrainingConfig,
    )

ASSISTANT_OBJECTIVE = "kl"
MODEL = "minilm-l6"
"""In the place of a teacher's name, before each gets its own."""


def teachers_of(
    args: CompareLosses,
    usual: TeacherConfig,
    random: TrainingConfig,
    copied: TrainingConfig,
    pooling: Callable[[str], Pooling],
) -> list[TeacherConfig]:
    """The teachers that the flags name, in their order.

    Args:
      usual: settings of every one that is a model.
      random, copied: training of students that start at random, and of the teacher's layers; so
        assistants are trained.
      pooling: of a student's head, by its name.
    """
    from distill_jax.tasks.classification.label_map import parse_label_map

    label_map = parse_label_map(args.label_map)
    assistants = tuple(_assistant(text, random, copied, pooling) for text in args.assistants)
    if assistants and len(args.teacher) > 1:
        raise UserError("--assistants learn one from another, the first from one --teacher")
    teachers = [
        dataclasses.replace(_of_kind(args, usual, name), assistants=assistants, label_map=label_map)
        for name in args.teacher
    ]
    if args.teacher_tail != "spread" and all(each.is_model for each in teachers):
        raise UserError("--teacher-tail is for a teacher that is a file: file:PREDICTIONS")
    if args.teacher_seeds and not any(each.varies for each in teachers):
        raise UserError("a teacher that is used as it came has no seed: it is not fine-tuned")
    if args.tokenizer and all(each.is_model for each in teachers):
        raise UserError("--tokenizer is for teachers that are no model: file:PREDICTIONS, none")
    return teachers


def _of_kind(args: CompareLosses, usual: TeacherConfig, name: str) -> TeacherConfig:
    """One teacher; a file, a finished run and nobody are used as they are."""
    from distill_jax.tasks.classification.cells import RUN, used_as_it_is

    if not used_as_it_is(name):
        return dataclasses.replace(usual, name=name)
    as_it_is = dataclasses.replace(usual, name=MODEL, fine_tune=False, rates=(), rates_within=0)
    if name.startswith(RUN):
        return dataclasses.replace(as_it_is, name=name)
    return dataclasses.replace(
        as_it_is,
        name=name,
        tokenizer=args.tokenizer,
        tail=args.teacher_tail,
        most_silent=args.teacher_gaps,
    )


def _assistant(
    text: str, random: TrainingConfig, copied: TrainingConfig, pooling: Callable[[str], Pooling]
) -> AssistantConfig:
    """``4x192x4``, or ``tiny: kl + ce``."""
    from distill_jax.models.build import student_family
    from distill_jax.tasks.classification.cells import AssistantConfig

    student, _, objective = (part.strip() for part in text.partition(":"))
    copies = student_family(student).copies(student)
    training = copied if copies else random
    return AssistantConfig(student, objective or ASSISTANT_OBJECTIVE, training, pooling(student))


def data_of(args: CompareLosses, usual: DataConfig) -> DataConfig:
    """The data that the flags name, with what is added to them and whose part of them is used."""
    return dataclasses.replace(
        usual,
        transfer=args.transfer,
        more_texts=args.more_texts,
        client=args.client,
        client_alpha=args.client_alpha,
    )


def setup_of(args: CompareLosses) -> dict[str, Any]:
    """Fields of ``ClassifierSetup``: who is heard beside, or in place of, the teacher."""
    weigh = "validation" if args.teacher_weights == VALIDATION else ""
    return {"peers": args.peers, "weigh": weigh}


def weighing_teachers(args: CompareLosses, objective: str) -> str:
    """What ``--teacher-weights`` makes of an objective; those by validation are not known yet."""
    from distill_jax.objectives.reworded import with_teacher_weights

    weights = args.teacher_weights
    if not weights or isinstance(weights, str):
        return objective
    return with_teacher_weights(objective, weights, kind_of(args).outputs)


def said_of_peers(args: CompareLosses) -> list[str]:
    """What is said below the table where students teach each other."""
    if not args.peers:
        return []
    return [
        f"{args.peers} students at a time teach each other, in the teacher's place; the first of "
        "them stands in the table."
    ]
