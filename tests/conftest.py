"""Every test runs on 8 simulated CPU devices, with strict dtype and rank promotion."""

import os

os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
).strip()
os.environ["JAX_PLATFORMS"] = "cpu"

import jax
import pytest
from hypothesis import settings

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")

settings.register_profile("suite", deadline=None, max_examples=25, derandomize=True)
settings.load_profile("suite")


@pytest.fixture(autouse=True)
def own_home(tmp_path_factory, monkeypatch):
    """Nothing a test prepares lands in the user's cache; assets are shared over the session."""
    if "DISTILL_JAX_HOME" not in os.environ:
        shared = tmp_path_factory.getbasetemp().parent / "distill_jax_home"
        monkeypatch.setenv("DISTILL_JAX_HOME", str(shared))
