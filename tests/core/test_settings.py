"""What differs between two configurations, by dotted path."""

from distill_jax.core.settings import changes

OLD = {"seed": 0, "intermediate": None, "training": {"epochs": 2, "optimizer": {"rate": 0.1}}}


def with_(**new):
    return {**OLD, "training": {"epochs": 2, "optimizer": {"rate": 0.1, "apart": False}}, **new}


def test_changes_by_hand():
    assert changes(OLD, OLD) == {}
    other = {**OLD, "training": {"epochs": 3, "optimizer": {"rate": 0.1}}}
    assert changes(OLD, other) == {"training.epochs": (2, 3)}


def test_a_setting_that_there_was_not_is_named_only_where_nothing_else_differs():
    assert changes(OLD, with_()) == {"training.optimizer.apart": (None, False)}
    assert changes(OLD, with_(seed=1)) == {"seed": (0, 1)}


def test_a_group_of_settings_that_was_empty_has_changed():
    new = with_(seed=1, intermediate={"objective": "kl"})
    assert changes(OLD, new) == {"seed": (0, 1), "intermediate.objective": (None, "kl")}
