"""Topology and expert hints of recommenders' embeddings: ``[B, D]``, one value an anchor.

An anchor is a user or an item (or any example). Student and teacher widths may differ. Where a
paper sums over pairs or features ours are means, so its weight is ours divided by their number;
where it adds several such sums, ``variant="as_released"`` has them.
"""

from typing import Literal

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from distill_jax.losses.logits import Variant, check_variant
from distill_jax.losses.numeric import (
    floats,
    inner_products,
    l2_normalise,
    mask_of,
    masked_mean,
    number,
    zero_masked,
)

Level = Literal["entities", "prototypes"]


def _pair(
    student: ArrayLike, teacher: ArrayLike, where: ArrayLike | None, rank: int
) -> tuple[Array, Array, Array]:
    """Student [B, ...] and teacher [B, D] with masked rows zeroed, the teacher constant; mask."""
    student, teacher = floats(student, teacher)
    if student.ndim != rank or teacher.ndim != 2 or student.shape[0] != teacher.shape[0]:
        raise ValueError(
            f"expected {'[B, D]' if rank == 2 else '[B, G, D]'} and [B, D]: student "
            f"{student.shape}, teacher {teacher.shape}"
        )
    mask = mask_of(where, student.shape[:1])
    return zero_masked(student, mask), zero_masked(jax.lax.stop_gradient(teacher), mask), mask


def _cosines(left: Array, right: Array) -> Array:
    """Cosines of all pairs, [A, D] and [B, D] -> [A, B]."""
    return inner_products("ad,bd->ab", l2_normalise(left), l2_normalise(right))


def topology(student: ArrayLike, teacher: ArrayLike, *, where: ArrayLike | None = None) -> Array:
    """Full topology distillation (FTD): squared difference of the cosines of all pairs.

    For anchor i ``1/n * sum_j (cos(s_i, s_j) - cos(t_i, t_j))^2`` over the n unmasked entities.

    Source: Kang et al. 2021, "Topology Distillation for Recommender System", section 4.1.

    Args:
      student: [B, D_s], representations of entities.
      teacher: [B, D_t], likewise; the width may differ.
      where: bool [B], False for entities that do not count.

    Example:
      >>> points = jnp.array([[1.0, 0.0], [0.0, 1.0]])
      >>> topology(3 * points, points), topology(jnp.ones((2, 1)), points)
      (Array([0., 0.], dtype=float32), Array([0.5, 0.5], dtype=float32))
    """
    student, teacher, mask = _pair(student, teacher, where, 2)
    difference = _cosines(student, student) - _cosines(teacher, teacher)
    return masked_mean(difference**2, mask[:, None] & mask[None, :], axis=1)


def expert_hints(
    student: ArrayLike,
    teacher: ArrayLike,
    *,
    where: ArrayLike | None = None,
    selection: ArrayLike | None = None,
    draw: ArrayLike | None = None,
    T: ArrayLike = 1.0,
) -> Array:
    """Distillation experts (DE): each entity's hint is regressed by an expert chosen for it.

    ``1/D * sum_d (t[d] - sum_g z[g] f_g(s)[d])^2`` with the Gumbel softmax
    ``z = softmax((log softmax(v(t)) + noise) / T)`` of a learned selection ``v`` over G learned
    experts ``f_g``. The paper lets T fall during the training, here
    ``T=linear(1, 0.1)``.

    Source: Kang et al. 2020, "DE-RRD: A Knowledge Distillation Framework for Recommender System",
    section 4.1.

    Args:
      student: [B, G, D_t], what each expert makes of the student's representation.
      teacher: [B, D_t], the teacher's representations.
      where: bool [B], False for entities that do not count.
      selection: [B, G], logits of the experts, ``v(t)``; None for equal chances.
      draw: unsigned integers that decide the Gumbel noise: [2], the seed and the step, or the
        step alone, for seed 0; None for no noise.
      T: temperature of the choice, above 0.

    Example:
      >>> experts, teacher = jnp.array([[[1.0], [5.0]]]), jnp.array([[5.0]])
      >>> selection = jnp.array([[0.0, 99.0]])
      >>> expert_hints(experts, teacher), expert_hints(experts, teacher, selection=selection)
      (Array([4.], dtype=float32), Array([0.], dtype=float32))
    """
    student, teacher, mask = _pair(student, teacher, where, 3)
    if student.shape[-1] != teacher.shape[-1]:
        raise ValueError(f"experts give {student.shape[-1]} features, not {teacher.shape[-1]}")
    chosen = _choice(student, selection, draw, T, mask)
    hint = jnp.sum(chosen[:, :, None] * student, axis=1)
    return jnp.where(mask, jnp.mean((teacher - hint) ** 2, axis=-1), 0)


def _choice(
    experts: Array,
    selection: ArrayLike | None,
    draw: ArrayLike | None,
    T: ArrayLike,
    mask: Array,
) -> Array:
    """The Gumbel softmax [B, G] over experts."""
    shape = experts.shape[:2]
    logits = jnp.zeros(shape) if selection is None else jnp.asarray(selection)
    if logits.shape != shape:
        raise ValueError(f"selection has shape {logits.shape}, expected {shape}")
    logits = zero_masked(logits.astype(experts.dtype), mask)
    scores = jax.nn.log_softmax(logits, axis=-1)
    if draw is not None:
        *seed, step = jnp.atleast_1d(jnp.asarray(draw, jnp.uint32))
        key = jax.random.fold_in(jax.random.key(seed[0] if seed else 0), step)
        scores = scores + jax.random.gumbel(key, shape, experts.dtype)
    return jax.nn.softmax(scores / number(T, experts), axis=-1)


def hierarchical_topology(
    student: ArrayLike,
    teacher: ArrayLike,
    *,
    where: ArrayLike | None = None,
    experts: ArrayLike | None = None,
    selection: ArrayLike | None = None,
    draw: ArrayLike | None = None,
    T: ArrayLike = 0.1,
    gamma: ArrayLike = 0.5,
    level: Level = "entities",
    variant: Variant = "paper",
) -> Array:
    """Hierarchical topology distillation (HTD): inside groups in full, between groups in outline.

    ``gamma * (inside + outline) + (1 - gamma) * assignment`` with the groups ``g = argmax v(t)``
    and prototypes ``P_g``, the mean of a group's entities. Inside, for anchor i: the mean over its
    group's entities j of ``(cos(s_i, s_j) - cos(t_i, t_j))^2``. Outline: the mean over groups
    g of the squared difference of ``cos(P_g, e_i)`` (``level="entities"``), or of
    ``cos(P_g, P_h)`` over all pairs of groups (``level="prototypes"``). Assignment:
    ``expert_hints`` with as many experts as groups, which trains ``v``.

    ``variant="as_released"`` has sums for all these means, so that the sum over anchors is the
    released loss; at ``level="prototypes"`` each anchor has an equal part of the outline. The
    student's prototypes are constants there, and inside a group only pairs with a positive
    ``cos(t_i, t_j)`` count.

    Source: Kang et al. 2021, "Topology Distillation for Recommender System", section 4.2.

    Args:
      student: [B, D_s], representations of entities.
      teacher: [B, D_t], likewise; the width may differ.
      where: bool [B], False for entities that do not count.
      experts: [B, G, D_t], see ``expert_hints``; None for no assignment loss.
      selection: [B, G], logits of the groups, ``v(t)``; None for a single group.
      draw: what decides the Gumbel noise, see ``expert_hints``; None for no noise.
      T: temperature of the choice, above 0.
      gamma: weight of the topology, from 0 to 1.
      level: what the groups' prototypes are compared with.
      variant: ``"paper"`` or ``"as_released"``.

    Example:
      >>> student, teacher = jnp.ones((2, 1)), jnp.array([[1.0, 0.0], [0.0, 1.0]])
      >>> hierarchical_topology(3 * teacher, teacher), hierarchical_topology(student, teacher)
      (Array([0., 0.], dtype=float32), Array([0.293, 0.293], dtype=float32))
    """
    released = check_variant(variant)
    if level not in ("entities", "prototypes"):
        raise ValueError(f"level must be 'entities' or 'prototypes', not {level!r}")
    student, teacher, mask = _pair(student, teacher, where, 2)
    groups_BG = _groups(selection, mask, student)
    together = inner_products("ag,bg->ab", groups_BG, groups_BG) > 0
    cosines_s, cosines_t = _cosines(student, student), _cosines(teacher, teacher)
    if released:
        together = together & (cosines_t > 0)
    total = _masked_sum if released else masked_mean
    inside = total((cosines_s - cosines_t) ** 2, together, axis=1)
    members_G = jnp.sum(groups_BG, axis=0)
    share_BG = groups_BG / jnp.maximum(members_G, 1)[None, :]
    fixed = jax.lax.stop_gradient(student) if released else student
    prototypes_s = inner_products("bg,bd->gd", share_BG, fixed)
    prototypes_t = inner_products("bg,bd->gd", share_BG, teacher)
    there_G = members_G > 0
    if level == "entities":
        outline = _cosines(student, prototypes_s) - _cosines(teacher, prototypes_t)
        outlines = total(outline**2, there_G[None, :] & mask[:, None], axis=1)
    else:
        pairs = there_G[:, None] & there_G[None, :]
        outline = _cosines(prototypes_s, prototypes_s) - _cosines(prototypes_t, prototypes_t)
        shared = total(outline**2, pairs, axis=(0, 1))
        if released:
            shared = shared / jnp.maximum(jnp.sum(mask, dtype=shared.dtype), 1)
        outlines = jnp.where(mask, shared, 0)
    gamma = number(gamma, student)
    values = gamma * (inside + outlines)
    if experts is None:
        return values
    assigned = expert_hints(experts, teacher, where=mask, selection=selection, draw=draw, T=T)
    if released:
        assigned = assigned * teacher.shape[-1]
    return values + (1 - gamma) * assigned.astype(values.dtype)


def _masked_sum(values: Array, where: Array, axis: int | tuple[int, ...]) -> Array:
    return jnp.sum(jnp.where(where, values, 0), axis=axis)


def _groups(selection: ArrayLike | None, mask: Array, like: Array) -> Array:
    """One-hot groups [B, G], a row of zeros where masked."""
    if selection is None:
        return mask[:, None].astype(like.dtype)
    logits = jnp.asarray(selection)
    if logits.ndim != 2 or logits.shape[0] != mask.shape[0]:
        raise ValueError(f"selection has shape {logits.shape}, expected [{mask.shape[0]}, G]")
    one_hot = jax.nn.one_hot(
        jnp.argmax(zero_masked(logits, mask), axis=-1), logits.shape[-1], dtype=like.dtype
    )
    return zero_masked(one_hot, mask)
