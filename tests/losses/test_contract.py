"""What every loss of the library promises, tried on all of them."""

import functools
import inspect
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from distill_jax import losses

NOT_LOSSES = {
    "mean_logits",
    "mean_probabilities",
    "standardize_logits",
    "vid_alpha",
}
LOGITS = [
    "ce",
    "focal",
    "soft_ce",
    "kl",
    "reverse_kl",
    "jeffreys",
    "js",
    "generalized_jsd",
    "skew_kl",
    "skew_reverse_kl",
    "tvd",
    "mse_logits",
    "kl_infinite_temperature",
    "cosine_logits",
    "dkd",
    "dist",
    "topk_kl",
    "mmi",
    "pseudo_ce",
    "bce",
    "mse_regression",
]
LABELLED = ("ce", "focal", "dkd", "mmi", "pseudo_ce")
HIDDEN = [
    "hidden_mse",
    "hidden_cosine",
    "hint",
    "embedding_mse",
    "pkd",
    "hidden_contrastive",
    "nst",
    "fsp",
    "cka",
    "vid",
]
SCORES = ["attention_mse", "attention_kl"]
VECTORS = ["value_kl", "minilm", "minilm_v2"]
PAIRWISE = ["rkd_distance", "rkd_angle", "sp", "pkt", "correlation", "crd"]
EXAMPLES = [*PAIRWISE, "topology", "hierarchical_topology"]
EXPERTS = ["expert_hints"]  # the student's side is what each expert makes of it
RANKING = [
    "listnet",
    "listmle",
    "relaxed_ranking",
    "ranking_distillation",
    "margin_mse",
    "pairwise_logistic",
]
ALL = LOGITS + HIDDEN + SCORES + VECTORS + EXAMPLES + EXPERTS + RANKING

B, T, C, H, D = 5, 4, 4, 2, 3


def side(name, rng):
    """The student's or the teacher's input of a loss."""

    def scores():
        return rng.normal(size=(B, H, T, T)).astype(np.float32)

    def vectors():
        return rng.normal(size=(B, T, H, D)).astype(np.float32)

    def hidden():
        return rng.normal(size=(B, T, D)).astype(np.float32)

    if name in SCORES:
        return scores()
    if name in VECTORS:
        many = {"minilm": (scores(), vectors()), "minilm_v2": (vectors(), vectors(), vectors())}
        return many.get(name, vectors())
    if name in HIDDEN:
        return (hidden(), hidden()) if name == "fsp" else hidden()
    return rng.normal(size=(B, {**dict.fromkeys(EXAMPLES, D)}.get(name, C))).astype(np.float32)


def mask_shape(name):
    if name in RANKING:
        return B, C
    return (B, T) if name in HIDDEN + SCORES + VECTORS else (B,)


def inputs(name, rng):
    """(student, teacher or None, labels or None)."""
    labels = rng.integers(0, C, size=B).astype(np.int32) if name in LABELLED else None
    teacher = None if name in ("ce", "focal") else side(name, rng)
    student = side(name, rng)
    if name in EXPERTS:
        student = rng.normal(size=(B, 3, C)).astype(np.float32)
    return student, teacher, labels


def numbers_of(name, scale=1.0):
    """The loss's numbers, times ``scale``."""
    parameters = inspect.signature(getattr(losses, name)).parameters
    return {
        key: np.float32(p.default * scale)
        for key, p in parameters.items()
        if isinstance(p.default, float)
    }


def call(name, student, teacher, labels, where, numbers):
    args = [x for x in (teacher, labels) if x is not None]
    return getattr(losses, name)(student, *args, where=where, **numbers)


TRACES = dict.fromkeys(ALL, 0)


@pytest.fixture(scope="module")
def compiled(quickly):
    """values, student's and teacher's gradients of their sum: one program a loss."""
    return functools.cache(functools.partial(program, quickly))


def program(options, name):

    def run(student, teacher, labels, where, numbers):
        TRACES[name] += 1

        def total(student, teacher):
            values = call(name, student, teacher, labels, where, numbers)
            return jnp.sum(values), values

        (_, values), grads = jax.value_and_grad(total, argnums=(0, 1), has_aux=True)(
            student, teacher
        )
        return values, *grads

    return jax.jit(run, **options)


def flat(tree):
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)] or [np.zeros(0)])


def test_the_table_here_is_the_library():
    assert sorted(ALL) == sorted(set(losses.__all__) - NOT_LOSSES)


@pytest.mark.parametrize("name", ALL)
def test_one_float32_value_an_example_and_no_gradient_for_the_teacher(name, rng, compiled):
    student, teacher, labels = inputs(name, rng)
    where = np.ones(mask_shape(name), bool)
    got, grad, teacher_grad = compiled(name)(student, teacher, labels, where, numbers_of(name))
    assert got.shape == (B,) and got.dtype == np.float32
    assert np.all(np.isfinite(got)) and np.all(np.isfinite(flat(grad)))
    assert np.any(flat(grad) != 0)  # the student learns
    np.testing.assert_array_equal(flat(teacher_grad), 0)


@pytest.mark.parametrize("name", ALL)
def test_all_masked_is_zero_with_zero_gradients(name, rng, compiled):
    student, teacher, labels = jax.tree.map(
        lambda x: np.full_like(x, np.nan if x.dtype == np.float32 else 99), inputs(name, rng)
    )
    where = np.zeros(mask_shape(name), bool)
    got, grad, _ = compiled(name)(student, teacher, labels, where, numbers_of(name))
    np.testing.assert_array_equal(got, 0)
    np.testing.assert_array_equal(flat(grad), 0)


def nasty(name):
    """Inputs on which careless code divides by zero or takes the logarithm of it."""
    huge = (
        (0.0, 1e4, -1e4)
        if name in HIDDEN + VECTORS + EXAMPLES + EXPERTS
        else (0.0, 1e4, -1e4, -np.inf)
    )
    if name == "mse_regression":  # predictions, not logits: infinities have no meaning there
        huge = (0.0, 1e4, -1e4)
    for seed in range(12):
        rng = np.random.default_rng(seed)

        def spoil(x, rng=rng, seed=seed):
            x = x.copy()
            if x.dtype != np.float32:
                return x
            if seed % 3 == 0:  # every entry nasty
                return rng.choice(np.float32(huge), size=x.shape)
            x[rng.uniform(size=x.shape) < 0.3] = rng.choice(huge)
            x[1], x[2] = x[0], rng.choice(huge)  # a duplicate row, a constant row
            return x

        arrays = inputs(name, rng)
        yield jax.tree.map(spoil, arrays)
        yield jax.tree.map(np.zeros_like, arrays)
        if name in EXPERTS:
            continue
        same = jax.tree.map(spoil, arrays[0])
        yield same, None if arrays[1] is None else same, arrays[2]


@pytest.mark.parametrize("name", ALL)
def test_nasty_inputs_have_finite_values_and_gradients_in_float32(name, compiled):
    for index, arrays in enumerate(nasty(name)):
        where = np.random.default_rng(index).uniform(size=mask_shape(name)) < 0.9
        got, grad, _ = compiled(name)(*arrays, where, numbers_of(name))
        assert np.all(np.isfinite(got)), (index, got)
        assert np.all(np.isfinite(flat(grad))), index


@pytest.mark.parametrize("name", ALL)
def test_a_permuted_batch_gives_permuted_values(name, rng, compiled):
    arrays = inputs(name, rng)
    where = rng.uniform(size=mask_shape(name)) < 0.8
    order = rng.permutation(B)
    moved = jax.tree.map(lambda x: x[order], arrays)
    got, grad, _ = compiled(name)(*arrays, where, numbers_of(name))
    other, other_grad, _ = compiled(name)(*moved, where[order], numbers_of(name))
    np.testing.assert_allclose(other, got[order], rtol=1e-4, atol=1e-6)
    for one, two in zip(jax.tree.leaves(grad), jax.tree.leaves(other_grad), strict=True):
        np.testing.assert_allclose(two, one[order], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("name", ALL)
def test_masking_is_the_same_as_slicing(name, rng, compiled, quickly):
    """Examples, tokens and items that are masked might as well not be there."""
    student, teacher, labels = inputs(name, rng)
    where = np.ones(mask_shape(name), bool)
    where[-2:] = False
    if where.ndim == 2:
        where[:, -1] = False

    def sliced(x):
        x = x[:-2]
        if name in RANKING:
            return x[:, :-1]
        if where.ndim == 1:
            return x
        scores = name in SCORES or (name == "minilm" and x.shape[-2:] == (T, T))
        return x[:, :, :-1, :-1] if scores else x[:, :-1]

    small = jax.tree.map(sliced, (student, teacher))
    some = None if labels is None else labels[:-2]
    full, _, _ = compiled(name)(student, teacher, labels, where, numbers_of(name))
    shorter = jax.jit(lambda s, t, y: call(name, s, t, y, None, numbers_of(name)), **quickly)
    part = shorter(*small, some)
    np.testing.assert_allclose(full[:-2], part, rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(full[-2:], 0)


@pytest.mark.parametrize("name", [*RANKING, *SCORES])
@pytest.mark.parametrize("excluded", ["student", "teacher", "both"])
def test_masking_is_slicing_even_where_all_the_rest_is_excluded(name, excluded, rng, bench):
    """With logits of -inf nothing may be left over for what is masked."""
    sides = [np.float64(x) for x in inputs(name, rng)[:2]]
    for whose, array in zip(("student", "teacher"), sides, strict=True):
        if excluded in (whose, "both"):
            array[:2] = -np.inf
    where = np.ones(mask_shape(name), bool)
    where[:, -1] = False
    loss = getattr(losses, name)
    full, grads = bench(loss, *sides, where=where)
    part, _ = bench(loss, *(x[..., :-1, :-1] if name in SCORES else x[..., :-1] for x in sides))
    np.testing.assert_allclose(full, part, rtol=1e-7, atol=1e-7)
    assert np.all(np.isfinite(grads))


@pytest.mark.parametrize("name", ALL)
def test_changing_numbers_does_not_recompile(name, rng, compiled):
    arrays = inputs(name, rng)
    where = np.ones(mask_shape(name), bool)
    before, _, _ = compiled(name)(*arrays, where, numbers_of(name))
    traces = TRACES[name]
    after, _, _ = compiled(name)(*arrays, where, numbers_of(name, 0.9) | {})
    assert TRACES[name] == traces
    # ce's smoothing is 0 by default; without a selection all experts have equal chances.
    if numbers_of(name) and name not in ("ce", "expert_hints"):
        assert np.any(np.asarray(before) != np.asarray(after))


@pytest.mark.parametrize("name", ALL)
def test_vmap_is_a_loop(name, rng, compiled, quickly):
    one, two = inputs(name, rng), inputs(name, rng)
    stacked = jax.tree.map(lambda *x: np.stack(x), one, two)
    where = rng.uniform(size=(2, *mask_shape(name))) < 0.8

    def values(student, teacher, labels, where):
        return call(name, student, teacher, labels, where, numbers_of(name))

    mapped = jax.jit(jax.vmap(values), **quickly)(*stacked, where)
    for index, arrays in enumerate((one, two)):
        alone, _, _ = compiled(name)(*arrays, where[index], numbers_of(name))
        np.testing.assert_allclose(mapped[index], alone, rtol=1e-4, atol=1e-6)


def operations(jaxpr):
    """All equations of a program, those of its parts too."""
    for equation in jaxpr.eqns:
        parts = [p for p in jax.tree.leaves(list(equation.params.values())) if hasattr(p, "eqns")]
        parts += [
            p.jaxpr for p in jax.tree.leaves(list(equation.params.values())) if hasattr(p, "jaxpr")
        ]
        if not parts:
            yield equation
        for part in parts:
            yield from operations(part)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_is_widened_before_anything_is_computed(name, dtype, rng):
    """The only thing ever done to a half-precision array is to convert it."""
    arrays = jax.tree.map(
        lambda x: jnp.asarray(x, dtype) if x.dtype == np.float32 else x, inputs(name, rng)
    )
    where = np.ones(mask_shape(name), bool)
    closed = jax.make_jaxpr(lambda *a: call(name, *a, where, numbers_of(name)))(*arrays)
    assert [v.aval.dtype for v in closed.jaxpr.outvars] == [jnp.float32]
    seen = set()
    for equation in operations(closed.jaxpr):
        if any(getattr(v.aval, "dtype", None) == dtype for v in equation.invars):
            seen.add(equation.primitive.name)
    assert "convert_element_type" in seen
    assert seen <= {"convert_element_type", "stop_gradient", "copy"}


@pytest.mark.parametrize("name", ALL)
def test_matrix_products_are_in_full_precision(name, rng):
    """TPUs and GPUs round the inputs of products to fewer bits unless told not to."""
    arrays = inputs(name, rng)
    where = np.ones(mask_shape(name), bool)
    closed = jax.make_jaxpr(lambda *a: call(name, *a, where, numbers_of(name)))(*arrays)
    highest = jax.lax.Precision.HIGHEST
    products = [op for op in operations(closed.jaxpr) if op.primitive.name == "dot_general"]
    assert {product.params["precision"] for product in products} <= {(highest, highest)}
    assert products or name not in ("sp", "cka", "crd", "minilm")  # that they are found at all


@pytest.mark.parametrize("name", ALL)
def test_float64_stays_float64(name, rng):
    """On the way too: else a loss in float64 would be no reference for itself in float32."""
    with jax.enable_x64(True):
        arrays = jax.tree.map(
            lambda x: x.astype(np.float64) if x.dtype == np.float32 else x, inputs(name, rng)
        )
        where = np.ones(mask_shape(name), bool)
        closed = jax.make_jaxpr(lambda *a: call(name, *a, where, numbers_of(name)))(*arrays)
    assert [v.aval.dtype for v in closed.jaxpr.outvars] == [np.float64]
    made = {v.aval.dtype for equation in operations(closed.jaxpr) for v in equation.outvars}
    parameter = {np.dtype("float32")} if name == "vid" else set()  # its variances start as one
    assert not (made - parameter) & {np.dtype(x) for x in ("float32", "bfloat16", "float16")}


@pytest.mark.parametrize("name", ALL)
def test_the_docstring_has_formula_shapes_source_and_example(name):
    doc = inspect.getdoc(getattr(losses, name))
    for part in ("``", "Source: ", "Args:", "where: bool", "Example:"):
        assert part in doc, part
    listed = doc.partition("\nArgs:\n")[2].partition("\n\n")[0]
    told = re.findall(r"^  ((?:\w+, )*\w+): ", listed, re.MULTILINE)
    assert ", ".join(told).split(", ") == list(inspect.signature(getattr(losses, name)).parameters)


@pytest.mark.parametrize("name", ALL)
def test_a_mask_of_the_wrong_shape_is_refused(name, rng):
    student, teacher, labels = inputs(name, rng)
    with pytest.raises(ValueError, match=r"where has shape .* expected"):
        call(name, student, teacher, labels, np.ones((B + 1, 9), bool), {})
