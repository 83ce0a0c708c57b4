"""``distill-jax export`` and ``verify`` as people type them; what went wrong is one line."""

import shutil

import pytest
from exports import save_student

from distill_jax.cli.main import dispatch, usage
from distill_jax.core.errors import UserError
from distill_jax.evaluation.open_classifier import open_classifier


@pytest.fixture
def command(capsys):
    """(arguments) -> what was printed."""

    def ask(*arguments):
        dispatch(list(map(str, arguments)))
        return capsys.readouterr().out

    return ask


def test_from_a_run_to_an_answer(student_run, command, tmp_path):
    run = shutil.copytree(student_run, tmp_path / "run")
    said = command("export", run, "--format", "onnx,onnx-int8")
    assert [line.split(" (")[0] for line in said.splitlines()] == [
        f"onnx: {run}/export/onnx", f"onnx-int8: {run}/export/onnx-int8",
    ]  # fmt: skip
    assert "within" in said and "on 16 sentences" in said
    texts = ["the film is good", "bad", "very not music"]
    expected = [answer.label for answer in open_classifier(run).classify(texts)]
    for format in ("onnx", "onnx-int8"):
        folder = run / "export" / format
        said = command("predict", folder, *texts)
        assert [line.split("\t")[0] for line in said.splitlines()] == expected
        assert command("verify", folder).splitlines()[-1] == f"{folder} is what it was made to be"


def test_predict_reads_and_writes_files_with_an_export(exports, command, tmp_path):
    (tmp_path / "in.csv").write_text("sentence\nthe film is good\n\nbad\n")
    answers = {}
    for format, folder in exports.items():
        command("predict", folder, "--input", tmp_path / "in.csv", "--output", tmp_path / "out.csv")
        answers[format] = (tmp_path / "out.csv").read_text()
    head, *rows = answers["onnx"].splitlines()
    assert head == "sentence,predicted,probability,probability of good,probability of bad"
    assert len(rows) == 3 or len(rows) == 2
    classes = {
        format: [row.split(",")[1] for row in said.splitlines()] for format, said in answers.items()
    }
    assert len({tuple(each) for each in classes.values()}) == 1
    cut = command("predict", exports["onnx"], "--max-length", 4, "--temperature", 1, "film is good")
    assert cut != command("predict", exports["onnx"], "--temperature", 1, "film is good")


def test_verify_on_a_file_of_one_s_own(student_run, exports, command, tmp_path):
    file = tmp_path / "mine.csv"
    file.write_text("note,sentence\n1,the film is good\n2,\n3,bad\n")
    said = command("verify", exports["onnx"], "--run", student_run, "--input", file)
    assert "on your texts: 2 sentences, logits within" in said
    lines = tmp_path / "mine.txt"
    lines.write_text("good\nbad\nthe plot\n")
    said = command("verify", exports["onnx"], "--run", student_run, "--input", lines)
    assert "on your texts: 3 sentences" in said
    with pytest.raises(UserError, match="no file"):
        command("verify", exports["onnx"], "--input", tmp_path / "none.csv")


def test_slips_are_told_in_one_line(student_run, exports, command, toy_teacher, tmp_path):
    def said(*arguments):
        with pytest.raises(UserError) as caught:
            command(*arguments)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert "Did you mean 'stablehlo'?" in said("export", student_run, "--format", "stable-hlo")
    assert "no run at" in said("export", tmp_path / "none")
    assert "is no export" in said("verify", tmp_path / "none")
    assert "is no export" in said("verify", student_run)
    assert "is not empty" in said("export", student_run, "--output", exports["onnx"])
    assert "All flags: distill-jax export --help" in said("export", student_run, "--formats", "hf")
    broken = shutil.copytree(exports["onnx"], tmp_path / "broken")
    (broken / "tokenizer.json").write_bytes(b"{}")
    assert "tokenizer.json has changed since" in said("verify", broken)
    assert "tokenizer.json has changed since" in said("predict", broken, "good")
    pairs = save_student(tmp_path / "pairs", toy_teacher, pairs=True)
    command("export", pairs)
    assert "trained on pairs" in said("predict", pairs / "export/onnx", "good")


def test_both_are_in_the_list_of_commands():
    assert "  export " in usage() and "  verify " in usage()
