"""Losses by name, and what is told about them."""

import inspect

import jax.numpy as jnp
import pytest

from distill_jax import losses
from distill_jax.core.errors import UserError
from distill_jax.objectives.catalogue import describe
from distill_jax.objectives.feeds import LogitFeed
from distill_jax.objectives.registry import lookup, names, register
from distill_jax.objectives.terms import Interval

NOT_LOSSES = {
    "mean_logits",
    "mean_probabilities",
    "standardize_logits",
    "vid_alpha",
}


def test_every_loss_of_the_library_can_be_named():
    assert {n for n in names("classes") if hasattr(losses, n)} == set(losses.__all__) - NOT_LOSSES


@pytest.mark.parametrize("name", sorted(set(losses.__all__) - NOT_LOSSES))
def test_descriptions_have_formula_source_and_arguments(name):
    spec, text = lookup(name), describe(name)
    assert spec.summary.endswith(".") and len(spec.source) > 20 and "\n" not in spec.source
    assert any(year in spec.source for year in map(str, range(1940, 2027)))
    assert text.startswith(f"{name}: {spec.summary}") and "Source:" in text
    for key in spec.own:
        assert f"  {key} (default " in text.partition("Arguments in an objective")[2]


def test_options_are_read_off_the_signature():
    own = lookup("dist").own
    assert own["T"].dynamic and own["T"].interval == Interval(0)
    assert own["variant"].choices == ("paper", "as_released") and not own["variant"].dynamic
    assert not lookup("topk_kl").own["k"].dynamic
    assert list(lookup("vid").own) == [] and "memory" not in lookup("crd").own
    for name in names():  # a number that could not be traced would recompile in silence
        for key, parameter in inspect.signature(lookup(name).function).parameters.items():
            if isinstance(parameter.default, float):
                assert lookup(name).own[key].dynamic


def test_unknown_names_and_taken_names_are_refused():
    with pytest.raises(UserError, match="Did you mean 'kl'"):
        lookup("kll")
    with pytest.raises(UserError, match="unknown loss"):
        describe("nope")
    for taken in ("kl", "not a name", "linear", "lambda"):
        with pytest.raises(UserError, match="not a free name"):
            register(
                lambda student, teacher, *, where=None: jnp.zeros(1), feed=LogitFeed(), name=taken
            )
