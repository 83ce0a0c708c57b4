"""How losses are tried: jitted once, in float64, against formulas in plain numpy loops."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest


class Bench:
    """Runs losses under ``jit``, values and gradients together, and compares them with loops."""

    def __init__(self, jit_options):
        self.jit_options = jit_options
        self.compiled = {}
        self.traces = 0

    def _function(self, loss, statics):
        def run(student, args, where, weights, numbers):
            self.traces += 1

            def weighed(student):
                values = loss(student, *args, where=where, **statics, **numbers)
                return jnp.sum(values * weights), values

            (_, values), grads = jax.value_and_grad(weighed, has_aux=True)(student)
            return values, grads

        return jax.jit(run, **self.jit_options)

    def __call__(self, loss, student, *args, where=None, weights=None, wide=True, **hyper):
        """Values, and the gradient of their sum (weighed), in float64 unless ``wide`` is False."""
        statics = {k: v for k, v in hyper.items() if isinstance(v, (str, int, bool))}
        numbers = {k: np.float64(v) for k, v in hyper.items() if k not in statics}
        key = loss, tuple(sorted(statics.items()))
        function = self.compiled.setdefault(key, self._function(loss, statics))
        with jax.enable_x64(wide):
            if weights is None:
                weights = jnp.ones((), np.float64 if wide else np.float32)
            if not wide:
                numbers = {k: np.float32(v) for k, v in numbers.items()}
            values, grads = function(student, args, where, weights, numbers)
            return np.asarray(values), jax.tree.map(np.asarray, grads)

    def check(self, loss, oracle, student, *args, where, entries=10, step=1e-5, **hyper):
        """Values equal the oracle's, and gradients its central differences.

        ``oracle(student, *args, where=where, **hyper)`` returns one value an example.
        """
        expected = np.asarray(oracle(student, *args, where=where, **hyper), np.float64)
        rng = np.random.default_rng(7)
        weights = rng.uniform(0.5, 2, expected.shape)
        values, grads = self(loss, student, *args, where=where, weights=weights, **hyper)
        assert values.dtype == np.float64
        np.testing.assert_allclose(values, expected, rtol=1e-9, atol=1e-11)
        leaves, tree = jax.tree.flatten(student)
        for index, (leaf, grad) in enumerate(zip(leaves, jax.tree.leaves(grads), strict=True)):
            assert np.all(np.isfinite(grad))
            for flat in rng.choice(leaf.size, min(entries, leaf.size), replace=False):
                place = np.unravel_index(flat, leaf.shape)
                ends = []
                for sign in (1, -1):
                    moved = [array.copy() for array in leaves]
                    moved[index][place] += sign * step
                    out = oracle(tree.unflatten(moved), *args, where=where, **hyper)
                    ends.append(np.sum(weights * np.asarray(out)))
                slope = (ends[0] - ends[1]) / (2 * step)
                np.testing.assert_allclose(grad[place], slope, rtol=2e-5, atol=2e-7)


@pytest.fixture(scope="session")
def bench(quickly):
    """One bench for the session: what is compiled is compiled once."""
    return Bench(quickly)


@pytest.fixture
def rng():
    """A seeded numpy generator."""
    return np.random.default_rng(0)
