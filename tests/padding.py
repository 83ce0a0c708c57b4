"""How much of a plan is padding."""


def padding_fraction(lengths_N, plan, *, batch_size):
    """Share of a plan's tokens that are padding, the missing rows of a partial batch included."""
    tokens = sum(int(lengths_N[batch.rows].sum()) for batch in plan)
    return 1 - tokens / sum(batch_size * batch.length for batch in plan)
