"""An export that is opened is the one that was written, and can be asked from anywhere."""

import shutil
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from distill_jax.core.errors import UserError
from distill_jax.export.formats import names
from distill_jax.export.opened import open_export


def arrays(rows, length, seed=0):
    rng = np.random.default_rng(seed)
    ids_BT = rng.integers(0, 17, (rows, length))
    mask_BT = (np.arange(length) < rng.integers(1, length + 1, (rows, 1))).astype(np.int64)
    return ids_BT, np.zeros_like(ids_BT), mask_BT


@pytest.mark.parametrize("format", names())
def test_any_batch_of_any_length_from_any_thread(exports, format):
    export = open_export(exports[format], threads=1)
    assert export.tokenizer_file == exports[format] / "tokenizer.json"
    shapes = [(1, 1), (3, 7), (1, 24), (5, 24)]
    alone = [export.logits(*arrays(*shape)) for shape in shapes]
    for (rows, _), logits_BC in zip(shapes, alone, strict=True):
        assert logits_BC.shape == (rows, 2) and logits_BC.dtype == np.float32
    with ThreadPoolExecutor(4) as pool:
        again = list(pool.map(lambda shape: export.logits(*arrays(*shape)), shapes * 3))
    for one, other in zip(again, alone * 3, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("format", names())
def test_a_changed_byte_in_any_file_is_refused_by_its_name(exports, format, tmp_path):
    copy = shutil.copytree(exports[format], tmp_path / "copy")
    for path in sorted(path for path in copy.rglob("*") if path.is_file()):
        before = path.read_bytes()
        middle = len(before) // 2
        path.write_bytes(before[:middle] + bytes([before[middle] ^ 1]) + before[middle + 1 :])
        with pytest.raises(UserError) as caught:
            open_export(copy)
        assert path.name in str(caught.value) and "Traceback" not in str(caught.value)
        path.unlink()
        with pytest.raises(UserError, match=path.name):
            open_export(copy)
        path.write_bytes(before)
    open_export(copy)


def test_what_is_no_export_is_refused(tmp_path, student_run):
    with pytest.raises(UserError, match="no export at"):
        open_export(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"is no export, it has no export\.json"):
        open_export(student_run)


def test_threads_are_at_least_one(exports):
    with pytest.raises(UserError, match="at least 1, not 0"):
        open_export(exports["onnx"], threads=0)


def test_no_file_of_an_export_is_a_pickle(exports):
    endings = {path.suffix for folder in exports.values() for path in folder.rglob("*.*")}
    assert endings == {".json", ".md", ".onnx", ".safetensors", ".stablehlo"}
