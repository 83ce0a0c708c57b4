"""``distill-jax cache`` from a person's side."""

import json
import shutil

import numpy as np
import pytest

from distill_jax.cli.cache import UNCHECKED
from distill_jax.cli.main import dispatch
from distill_jax.core.errors import UserError
from distill_jax.core.types import Capture
from distill_jax.models.build import build_model
from distill_jax.tasks.classification.cache_origin import origin_of
from distill_jax.tasks.classification.cells import DataConfig
from distill_jax.tasks.classification.models import load_checkpoint
from distill_jax.tasks.classification.splits import load_texts, prepare_texts
from distill_jax.teachers.cache import Provenance, cache_folder, teacher_outputs
from distill_jax.teachers.live import LiveTeacher

CAPTURE = Capture(hidden_states=(0, 2), attention_probs=(1,))


@pytest.fixture(scope="module")
def pristine(toy_teacher, toy_reviews, tmp_path_factory):
    """A home with one cache of four shards, and its provenance."""
    root = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DISTILL_JAX_HOME", str(root))
        data = DataConfig(name=f"files:{toy_reviews}")
        checkpoint = load_checkpoint(str(toy_teacher), num_labels=2, fresh=False)
        task = prepare_texts(data, load_texts(data), checkpoint.tokenizer_file)
    table = task.everything
    unlabelled = table.without_labels(np.arange(len(table)))
    provenance = Provenance(checkpoint.digest, unlabelled.digest, CAPTURE, "bfloat16")
    teacher = LiveTeacher(build_model(checkpoint.config), checkpoint.params, CAPTURE)
    origin = origin_of(str(toy_teacher), None, task)
    teacher_outputs(root, provenance, table, teacher, shard_examples=16, origin=origin)
    return root, provenance


@pytest.fixture
def cache(pristine, tmp_path, monkeypatch):
    """The folder of a cache that may be damaged."""
    root, provenance = pristine
    shutil.copytree(root, tmp_path / "home")
    monkeypatch.setenv("DISTILL_JAX_HOME", str(tmp_path / "home"))
    return cache_folder(tmp_path / "home", provenance)


def shard(folder, number):
    (path,) = folder.glob(f"shard-{number:05d}-*")
    return path


def test_list_says_what_there_is(cache, capsys, toy_teacher, toy_reviews):
    dispatch(["cache", "list"])
    line, summary = capsys.readouterr().out.splitlines()
    for fact in (
        cache.name,
        "MB",
        "  whole  ",
        str(toy_teacher),
        f"files:{toy_reviews}",
        "60 examples",
        "hidden_states 0,2 in bfloat16",
        "attention_probs 1 in bfloat16",
    ):
        assert fact in line
    assert summary.startswith("1 teacher caches in ")


def test_list_says_what_is_not_whole(cache, capsys):
    shard(cache, 1).unlink()
    for name, content in (("0000aaaa", "{"), ("0000bbbb", None)):
        (cache.parent / name).mkdir()
        if content:
            (cache.parent / name / "cache.json").write_text(content)
    (cache.parent / "0000cccc").mkdir()
    (cache.parent / "0000cccc" / "manifest.json").write_text("{}")
    dispatch(["cache", "list"])
    broken, empty, old, part, summary = capsys.readouterr().out.splitlines()
    assert "3 of 4 shards" in part
    assert "cannot be used" in broken and "cannot be used" in empty
    assert "older format" in old
    assert summary.startswith("4 teacher caches")


def test_list_of_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("DISTILL_JAX_HOME", str(tmp_path))
    dispatch(["cache", "list"])
    assert capsys.readouterr().out.startswith("0 teacher caches")


@pytest.mark.parametrize("by", ["folder", "digest", "beginning"])
def test_verify_finds_all_well(cache, capsys, by):
    name = {"folder": str(cache), "digest": cache.name, "beginning": cache.name[:6]}[by]
    dispatch(["cache", "verify", name, "--sample", "7"])
    told = capsys.readouterr().out
    assert "all 4 shards have the digest" in told
    assert "hidden_states/2: largest difference" in told
    assert "7 of 60 examples: the teacher says the same" in told


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:-1]), "damaged: shard 2"),
        (lambda path: path.unlink(), "missing: shard 2"),
    ],
)
def test_verify_finds_damage(cache, damage, told):
    damage(shard(cache, 2))
    with pytest.raises(UserError, match=told) as error:
        dispatch(["cache", "verify", cache.name, "--sample", "0"])
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["cache.json", "examples.json"])
def test_verify_finds_a_damaged_description(cache, name):
    (cache / name).write_text("{}")
    with pytest.raises(UserError, match=name):
        dispatch(["cache", "verify", str(cache)])


def test_verify_finds_a_teacher_that_says_something_else(
    cache, toy_teacher, toy_reviews, pristine, monkeypatch
):
    """Whole by its digests, but made of lies."""
    _, provenance = pristine
    original = json.loads((cache / "cache.json").read_text())["origin"]
    checkpoint = load_checkpoint(str(toy_teacher), num_labels=2, fresh=False)
    data = DataConfig(name=f"files:{toy_reviews}")
    table = prepare_texts(data, load_texts(data), checkpoint.tokenizer_file).everything
    honest = LiveTeacher(build_model(checkpoint.config), checkpoint.params, CAPTURE)

    def lying(batch):
        said = honest(batch)
        return said.replace(hidden_states={k: v * 1.1 for k, v in said.hidden_states.items()})

    shutil.rmtree(cache)
    teacher_outputs(cache.parents[1], provenance, table, lying, origin=original)
    with pytest.raises(UserError, match=r"hidden_states/\d differs by"):
        dispatch(["cache", "verify", cache.name])
    dispatch(["cache", "verify", cache.name, "--sample", "0"])


def test_verify_without_the_teacher_checks_digests_and_says_so(pristine, cache, capsys):
    _, provenance = pristine
    manifest = json.loads((cache / "cache.json").read_text())
    name = manifest["origin"]["data"]["name"]
    (cache / "cache.json").unlink()
    from distill_jax.teachers.manifest import Manifest, write_manifest

    origin = {**manifest["origin"], "data": {**manifest["origin"]["data"], "name": name + "-gone"}}
    write_manifest(cache, Manifest(provenance, 60, 16, manifest["index"], origin))
    with pytest.raises(SystemExit) as end:
        dispatch(["cache", "verify", cache.name])
    assert end.value.code == UNCHECKED
    told = capsys.readouterr()
    assert "all 4 shards have the digest" in told.out
    assert "digests only, the teacher was not asked" in told.err
    assert told.err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["verfiy"], "Did you mean 'verify'"),
        (["verify", "ffffffff"], "no teacher cache 'ffffffff'"),
        (["verify", "x", "--sample", "-1"], "must not be negative"),
        (["verify"], "required"),
        (["list", "--everything"], "everything"),
    ],
)
def test_mistakes_are_said_in_one_line(cache, arguments, told):
    with pytest.raises(UserError, match=told) as error:
        dispatch(["cache", *arguments])
    assert "\n" not in str(error.value)


def test_the_beginning_of_two_digests_is_refused(cache):
    shutil.copytree(cache, cache.with_name(cache.name[:-1] + "z"))
    with pytest.raises(UserError, match="2 teacher caches"):
        dispatch(["cache", "verify", cache.name[:4]])


@pytest.mark.parametrize("command", ["list", "verify"])
def test_help_of_its_commands(command, capsys):
    with pytest.raises(SystemExit) as end:
        dispatch(["cache", command, "--help"])
    assert not end.value.code
    assert f"distill-jax cache {command}" in capsys.readouterr().out
