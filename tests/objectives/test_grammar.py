"""Objectives as text: what is read, how it is printed, what is refused and with which words."""

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill_jax.core.errors import UserError
from distill_jax.objectives import LayerMap, Term, parse
from distill_jax.objectives.registry import lookup, names
from distill_jax.objectives.schedules import Schedule
from distill_jax.objectives.terms import Objective


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("0.9*kl(T=4) + 0.1*ce", "0.9*kl(T=4) + 0.1*ce"),
        (" .9 * kl( T = 4.0 )\n+ 1e-1*ce() ", "0.9*kl(T=4) + 0.1*ce"),
        ("1*kl", "kl"),
        ("(kl) + (2*(ce))", "kl + 2*ce"),
        ("kl(T=1)", "kl"),  # a default
        ("dkd(beta=2, alpha=.5)", "dkd(alpha=0.5, beta=2)"),
        ("hidden_mse(layers='uniform')", "hidden_mse"),
        ("hidden_mse(layers={2: 6, 1: 3})", "hidden_mse(layers={2: 6, 1: 3})"),
        ("hidden_mse(layers={-1: -2})", "hidden_mse(layers={-1: -2})"),
        ('pkd(layers="last", projection=True)', "pkd(layers='last', projection=True)"),
        ("linear(1, 0)*kl", "linear(1, 0)*kl"),
        ("cosine(1, 0, end=.5)*kl", "cosine(1, 0, end=0.5)*kl"),
        ("kl(T=piecewise({0: 4, 0.5: 2}))", "kl(T=piecewise({0: 4, 0.5: 2}))"),
        ("step({0: 0, .1: 1})*ce + kl", "step({0: 0, 0.1: 1})*ce + kl"),
        ("kl(teacher_weights=[1, 3], teachers='mean_logits')",
         "kl(teacher_weights=[1, 3], teachers='mean_logits')"),
        ("soft_ce(variant='as_released')", "soft_ce(variant='as_released')"),
        ("0*kl + ce", "0*kl + ce"),
    ],
)  # fmt: skip
def test_canonical_forms(text, canonical):
    objective = parse(text)
    assert str(objective) == canonical
    assert parse(canonical) == objective and hash(parse(canonical)) == hash(objective)


def test_the_tree_behind_the_text():
    objective = parse("0.5*kl(T=linear(4, 1)) + hidden_mse(layers={2: 6, 1: 3})")
    ramp = Schedule("linear", ((0.0, 4.0), (1.0, 1.0)))
    assert objective.terms == (
        Term("kl", 0.5, (("T", ramp),)),
        Term("hidden_mse", 1.0, (("layers", LayerMap(((2, 6), (1, 3)))),)),
    )


@pytest.mark.parametrize(
    ("text", "column", "words"),
    [
        ("0.9*kll", 5, ["unknown loss 'kll'", "Did you mean 'kl'?", "reverse_kl"]),
        ("kl(t=4)", 4, ["unknown argument of kl 't'", "Did you mean 'T'?"]),
        ("kl(4)", 4, ["by name"]),
        ("kl(T=0)", 6, ["T of kl", "(0, inf)"]),
        ("kl(T=linear(1, 0))", 6, ["T of kl"]),
        ("kl(T='hot')", 6, ["T of kl"]),
        ("kl(T=True)", 6, ["T of kl"]),
        ("ce(label_smoothing=1)", 20, ["[0, 1)"]),
        ("topk_kl(k=2.5)", 11, ["a whole number in [1, inf)"]),
        ("topk_kl(k=linear(1, 2))", 11, ["a whole number"]),
        ("kl(T=1, T=2)", 9, ["T is given twice"]),
        ("kl(**{'T': 1})", 4, ["no meaning"]),
        ("hidden_mse(layers=uniform)", 19, ["needs quotes: 'uniform'"]),
        ("hidden_mse(layers='unifrom')", 19, ["'uniform', 'spread', 'last', 'first', 'skip'"]),
        ("hidden_mse(layers={1: 2, 1: 3})", 26, ["1 is given twice"]),
        ("hidden_mse(layers={1: 2.5})", 20, ["whole numbers"]),
        ("hidden_mse(layers={})", 19, ["expected {number: number, ...}"]),
        ("hidden_mse(projection=1)", 23, ["'auto', True, False"]),
        ("lin(1, 0)*kl", 1, ["unknown schedule 'lin'", "Did you mean 'linear'?"]),
        ("linear(1)*kl", 1, ["linear(first, last)"]),
        ("linear(1, 0, stop=1)*kl", 14, ["unknown argument of linear 'stop'"]),
        ("linear(1, 0, start=.5, end=.5)*kl", 1, ["start < end"]),
        ("step({1: 0, 0: 1})*kl", 1, ["must rise"]),
        ("step({0: 0, 2: 1})*kl", 1, ["from 0 to 1"]),
        ("linear(1, 0)", 1, ["linear is a schedule, not a loss"]),
        ("-1*kl", 1, ["must not be negative"]),
        ("linear(1, -1)*kl", 1, ["must not be negative"]),
        ("kl*0.5", 1, ["stands in front"]),
        ("kl(T=2)*0.5", 1, ["stands in front"]),
        ("ce - kl", 6, ["joined by '+'"]),
        ("0.5*(ce + kl)", 6, ["expected a loss"]),
        ("1e999*kl", 1, ["too large"]),
        ("2j*kl", 1, ["expected a number"]),
        ("kl.T", 1, ["expected a loss"]),
        ("[kl]", 1, ["expected a loss"]),
        ("ce + __import__('os').system('true')", 6, ["expected a loss"]),
        ("  0.9*kll", 7, ["unknown loss"]),
        ("ce(ß=1) + kll", 4, ["unknown argument"]),
        ("kl(T=(1)", 3, ["never closed"]),
    ],
)  # fmt: skip
def test_errors_name_the_column_and_what_is_allowed(text, column, words):
    with pytest.raises(UserError) as caught:
        parse(text)
    message = str(caught.value)
    assert f"at column {column} of" in message and "\n" not in message
    for word in words:
        assert word in message, message


@pytest.mark.parametrize("text", ["", "  \n ", "kl # + ce", "kl" + " + kl" * 2000, "kl\0"])
def test_texts_that_are_no_objective_at_all(text):
    with pytest.raises(UserError):
        parse(text)


def test_deep_nesting_is_an_error_and_not_a_crash():
    with pytest.raises(UserError, match="cannot read"):
        parse("(" * 1500 + "kl" + ")" * 1500)
    with pytest.raises(UserError):
        parse("kl(T=" + "-" * 3900 + "1)")


@given(st.text(alphabet="klce(T=1.5)*+{}:,'_ \n#-[]é", max_size=40))
def test_no_text_makes_it_fail_in_another_way(text):
    try:
        objective = parse(text)
    except UserError:
        return
    assert parse(str(objective)) == objective


POSITIVE = st.one_of(
    st.floats(1e-6, 1e6), st.integers(1, 100).map(float), st.sampled_from([0.1, 0.5, 4.0])
)


@st.composite
def schedules(draw, numbers):
    kind = draw(st.sampled_from(["linear", "cosine", "piecewise", "step"]))
    ramp = kind in ("linear", "cosine")
    shares = draw(st.sets(st.floats(0, 1), min_size=2 if ramp else 1, max_size=2 if ramp else 4))
    return Schedule(kind, tuple((share, draw(numbers)) for share in sorted(shares)))


@st.composite
def objectives(draw):
    terms = []
    for _ in range(draw(st.integers(1, 4))):
        name = draw(st.sampled_from(names("classes")))
        options = {}
        for key, option in lookup(name).options.items():
            if not draw(st.booleans()):
                continue
            if option.layer_map and draw(st.booleans()):
                layers = st.dictionaries(st.integers(-3, 12), st.integers(-3, 12), min_size=1)
                options[key] = LayerMap(tuple(draw(layers).items()))
            elif option.choices:
                options[key] = draw(st.sampled_from(option.choices))
            elif option.sequence:
                options[key] = tuple(draw(st.lists(POSITIVE, min_size=1)))
            elif option.dynamic:
                inside = st.floats(0.01, 0.99)
                options[key] = draw(st.one_of(inside, schedules(inside)))
            else:
                options[key] = draw(st.integers(1, 64))
        allowed = lookup(name).options
        kept = {k: v for k, v in sorted(options.items()) if v != allowed[k].default}
        weight = draw(st.one_of(POSITIVE, schedules(POSITIVE)))
        terms.append(Term(name, weight, tuple(kept.items())))
    return Objective(tuple(terms))


@given(objectives())
def test_every_objective_prints_as_text_that_reads_back_as_itself(objective):
    again = parse(str(objective))
    assert again == objective and str(again) == str(objective)


def test_reading_a_command_line_does_not_import_jax():
    code = "import sys, distill_jax.objectives; assert 'jax' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
