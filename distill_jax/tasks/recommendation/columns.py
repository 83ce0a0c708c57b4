"""What a table of recommenders shows of a run."""

from distill_jax.tables.columns import Column

NDCG = Column("test/ndcg@10", "NDCG@10", 1, 4, higher_is_better=True)
TAIL = Column("test/ndcg@10/tail", "tail NDCG@10", 1, 4, higher_is_better=True)
COLD = Column("test/ndcg@10/cold", "cold NDCG@10", 1, 4, higher_is_better=True)
"""Targets that no training interaction names; only with a split in time are there many."""

COLUMNS = (
    NDCG,
    Column("test/hr@10", "HR@10", 1, 4, higher_is_better=True),
    TAIL,
    Column("test/coverage@10", "coverage@10", 1, 3),
    Column("test/fidelity@20", "top-20 shared with the teacher %", 100, 1, higher_is_better=True),
    Column("parameters", "parameters (k)", 1e-3, 1, kind="value"),
    Column("latency/p50_ms", "CPU ms a user", 1, 2, kind="mean"),
    Column("seconds/total", "run (s)", 1, 0, kind="mean"),
)

SAMPLED_HR = Column("test/sampled_hr@10", "H@10 sampled", 1, 4, higher_is_better=True)
SAMPLED_NDCG = Column("test/sampled_ndcg@10", "N@10 sampled", 1, 4, higher_is_better=True)
SAMPLED_COLUMNS = (
    SAMPLED_HR,
    SAMPLED_NDCG,
    Column("test/hr@10", "HR@10 of all", 1, 4, higher_is_better=True),
    Column("test/ndcg@10", "NDCG@10 of all", 1, 4, higher_is_better=True),
    *COLUMNS[2:],
)
"""Of a table that ranks targets among a few sampled items too."""
