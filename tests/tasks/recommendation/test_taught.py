"""What a teacher said is kept: how much of it."""

from recsys import save_model, small_split
from rich.console import Console

from distill_jax.data.histories import HistoryTable
from distill_jax.engine.engine import Engine
from distill_jax.engine.options import DEFAULTS
from distill_jax.engine.progress import Reporter
from distill_jax.tasks.recommendation.taught import asked
from distill_jax.training.interrupt import StopRequest


def test_of_a_small_catalogue_a_teacher_keeps_all_that_it_knows_but_one(tmp_path):
    recommender, params = save_model(tmp_path, split=small_split())
    engine = Engine(tmp_path, Reporter(Console(quiet=True)), StopRequest(print), "none", DEFAULTS)
    table = HistoryTable(small_split(), "next", 6)
    for among, top in ((None, table.num_items - 1), (12, 11)):
        _, words = asked(engine, recommender, params, table, 100, among=among)
        assert words.provenance.top == words.ids_MK.shape[1] == top
