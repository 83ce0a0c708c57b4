"""Weights that go at once: which, and how many."""

import jax
import numpy as np
import pytest

from distill_jax.compression.prune import Prune
from distill_jax.compression.steps import Student
from distill_jax.core.errors import UserError
from distill_jax.models.bert import BertConfig, init_bert
from distill_jax.training.pruning import Pruning, kernels, sparsity

CONFIG = BertConfig(30, 8, 2, 2, 16, max_positions=16)


@pytest.fixture(scope="module")
def params():
    return init_bert(CONFIG, jax.random.key(0))


class StepContext:
    """Gradients by which the earlier weights of each kernel matter more."""

    def gradients(self, student, batches):
        def falling(x):
            return np.arange(x.size, 0, -1, dtype=np.float32).reshape(x.shape) / (np.abs(x) + 1e-9)

        return [jax.tree.map(falling, student.params)] * 2


def pruned(params, **options):
    return Prune(**options).apply(Student(CONFIG, params, None, None), StepContext())


@pytest.mark.parametrize("scope", ["global", "layer"])
def test_the_smallest_go(params, scope):
    after = kernels(pruned(params, share=0.3, scope=scope).params)
    before = {path: np.asarray(x) for path, x in kernels(params).items()}
    for path, kernel in after.items():
        np.testing.assert_array_equal(kernel[kernel != 0], before[path][np.asarray(kernel) != 0])
    groups = [list(after)] if scope == "global" else [[path] for path in after]
    for group in groups:
        gone = np.concatenate([np.abs(before[p])[np.asarray(after[p]) == 0] for p in group])
        left = np.concatenate([np.abs(before[p])[np.asarray(after[p]) != 0] for p in group])
        assert len(gone) == round(0.3 * (len(gone) + len(left)))
        assert gone.max() <= left.min()


def test_by_gradients_those_that_the_loss_misses_least_go(params):
    after = kernels(pruned(params, share=0.25, by="gradient", scope="layer").params)
    for kernel in after.values():
        flat = np.asarray(kernel).reshape(-1)
        quarter = len(flat) - len(flat) // 4
        assert np.all(flat[:quarter] != 0) and np.all(flat[quarter:] == 0)


def test_nothing_but_kernels_of_layers_and_pooler_is_touched(params):
    after = pruned(params, share=0.5).params
    for part in ("embeddings", "classifier"):
        jax.tree.map(np.testing.assert_array_equal, after[part], params[part])
    scale = after["layer_1"]["output_norm"]["scale"]
    np.testing.assert_array_equal(scale, params["layer_1"]["output_norm"]["scale"])
    assert sparsity(after) == pytest.approx(0.5, abs=1e-3)


def test_a_pattern_holds_in_every_group(params):
    student = pruned(params, pattern="2:4")
    for kernel in kernels(student.params).values():
        groups = np.asarray(kernel).reshape(-1, 4, kernel.shape[1])
        np.testing.assert_array_equal((groups != 0).sum(axis=1), 2)
    with pytest.raises(UserError, match="8 inputs, no multiple of 3"):
        pruned(params, pattern="1:3")


def test_what_is_gone_is_counted_when_more_goes(params):
    once = pruned(params, share=0.4)
    twice = Prune(0.6).apply(once, StepContext())
    assert sparsity(twice.params) == pytest.approx(0.6, abs=1e-3)
    for path, kernel in kernels(once.params).items():
        np.testing.assert_array_equal(kernels(twice.params)[path][np.asarray(kernel) == 0], 0)


def test_by_a_schedule_nothing_goes_yet(params):
    student = pruned(params, share=0.4, schedule="cubic", by="movement")
    assert student.params is params
    assert student.pruning == Pruning("movement", "global", 0.4)
