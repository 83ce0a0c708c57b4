"""Knowledge distillation in JAX and Flax: from a BERT-style teacher to a small student.

Importing this package imports nothing heavy; take what you need from its rooms, for
example ``from distill_jax.losses import kl`` or ``from distill_jax.models import Bert``.
"""

__version__ = "0.1.0"
