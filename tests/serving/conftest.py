"""A small export, and an application that serves it."""

import jax
import pytest
from served import small_export

from distill_jax.cli.main import dispatch
from distill_jax.evaluation.calibration import write_temperature
from distill_jax.models.build import load_model
from distill_jax.models.huggingface import save_pretrained
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


@pytest.fixture(scope="session")
def exports(toy_teacher, tmp_path_factory):
    """Real exports by format of a toy classifier, whose answers differ, at a temperature of 1.7."""
    folder = tmp_path_factory.mktemp("exports")
    loaded = load_model(toy_teacher)
    params = jax.tree.map(lambda x: 12 * x if x.ndim > 1 else x, loaded.params)
    model = folder / "model"
    save_pretrained(model, loaded.config, params, loaded.tokenizer_file, ("a", "b"))
    write_temperature(model, 1.7)
    formats = ("onnx", "onnx-int8")
    dispatch(["export", str(model), "--format", ",".join(formats), "--output", str(folder)])
    return {name: folder / name for name in formats}
