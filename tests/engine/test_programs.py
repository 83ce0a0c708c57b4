"""Steps are made once a process; each table counts what it caused."""

from distill_jax.engine import programs
from distill_jax.engine.programs import Programs
from distill_jax.training.step import CompiledStep


def make():
    return CompiledStep(lambda *arguments: arguments)


def test_tables_share_steps_and_count_their_own_traces(nothing_compiled):
    first, second = Programs(), Programs()
    step = first.step("kl", make)
    step.traces += 2
    assert second.step("kl", make) is step
    assert second.step("ce", make) is not step
    step.traces += 1
    assert first.traces == 3
    assert second.traces == 1


def test_all_are_dropped_before_one_more_is_made_where_they_fill_the_memory(
    nothing_compiled, monkeypatch
):
    dropped = []
    monkeypatch.setattr(programs, "many_programs", lambda: True)
    monkeypatch.setattr(programs, "drop_programs", lambda: dropped.append(True))
    table = Programs()
    step = table.step("kl", make)
    step.traces += 1
    assert table.step("kl", make) is step and len(dropped) == 1
    table.step("ce", make)
    assert len(dropped) == 2
    assert table.step("kl", make) is not step
    assert table.traces == 1


def test_what_the_key_does_not_tell_is_shared_with_nobody(nothing_compiled):
    first, second = Programs(), Programs()
    step = first.step("texts", make, own=True)
    assert first.step("texts", make, own=True) is step
    assert second.step("texts", make, own=True) is not step
    assert second.step("texts", make) is not step
