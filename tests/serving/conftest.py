"""A small export, and an application that serves it."""

import pytest
from served import small_export

from distill_jax.serving.app import create_app
from distill_jax.serving.settings import Settings


@pytest.fixture
def export_of(toy_teacher):
    """Makes a small export; keywords as of ``small_export``."""
    return lambda **options: small_export(toy_teacher / "tokenizer.json", **options)


@pytest.fixture
def app_of(export_of):
    """Makes an application; keywords are settings, or are given on."""

    def make(export=None, tokens=None, hosts=None, **settings):
        settings = Settings(**({"batch_wait_ms": 1.0} | settings))
        return create_app(export or export_of(), settings, tokens=tokens, hosts=hosts)

    return make
