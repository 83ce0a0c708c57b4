"""The loss library: pure functions of arrays, one value per example, unreduced.

Contract: ``loss(student, teacher, *, where=None, <hyperparameters>) -> per-example values``,
computed in float32 (float64 where float64 comes in), the teacher under ``stop_gradient``, finite
gradients everywhere, usable under ``jit``, ``vmap`` and ``grad``. Keywords with a float default may
be traced arrays: changing them never recompiles. Where a paper and its released code disagree,
``variant="paper"`` is the default and ``variant="as_released"`` follows the code.

Unless its docstring says otherwise, a loss returns an array of the axes written ``...`` and ``B``,
0 where an example is masked or nothing of it is unmasked, and raises ``ValueError`` if shapes do
not fit and for options that its ``Args`` do not allow. Examples need ``jnp`` and the losses alone;
the numbers that they print are shown to three decimal places.
"""

from distill_jax.losses.attention import attention_kl, attention_mse
from distill_jax.losses.features import (
    cka,
    embedding_mse,
    fsp,
    hidden_contrastive,
    hidden_cosine,
    hidden_mse,
    hint,
    nst,
    pkd,
    vid,
    vid_alpha,
)
from distill_jax.losses.inner_relations import minilm, minilm_v2, value_kl
from distill_jax.losses.labels import ce, dkd, focal, mmi, pseudo_ce
from distill_jax.losses.logit_matching import (
    bce,
    cosine_logits,
    dist,
    kl_infinite_temperature,
    mse_logits,
    mse_regression,
    standardize_logits,
)
from distill_jax.losses.logits import (
    generalized_jsd,
    jeffreys,
    js,
    kl,
    reverse_kl,
    skew_kl,
    skew_reverse_kl,
    soft_ce,
    topk_kl,
    tvd,
)
from distill_jax.losses.ranking import (
    listmle,
    listnet,
    margin_mse,
    pairwise_logistic,
    ranking_distillation,
    relaxed_ranking,
)
from distill_jax.losses.relations import (
    correlation,
    crd,
    pkt,
    rkd_angle,
    rkd_distance,
    sp,
)
from distill_jax.losses.teachers import mean_logits, mean_probabilities
from distill_jax.losses.topology import expert_hints, hierarchical_topology, topology

__all__ = [
    "attention_kl",
    "attention_mse",
    "bce",
    "ce",
    "cka",
    "correlation",
    "cosine_logits",
    "crd",
    "dist",
    "dkd",
    "embedding_mse",
    "expert_hints",
    "focal",
    "fsp",
    "generalized_jsd",
    "hidden_contrastive",
    "hidden_cosine",
    "hidden_mse",
    "hierarchical_topology",
    "hint",
    "jeffreys",
    "js",
    "kl",
    "kl_infinite_temperature",
    "listmle",
    "listnet",
    "margin_mse",
    "mean_logits",
    "mean_probabilities",
    "minilm",
    "minilm_v2",
    "mmi",
    "mse_logits",
    "mse_regression",
    "nst",
    "pairwise_logistic",
    "pkd",
    "pkt",
    "pseudo_ce",
    "ranking_distillation",
    "relaxed_ranking",
    "reverse_kl",
    "rkd_angle",
    "rkd_distance",
    "skew_kl",
    "skew_reverse_kl",
    "soft_ce",
    "sp",
    "standardize_logits",
    "topk_kl",
    "topology",
    "tvd",
    "value_kl",
    "vid",
    "vid_alpha",
]
