"""The library's losses, each with how it is fed. Adding one: a pure function, and a line here."""

from distill_jax import losses
from distill_jax.losses.catalogue import bpr, sampled_bce, sampled_softmax, softmax_over_all
from distill_jax.losses.labels import output_labels
from distill_jax.objectives.expert_feeds import ExpertFeed
from distill_jax.objectives.feeds import (
    FROM_ONE,
    EitherLabelFeed,
    HeadLabelFeed,
    LogitFeed,
    RankingFeed,
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
from distill_jax.objectives.registry import register
from distill_jax.objectives.terms import NOT_NEGATIVE, POSITIVE, SHARE, Interval

BELOW_ONE = Interval(0, 1, closed="low")
INSIDE = Interval(0, 1)
COUNT = {"k": FROM_ONE}
DISTRIBUTION = LogitFeed(gaps=True)

register(
    losses.ce,
    feed=LogitFeed(labelled=True, needs_teacher=False, gaps=True),
    ranges={"label_smoothing": BELOW_ONE},
)
register(
    losses.focal, feed=LogitFeed(labelled=True, needs_teacher=False), ranges={"gamma": NOT_NEGATIVE}
)
for loss in (losses.soft_ce, losses.kl, losses.reverse_kl, losses.jeffreys, losses.js):
    register(loss, feed=DISTRIBUTION)
register(losses.generalized_jsd, feed=DISTRIBUTION, ranges={"beta": INSIDE})
register(losses.skew_kl, feed=DISTRIBUTION, ranges={"alpha": BELOW_ONE})
register(losses.skew_reverse_kl, feed=DISTRIBUTION, ranges={"alpha": BELOW_ONE})
register(losses.tvd, feed=DISTRIBUTION)
register(losses.topk_kl, feed=LogitFeed(of_two="it is kl, whatever k", gaps=True), ranges=COUNT)
register(losses.mse_logits, feed=LogitFeed(min_classes=1, items="top", heads=("binary",)))
register(losses.kl_infinite_temperature, feed=LogitFeed())
register(losses.cosine_logits, feed=LogitFeed(items="top"))
register(
    losses.dist,
    feed=LogitFeed(
        of_two="the correlation over classes is +-1 and has no gradient: beta does nothing, only "
        "the correlation over examples teaches",
        items="",  # the same column has to be the same class in all examples
    ),
    ranges={"beta": NOT_NEGATIVE, "gamma": NOT_NEGATIVE},
)
register(
    losses.dkd,
    feed=LogitFeed(
        labelled=True, of_two="nothing stands among the other classes: beta does nothing"
    ),
    ranges={"alpha": NOT_NEGATIVE, "beta": NOT_NEGATIVE},
)
register(losses.mmi, feed=LogitFeed(labelled=True))
register(losses.pseudo_ce, feed=EitherLabelFeed())
register(losses.bce, feed=LogitFeed(min_classes=1, items="top", heads=("binary",)))
register(losses.mse_regression, feed=LogitFeed(min_classes=1, items="", heads=("number",)))
register(output_labels, feed=HeadLabelFeed(), name="labels")

register(
    softmax_over_all, feed=TargetFeed(), name="full_softmax", ranges={"label_smoothing": BELOW_ONE}
)
register(sampled_softmax, feed=SampledFeed(sampled=256, per="row"))
register(sampled_bce, feed=SampledFeed())
register(bpr, feed=SampledFeed())

register(losses.hidden_mse, feed=HiddenFeed())
register(losses.hidden_cosine, feed=HiddenFeed(layers=LAST_ONLY))
register(losses.hint, feed=HiddenFeed(projection="always"))
register(losses.embedding_mse, feed=HiddenFeed(layers=EMBEDDINGS, fixed=True, items=("items",)))
register(losses.pkd, feed=HiddenFeed(layers="skip", items=()))
register(losses.hidden_contrastive, feed=HiddenFeed(items=("queries",)))
register(losses.nst, feed=HiddenFeed(projection="never", items=("queries",)))
register(losses.fsp, feed=FlowFeed())
register(losses.cka, feed=HiddenFeed(projection="never", items=("queries",)))
register(losses.vid, feed=VarianceFeed())

register(losses.attention_mse, feed=InnerFeed())
register(losses.attention_kl, feed=InnerFeed())
register(losses.value_kl, feed=InnerFeed(parts=("values",)))
register(losses.minilm, feed=InnerFeed(parts=("attention_scores", "values"), layers=LAST_ONLY))
register(
    losses.minilm_v2,
    feed=InnerFeed(parts=("queries", "keys", "values"), layers=LAST_ONLY),
    ranges={"relation_heads": NOT_NEGATIVE},
)

for relation in (losses.rkd_distance, losses.rkd_angle, losses.sp, losses.pkt):
    register(relation, feed=ExampleFeed())
register(losses.correlation, feed=ExampleFeed(), ranges={"gamma": POSITIVE, "order": FROM_ONE})
register(losses.crd, feed=ExampleFeed(projected=True))

register(losses.topology, feed=ExampleFeed())
register(losses.expert_hints, feed=ExpertFeed())
register(losses.hierarchical_topology, feed=ExpertFeed(compares=True), ranges={"gamma": SHARE})

register(losses.listnet, feed=RankingFeed())
register(losses.listmle, feed=RankingFeed())
register(
    losses.relaxed_ranking,
    feed=RankingFeed(of_two="it is listmle, whatever k", sampled=100),
    ranges=COUNT,
)
register(
    losses.ranking_distillation,
    feed=RankingFeed(of_two="k, lam and mu do nothing", sampled=100),
    ranges={**COUNT, "lam": POSITIVE, "mu": POSITIVE},
)
register(losses.margin_mse, feed=RankingFeed(margins=True))
register(losses.pairwise_logistic, feed=RankingFeed())
