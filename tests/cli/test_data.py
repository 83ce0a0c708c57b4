"""``distill-jax data`` shows a data set and refuses what training would refuse, in its words."""

import io

import pytest
from rich.console import Console

from distill_jax.cli.compare import parse_arguments, sweep_of
from distill_jax.cli.main import dispatch
from distill_jax.core.errors import UserError
from distill_jax.engine.progress import Reporter
from distill_jax.engine.run import run_table
from distill_jax.tasks.classification.table import Classification

GOOD = {
    "train.csv": "sentence,label\n" + "".join(f"the film {n},{'ab'[n % 2]}\n" for n in range(40)),
    "dev.csv": "sentence,label\nthe plot,a\nthe cast,b\n",
    "test.csv": "sentence,label\nthe music,a\nbad music,b\n",
}
LONG = "sentence,label\n" + "film " * 60 + ",a\nbad,b\n"
LEAK = "id,sentence,label\n" + "".join(f"{n},the film {n},{'ab'[n % 2]}\n" for n in range(40))
REFUSED = {
    "no folder": ({}, []),
    "a column": (GOOD, ["--label", "lable"]),
    "numbers": ({**GOOD, "train.csv": "sentence,label\nx,0.5\ny,1\n"}, []),
    "another label": ({**GOOD, "dev.csv": "sentence,label\nx,c\n"}, []),
    "no labels of test": ({**GOOD, "test.csv": "sentence,label\nx,a\ny,\n"}, []),
    "a leak": ({**GOOD, "train.csv": LEAK, "test.csv": LEAK}, []),
    "a fraction": (GOOD, ["--label-fraction", "0"]),
    "a length": (GOOD, ["--max-length", "3"]),
    "positions": ({**GOOD, "dev.csv": LONG}, ["--max-length", "64"]),
    "a teacher": (GOOD, ["--teacher", "/no/such/teacher"]),
    "other classes": (
        {name: text.replace(",a\n", ",c\n") for name, text in GOOD.items()},
        ["--no-fine-tune"],
    ),
}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """(name -> content) -> ``files:FOLDER``."""
    monkeypatch.setenv("DISTILL_JAX_HOME", str(tmp_path / "home"))

    def write(contents):
        for name, text in contents.items():
            (tmp_path / "data").mkdir(exist_ok=True)
            (tmp_path / "data" / name).write_text(text)
        return f"files:{tmp_path / 'data'}"

    return write


@pytest.mark.parametrize("case", REFUSED)
def test_what_training_refuses_is_refused_in_the_same_words(folder, toy_teacher, tmp_path, case):
    contents, arguments = REFUSED[case]
    given = [] if "--teacher" in arguments else ["--teacher", str(toy_teacher)]
    data = folder(contents)
    with pytest.raises(UserError) as training:
        sweep = sweep_of(parse_arguments(["--data", data, *given, *arguments], "test"))
        run_table(Classification(sweep), tmp_path / "out", Reporter(Console(file=io.StringIO())))
    with pytest.raises(UserError) as looking:
        dispatch(["data", data, *given, *arguments])
    assert str(looking.value) == str(training.value)


def test_what_is_good_is_shown_and_passes(folder, toy_teacher, capsys):
    data = folder({**GOOD, "notes.md": "", "dev.csv": GOOD["dev.csv"].replace(",", ";")})
    dispatch(["data", data, "--teacher", str(toy_teacher), "--examples", "1"])
    told = capsys.readouterr().out
    assert f"{data}: classes a, b; digest " in told
    assert "note: files not used: notes.md\n" in told
    assert "note: dev.csv: cells are separated by semicolons\n" in told
    assert "  train: 40 examples (20 a, 20 b)\n" in told and told.count("a: the film 0") == 1
    assert "40 training examples, all of them labelled" in told
    assert "texts cut at 128 tokens: train 0.0%, validation 0.0%, test 0.0%; tokens that" in told
    assert "warning: 33% of the train tokens are [UNK]" in told
    assert told.endswith(f"all checks of training passed (teacher {toy_teacher})\n")


INTERACTIONS = "userId,movieId,timestamp\n" + "".join(
    f"u{user},m{(user + item) % 5},{964982703 + 60 * item}\n"
    for user in range(4)
    for item in range(4)
)


@pytest.mark.parametrize("names", [("interactions.csv",), ("train.csv", "dev.csv", "test.csv")])
def test_of_interactions_it_shows_what_a_recommender_would_learn_from(folder, capsys, names):
    data = folder(dict.fromkeys(names, INTERACTIONS))
    if len(names) == 1:
        dispatch(["data", data, "--examples", "1"])
        told = capsys.readouterr().out
        assert "4 users, 5 items, 16 interactions" in told and "protocol: leave-one-out" in told
        assert "note: times from 2000-07-30" in told and "test: 4 items are asked for" in told
        assert "    u0  ... m0; m1; m2; m3\n" in told and "u1" not in told
    else:  # the same rows in all three
        with pytest.raises(UserError, match="16 validation and 16 test interactions are among the"):
            dispatch(["data", data])


def test_interactions_with_columns_of_other_names(folder, capsys):
    text = INTERACTIONS.replace("userId,movieId", "who,what")
    dispatch(["data", folder({"interactions.csv": text}), "--columns", "user=who,item=what"])
    assert "4 users, 5 items, 16 interactions" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("file", "header", "told"),
    [
        ("", "userId,movieId,timestamp", "a file of another name is given itself, files:FOLDER"),
        ("/ratings.csv", "who,what,when", "expected a user and an item, or --columns"),
        ("/ratings.csv", None, "holds no names of columns; put a header line in front"),
    ],
)
def test_interactions_in_a_file_of_another_name(folder, file, header, told):
    _, rows = INTERACTIONS.split("\n", 1)
    text = f"{header}\n{rows}" if header else rows.replace("u", "").replace("m", "")
    with pytest.raises(UserError, match=told):
        dispatch(["data", folder({"ratings.csv": text}) + file])
