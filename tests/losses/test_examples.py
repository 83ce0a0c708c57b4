"""The examples in the losses' docstrings run, and print what they say."""

import doctest
import inspect
import re

import jax.numpy as jnp
import pytest

from distill_jax import losses
from distill_jax.losses import catalogue
from distill_jax.losses.labels import output_labels
from distill_jax.objectives.catalogue import describe
from distill_jax.objectives.registry import lookup, names

OF_CATALOGUE = [
    name
    for name, function in inspect.getmembers(catalogue, inspect.isfunction)
    if function.__module__ == catalogue.__name__ and not name.startswith("_")
]
PUBLIC = {name: getattr(losses, name) for name in losses.__all__}
PUBLIC |= {name: getattr(catalogue, name) for name in OF_CATALOGUE}
PUBLIC["output_labels"] = output_labels

NUMBER = re.compile(r"-?\d+\.\d*(?:e[-+]\d+)?")
PLACES = 6e-4  # half of the last of three decimal places, and some of rounding


class ThreePlaces(doctest.OutputChecker):
    """Words as they are; numbers may differ beyond the third decimal place, blanks in width."""

    def check_output(self, want, got, optionflags):
        words = ["".join(NUMBER.sub("#", text).split()) for text in (want, got)]
        pairs = zip(NUMBER.findall(want), NUMBER.findall(got), strict=False)
        return words[0] == words[1] and all(abs(float(a) - float(b)) < PLACES for a, b in pairs)


def check_example(function):
    """Run what stands under ``Example:`` at the docstring's end; it prints what it shows."""
    name, doc = function.__name__, inspect.getdoc(function) or ""
    head, _, example = doc.partition("\n\nExample:\n")
    assert ">>>" not in head and "\n\n" not in example, f"{name}: not one example, at the end"
    known = {**PUBLIC, "jnp": jnp}
    test = doctest.DocTestParser().get_doctest(example, known, name, None, None)
    assert any(line.want for line in test.examples), f"{name} has no example that prints"
    said = []
    doctest.DocTestRunner(ThreePlaces(), verbose=False).run(test, out=said.append)
    assert not said, "".join(said)


def test_every_registered_loss_is_looked_at():
    ours = {lookup(name).function for name in dir(losses) if name in names()}
    assert ours <= set(PUBLIC.values()) and len(ours) > 40 and "bpr" in OF_CATALOGUE


@pytest.mark.parametrize("name", PUBLIC)
def test_the_example_prints_what_it_says(name):
    check_example(PUBLIC[name])


@pytest.mark.parametrize("name", names())
def test_a_description_ends_with_the_example_and_the_arguments(name):
    _, _, text = describe(name).partition("\n\nExample:\n")
    example, _, rest = text.partition("\n\nTasks: ")
    _, _, arguments = rest.partition("\n\nArguments in an objective:\n")
    assert arguments and all(line.startswith("  ") for line in example.splitlines())
    assert (
        f"{lookup(name).function.__name__}(" in example
        and max(map(len, example.splitlines())) <= 100
    )


def shown(text):
    def loss():
        pass

    loss.__doc__ = f"A loss.\n\nSource: a paper.\n\n{text}"
    return loss


def test_what_an_example_shows_is_held_to_three_places():
    check_example(shown("Example:\n  >>> jnp.ones(2) / 3\n  Array([0.333, 0.333], dtype=float32)"))
    for wrong, said in {
        "": "no example",
        "Example:\n  >>> one = jnp.ones(2)": "no example",
        "Example:\n  >>> jnp.ones(2) / 3\n  Array([0.333, 0.334], dtype=float32)": "Expected",
        "Example:\n  >>> jnp.ones(2) / 3\n  Array([0.333], dtype=float32)": "Expected",
        "Example:\n  >>> jnp.ones(2)\n  Array([1, 1], dtype=int32)": "Expected",
        "Example:\n  >>> kll(1)\n  Array(0., dtype=float32)": "NameError",
        "Example:\n  >>> jnp.ones(1)\n  Array([1.], dtype=float32)\n\nMore.": "at the end",
        "  >>> jnp.ones(1)\n  Array([1.], dtype=float32)": "at the end",
    }.items():
        with pytest.raises(AssertionError, match=said):
            check_example(shown(wrong))
