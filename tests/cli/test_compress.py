"""``distill-jax compress`` as a person meets it: a table, paths, exit codes."""

import json

import pytest

from distill_jax.cli.main import dispatch
from distill_jax.cli.run import run as run_command
from distill_jax.core.errors import UserError


@pytest.fixture
def compress(finished_run, tmp_path, capsys, monkeypatch):
    """(arguments) -> (exit code, standard output, standard error)."""
    monkeypatch.setenv("COLUMNS", "300")

    def call(*arguments):
        command = ["compress", str(finished_run), "--output", str(tmp_path / "out"), *arguments]
        code = 0
        try:
            run_command(lambda: dispatch(command))
        except SystemExit as end:
            code = end.code
        return code, *capsys.readouterr()

    return call


def test_the_table_the_report_and_the_models(compress, tmp_path, capsys):
    code, out, _ = compress("--steps", "prune(0.5) -> int8", "--max-drop", "50")
    assert code == 0
    data = json.loads((tmp_path / "out/report.json").read_text())
    paths = [line for line in out.splitlines() if line.startswith(str(tmp_path))]
    expected = [tmp_path / "out/report.md", tmp_path / "out/report.json"]
    assert paths == [*map(str, expected), *(hop["folder"] for hop in data["hops"][1:])]
    for hop in data["hops"]:
        assert any(line.startswith(f"  {hop['steps']}  ") for line in out.splitlines())
    dispatch(["predict", paths[-1], "the film is good"])
    answer = capsys.readouterr().out.split("\t")
    assert answer[0] in ("neg", "pos")


def test_a_last_hop_that_loses_too_much_ends_with_2_and_leaves_no_model(compress, tmp_path):
    code, out, told = compress("--steps", "prune(0.98)", "--max-drop", "0.5")
    assert code == 2
    (line,) = told.splitlines()
    assert line.startswith("error: prune(0.98) loses more than 0.5 points on validation: its model")
    data = json.loads((tmp_path / "out/report.json").read_text())
    hop = data["hops"][-1]
    assert hop["lost"] > 0.5 and not hop["kept"] and hop["folder"] not in out
    assert not list((tmp_path / "out").rglob("model"))


def test_mistakes_are_told_before_anything_is_made(compress, tmp_path):
    for arguments, message in (
        (("--steps", "prunne"), "unknown step 'prunne'"),
        (("--steps", "prune", "--max-drop", "-1"), "--max-drop must not be negative"),
        (("--steps", "prune", "--part", "1/2"), "a pipeline has no parts"),
        ((), "steps"),
    ):
        code, _, told = compress(*arguments)
        assert code == 2 and message in told
    assert not (tmp_path / "out").exists()


def test_a_folder_that_is_no_run_is_named(tmp_path):
    with pytest.raises(UserError, match="no finished run at"):
        dispatch(["compress", str(tmp_path / "nowhere"), "--steps", "prune"])


def test_a_run_of_another_task_is_told_before_anything_is_made(finished_run, tmp_path):
    """Whether its model says what it is, or its ledger alone."""
    ledger = (finished_run.parents[1] / "ledger.jsonl").read_text()
    rows = map(json.loads, ledger.splitlines())
    row = next(row for row in rows if row["hash"] == finished_run.name)
    run = tmp_path / "runs" / row["hash"]
    (run / "model").mkdir(parents=True)
    (run / "model/config.json").write_text('{"model_type": "bert"}')
    row["config"] = {"objective": "kl", "teacher": {"model": {}}, "model": {}}
    (tmp_path / "ledger.jsonl").write_text(json.dumps(row) + "\n")
    compress = ["compress", str(run), "--steps", "prune"]
    with pytest.raises(UserError, match="was not made as a classifier"):
        dispatch(compress)
    (run / "model/config.json").write_text('{"model_type": "distill_jax_recommender"}')
    for command in (compress, ["serve", str(run)], ["predict", str(run), "good"]):
        with pytest.raises(UserError, match=r"a recommender, which .* distill-jax recommend asks"):
            dispatch(command)
    assert not (run / "compressed").exists()
