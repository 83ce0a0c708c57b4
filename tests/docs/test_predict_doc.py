"""docs/predict.md says what is so."""

import re
import shlex
from pathlib import Path

from distill_jax.cli.predict import Predict
from distill_jax.cli.run import parse_flags

PAGE = (Path(__file__).resolve().parents[2] / "docs/predict.md").read_text(encoding="utf-8")


def test_the_python_that_it_shows_runs(toy_teacher, capsys):
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, flags=re.S)
    exec(code, {"FOLDER": toy_teacher})
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 and all(line[0] in "ab" for line in lines)


def test_the_commands_that_it_shows_parse():
    shown = re.findall(r"distill-jax predict ([^#\n]*)", PAGE)
    assert len(shown) == 3
    for arguments in shown:
        assert parse_flags(Predict, shlex.split(arguments), "predict").model == Path("RUN")
