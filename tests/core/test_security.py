"""No code out of data: no pickle, nothing evaluated, no remote code, plugins only by name."""

import ast
import fnmatch
from pathlib import Path

import pytest

import distill_jax
from distill_jax.cli.main import dispatch
from distill_jax.core.errors import UserError
from distill_jax.models.hf_folder import _HUB_FILES
from distill_jax.objectives.grammar import parse
from distill_jax.objectives.registry import names

PACKAGE = Path(distill_jax.__file__).parent
REPOSITORY = PACKAGE.parent
MODULES = {"pickle", "_pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
MODULES |= {"jsonpickle", "torch", "yaml", "runpy", "code", "entry_points", "iter_modules"}
NAMES = {"eval", "exec", "compile", "__import__"}
METHODS = {"extractall", "unpack_archive", "system", "popen", "entry_points", "iter_modules"}
IMPORTERS = {
    "import_module": {"cli/main.py", "data/tfds_source.py"},  # of our commands, of TFDS's builders
    "spec_from_file_location": {"objectives/plugins.py"},  # of the file the user names
    "exec_module": {"objectives/plugins.py"},
}
"""What loads code by a name made at run time, and the only files that may."""


RACE = {
    "torch": {"gpu_torch.py", "steps_torch.py", "torch_model.py", "torch_table.py"},
    "runpy": {"phases.py"},
}
"""What the benchmarks import: PyTorch, which they race and load nothing with, and what runs the
script that is named on their own command line."""


FOR_OTHERS = "models/modeling_distill_jax.py"
"""Copied into folders for ``transformers``, which runs it for those who trust it; never here."""


def dangers(source: str, file: str) -> list[str]:
    """What a module does that could turn data into code; ``file`` is its path in the package."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            imported = [alias.name.partition(".")[0] for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            imported = [(node.module or "").partition(".")[0], *(a.name for a in node.names)]
        else:
            imported = []
        found += [
            name
            for name in imported
            if name in MODULES and file != FOR_OTHERS and file not in RACE.get(name, ())
        ]
        if isinstance(node, ast.Call):
            found += _in_call(node, file)
    return found


def _in_call(call: ast.Call, file: str) -> list[str]:
    function, found = call.func, []
    constants = {k.arg: k.value.value for k in call.keywords if isinstance(k.value, ast.Constant)}
    if isinstance(function, ast.Name) and function.id in NAMES:
        found.append(function.id)
    if isinstance(function, ast.Attribute):
        if function.attr in METHODS:
            found.append(function.attr)
        if file not in IMPORTERS.get(function.attr, {file}):
            found.append(function.attr)
        of_numpy = isinstance(function.value, ast.Name) and function.value.id in ("np", "numpy")
        if function.attr == "load" and of_numpy and constants.get("allow_pickle") is not False:
            found.append("np.load")
    for keyword in call.keywords:
        if keyword.arg in ("allow_pickle", "trust_remote_code", "shell") and (
            constants.get(keyword.arg, True) is not False
        ):
            found.append(keyword.arg)
    return found


def python_files() -> list[Path]:
    folders = [
        REPOSITORY / name for name in ("experiments", "tools") if (REPOSITORY / name).is_dir()
    ]
    return sorted(file for folder in (PACKAGE, *folders) for file in folder.rglob("*.py"))


@pytest.mark.parametrize("file", python_files(), ids=lambda file: str(file.relative_to(REPOSITORY)))
def test_no_data_becomes_code(file):
    name = file.relative_to(PACKAGE).as_posix() if file.is_relative_to(PACKAGE) else file.name
    assert dangers(file.read_text(encoding="utf-8"), name) == []


def test_what_is_written_for_others_is_not_run_here():
    module = FOR_OTHERS.removesuffix(".py").rpartition("/")[2]
    assert (PACKAGE / FOR_OTHERS).is_file()
    for file in sorted(PACKAGE.rglob("*.py")):
        tree = ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        imports = [node for node in tree if isinstance(node, ast.Import | ast.ImportFrom)]
        assert not any(module in ast.unparse(node) for node in imports), file


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "import pickle as p, os",
        "from joblib import load",
        "import torch.nn",
        "from importlib.metadata import entry_points",
        "import importlib.metadata\nimportlib.metadata.entry_points(group='distill_jax')",
        "import yaml",
        "eval('1')",
        "def f(): exec('1')",
        "__import__('os')",
        "import numpy as np\nnp.load('x.npy')",
        "import numpy as np\nnp.load('x.npy', allow_pickle=flag)",
        "save(x, allow_pickle=True)",
        "AutoModel.from_pretrained(x, trust_remote_code=True)",
        "AutoModel.from_pretrained(x, trust_remote_code=args.trust)",
        "subprocess.run('ls', shell=True)",
        "tarfile.open(x).extractall()",
        "importlib.import_module(name)",
        "spec.loader.exec_module(module)",
    ],
)
def test_the_look_out_sees(source):
    assert dangers(source, "models/some.py")


def test_the_look_out_lets_the_rest_pass():
    source = "import numpy as np\nnp.load(f, allow_pickle=False)\nre.compile('x')\nmodel.load(x)"
    assert dangers(source, "models/some.py") == []


@pytest.mark.parametrize(
    "name", ["modeling_bert.py", "pytorch_model.bin", "model.pt", "tokenizer.pkl", "x/setup.py"]
)
def test_the_hub_gives_no_code(name):
    assert not any(fnmatch.fnmatch(name, pattern) for pattern in _HUB_FILES)


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('touch {file}')",
        "kl(T=__import__('os').system('touch {file}'))",
        "kl(T=open('{file}', 'w'))",
        "open('{file}', 'w')*kl",
        "(lambda: open('{file}', 'w'))()*kl",
        "[open('{file}', 'w') for x in '1']",
        "kl(teachers=f\"{{open('{file}', 'w')}}\")",
        "kl(**{{'T': open('{file}', 'w')}})",
        "linear(open('{file}', 'w'), 1)*kl",
        "linear.__class__(1, 0)*kl",
        "kl.__globals__['open']('{file}', 'w')",
        "(x := open('{file}', 'w'))*kl",
        "hint(layers={{1: open('{file}', 'w')}})",
        "step({{0: open('{file}', 'w')}})*kl",
        "(await open('{file}', 'w'))*kl",
        "kl if open('{file}', 'w') else ce",
        "1*open('{file}', 'w').close",
    ],
)
def test_an_objective_calls_nothing(text, tmp_path):
    file = tmp_path / "touched"
    with pytest.raises(UserError) as told:
        parse(text.format(file=file))
    assert not file.exists()
    assert "\n" not in str(told.value)


def test_plugins_are_not_looked_for(tmp_path, monkeypatch, capsys):
    """Files with likely names, where a program could look, are not run."""
    code = f"open({str(tmp_path / 'ran')!r}, 'w')\n"
    for name in ("plugin.py", "plugins.py", "losses.py", "distill_jax_plugin.py", "conftest.py"):
        for folder in (tmp_path, tmp_path / "home", tmp_path / "home/plugins"):
            folder.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(code)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DISTILL_JAX_HOME", str(tmp_path / "home"))
    dispatch(["losses"])
    assert "kl" in capsys.readouterr().out
    assert names() and not (tmp_path / "ran").exists()


def test_only_what_the_user_names_is_loaded_as_a_plugin():
    """Every call of ``load_plugin`` takes what stands behind ``--plugin``."""
    calls = [
        (file.relative_to(PACKAGE).as_posix(), ast.unparse(node))
        for file in sorted(PACKAGE.rglob("*.py"))
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("load_plugin")
    ]
    assert calls
    allowed = {f"load_plugin({given})" for given in ("args.plugin", "self.plugin", "plugin")}
    assert {call for _, call in calls} <= allowed, calls
