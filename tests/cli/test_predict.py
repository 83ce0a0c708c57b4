"""``distill-jax predict`` as people use it: arguments, files, pipes; nothing is mistaken."""

import csv
import io
import json
import shutil
import sys
import types

import pytest

from distill_jax.cli.main import dispatch
from distill_jax.core.errors import UserError
from distill_jax.evaluation import open_classifier as opening
from distill_jax.evaluation.calibration import write_temperature
from distill_jax.models.huggingface import TextInputs, load_pretrained, save_pretrained


@pytest.fixture
def predict(toy_teacher, capsys, monkeypatch):
    """(arguments, standard input) -> what was printed."""

    def ask(*arguments, stdin=b"", model=toy_teacher):
        monkeypatch.setattr(sys, "stdin", types.SimpleNamespace(buffer=io.BytesIO(stdin)))
        dispatch(["predict", str(model), *map(str, arguments)])
        return capsys.readouterr().out

    return ask


@pytest.fixture
def pairs(toy_teacher, tmp_path):
    """A model of pairs."""
    one = load_pretrained(toy_teacher)
    inputs = TextInputs(pairs=True)
    folder = tmp_path / "pairs"
    save_pretrained(folder, one.config, one.params, one.tokenizer_file, ("a", "b"), inputs)
    return folder


def test_a_line_for_every_line_whatever_stands_in_it(predict):
    printed = predict("a\tb", "two\nlines", "good")
    lines = [line.split("\t") for line in printed.splitlines()]
    assert [line[2] for line in lines] == ["a\\tb", "two\\nlines", "good"]
    assert all(len(line) == 3 for line in lines)

    printed = predict(stdin="\ufeffgood\r\n\n  \nbäd\n".encode())
    lines = [line.split("\t") for line in printed.split("\n")[:-1]]
    assert [line[2] for line in lines] == ["good", "", "  ", "bäd"]
    assert [bool(line[0]) for line in lines] == [True, False, False, True]
    with pytest.raises(UserError, match="standard input, line 2: expected UTF-8"):
        predict(stdin=b"good\nb\xe4d\n")


def test_a_csv_in_and_a_csv_out(predict, tmp_path):
    file, out = tmp_path / "in.csv", tmp_path / "out.csv"
    file.write_text('id;sentence\n7;"good; very\tgood\nfilm"\n8;\n9;bad\n')
    predict("--input", file, "--output", out)
    rows = list(csv.DictReader(io.StringIO(out.read_text(), newline="")))
    assert [row["id"] for row in rows] == ["7", "8", "9"]
    assert rows[0]["sentence"] == "good; very\tgood\nfilm"
    assert list(rows[1].values())[2:] == ["", "", "", ""]
    for row in (rows[0], rows[2]):
        each = {name: float(row[f"probability of {name}"]) for name in "ab"}
        assert sum(each.values()) == pytest.approx(1, abs=1e-5)
        assert row["predicted"] == max(each, key=each.get)
        assert float(row["probability"]) == max(each.values())


def test_jsonl_in_and_out(predict, tmp_path):
    file, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    given = [{"text": "good\nfilm", "stars": 3, "tags": ["x"]}, {"text": None, "stars": 1}]
    file.write_text("".join(json.dumps(row) + "\n" for row in given))
    predict("--input", file, "--output", out)
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [{k: row[k] for k in own} for row, own in zip(rows, given, strict=True)] == given
    assert rows[0]["probabilities"][rows[0]["predicted"]] == rows[0]["probability"]
    assert rows[1]["predicted"] is rows[1]["probabilities"] is None
    assert json.loads(predict("good", "--format", "jsonl"))["text"] == "good"


def test_a_temperature_changes_probabilities_and_no_class(predict, toy_teacher, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(toy_teacher, folder / "model")
    write_temperature(folder / "model", 0.05)

    def ask(*flags, model=folder):
        (line,) = predict("good film", *flags, model=model).splitlines()
        return line.split("\t")[:2]

    raw, calibrated = ask(model=toy_teacher), ask()
    assert raw[0] == calibrated[0] and float(raw[1]) < float(calibrated[1])
    assert ask("--temperature", "1") == raw
    assert ask("--temperature", "0.05") == ask("--temperature", "auto") == calibrated
    with pytest.raises(UserError, match="positive number or auto, not -1"):
        ask("--temperature", "-1")
    with pytest.raises(UserError, match="--temperature"):
        ask("--temperature", "warm")


def test_a_text_file_is_a_text_a_line(predict, tmp_path):
    file = tmp_path / "in.txt"
    file.write_text("good\n\nbad, bad\n")
    assert len(predict("--input", file).splitlines()) == 3


def test_pairs(predict, pairs, tmp_path):
    file = tmp_path / "in.tsv"
    file.write_text("q\tp\ngood\tfilm\nbad\tplot\n")
    of_file = predict("--input", file, "--text", "q", "--text-b", "p", model=pairs)
    assert [line.split("\t")[2:] for line in of_file.splitlines()] == [
        ["good", "film"],
        ["bad", "plot"],
    ]
    assert predict("good", "bad", "--second", "film", "plot", model=pairs) == of_file
    with pytest.raises(UserError, match="trained on pairs of texts"):
        predict("good", model=pairs)
    with pytest.raises(UserError, match="2 texts, --second has 1"):
        predict("good", "bad", "--second", "film", model=pairs)


def test_what_is_mistaken_is_refused(predict, tmp_path):
    file = tmp_path / "in.csv"
    file.write_text("a,b\nx,y\n")
    with pytest.raises(UserError, match=r"in.csv is a file or folder, not a text: --input"):
        predict(file)
    with pytest.raises(UserError, match=r"has columns a, b: which is it. --text COLUMN"):
        predict("--input", file)
    with pytest.raises(UserError, match=r"unknown column 'bb'.*Did you mean 'b'"):
        predict("--input", file, "--text", "bb")
    with pytest.raises(UserError, match="is a folder or the input"):
        predict("--input", file, "--text", "a", "--output", file)
    with pytest.raises(UserError, match=r"unknown ending of --output '.xlsx'"):
        predict("good", "--output", tmp_path / "x.xlsx")
    with pytest.raises(UserError, match="no file"):
        predict("--input", tmp_path / "none.csv")
    with pytest.raises(UserError, match="choose one"):
        predict("good", "--input", file)
    with pytest.raises(UserError, match="no texts"):
        predict(stdin=b"")
    (tmp_path / "again.csv").write_text("text,predicted\nx,y\n")
    with pytest.raises(UserError, match="has a column 'predicted', which is to be added"):
        predict("--input", tmp_path / "again.csv")
    assert file.read_text() == "a,b\nx,y\n"


def test_an_output_is_whole_or_as_it_was(predict, tmp_path, monkeypatch):
    """A fault on any line is told before the model is asked; a stop leaves no part behind."""
    file, out = tmp_path / "in.csv", tmp_path / "out.csv"
    out.write_text("before")
    file.write_text("id,text\n" + "1,good\n" * 50 + "1,good,3\n")
    monkeypatch.setattr(opening, "WINDOW", 8)
    with pytest.raises(UserError, match=r"in.csv, line 52: 3 cells; expected 2"):
        predict("--input", file, "--output", out)
    file.write_text("id,text\n" + "1,good\n" * 50)

    windows = iter([opening.Stream._answers] * 2)

    def stopped(*arguments):
        written = [path.name for path in tmp_path.iterdir() if path.name.startswith(".out.csv")]
        assert len(written) == 1
        for answers in windows:
            return answers(*arguments)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(opening.Stream, "_answers", stopped)
        with pytest.raises(KeyboardInterrupt):
            predict("--input", file, "--output", out)
    assert out.read_text() == "before"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.csv", "out.csv"]
    predict("--input", file, "--output", out)
    assert len(out.read_text().splitlines()) == 51


def test_rows_with_other_columns_stand_under_all_of_them(predict, tmp_path, monkeypatch):
    monkeypatch.setattr(opening, "WINDOW", 2)
    file, out = tmp_path / "in.jsonl", tmp_path / "out.csv"
    given = [{"text": f"good {n}"} for n in range(5)] + [{"text": "bad", "stars": 3}]
    file.write_text("".join(json.dumps(row) + "\n" for row in given))
    predict("--input", file, "--output", out)
    rows = list(csv.DictReader(io.StringIO(out.read_text())))
    assert [row["text"] for row in rows] == [row["text"] for row in given]
    assert [row["stars"] for row in rows] == [""] * 5 + ["3"]


def test_progress_of_many_rows_is_told_on_standard_error(predict, tmp_path, monkeypatch, capsys):
    file = tmp_path / "in.txt"
    file.write_text("good\n" * 40)
    monkeypatch.setattr(opening, "WINDOW", 8)
    monkeypatch.setattr("distill_jax.cli.predict.SHOWN", 40)
    monkeypatch.setattr("distill_jax.engine.progress.LINE_SECONDS", -1.0)
    told = []
    monkeypatch.setattr("rich.console.Console.print", lambda self, line: told.append(line))
    assert len(predict("--input", file).splitlines()) == 40
    assert any("/40" in line and "examples/s" in line and "left" in line for line in told)


@pytest.mark.parametrize(
    "content", [b"good\r\n\nb\xc3\xa4d", "good\n\nb\u00e4d\n".encode("utf-16")]
)
def test_lines_of_a_file_keep_their_places(predict, tmp_path, content):
    file = tmp_path / "in.txt"
    file.write_bytes(content)
    lines = [line.split("\t") for line in predict("--input", file).split("\n")[:-1]]
    assert [line[2] for line in lines] == ["good", "", "b\u00e4d"]
