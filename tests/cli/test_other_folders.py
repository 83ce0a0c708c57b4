"""Whatever folder somebody names, a command answers in a sentence: no other error comes out."""

import pytest
from searches import save_towers
from shop import finished_shop

from distill_jax.cli.main import dispatch
from distill_jax.core.errors import UserError
from distill_jax.evaluation.item_catalogue import Catalogue

TEXT = "the film is good"
COMMANDS = {
    "predict": ("FOLDER", TEXT),
    "serve": ("FOLDER",),
    "bench": ("FOLDER",),
    "compress": ("FOLDER", "--steps", "prune"),
    "export": ("FOLDER", "--format", "hf"),
    "verify": ("FOLDER",),
    "update": ("FOLDER", "--data", "DATA"),
    "recommend": ("--model", "FOLDER", "--history", "i01"),
    "search": ("--model", "FOLDER", TEXT),
    "table": ("FOLDER",),
}
"""Command -> what it is asked, of a folder."""
AT_HOME = {
    "classifier": {"predict", "serve", "bench", "compress", "export", "update"},
    "recommender": {"recommend", "update"},
    "towers": {"search"},
}
"""Kind -> commands that answer about it."""
FOLDERS = (*AT_HOME, "table", "empty", "damaged", "file", "nowhere")


@pytest.fixture(scope="module")
def folders(patched, finished_run, toy_teacher, tmp_path_factory):
    """Kind -> a folder of it."""
    home = tmp_path_factory.mktemp("folders")
    save_towers(
        home / "towers", Catalogue(("p0",), (TEXT,)), toy_teacher / "tokenizer.json", shared=True
    )
    (home / "empty").mkdir()
    (home / "damaged/model").mkdir(parents=True)
    (home / "damaged/model/config.json").write_text('{"model_type": ')
    (home / "file").write_text("text,label\ngood,pos\n")
    return {
        "classifier": finished_run,
        "recommender": finished_shop(home / "shop"),
        "towers": home / "towers",
        "table": home / "shop/table",
    } | {name: home / name for name in ("empty", "damaged", "file", "nowhere")}


@pytest.mark.parametrize("kind", FOLDERS)
@pytest.mark.parametrize("command", COMMANDS)
def test_a_folder_of_something_else_is_told(command, kind, folders, toy_reviews):
    if command in AT_HOME.get(kind, ()) or (kind == "table" and command in ("recommend", "table")):
        pytest.skip("it answers")
    given = {"FOLDER": str(folders[kind]), "DATA": str(toy_reviews)}
    before = sorted(folders["empty"].parent.rglob("*"))
    with pytest.raises(UserError) as told:
        dispatch([command, *(given.get(word, word) for word in COMMANDS[command])])
    assert len(str(told.value).splitlines()) == 1
    assert sorted(folders["empty"].parent.rglob("*")) == before, "nothing is made"
