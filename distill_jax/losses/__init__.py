"""The loss library: pure functions of arrays, one value per example, unreduced.

Contract: ``loss(student, teacher, *, where=None, <hyperparameters>) -> per-example values``,
computed in float32 (float64 where float64 comes in), the teacher under ``stop_gradient``, finite
gradients everywhere, usable under ``jit``, ``vmap`` and ``grad``. Keywords with a float default may
be traced arrays: changing them never recompiles.
"""

from distill_jax.losses.attention import attention_kl
from distill_jax.losses.features import hidden_mse
from distill_jax.losses.logits import ce, kl, mse_logits, reverse_kl

__all__ = ["attention_kl", "ce", "hidden_mse", "kl", "mse_logits", "reverse_kl"]
