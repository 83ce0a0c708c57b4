"""Relations inside a layer: how tokens' queries, keys or values resemble each other.

Queries, keys and values are ``[..., T, H, D]`` (D the width of a head), ``where`` is ``[..., T]``
over tokens. Widths may differ between student and teacher. Values are means over heads and over
the unmasked queries of an example.
"""

import math

import jax
from jax import Array
from jax.typing import ArrayLike

from distill_jax.losses.attention import Heads, attention_kl
from distill_jax.losses.numeric import floats, inner_products, mask_of, zero_masked


def split_relation_heads(vectors: Array, relation_heads: int) -> Array:
    """``[..., T, H, D]`` -> ``[..., T, R, H * D / R]``: heads joined, then split anew.

    Tokens stay apart from heads: only the last two axes are reshaped.

    Raises:
      ValueError: if the width ``H * D`` is not a multiple of ``relation_heads``.
    """
    width = vectors.shape[-2] * vectors.shape[-1]
    if relation_heads < 1 or width % relation_heads:
        raise ValueError(f"a width of {width} cannot be split into {relation_heads} relation heads")
    return vectors.reshape((*vectors.shape[:-2], relation_heads, width // relation_heads))


def default_relation_heads(student_width: int, teacher_width: int, teacher_heads: int) -> int:
    """The most relation heads that divide both widths, at most the teacher's number of heads."""
    common = math.gcd(student_width, teacher_width)
    return max(heads for heads in range(1, teacher_heads + 1) if common % heads == 0)


def relation_scores(vectors: Array) -> Array:
    """Scaled inner products of tokens, ``[..., T, H, D]`` -> ``[..., H, T, T]``."""
    scores = inner_products("...qhd,...khd->...hqk", vectors, vectors)
    return scores / math.sqrt(vectors.shape[-1])


def _pair(
    student: ArrayLike, teacher: ArrayLike, where: ArrayLike | None
) -> tuple[Array, Array, Array]:
    """Vectors with padding zeroed, the teacher constant, and the mask; heads and widths free."""
    student, teacher = floats(student, teacher)
    if student.ndim < 3 or student.shape[:-2] != teacher.shape[:-2]:
        raise ValueError(f"expected [..., T, H, D]: student {student.shape}, {teacher.shape}")
    mask = mask_of(where, student.shape[:-2])
    return zero_masked(student, mask), zero_masked(jax.lax.stop_gradient(teacher), mask), mask


def value_kl(
    student: ArrayLike,
    teacher: ArrayLike,
    *,
    where: ArrayLike | None = None,
    heads: Heads = "auto",
) -> Array:
    """KL(teacher || student) of the value relations, over heads and unmasked queries.

    ``1/(H |tokens|) * sum_{h, q} KL(R_t[h, q] || R_s[h, q])`` with ``R = softmax(V V^T / sqrt(D))``
    over unmasked keys. Where the numbers of heads differ, relations are averaged over heads first
    (see ``attention_kl``).

    Source: Wang et al. 2020, "MiniLM", section 3.2.

    Args:
      student: [..., T, H_s, D_s], values.
      teacher: [..., T, H_t, D_t], values.
      where: bool [..., T], False for padding.
      heads: ``"auto"``, ``"each"`` (their numbers agree) or ``"mean"``.

    Example:
      >>> student, teacher = jnp.array([[[[2.0]], [[0.0]]], [[[1.0]], [[0.0]]]])
      >>> value_kl(student, teacher), value_kl(-student, student)
      (Array(0.256, dtype=float32), Array(0., dtype=float32))
    """
    student, teacher, mask = _pair(student, teacher, where)
    scores_s, scores_t = relation_scores(student), relation_scores(teacher)
    return attention_kl(scores_s, scores_t, where=mask, heads=heads)


def minilm(
    student: tuple[ArrayLike, ArrayLike],
    teacher: tuple[ArrayLike, ArrayLike],
    *,
    where: ArrayLike | None = None,
    heads: Heads = "auto",
) -> Array:
    """MiniLM: ``attention_kl`` plus ``value_kl`` of one layer.

    Where the numbers of heads differ, both are averaged over heads first; the paper has equal ones.

    Source: Wang et al. 2020, "MiniLM: Deep Self-Attention Distillation for Task-Agnostic
    Compression of Pre-Trained Transformers", section 3.

    Args:
      student: attention scores [..., H_s, T, T] and values [..., T, H_s, D_s].
      teacher: attention scores [..., H_t, T, T] and values [..., T, H_t, D_t].
      where: bool [..., T], False for padding.
      heads: ``"auto"``, ``"each"`` (their numbers agree) or ``"mean"``.

    Example:
      >>> scores, values = jnp.array([[[2.0, 0.0], [0.0, 0.0]]]), jnp.array([[[2.0]], [[0.0]]])
      >>> minilm((scores, values), (scores, values)), minilm((scores, values), (0 * scores, values))
      (Array(0., dtype=float32), Array(0.217, dtype=float32))
    """
    attention = attention_kl(student[0], teacher[0], where=where, heads=heads)
    relation = value_kl(student[1], teacher[1], where=where, heads=heads)
    (attention, relation) = floats(attention, relation)
    return attention + relation


def minilm_v2(
    student: tuple[ArrayLike, ArrayLike, ArrayLike],
    teacher: tuple[ArrayLike, ArrayLike, ArrayLike],
    *,
    where: ArrayLike | None = None,
    relation_heads: int = 0,
) -> Array:
    """MiniLMv2: KL of query-query, key-key and value-value relations, summed over the three.

    ``sum_{A in Q, K, V} 1/(R |tokens|) * sum_{r, q} KL(R_t[r, q] || R_s[r, q])`` with
    ``R = softmax(A A^T / sqrt(d))`` of the vectors joined over heads and split into R relation
    heads of width d. Widths and numbers of heads are free.

    Source: Wang et al. 2021, "MiniLMv2: Multi-Head Self-Attention Relation Distillation for
    Compressing Pretrained Transformers", section 3.

    Args:
      student: queries, keys and values, each [..., T, H_s, D_s].
      teacher: queries, keys and values, each [..., T, H_t, D_t].
      where: bool [..., T], False for padding.
      relation_heads: how many, dividing both widths; 0 for the most that do, at most the
        teacher's number of heads.

    Example:
      >>> vectors = jnp.array([[[2.0, 0.0]], [[0.0, 1.0]]])
      >>> minilm_v2((vectors,) * 3, (vectors.reshape(2, 2, 1),) * 3, relation_heads=1)
      Array(0., dtype=float32)
    """
    total: Array | None = None
    for vectors_s, vectors_t in zip(student, teacher, strict=True):
        array_s, array_t, mask = _pair(vectors_s, vectors_t, where)
        width_s, width_t = (x.shape[-2] * x.shape[-1] for x in (array_s, array_t))
        count = relation_heads or default_relation_heads(width_s, width_t, array_t.shape[-2])
        scores_s, scores_t = (
            relation_scores(split_relation_heads(x, count)) for x in (array_s, array_t)
        )
        values = attention_kl(scores_s, scores_t, where=mask, heads="each")
        total = values if total is None else total + values
    if total is None:
        raise ValueError("minilm_v2 needs queries, keys and values")
    return total
