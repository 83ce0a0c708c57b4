"""All that a plugin needs: ``register``, the feeds, the ranges of numbers."""

from distill_jax.objectives.feeds import LogitFeed, RankingFeed, SampledFeed, TargetFeed
from distill_jax.objectives.layer_feeds import ExampleFeed, FlowFeed, HiddenFeed, InnerFeed
from distill_jax.objectives.registry import register
from distill_jax.objectives.terms import Interval

__all__ = [
    "ExampleFeed",
    "FlowFeed",
    "HiddenFeed",
    "InnerFeed",
    "Interval",
    "LogitFeed",
    "RankingFeed",
    "SampledFeed",
    "TargetFeed",
    "register",
]
