"""The numerics certificate: whom it is about, what it holds, and whether it would see a fault."""

import dataclasses
import importlib.util
import re
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from distill_jax.losses.numeric import constant_pair
from distill_jax.objectives.registry import lookup, names

ROOT = Path(__file__).parents[2]
FIGURE = re.compile(r"([\de.+-]+|inf) \([\d,]+ (?:classes|items|tokens|examples), [^)]+\)")


@pytest.fixture(scope="module")
def tool():
    spec = importlib.util.spec_from_file_location("numerics_tool", ROOT / "tools/numerics.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def rows():
    """The certificate's table: loss -> its cells."""
    lines = (ROOT / "docs/numerics.md").read_text(encoding="utf-8").splitlines()
    table = [line[1:-1].split("|") for line in lines if line.startswith("| `")]
    return {first.strip()[1:-1]: [cell.strip() for cell in rest] for first, *rest in table}


def test_every_registered_loss_has_a_row(rows):
    library = [
        n for n in names("classes") if lookup(n).function.__module__.startswith("distill_jax.")
    ]
    assert list(rows) == library


def test_the_page_is_as_the_tool_writes_it(tool):
    page = (ROOT / "docs/numerics.md").read_text(encoding="utf-8")
    assert tool.MEANING.strip() in page and tool.__doc__.split("\n\n")[-1].strip() in page


RELATIONS = ("value_kl", "minilm_v2")
EXPLAINED = {
    "value": ("dist", *RELATIONS),
    "gradient": ("dist", "tvd", "reverse_kl", *RELATIONS),
}
"""Those whose larger errors the page explains, loss by loss."""


def test_figures_are_small_where_nothing_is_said_of_a_loss(rows):
    for name, (*figures, equals) in rows.items():
        value, gradient, half_value, half_gradient = (
            float(FIGURE.fullmatch(figure)[1]) for figure in figures
        )
        assert np.all(np.isfinite([value, gradient, half_value, half_gradient])), name
        assert name in EXPLAINED["value"] or max(value, half_value) < 1e-3, name
        assert name in EXPLAINED["gradient"] or (gradient < 1e-3 and half_gradient <= 4e-3), name
        assert not equals or 0 <= float(equals) < 1e-10, name


@pytest.mark.long
def test_every_loss_can_be_fed(tool):
    for name in names("classes"):
        spec = lookup(name)
        for condition in (tool.CONDITIONS[3], tool.CONDITIONS[-3]):
            if condition.suits(spec, 4):
                given = tool.Draw(4, condition).inputs(spec)
                where = given.options.get("where")
                assert where is None or (~where).any()  # padding is part of it
                values = spec.function(given.student, *given.others, **given.options)
                assert np.all(np.isfinite(values)), name


def cancelling(student, teacher, *, where=None):
    """A mean of squares that takes a detour over large numbers."""
    student, teacher, mask = constant_pair(student, teacher, where, inner=1)
    gap = (student + 1e4) - (teacher + 1e4)
    return jnp.where(mask, jnp.mean(gap**2, axis=-1), 0)


def infinite(student, teacher, *, where=None):
    """A root whose slope at 0 is infinite."""
    return jnp.sqrt(jnp.sum((student - teacher) ** 2, axis=-1) * 0)


def below(student, teacher, *, where=None):
    """A cosine distance that rounding takes below 0."""
    student, teacher, _ = constant_pair(student, teacher, where, inner=1)
    unit = [x / jnp.linalg.norm(x, axis=-1, keepdims=True) for x in (student, teacher)]
    return 1 - jnp.sum(unit[0] * unit[1], axis=-1)


def test_faults_are_seen(tool, monkeypatch):
    monkeypatch.setattr(tool, "CONDITIONS", tool.CONDITIONS[3:4])

    def certified(function):
        spec = lookup("mse_logits")
        if function is not None:
            spec = dataclasses.replace(spec, function=function)
        return tool.certify(spec, (100,))

    findings, equals = certified(None)
    assert equals == 0 and {(f.dtype, f.way) for f in findings} == {
        (dtype, way) for dtype in tool.DTYPES for way in ("jit", "eager")
    }
    fine = [f for f in findings if f.dtype == "float32"]
    assert max(max(f.value, f.gradient) for f in fine) < 1e-6
    assert max(f.value for f in certified(cancelling)[0]) > 1e-5
    assert max(f.gradient for f in certified(infinite)[0]) == float("inf")
    assert certified(below)[1] < 0
