"""What a table of search students shows of a run."""

from distill_jax.tables.columns import Column

NDCG = Column("test/ndcg@10", "nDCG@10", 1, 3, higher_is_better=True)
COLUMNS = (
    NDCG,
    Column("test/mrr@10", "MRR@10", 1, 3, higher_is_better=True),
    Column("test/recall@10", "recall@10", 1, 3, higher_is_better=True),
    Column("test/recall@100", "recall@100", 1, 3, higher_is_better=True),
    Column("parameters", "parameters (M)", 1e-6, 2, kind="value"),
    Column("latency/p50_ms", "query p50 (ms)", 1, 2, kind="mean"),
    Column("seconds/train", "train (s)", 1, 0, kind="mean"),
)
