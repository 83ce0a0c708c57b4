"""distill-jax pretrain: a folder that teaches, written once, and the words around it."""

import json

import pytest
from language_tables import on_one_device, write_texts

from distill_jax.cli.main import dispatch
from distill_jax.cli.pretrain import RUN, Pretrain, keep, sweep_of
from distill_jax.core.errors import UserError
from distill_jax.models.huggingface import load_pretrained


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    """The folder, and the arguments that made it."""
    folder = tmp_path_factory.mktemp("pretrain")
    texts = write_texts(folder / "shop", 200)
    arguments = [
        "pretrain", "--data", f"text:{texts}", "--vocab-size", "80", "--size", "1x8x2",
        "--steps", "2", "--max-length", "16", "--evaluations", "1", "--track", "none",
        "--output-dir", str(folder / "results"), "--output", str(folder / "shop-bert"),
    ]  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DISTILL_JAX_HOME", str(tmp_path_factory.mktemp("home")))
        on_one_device(patch)
        dispatch(arguments)
        yield folder, arguments


def test_the_folder_is_a_teacher_with_its_tokeniser(pretrained):
    folder, _ = pretrained
    loaded = load_pretrained(folder / "shop-bert")
    assert loaded.config.hidden_size == 8 and loaded.config.vocab_size <= 80
    said = json.loads((folder / "shop-bert" / RUN).read_text())
    assert said["test/nll"] > 0 and (folder / "results/runs" / said["run"] / "model").is_dir()


def test_the_same_command_again_does_nothing_new(pretrained, capsys):
    folder, arguments = pretrained
    before = (folder / "shop-bert/model.safetensors").stat().st_mtime_ns
    dispatch(arguments)
    assert "1 of 1 runs are finished already" in capsys.readouterr().out
    assert (folder / "shop-bert/model.safetensors").stat().st_mtime_ns == before


def test_the_ledger_shows_it(pretrained, capsys):
    folder, _ = pretrained
    dispatch(["ledger", str(folder / "results")])
    assert "test perplexity" in capsys.readouterr().out


def test_nothing_that_is_there_is_written_over(pretrained, tmp_path):
    folder, _ = pretrained
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/notes.txt").write_text("mine")
    for output, message in (
        (tmp_path / "mine", "is not empty"),
        (tmp_path / "mine/notes.txt", "is a file"),
    ):
        with pytest.raises(UserError, match=message):
            dispatch(["pretrain", "--output", str(output)])
    with pytest.raises(UserError, match="holds the model of another run"):
        keep(folder / "results", folder / "shop-bert", "other", {})


def test_flags_become_a_cell(tmp_path):
    plain = sweep_of(Pretrain(output=tmp_path))
    assert plain.base.objective == "ce" and plain.base.setup.asks == "masked"
    heard = sweep_of(Pretrain(output=tmp_path, teacher="a", start="b", causal=True))
    assert heard.base.objective == "kl + ce" and heard.base.setup.asks == "next"
    assert heard.base.setup.start == "b" and heard.groups[0].label == "from b"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"start": "a", "size": "2x128"}, "--size has no meaning with --from"),
        ({"start": "a", "vocab_size": 500}, "--vocab-size has no meaning with --from"),
        ({"teacher": "a", "lowercase": False}, "--lowercase has no meaning with --teacher"),
        ({"causal": True, "mask_share": 0.3}, "--mask-share has no meaning with --causal"),
        ({"causal": True, "words": "spaces"}, "--words has no meaning with --causal"),
    ],
)
def test_flags_that_nothing_would_read_are_refused(tmp_path, flags, message):
    with pytest.raises(UserError, match=message):
        sweep_of(Pretrain(output=tmp_path, **flags))
