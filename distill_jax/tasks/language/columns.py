"""What a table of language models shows of a run."""

from distill_jax.tables.columns import Column

NLL = Column("test/nll", "loss (nats a token)", 1, 3, higher_is_better=False)
PERPLEXITY = Column("test/perplexity", "perplexity", 1, 2, higher_is_better=False)
TOP1 = Column("test/top1", "top-1 %", 100, 1, higher_is_better=True)
KL = Column("test/kl", "KL of the teacher (nats a token)", 1, 3, higher_is_better=False)
COLUMNS = (
    NLL,
    PERPLEXITY,
    TOP1,
    KL,
    Column("parameters", "parameters (M)", 1e-6, 2, kind="value"),
    Column("seconds/train", "train (s)", 1, 0, kind="mean"),
)
