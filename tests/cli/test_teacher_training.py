"""What stands in for the flags of the teacher's fine-tuning: more for data of one's own."""

import pytest

from distill_jax.cli.compare import parse_arguments, sweep_of
from distill_jax.core.errors import UserError
from distill_jax.tasks.classification.cells import TeacherConfig


def teacher(*flags):
    return sweep_of(parse_arguments(flags, "t")).base.setup.teacher


def length(config):
    training = config.training
    return training.epochs, training.min_steps, training.patience, training.evaluations


def test_what_is_built_in_stays_as_committed_tables_have_it():
    assert teacher("--preset", "full") == TeacherConfig()
    assert teacher("--precision", "f32", "--max-shapes", "16") == TeacherConfig()
    smoke = teacher("--preset", "smoke")
    assert (length(smoke), smoke.rates) == ((2, 0, 0, 2), ())
    assert smoke.training.optimizer.learning_rate == 1e-4


@pytest.mark.parametrize("data", ["files:X", "tfds:glue/sst2"])
def test_own_data_are_learnt_long_enough_and_at_a_chosen_rate(data):
    own = teacher("--data", data)
    assert length(own) == (3, 300, 3, 10)
    assert (own.rates, own.rates_within) == ((1e-4, 2e-4), 1000)
    assert own.training.total_steps(550) == 300
    assert own.training.total_steps(32_000) == 3000


@pytest.mark.parametrize(
    ("flags", "steps"),
    [
        ((), {"tiny": 266, "l2": 133}),  # two passes over 8,497 sentences, or one
        (("--data", "files:X"), {"tiny": 600, "l2": 300}),
        (("--data", "files:X", "--epochs", "1"), {"tiny": 133, "l2": 300}),
        (("--data", "files:X", "--steps", "7"), {"tiny": 7, "l2": 7}),
        (("--data", "files:X", "--min-steps", "0"), {"tiny": 266, "l2": 133}),
        (("--min-steps", "700"), {"tiny": 700, "l2": 700}),
    ],
)
def test_students_of_few_sentences_take_steps_enough(flags, steps):
    sweep = sweep_of(parse_arguments((*flags, "--students", "tiny", "l2"), "t"))
    found = {e.group: e.cell.training.total_steps(8497) for e in sweep.entries()}
    assert found == steps


def test_flags_decide_for_every_data_set():
    own = ("--data", "files:X")
    assert length(teacher(*own, "--teacher-epochs", "5")) == (5, 0, 3, 10)
    assert length(teacher(*own, "--teacher-min-steps", "0", "--teacher-patience", "0")) == (
        3, 0, 0, 10,
    )  # fmt: skip
    by_hand = teacher(*own, "--teacher-learning-rate", "3e-5")
    assert (by_hand.rates, by_hand.training.optimizer.learning_rate) == ((), 3e-5)
    assert teacher(*own, "--no-fine-tune").rates == ()

    built_in = teacher("--teacher-min-steps", "90", "--teacher-patience", "2")
    assert length(built_in) == (3, 90, 2, 10)
    several = teacher("--teacher-rates", "1e-4", "5e-4")
    assert (several.rates, several.rates_within) == ((1e-4, 5e-4), 0)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--teacher-rates", "1e-4", "--teacher-learning-rate", "1e-4"), "leave one out"),
        (("--teacher-patience", "-1"), "patience must be from 0 .* not -1"),
        (("--teacher-min-steps", "-1"), "min steps must be from 0 .* not -1"),
        (("--teacher-learning-rate", "0"), "learning rate must be positive"),
    ],
)
def test_impossible_flags_are_refused(flags, message):
    with pytest.raises(UserError, match=message):
        teacher(*flags)


def test_students_that_copy_a_trained_teacher_are_said_to():
    def said(*flags):
        return " ".join(sweep_of(parse_arguments(flags, "t")).protocol)

    line = "Layers of `l2`, `l3` are copied from the teacher as it came, which is the trained one"
    students = ("--students", "tiny", "l2", "l3")
    assert line in said("--no-fine-tune", *students)
    assert "copied" not in said(*students)
    assert "copied" not in said("--no-fine-tune")
