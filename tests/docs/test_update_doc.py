"""docs/update.md says what is so: its commands run."""

import json
import re
import shlex
from pathlib import Path

import pytest
from newer import make_newer

from distill_jax.cli.main import dispatch
from distill_jax.cli.run import parse_flags
from distill_jax.cli.update import UpdateRun
from distill_jax.compression.update import ASKED, Update
from distill_jax.compression.update_report import REPORT
from distill_jax.core.errors import UserError

PAGE = (Path(__file__).resolve().parents[2] / "docs/update.md").read_text(encoding="utf-8")
DATA = "update.json"
SHOWN = re.findall(r"distill-jax update ([^\n]*)", PAGE)


def test_the_commands_that_it_shows_are_read():
    assert len(SHOWN) == 5
    for arguments in SHOWN:
        flags = parse_flags(UpdateRun, shlex.split(arguments), "update")
        assert flags.run in (Path("RUN"), Path("RUN/updated/runs/HASH")) and flags.data


def test_a_command_that_it_shows_runs(finished_run, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    data = make_newer(tmp_path / "NEW", {"train": 30, "test": 20})
    command = SHOWN[1].replace("RUN", str(finished_run)).replace("files:NEW", data)
    dispatch(["update", *shlex.split(command), "--output", str(tmp_path / "out"), "--steps", "3"])
    out = capsys.readouterr().out
    paths = [Path(line) for line in out.splitlines() if line.startswith(str(tmp_path))]
    assert [path.name for path in paths[:2]] == [REPORT, DATA]
    assert re.search(r"old +30 +acc", out) and re.search(r"new +20 +acc", out)
    text, at = paths[0].read_text(), json.loads(paths[1].read_text())["metrics"]
    assert "15 old ones rehearsed, the teacher was fine-tuned further" in text
    assert at["teacher/new/after"] != at["teacher/new/before"]
    assert f"{100 * at['teacher/new/after']:.1f}% on the new test (before: " in text
    dispatch(["predict", str(paths[2]), "the music is good"])
    assert capsys.readouterr().out.split("\t")[0] in ("neg", "pos")
    newer = make_newer(tmp_path / "NEWER", {"train": 10, "test": 12}, verdicts=("good", "bad"))
    command = SHOWN[4].replace("RUN/updated/runs/HASH", str(paths[2]))
    again = command.replace("files:NEWER", newer)
    dispatch(["update", *shlex.split(again), "--output", str(tmp_path / "out")])
    out = capsys.readouterr().out
    assert re.search(r"old +50 +acc", out) and re.search(r"new +12 +acc", out)
    assert "teacher was fine-tuned" not in paths[0].read_text()


def test_its_numbers_and_names_are_those_of_the_code():
    assert f"up to {ASKED:,}" in " ".join(PAGE.split())
    assert "; 1 by default" in PAGE and UpdateRun(Path(), "x").rehearse == 1.0
    assert Update(data="x").rehearse == 1.0
    assert f"`{REPORT}` and `{DATA}`" in PAGE


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--part", "1/2"), "an update has no parts"),
        (("--rehearse", "-1"), "share to rehearse"),
        ((), "data"),
    ],
)
def test_mistakes_are_told(finished_run, tmp_path, arguments, message):
    data = () if not arguments else ("--data", make_newer(tmp_path / "NEW", {"train": 8}))
    command = ["update", str(finished_run), *data, "--output", str(tmp_path / "out"), *arguments]
    with pytest.raises(UserError, match=message):
        dispatch(command)
    with pytest.raises(UserError, match="no finished run at"):
        dispatch(["update", str(tmp_path / "nowhere"), "--data", "files:x"])
