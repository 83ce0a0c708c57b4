"""The library's losses, each with how it is fed. Adding one: a pure function, and a line here."""

from distill_jax import losses
from distill_jax.objectives.feeds import AttentionFeed, HiddenFeed, LogitFeed
from distill_jax.objectives.registry import register
from distill_jax.objectives.terms import Interval

register(
    losses.ce,
    feed=LogitFeed(labelled=True, needs_teacher=False),
    ranges={"label_smoothing": Interval(0, 1, closed="low")},
)
register(losses.kl, feed=LogitFeed())
register(losses.reverse_kl, feed=LogitFeed())
register(losses.mse_logits, feed=LogitFeed(min_classes=1))
register(losses.hidden_mse, feed=HiddenFeed())
register(losses.attention_kl, feed=AttentionFeed())
