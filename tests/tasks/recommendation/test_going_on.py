"""What new interactions get of a run's own preparation is told."""

from distill_jax.tasks.recommendation.cells import RecData
from distill_jax.tasks.recommendation.going_on import applied


def test_every_filter_of_the_run_is_told_as_applied_or_not():
    assert applied(RecData()) == ()
    told = applied(RecData(min_rating=3.5, k_core=5, repeats="last", asked=100))
    assert len(told) == 4
    for part, note in zip(
        ("rated below 3.5 are dropped", "repeats an old one is left out", "--k-core 5 is not"),
        told,
        strict=False,
    ):
        assert part in note
    assert "--asked 100 holds for its own test alone" in told[-1]
