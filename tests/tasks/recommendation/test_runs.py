"""The training of a cell, as the engine gets it."""

import dataclasses

import numpy as np
import pytest
from recsys import small_split
from small_tables import walks

from distill_jax.models.recommenders.build import Recommender, recommender_family
from distill_jax.models.recommenders.text_items import ItemConfig, ItemTexts
from distill_jax.objectives.items import resolve_ranking
from distill_jax.tasks.recommendation.runs import recommender_work


@pytest.mark.parametrize("source", ["id", "vectors"])
def test_a_program_that_holds_a_catalogue_is_shared_with_no_other_table(source):
    split = small_split()
    items = len(split.train_counts_I)
    width = 3 if source == "vectors" else 0
    config = recommender_family("sasrec").fitted(
        ItemConfig(items, 4, source, given_width=width), num_layers=1, max_length=8, num_heads=1
    )
    held = ItemTexts(given_IV=np.ones((items, 3), np.float32)) if width else None
    objective = resolve_ranking("full_softmax", config.shape, positions=64)
    cell = dataclasses.replace(walks({"labels": {}}).base, data_digest="walks")
    work = recommender_work(split, cell, Recommender(config, held), objective)
    assert work.own_program is (source == "vectors")
