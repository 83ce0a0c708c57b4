"""The library's losses, each with how it is fed. Adding one: a pure function, and a line here."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import distill_jax.losses as losses
from distill_jax.losses.catalogue import bpr, sampled_bce, sampled_softmax, softmax_over_all
from distill_jax.losses.labels import output_labels
from distill_jax.objectives.expert_feeds import ExpertFeed, HintFeed
from distill_jax.objectives.feeds import (
    FROM_ONE,
    EitherLabelFeed,
    Feed,
    HeadLabelFeed,
    LogitFeed,
    RankingFeed,
    RelaxedFeed,
    SampledFeed,
    TargetFeed,
)
from distill_jax.objectives.layer_feeds import (
    EMBEDDINGS,
    LAST_ONLY,
    ExampleFeed,
    FlowFeed,
    HiddenFeed,
    InnerFeed,
    VarianceFeed,
)
from distill_jax.objectives.terms import NOT_NEGATIVE, POSITIVE, SHARE, Interval

BELOW_ONE = Interval(0, 1, closed="low")
INSIDE = Interval(0, 1)
COUNT = {"k": FROM_ONE}
DISTRIBUTION = LogitFeed(gaps=True)


class Fed(NamedTuple):
    """A loss, and what ``registry.register`` has to know of it."""

    function: Callable[..., Any]
    feed: Feed
    ranges: Mapping[str, Interval] | None = None
    name: str | None = None


LIBRARY: tuple[Fed, ...] = (
    Fed(
        losses.ce,
        feed=LogitFeed(labelled=True, needs_teacher=False, gaps=True),
        ranges={"label_smoothing": BELOW_ONE},
    ),
    Fed(
        losses.focal,
        feed=LogitFeed(labelled=True, needs_teacher=False),
        ranges={"gamma": NOT_NEGATIVE},
    ),
    *(
        Fed(loss, feed=DISTRIBUTION)
        for loss in (losses.soft_ce, losses.kl, losses.reverse_kl, losses.jeffreys, losses.js)
    ),
    Fed(losses.generalized_jsd, feed=DISTRIBUTION, ranges={"beta": INSIDE}),
    Fed(losses.skew_kl, feed=DISTRIBUTION, ranges={"alpha": BELOW_ONE}),
    Fed(losses.skew_reverse_kl, feed=DISTRIBUTION, ranges={"alpha": BELOW_ONE}),
    Fed(losses.tvd, feed=DISTRIBUTION),
    Fed(losses.topk_kl, feed=LogitFeed(of_two="it is kl, whatever k", gaps=True), ranges=COUNT),
    Fed(losses.mse_logits, feed=LogitFeed(min_classes=1, items="top")),
    Fed(losses.kl_infinite_temperature, feed=LogitFeed()),
    Fed(losses.cosine_logits, feed=LogitFeed(items="top")),
    Fed(
        losses.dist,
        feed=LogitFeed(
            of_two="the correlation over classes is +-1 and has no gradient: beta does nothing, "
            "only the correlation over examples teaches",
            items="",  # the same column has to be the same class in all examples
        ),
        ranges={"beta": NOT_NEGATIVE, "gamma": NOT_NEGATIVE},
    ),
    Fed(
        losses.dkd,
        feed=LogitFeed(
            labelled=True, of_two="nothing stands among the other classes: beta does nothing"
        ),
        ranges={"alpha": NOT_NEGATIVE, "beta": NOT_NEGATIVE},
    ),
    Fed(losses.mmi, feed=LogitFeed(labelled=True)),
    Fed(losses.pseudo_ce, feed=EitherLabelFeed()),
    Fed(losses.bce, feed=LogitFeed(min_classes=1, items="top")),
    Fed(losses.mse_regression, feed=LogitFeed(min_classes=1, items="")),
    Fed(output_labels, feed=HeadLabelFeed(), name="labels"),
    Fed(
        softmax_over_all,
        feed=TargetFeed(),
        name="full_softmax",
        ranges={"label_smoothing": BELOW_ONE},
    ),
    Fed(sampled_softmax, feed=SampledFeed(sampled=256, per="row")),
    Fed(sampled_bce, feed=SampledFeed()),
    Fed(bpr, feed=SampledFeed()),
    Fed(losses.hidden_mse, feed=HiddenFeed()),
    Fed(losses.hidden_cosine, feed=HiddenFeed(layers=LAST_ONLY)),
    Fed(losses.hint, feed=HiddenFeed(projection="always")),
    Fed(losses.embedding_mse, feed=HiddenFeed(layers=EMBEDDINGS, fixed=True, items=("items",))),
    Fed(losses.pkd, feed=HiddenFeed(layers="skip", items=())),
    Fed(losses.hidden_contrastive, feed=HiddenFeed(items=("queries",))),
    Fed(losses.nst, feed=HiddenFeed(projection="never", items=("queries",))),
    Fed(losses.fsp, feed=FlowFeed()),
    Fed(losses.cka, feed=HiddenFeed(projection="never", items=("queries",))),
    Fed(losses.vid, feed=VarianceFeed()),
    Fed(losses.attention_mse, feed=InnerFeed()),
    Fed(losses.attention_kl, feed=InnerFeed()),
    Fed(losses.value_kl, feed=InnerFeed(parts=("values",))),
    Fed(losses.minilm, feed=InnerFeed(parts=("attention_scores", "values"), layers=LAST_ONLY)),
    Fed(
        losses.minilm_v2,
        feed=InnerFeed(parts=("queries", "keys", "values"), layers=LAST_ONLY),
        ranges={"relation_heads": NOT_NEGATIVE},
    ),
    *(
        Fed(relation, feed=ExampleFeed())
        for relation in (losses.rkd_distance, losses.rkd_angle, losses.sp, losses.pkt)
    ),
    Fed(losses.correlation, feed=ExampleFeed(), ranges={"gamma": POSITIVE, "order": FROM_ONE}),
    Fed(losses.crd, feed=ExampleFeed(projected=True)),
    Fed(losses.topology, feed=ExampleFeed()),
    Fed(losses.expert_hints, feed=HintFeed()),
    Fed(losses.hierarchical_topology, feed=ExpertFeed(compares=True), ranges={"gamma": SHARE}),
    Fed(losses.listnet, feed=RankingFeed()),
    Fed(losses.listmle, feed=RankingFeed()),
    Fed(
        losses.relaxed_ranking,
        feed=RelaxedFeed(of_two="it is listmle, whatever k", sampled=100),
        ranges=COUNT,
    ),
    Fed(
        losses.ranking_distillation,
        feed=RankingFeed(of_two="k, lam and mu do nothing", sampled=100),
        ranges={**COUNT, "lam": POSITIVE, "mu": POSITIVE},
    ),
    Fed(losses.margin_mse, feed=RankingFeed(margins=True)),
    Fed(losses.pairwise_logistic, feed=RankingFeed()),
)
