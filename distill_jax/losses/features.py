"""Losses on hidden states ``[..., T, D]``, with ``where`` ``[..., T]``: one value per example.

Values are means over features and over the unmasked tokens of an example. Where a paper sums over
features, its weight is ours divided by D. In objectives a learned projection takes the student's
hidden states to the teacher's width first, for the losses that compare feature by feature.
"""

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from distill_jax.losses.numeric import (
    constant_pair,
    cosine_distance,
    floats,
    inner_products,
    l2_normalise,
    mask_of,
    masked_log_probs,
    masked_mean,
    number,
    zero_masked,
)

VID_VARIANCE = 5.0
"""The variance with which ``vid`` starts, as in the released code."""

VID_LEAST_VARIANCE = 1e-5


def hidden_mse(
    student: ArrayLike,
    teacher: ArrayLike,
    *,
    where: ArrayLike | None = None,
) -> Array:
    """Mean squared difference of hidden states, over features and unmasked tokens.

    ``1/(|tokens| D) * sum_{t, d} (h_s[t, d] - h_t[t, d])^2``.

    Source: Jiao et al. 2020, "TinyBERT", eq. 8.

    Args:
      student, teacher: [..., T, D], hidden states.
      where: bool [..., T], False for padding.

    Example:
      >>> student, teacher = jnp.array([[[2.0, 0.0], [9.0, 9.0]], [[1.0, 0.0], [0.0, 0.0]]])
      >>> hidden_mse(student, teacher, where=jnp.array([True, False]))
      Array(0.5, dtype=float32)
    """
    student, teacher, mask = constant_pair(student, teacher, where, inner=1)
    return masked_mean(jnp.mean((student - teacher) ** 2, axis=-1), mask, axis=-1)


def hidden_cosine(
    student: ArrayLike,
    teacher: ArrayLike,
    *,
    where: ArrayLike | None = None,
) -> Array:
    """One minus the cosine between student's and teacher's hidden states, over unmasked tokens.

    ``1/|tokens| * sum_t (1 - <h_s[t], h_t[t]> / (|h_s[t]| |h_t[t]|))``; 1, with zero gradient,
    for a token at which one of them is zero. In objectives of the last layers alone, as in
    DistilBERT, whose weight of 1 beside 5 and 2 holds for one pair; ``layers='uniform'`` takes all.

    Source: Sanh et al. 2019, "DistilBERT", section 3 (the loss L_cos).

    Args:
      student, teacher: [..., T, D], hidden states.
      where: bool [..., T], False for padding.

    Example:
      >>> hidden_cosine(jnp.array([[2.0, 0.0], [2.0, 0.0]]), jnp.array([[1.0, 0.0], [0.0, 1.0]]))
      Array(0.5, dtype=float32)
    """
    student, teacher, mask = constant_pair(student, teacher, where, inner=1)
    return masked_mean(cosine_distance(student, teacher), mask, axis=-1)


def hint(
    student: ArrayLike,
    teacher: ArrayLike,
    *,
    where: ArrayLike | None = None,
) -> Array:
    """FitNets' hint: half the mean squared difference of hidden states.

    ``1/(2 |tokens| D) * sum_{t, d} (r(h_s)[t, d] - h_t[t, d])^2``, where ``r`` is a learned
    regressor (in objectives: always, even at equal widths).

    Source: Romero et al. 2015, "FitNets: Hints for Thin Deep Nets", eq. 3.

    Args:
      student, teacher: [..., T, D], hidden states.
      where: bool [..., T], False for padding.

    Example:
      >>> student, teacher = jnp.array([[[2.0, 0.0]], [[1.0, 0.0]]])
      >>> hint(student, teacher), hidden_mse(student, teacher)
      (Array(0.25, dtype=float32), Array(0.5, dtype=float32))
    """
    return hidden_mse(student, teacher, where=where) / 2


def embedding_mse(
    student: ArrayLike,
    teacher: ArrayLike,
    *,
    where: ArrayLike | None = None,
) -> Array:
    """Mean squared difference of the embeddings (hidden state 0), over features and tokens.

    It is ``hidden_mse`` of them.

    Source: Jiao et al. 2020, "TinyBERT", eq. 9.

    Args:
      student, teacher: [..., T, D], embeddings.
      where: bool [..., T], False for padding.

    Example:
      >>> embedding_mse(jnp.array([[[2.0, 0.0]], [[1.0, 0.0]]]), jnp.array([[[1.0, 0.0]]] * 2))
      Array([0.5, 0. ], dtype=float32)
    """
    return hidden_mse(student, teacher, where=where)


def pkd(
    student: ArrayLike,
    teacher: ArrayLike,
    *,
    where: ArrayLike | None = None,
) -> Array:
    """Patient distillation: mean squared difference of the normalised first token ([CLS]).

    ``1/D * sum_d (h_s[0, d] / |h_s[0]| - h_t[0, d] / |h_t[0]|)^2``; the mean over features is that
    of the released code, the paper sums. A hidden state of zeros stays zero.

    Source: Sun et al. 2019, "Patient Knowledge Distillation for BERT Model Compression", eq. 7.

    Args:
      student, teacher: [..., T, D], hidden states.
      where: bool [..., T], False for padding.

    Returns:
      [...], 0 for an example whose first token is masked.

    Example:
      >>> student, teacher = jnp.array([[[2.0, 0.0], [5.0, 5.0]], [[7.0, 0.0], [0.0, 0.0]]])
      >>> pkd(student, teacher), pkd(-student, teacher)
      (Array(0., dtype=float32), Array(2., dtype=float32))
    """
    student, teacher, mask = constant_pair(student, teacher, where, inner=1)
    first_s, first_t = l2_normalise(student[..., 0, :]), l2_normalise(teacher[..., 0, :])
    return jnp.where(mask[..., 0], jnp.mean((first_s - first_t) ** 2, axis=-1), 0)


def hidden_contrastive(
    student: ArrayLike,
    teacher: ArrayLike,
    *,
    where: ArrayLike | None = None,
    T: ArrayLike = 0.1,
) -> Array:
    """InfoNCE between tokens: a student's token has to find the teacher's among the example's.

    ``-1/|tokens| * sum_t log softmax_u(<h_s[t], h_t[u]> / T)[t]`` with hidden states of length 1
    and the softmax over unmasked tokens u; 0 for a single token.

    Source: van den Oord et al. 2018, "Representation Learning with Contrastive Predictive Coding",
    eq. 4; for distillation Sun et al. 2020, "Contrastive Distillation on Intermediate
    Representations for Language Model Compression".

    Args:
      student, teacher: [..., T, D], hidden states.
      where: bool [..., T], False for padding.
      T: temperature, above 0.

    Example:
      >>> tokens = jnp.array([[1.0, 0.0], [0.0, 1.0]])
      >>> hidden_contrastive(tokens, tokens, T=0.01), hidden_contrastive(1 - tokens, tokens, T=0.01)
      (Array(0., dtype=float32), Array(100., dtype=float32))
    """
    student, teacher, mask = constant_pair(student, teacher, where, inner=1)
    scores = inner_products("...td,...ud->...tu", l2_normalise(student), l2_normalise(teacher))
    log_p = masked_log_probs(scores / number(T, scores), mask[..., None, :])
    return masked_mean(-jnp.diagonal(log_p, axis1=-2, axis2=-1), mask, axis=-1)


def _free_widths(
    student: ArrayLike, teacher: ArrayLike, where: ArrayLike | None
) -> tuple[Array, Array, Array]:
    """Like ``constant_pair``, for losses that compare tokens with tokens: widths may differ."""
    student, teacher = floats(student, teacher)
    if student.ndim < 2 or student.shape[:-1] != teacher.shape[:-1]:
        raise ValueError(f"student has shape {student.shape}, teacher {teacher.shape}")
    mask = mask_of(where, student.shape[:-1])
    return zero_masked(student, mask), zero_masked(jax.lax.stop_gradient(teacher), mask), mask


def _gram(features: Array) -> Array:
    """Inner products of tokens, [..., T, D] -> [..., T, T]."""
    return inner_products("...td,...ud->...tu", features, features)


def nst(
    student: ArrayLike,
    teacher: ArrayLike,
    *,
    where: ArrayLike | None = None,
) -> Array:
    """Neuron selectivity transfer: squared maximum mean discrepancy of the neurons' patterns.

    A neuron's pattern is its activation over the unmasked tokens, of length 1. With the kernel
    ``k(a, b) = <a, b>^2``: ``mean_{i, i'} k(s_i, s_i') + mean_{j, j'} k(t_j, t_j') - 2 mean_{i, j}
    k(s_i, t_j)``, computed as the squared distance of the mean outer products. A neuron that is
    silent everywhere has the pattern 0.

    Source: Huang, Wang 2017, "Like What You Like: Knowledge Distill via Neuron Selectivity
    Transfer", section 4, with the polynomial kernel (d = 2, c = 0).

    Args:
      student: [..., T, D_s], hidden states.
      teacher: [..., T, D_t], hidden states; the width may differ.
      where: bool [..., T], False for padding.

    Example:
      >>> tokens = jnp.array([[1.0, 0.0], [0.0, 1.0]])
      >>> nst(tokens[:, ::-1], tokens), nst(tokens[:, :1], tokens)
      (Array(0., dtype=float32), Array(0.5, dtype=float32))
    """
    student, teacher, _ = _free_widths(student, teacher, where)
    second_s, second_t = (
        _gram(l2_normalise(x, axis=-2)) / number(x.shape[-1], x) for x in (student, teacher)
    )
    return jnp.sum((second_s - second_t) ** 2, axis=(-2, -1))


def fsp(
    student: tuple[ArrayLike, ArrayLike],
    teacher: tuple[ArrayLike, ArrayLike],
    *,
    where: ArrayLike | None = None,
) -> Array:
    """Flow of the solution procedure: mean squared difference of products of two layers.

    ``1/D^2 * sum_{d, e} (G_s[d, e] - G_t[d, e])^2`` with ``G[d, e] = 1/|tokens| * sum_t a[t, d]
    b[t, e]`` for hidden states ``a`` and ``b`` of an earlier and a later layer.

    Source: Yim et al. 2017, "A Gift from Knowledge Distillation: Fast Optimization, Network
    Minimization and Transfer Learning", eq. 1 and 2.

    Args:
      student: two arrays [..., T, D], hidden states of two layers.
      teacher: two arrays [..., T, D], likewise.
      where: bool [..., T], False for padding.

    Example:
      >>> one, two = jnp.array([[1.0], [0.0]]), jnp.array([[3.0], [5.0]])
      >>> fsp((one, two), (one, one)), fsp((one, two), (two, one))
      (Array(1., dtype=float32), Array(0., dtype=float32))
    """
    first_s, first_t, mask = constant_pair(student[0], teacher[0], where, inner=1)
    second_s, second_t, _ = constant_pair(student[1], teacher[1], where, inner=1)
    count = jnp.maximum(jnp.sum(mask, axis=-1, dtype=first_s.dtype), 1)[..., None, None]
    flow_s = inner_products("...td,...te->...de", first_s, second_s) / count
    flow_t = inner_products("...td,...te->...de", first_t, second_t) / count
    return jnp.mean((flow_s - flow_t) ** 2, axis=(-2, -1))


def cka(
    student: ArrayLike,
    teacher: ArrayLike,
    *,
    where: ArrayLike | None = None,
) -> Array:
    """One minus the linear centred kernel alignment of an example's tokens, from 0 to 1.

    ``1 - <K_s, K_t>_F / (|K_s|_F |K_t|_F)`` with ``K[t, u] = <h[t] - mean h, h[u] - mean h>`` over
    unmasked tokens. Invariant to rotations and to the scale of either side. For the alignment over
    a whole batch give ``[B * T, D]``. 1, with zero gradient, where one side's tokens are all alike.

    Source: Kornblith et al. 2019, "Similarity of Neural Network Representations Revisited", eq. 4.

    Args:
      student: [..., T, D_s], hidden states.
      teacher: [..., T, D_t], hidden states; the width may differ.
      where: bool [..., T], False for padding.

    Returns:
      [...], 0 for an example with fewer than two tokens.

    Example:
      >>> tokens = jnp.array([[1.0, 0.0], [0.0, 2.0], [3.0, 0.0]])
      >>> cka(-2 * tokens, tokens), cka(tokens**2, tokens)
      (Array(0., dtype=float32), Array(0.095, dtype=float32))
    """
    student, teacher, mask = _free_widths(student, teacher, where)

    def centred_gram(features: Array) -> Array:
        mean = masked_mean(features, mask[..., None], axis=-2)[..., None, :]
        return _gram(l2_normalise(zero_masked(features - mean, mask), axis=(-2, -1)))

    distance = cosine_distance(centred_gram(student), centred_gram(teacher), axis=(-2, -1))
    return jnp.where(jnp.sum(mask, axis=-1) > 1, distance, 0)


def vid(
    student: ArrayLike,
    teacher: ArrayLike,
    *,
    where: ArrayLike | None = None,
    alpha: ArrayLike | None = None,
) -> Array:
    """Variational information distillation: Gaussian likelihood of the teacher's hidden states.

    ``1/(|tokens| D) * sum_{t, d} ((h_t[t, d] - mu[t, d])^2 / (2 v[d]) + log(v[d]) / 2)`` with a
    variance for each feature, ``v = log(1 + exp(alpha)) + 1e-5``. The mean ``mu`` is a learned
    regression on the student's hidden states, ``alpha`` is learned too; the constant of the
    likelihood is left out, so the value may be negative.

    Source: Ahn et al. 2019, "Variational Information Distillation for Knowledge Transfer", section
    2.

    Args:
      student: [..., T, D], the predicted mean of the teacher's hidden states.
      teacher: [..., T, D], hidden states.
      where: bool [..., T], False for padding.
      alpha: [D], the variances before the softplus; None for a variance of 5 everywhere.

    Example:
      >>> student, teacher = jnp.array([[[1.0, 0.0]], [[2.0, 0.0]]])
      >>> vid(student, teacher), vid(teacher, teacher)
      (Array(0.855, dtype=float32), Array(0.805, dtype=float32))
    """
    student, teacher, mask = constant_pair(student, teacher, where, inner=1)
    if alpha is None:
        alpha = vid_alpha(student.shape[-1])
    alpha = number(alpha, student)
    if alpha.shape != student.shape[-1:]:
        raise ValueError(f"alpha has shape {alpha.shape}, expected {student.shape[-1:]}")
    variance = jax.nn.softplus(alpha) + VID_LEAST_VARIANCE
    variance = variance.reshape((1,) * mask.ndim + variance.shape)
    values = ((teacher - student) ** 2 / variance + jnp.log(variance)) / 2
    return masked_mean(jnp.mean(values, axis=-1), mask, axis=-1)


def vid_alpha(width: int) -> Array:
    """The ``alpha`` [width], float32, with which ``vid`` starts: a variance of 5.

    Example:
      >>> vid_alpha(2)
      Array([4.993, 4.993], dtype=float32)
    """
    start = jnp.float32(VID_VARIANCE - VID_LEAST_VARIANCE)
    return jnp.full((width,), jnp.log(jnp.expm1(start)))
