"""Exports where this package is not: what their cards tell people to type, in other processes."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from exports import save_student
from jax import export
from safetensors.numpy import load_file
from tokenizers import Tokenizer

from distill_jax.data.tokenise import tokenise_texts
from distill_jax.export.formats import names
from distill_jax.export.opened import open_export
from distill_jax.export.parity import DRIFT, read_golden
from distill_jax.models.hf_reference import _encode, _linear

WITHOUT = """
import sys

class Barred:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("distill_jax", "flax"):
            raise ImportError(name + " is not to be had here")

sys.meta_path.insert(0, Barred())
FOLDER = sys.argv[1]
"""
ANSWERS = "\nimport json, numpy\nprint(json.dumps(numpy.asarray(logits).tolist()))\n"


def code_of(folder):
    """The Python of an export's card."""
    card = (folder / "README.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", card, flags=re.S)
    return code


def ran(code, folder, env):
    """What the code found in a process of its own, in which it cannot import this package."""
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT + code + ANSWERS, str(folder)],
        capture_output=True, text=True, timeout=300, cwd=folder, env=env,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return np.asarray(json.loads(done.stdout))


@pytest.mark.parametrize("format", ["onnx", "stablehlo"])
def test_a_card_s_code_runs_where_neither_this_package_nor_flax_is(exports, format, one_device):
    env = {key: value for key, value in one_device.items() if key != "PYTHONPATH"}
    code = code_of(exports[format])
    found_NC = ran(code, exports[format], env)
    ids = {"a text": None, "another text": None}
    assert found_NC.shape == (len(ids), 2)
    opened = open_export(exports[format])
    tokenizer = Tokenizer.from_file(str(opened.tokenizer_file))
    tokenizer.enable_padding()
    batch = tokenizer.encode_batch(list(ids))
    arrays = ("ids", "type_ids", "attention_mask")
    tokens = (np.asarray([getattr(each, name) for each in batch]) for name in arrays)
    np.testing.assert_allclose(found_NC, opened.logits(*tokens), atol=1e-5)


def test_the_loader_of_stablehlo_has_ten_lines(exports):
    lines = [line for line in code_of(exports["stablehlo"]).splitlines() if line.strip()]
    assert len([line for line in lines if not line.startswith(("tokenizer", "batch"))]) <= 10


def test_stablehlo_names_its_platforms_and_sizes(exports):
    program = export.deserialize(bytearray((exports["stablehlo"] / "model.stablehlo").read_bytes()))
    assert program.platforms == ("cpu", "cuda", "tpu")
    assert [str(dim) for dim in program.in_avals[-1].shape] == ["batch", "length"]
    weights = load_file(exports["stablehlo"] / "weights.safetensors")
    assert weights["classifier/kernel"].shape == (8, 2)


@pytest.mark.parametrize("pairs", [False, True])
@pytest.mark.parametrize("pooling", ["pooler", "mean", "cls"])
def test_an_hf_folder_has_no_code_and_no_class_that_answers_otherwise(
    pooling, pairs, toy_teacher, write_export, tmp_path
):
    """Recomputed from its files by other software's rules, in numpy."""
    run = save_student(tmp_path / "run", toy_teacher, pooling=pooling, pairs=pairs)
    folder = tmp_path / "hf"
    write_export(run, "hf", folder)
    assert not list(folder.rglob("*.py")) and "trust_remote_code" not in code_of(folder)
    golden = read_golden(folder, 2, pairs=pairs)
    texts, texts_b = golden.columns if pairs else (*golden.columns, None)
    file = open_export(folder).tokenizer_file
    table, _ = tokenise_texts(texts, file, max_length=24, texts_b=texts_b)
    batch = table.batch(np.arange(len(table)), int(table.lengths_N.max()), len(table))
    encoder = folder if pooling == "pooler" else folder / "0_Transformer"
    raw = json.loads((encoder / "config.json").read_text())
    tensors = load_file(encoder / "model.safetensors")
    if pooling != "pooler":
        assert not (folder / "config.json").exists()  # no class of transformers opens it
        assert not [name for name in tensors if name.startswith(("bert.", "classifier"))]
        tensors = {f"bert.{name}": array for name, array in tensors.items()}
        assert not tensors["bert.pooler.dense.weight"].any()
    tokens = batch.input_ids_BT, batch.token_type_ids_BT, batch.where_BT
    hidden_BTD = _encode(raw, tensors, "bert", *tokens)
    if pooling == "pooler":
        pooled_BD = np.tanh(_linear(tensors, "bert.pooler.dense", hidden_BTD[:, 0]))
        said = _linear(tensors, "classifier", pooled_BD)
    else:
        modes = json.loads((folder / "1_Pooling/config.json").read_text())
        where_BT1 = batch.where_BT[..., None].astype(np.float32)
        by_mode = {
            "pooling_mode_mean_tokens": (hidden_BTD * where_BT1).sum(1) / where_BT1.sum(1),
            "pooling_mode_cls_token": hidden_BTD[:, 0],
        }
        (chosen,) = (by_mode[name] for name, on in modes.items() if on is True)
        dense = load_file(folder / "2_Dense/model.safetensors")
        shape = json.loads((folder / "2_Dense/config.json").read_text())
        assert shape["activation_function"] == "torch.nn.modules.linear.Identity"
        assert (shape["in_features"], shape["out_features"], shape["bias"]) == (8, 2, True)
        said = chosen @ dense["linear.weight"].T + dense["linear.bias"]
    np.testing.assert_allclose(said, golden.source_NC, atol=1e-4)


@pytest.mark.parametrize("pooling", ["pooler", "mean"])
def test_torch_loads_an_hf_folder_without_missing_or_unexpected_keys(
    pooling, toy_teacher, write_export, tmp_path
):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    run = save_student(tmp_path / "run", toy_teacher, pooling=pooling)
    folder = tmp_path / "hf"
    write_export(run, "hf", folder)
    golden = read_golden(folder, 2, pairs=False)
    kind = transformers.AutoModelForSequenceClassification
    encoder = folder
    if pooling != "pooler":
        with pytest.raises((OSError, ValueError)):
            kind.from_pretrained(folder)
        kind, encoder = transformers.AutoModel, folder / "0_Transformer"
    model, report = kind.from_pretrained(encoder, output_loading_info=True)
    assert not any(report[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    tokenizer = transformers.AutoTokenizer.from_pretrained(encoder)
    inputs = tokenizer(list(golden.columns[0]), truncation=True, padding=True, return_tensors="pt")
    with torch.no_grad():
        output = model.eval()(**inputs)
    if pooling == "pooler":
        logits_NC = output.logits.numpy()
    else:
        dense = load_file(folder / "2_Dense/model.safetensors")
        where = inputs["attention_mask"][..., None]
        pooled = ((output.last_hidden_state * where).sum(1) / where.sum(1)).numpy()
        logits_NC = pooled @ dense["linear.weight"].T + dense["linear.bias"]
    np.testing.assert_allclose(logits_NC, golden.source_NC, atol=1e-4)


@pytest.mark.parametrize("pairs", [False, True])
def test_sentence_transformers_give_the_logits(pairs, toy_teacher, write_export, tmp_path):
    sentence_transformers = pytest.importorskip("sentence_transformers")
    run = save_student(tmp_path / "run", toy_teacher, pairs=pairs)
    write_export(run, "hf", tmp_path / "hf")
    golden = read_golden(tmp_path / "hf", 2, pairs=pairs)
    texts = list(zip(*golden.columns, strict=True)) if pairs else list(golden.columns[0])
    logits_NC = sentence_transformers.SentenceTransformer(str(tmp_path / "hf")).encode(texts)
    np.testing.assert_allclose(logits_NC, golden.source_NC, atol=1e-4)


IN_JAVASCRIPT = """
import fs from "fs";
import { createRequire } from "module";
const ort = createRequire(process.argv[3] + "/package.json")("onnxruntime-web");
ort.env.wasm.numThreads = 1;
const asked = JSON.parse(fs.readFileSync(process.argv[2] + "/asked.json"));
const model = fs.readFileSync(process.argv[2] + "/model.onnx");
const session = await ort.InferenceSession.create(model, { executionProviders: ["wasm"] });
const tensor = (rows) => new ort.Tensor(
  "int64", BigInt64Array.from(rows.flat().map(BigInt)), [rows.length, rows[0].length]);
const inputs = Object.fromEntries(
  Object.entries(asked).map(([name, rows]) => [name, tensor(rows)]));
console.log(JSON.stringify(Array.from((await session.run(inputs)).logits.data)));
"""


@pytest.mark.parametrize("format", ["onnx", "onnx-int8"])
def test_onnx_runs_in_javascript(exports, format, tmp_path):
    """In ONNX Runtime's build for WebAssembly, where ``DISTILL_JAX_NODE_MODULES`` has it."""
    modules, node = os.environ.get("DISTILL_JAX_NODE_MODULES"), shutil.which("node")
    if not modules or node is None or not (Path(modules) / "onnxruntime-web").is_dir():
        pytest.skip("no node, or no onnxruntime-web in $DISTILL_JAX_NODE_MODULES")
    opened, golden = open_export(exports[format]), read_golden(exports[format], 2, pairs=False)
    table, _ = tokenise_texts(golden.columns[0], opened.tokenizer_file, max_length=24)
    batch = table.batch(np.arange(len(table)), 24, len(table))
    asked = {
        "input_ids": batch.input_ids_BT.tolist(),
        "attention_mask": batch.where_BT.astype(int).tolist(),
        "token_type_ids": batch.token_type_ids_BT.tolist(),
    }
    (tmp_path / "asked.json").write_text(json.dumps(asked))
    (tmp_path / "run.mjs").write_text(IN_JAVASCRIPT)
    shutil.copyfile(exports[format] / "model.onnx", tmp_path / "model.onnx")
    done = subprocess.run(
        [node, str(tmp_path / "run.mjs"), str(tmp_path), modules],
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    said_NC = np.reshape(json.loads(done.stdout.splitlines()[-1]), golden.export_NC.shape)
    np.testing.assert_allclose(said_NC, golden.export_NC, atol=1e-4 if format == "onnx" else DRIFT)


def test_every_format_has_a_card_with_its_way(exports):
    for format in names():
        card = (exports[format] / "README.md").read_text(encoding="utf-8")
        assert "## Use" in card and "distill-jax verify" in card
        assert code_of(exports[format])
