"""Training the embeddings of tokens that occur, against training all of them."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from word_students import trained

from distill_jax.core.types import Batch
from distill_jax.models.bert import Bert, BertConfig, init_bert
from distill_jax.models.bilstm import BiLstmConfig
from distill_jax.models.build import family_of
from distill_jax.models.occurring import OccurringTokens
from distill_jax.models.static import StaticConfig
from distill_jax.models.students import BERTS
from distill_jax.training.optimizer import OptimizerConfig

CONFIG = BertConfig(
    vocab_size=50,
    hidden_size=8,
    num_layers=1,
    num_heads=2,
    intermediate_size=16,
    max_positions=8,
    pooling="mean",
)
OPTIMIZER = OptimizerConfig(learning_rate=3e-2, weight_decay=0.5, warmup=0.0)
STATIC, LSTM = StaticConfig(50, 6, 2), BiLstmConfig(50, 4, 2)
STEPS = 12
OCCUR = np.asarray([0, 3, 7, 8, 20, 21, 40])


@pytest.fixture
def tokens():
    return OccurringTokens(BERTS.embeddings, OCCUR)


def batch_of(tokens, step, rows=8, length=5):
    """Sentences of tokens that occur, of different lengths."""
    rng = np.random.default_rng(step)
    return Batch(
        example_ids_B=np.arange(rows, dtype=np.int32),
        input_ids_BT=rng.choice(tokens.tokens_R, (rows, length)).astype(np.int32),
        token_type_ids_BT=np.zeros((rows, length), np.int32),
        where_BT=np.arange(length)[None] < rng.integers(2, length + 1, (rows, 1)),
        labels_B=rng.integers(0, 2, rows).astype(np.int32),
        label_where_B=np.ones(rows, bool),
    )


def table_of(config, params):
    for name in family_of(config).embeddings:
        params = params[name]
    return np.asarray(params)


@pytest.mark.parametrize(
    ("config", "skip"), [(CONFIG, ()), (CONFIG, (2, 5)), (STATIC, ()), (LSTM, ())]
)
def test_the_result_is_that_of_the_whole_table(config, skip):
    tokens = OccurringTokens(family_of(config).embeddings, OCCUR)
    start = family_of(config).init(config, jax.random.key(0))
    batches = [batch_of(tokens, step) for step in range(STEPS)]
    plain = trained(config, start, batches, OPTIMIZER, skip=skip)
    smaller = dataclasses.replace(config, vocab_size=tokens.count)
    renumbered = [tokens.renumber(batch) for batch in batches]
    cut = trained(smaller, tokens.cut(start), renumbered, OPTIMIZER, skip=skip)
    whole = tokens.whole(cut, start)
    jax.tree.map(
        lambda got, expected: np.testing.assert_allclose(got, expected, rtol=2e-5, atol=2e-6),
        whole,
        plain,
    )
    word, before = table_of(config, whole), table_of(config, start)
    never = np.setdiff1d(np.arange(config.vocab_size), tokens.tokens_R)
    assert (np.abs(word[never]) < 0.99 * np.abs(before[never])).all()  # they did decay


def test_there_and_back_changes_nothing(tokens):
    start = init_bert(CONFIG, jax.random.key(1))
    back = tokens.whole(tokens.cut(start), start)
    jax.tree.map(np.testing.assert_array_equal, back, start)


def test_a_smaller_model_says_the_same(tokens):
    start = init_bert(CONFIG, jax.random.key(2))
    batch = batch_of(tokens, 0)
    smaller = Bert(dataclasses.replace(CONFIG, vocab_size=tokens.count))
    got = smaller.apply({"params": tokens.cut(start)}, tokens.renumber(batch))
    expected = Bert(CONFIG).apply({"params": start}, batch)
    np.testing.assert_array_equal(got.logits_BC, expected.logits_BC)
    assert jnp.isfinite(got.logits_BC).all()
