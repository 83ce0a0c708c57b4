"""ONNX files, with float32 weights or with 8-bit ones, and ONNX Runtime to run them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from distill_jax.core.errors import UserError, first_line
from distill_jax.core.files import write_atomic
from distill_jax.export.formats import Format, Logits, register
from distill_jax.export.manifest import Manifest

if TYPE_CHECKING:
    from distill_jax.export.source import Source

FILE = "model.onnx"
MOST_BYTES = 2_000_000_000
"""Of weights: a protocol buffer ends at 2^31."""


def _write(source: Source, folder: Path) -> None:
    _write_model(source, folder, int8=False)


def _write_int8(source: Source, folder: Path) -> None:
    _write_model(source, folder, int8=True)


def _write_model(source: Source, folder: Path, *, int8: bool) -> None:
    from distill_jax.models.loaded import flat_arrays  # JAX: whoever only answers needs none

    try:
        from distill_jax.export.onnx_graph import onnx_model
    except ImportError as error:
        raise _missing("onnx") from error
    size = sum(array.nbytes for array in flat_arrays(source.model.params).values())
    if size > MOST_BYTES:
        raise UserError(
            f"the model has {size / 1e9:.1f} GB of weights, more than one ONNX file holds; "
            "stablehlo holds it"
        )
    model = onnx_model(source.model.config, source.model.params, int8=int8)
    write_atomic(folder / FILE, model.SerializeToString())


def open_onnx(folder: Path, manifest: Manifest, threads: int | None) -> Logits:
    """The logits of ``model.onnx``, by ONNX Runtime on the CPU."""
    try:
        import onnxruntime
    except ImportError as error:
        raise _missing("onnxruntime") from error
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads or 0
    try:
        # From its bytes: a file cannot then ask for weights in files elsewhere.
        content = (folder / FILE).read_bytes()
        session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the library's own kinds, which share no base class
        raise UserError(f"ONNX Runtime cannot load {folder / FILE}: {first_line(error)}") from error

    def logits(ids_BT: np.ndarray, types_BT: np.ndarray, mask_BT: np.ndarray) -> np.ndarray:
        inputs = {"input_ids": ids_BT, "attention_mask": mask_BT, "token_type_ids": types_BT}
        return session.run(["logits"], inputs)[0]

    return logits


def _missing(package: str) -> UserError:
    return UserError(f"ONNX needs the package {package}: pip install 'distill_jax[export]'")


_USAGE = """
```python
import numpy, onnxruntime, tokenizers

tokenizer = tokenizers.Tokenizer.from_file(FOLDER + "/tokenizer.json")
session = onnxruntime.InferenceSession(FOLDER + "/model.onnx")
tokenizer.enable_truncation({max_length})
tokenizer.enable_padding()
batch = tokenizer.encode_batch([{texts}])
inputs = {{
    "input_ids": [each.ids for each in batch],
    "attention_mask": [each.attention_mask for each in batch],
    "token_type_ids": [each.type_ids for each in batch],
}}
logits = session.run(["logits"], {{k: numpy.asarray(v) for k, v in inputs.items()}})[0]
```
"""


def _usage(source: Source) -> str:
    return _USAGE.format(max_length=source.opened.max_length, texts=source.example_texts)


ONNX = register(Format("onnx", "ONNX, float32", _write, open_onnx, _usage))
ONNX_INT8 = register(
    Format("onnx-int8", "ONNX, 8-bit weights and activations", _write_int8, open_onnx, _usage, None)
)
