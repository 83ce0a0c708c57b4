"""What weight decay acts on, over every family of models and every loss with own parameters."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from distill_jax.core.types import ModelShape
from distill_jax.models.bert import BertConfig, init_bert
from distill_jax.models.cnn import CnnConfig, init_cnn
from distill_jax.models.multi_task import MultiTaskConfig, init_multi_task
from distill_jax.models.recommenders.bert4rec import Bert4RecConfig
from distill_jax.models.recommenders.bpr_mf import BprMfConfig
from distill_jax.models.recommenders.build import Recommender
from distill_jax.models.recommenders.gru4rec import Gru4RecConfig
from distill_jax.models.recommenders.lightgcn import LightGcnConfig
from distill_jax.models.recommenders.sasrec import SasRecConfig
from distill_jax.models.recommenders.text_items import ItemConfig, ItemTexts
from distill_jax.models.two_tower import TwoTowerConfig, init_two_tower
from distill_jax.objectives.items import resolve_ranking
from distill_jax.objectives.registry import names
from distill_jax.objectives.resolve import resolve
from distill_jax.training.optimizer import OptimizerConfig, decays, make_optimizer

STUDENT, TEACHER = ModelShape(2, 8, 2, 60), ModelShape(4, 12, 3, 60)
TOWER = BertConfig(20, 8, 1, 2, 12, max_positions=6)
TASKS = MultiTaskConfig(num_features=3, vocabularies=(5,))
BOTH = ItemConfig(11, 8, source="both", text_width=4)
TEXTS = ItemTexts(vectors_IE=np.ones((11, 4), np.float32))
GRAPH = ItemTexts(
    edge_users_N=np.arange(5, dtype=np.int32),
    edge_items_N=np.arange(5, dtype=np.int32),
    edge_weights_N=np.ones(5, np.float32),
)
MODELS = {
    "bert": lambda key: init_bert(TOWER, key),
    "cnn": lambda key: init_cnn(CnnConfig((4,), 8, 10), key),
    "towers": lambda key: init_two_tower(TwoTowerConfig(TOWER, shared=False), key),
    "multi-task": lambda key: init_multi_task(
        MultiTaskConfig(num_features=3, vocabularies=(5,)), key
    ),
    "sasrec": Recommender(SasRecConfig(BOTH), TEXTS).init,
    "bert4rec": Recommender(Bert4RecConfig(BOTH), TEXTS).init,
    "gru4rec": Recommender(Gru4RecConfig(ItemConfig(11, 8), num_layers=2)).init,
    "bpr_mf": Recommender(BprMfConfig(ItemConfig(11, 8), 5)).init,
    "lightgcn": Recommender(LightGcnConfig(ItemConfig(11, 8), 5), GRAPH).init,
}
MATRICES = {"kernel", "recurrent_kernel", "embedding", "position_embedding", "user_embedding"}
VECTORS = {"bias", "scale", "item_bias", "recurrent_bias", "hidden_item", "alpha"}
"""What is known by name; another one has to be put into one of the two."""


def losses():
    """Every loss that has parameters, of classifiers and of recommenders."""
    for name in names("classes"):
        text = f"{name}(embeddings=True)" if name == "fsp" else name
        yield name, resolve(text, STUDENT, TEACHER).init_params
    for name in names("items"):
        resolved = resolve_ranking(name, STUDENT, TEACHER, positions=8)
        yield f"ranking {name}", resolved.init_params


PARAMETERS = {
    name: params
    for name, init in (*MODELS.items(), *losses())
    if jax.tree.leaves(params := jax.eval_shape(init, jax.random.key(0)))
}


def leaves(tree):
    """(name of a parameter without numbers, path, array)."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        yield path[-1].key.rstrip("_0123456789"), path, leaf


def test_families_and_losses_are_all_there():
    assert {"expert_hints", "vid", "crd", "ranking expert_hints", "ranking hint"} <= set(PARAMETERS)
    found = {name for tree in PARAMETERS.values() for name, *_ in leaves(tree)}
    assert found == MATRICES | VECTORS


@pytest.mark.parametrize("name", PARAMETERS)
def test_kernels_and_embeddings_decay_and_nothing_else(name):
    for kind, path, leaf in leaves(PARAMETERS[name]):
        assert decays(path, leaf) == (kind in MATRICES), path


@pytest.mark.parametrize("name", PARAMETERS)
def test_biases_and_scales_stacked_into_matrices_stay(name):
    """As experts are stacked, and heads may be: rank alone would take them for matrices."""
    stacked = jax.tree.map(lambda x: jax.ShapeDtypeStruct((3, *x.shape), x.dtype), PARAMETERS[name])
    for kind, path, leaf in leaves(stacked):
        if kind != "hidden_item":  # an embedding of one
            assert decays(path, leaf) == (kind in MATRICES), path


def test_the_optimizer_decays_what_decays():
    params = resolve("expert_hints", STUDENT, TEACHER).init_params(jax.random.key(0))
    params = jax.tree.map(lambda x: jnp.full(x.shape, 3.0), params)
    optimizer = make_optimizer(OptimizerConfig(weight_decay=0.5))
    zeros = jax.tree.map(jnp.zeros_like, params)
    directions, _ = optimizer.update(zeros, optimizer.init(params), params)
    first = directions["expert_hints"]["teacher_0"]["experts_2_4"]["first"]
    assert first["bias"].shape == (5, 10)
    np.testing.assert_allclose(first["kernel"], 1.5)
    np.testing.assert_allclose(first["bias"], 0.0)
