"""docs/export.md says what is so."""

import re
import shlex
from pathlib import Path

import numpy as np

from distill_jax.cli.export import Export
from distill_jax.cli.predict import Predict
from distill_jax.cli.run import parse_flags
from distill_jax.cli.verify import Verify
from distill_jax.export.formats import names
from distill_jax.export.probes import PROBES
from distill_jax.export.write import formats_asked

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/export.md").read_text(encoding="utf-8")
SOURCES = "".join(
    path.read_text(encoding="utf-8") for path in (ROOT / "distill_jax/export").glob("*.py")
)


def test_the_python_that_it_shows_runs(exports, capsys):
    shown = dict(re.findall(r"```python ?(\w*)\n(.*?)```", PAGE, flags=re.S))
    assert set(shown) == {"onnx", "stablehlo", ""}
    said = {}
    for format in ("onnx", "stablehlo"):
        here = {"FOLDER": str(exports[format])}
        exec(shown[format], here)
        said[format] = np.asarray(here["logits"])
        card = (exports[format] / "README.md").read_text(encoding="utf-8")
        assert shown[format] in card
    np.testing.assert_allclose(said["onnx"], said["stablehlo"], atol=1e-5)
    exec(shown[""], {"FOLDER": str(exports["onnx"])})
    assert capsys.readouterr().out == "onnx ('good', 'bad') 24\n"


def test_the_commands_that_it_shows_parse():
    kinds = {"export": Export, "predict": Predict, "verify": Verify}
    shown = re.findall(r"^    distill-jax (\w+) ([^#\n]*)", PAGE, flags=re.M)
    parsed = [parse_flags(kinds[name], shlex.split(rest), name) for name, rest in shown]
    assert len(parsed) == 5
    asked = [formats_asked(each.format) for each in parsed if isinstance(each, Export)]
    assert {format.name for each in asked for format in each} == set(names())


def test_it_names_every_format_and_file(exports):
    rows = re.findall(r"^\| `([\w-]+)` \| (.*?) \|", PAGE, flags=re.M)
    assert [name for name, _ in rows] == list(names())
    for format, files in rows:
        for file in re.findall(r"`([\w.]+)`", files):
            assert list(exports[format].rglob(file)), file
    for folder in exports.values():
        for file in ("tokenizer.json", "README.md", "export.json", "golden.json"):
            assert (folder / file).is_file() and f"`{file}`" in PAGE
    assert f"about {len(PROBES)} texts\nof ours" in PAGE


def test_its_numbers_are_the_defaults():
    assert f"validation ({Export(Path('run')).max_drop})" in PAGE
    from distill_jax.export.formats import format_named

    tolerances = {name: format_named(name).tolerance for name in names()}
    assert tolerances == {"hf": 1e-4, "onnx": 1e-4, "onnx-int8": None, "stablehlo": 1e-4}
    assert "within 1e-4" in PAGE


def test_the_messages_that_it_explains_are_messages():
    table = PAGE.partition("| what you see |")[2]
    code = re.sub(r'"\s*\n\s*f?"', "", SOURCES)
    quoted = re.findall(r"^\| `([^`]+)` \|", table, flags=re.M)
    assert len(quoted) == 6
    for message in quoted:
        assert message in code, message
