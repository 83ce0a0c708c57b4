import jax
import numpy as np
import pytest

from distill_jax.core.ranking_types import scores_last
from distill_jax.data.histories import questions
from distill_jax.data.interactions import histories_of
from distill_jax.models.recommenders.build import Recommender
from distill_jax.models.recommenders.gru4rec import Gru4RecConfig
from distill_jax.models.recommenders.sasrec import SasRecConfig
from distill_jax.models.recommenders.text_items import ItemConfig

ITEMS = ItemConfig(num_items=9, hidden_size=8, initializer_range=0.5)


@pytest.mark.parametrize(
    "config",
    [
        SasRecConfig(ITEMS, num_layers=1, max_length=6),
        SasRecConfig(ITEMS, num_layers=2, max_length=6),
        Gru4RecConfig(ITEMS, num_layers=1, max_length=6),
    ],
)
def test_the_last_position_alone_is_that_of_all_positions(config):
    model = Recommender(config)
    params = model.init(jax.random.key(0))
    histories = histories_of([[0, 1, 2], [3], [5, 6, 7, 8, 1, 2, 3], []], num_items=9)
    batch = questions(histories, "next", 6, 5)
    whole = model.apply({"params": params}, batch)
    last = model.apply({"params": params}, batch, last_only=True)
    np.testing.assert_allclose(scores_last(last), scores_last(whole), rtol=1e-5, atol=1e-6)
    if isinstance(config, SasRecConfig):
        assert whole.queries_BTD.shape == (5, 6, 8) and last.queries_BTD.shape == (5, 1, 8)
