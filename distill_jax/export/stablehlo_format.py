"""StableHLO by ``jax.export``: one program for CPU, CUDA and TPU, of any rows and tokens.

The weights lie beside it in safetensors, so that the program is small and they can be read and
compared by themselves; it takes them as a dictionary by name.
"""

from __future__ import annotations

from pathlib import Path

import jax
from jax import export
from safetensors import SafetensorError
from safetensors.numpy import load_file

from distill_jax.core.errors import UserError, first_line
from distill_jax.core.files import save_tensors, write_atomic
from distill_jax.export.formats import Format, Logits, register
from distill_jax.export.manifest import Manifest
from distill_jax.export.padded import padded
from distill_jax.export.source import Source
from distill_jax.export.trace import logits_of_tokens, symbolic_tokens
from distill_jax.models.loaded import flat_arrays

PROGRAM, WEIGHTS = "model.stablehlo", "weights.safetensors"
PLATFORMS = ("cpu", "cuda", "tpu")


def _write(source: Source, folder: Path) -> None:
    config, flat = source.model.config, flat_arrays(source.model.params)
    weights = {name: jax.ShapeDtypeStruct(x.shape, x.dtype) for name, x in flat.items()}
    program = jax.jit(logits_of_tokens(config))
    exported = export.export(program, platforms=PLATFORMS)(weights, *[symbolic_tokens(config)] * 3)
    write_atomic(folder / PROGRAM, bytes(exported.serialize()))
    save_tensors(folder / WEIGHTS, flat)


def _open(folder: Path, manifest: Manifest, threads: int | None) -> Logits:
    try:
        weights = {k: jax.numpy.asarray(x) for k, x in load_file(folder / WEIGHTS).items()}
        program = jax.jit(export.deserialize(bytearray((folder / PROGRAM).read_bytes())).call)
    except (OSError, SafetensorError, ValueError) as error:
        raise UserError(f"{folder} holds no StableHLO program: {first_line(error)}") from error
    return padded(lambda *tokens: program(weights, *tokens), manifest.max_length)


_USAGE = """
```python
import jax, numpy, tokenizers
from jax import export
from safetensors.numpy import load_file

weights = load_file(FOLDER + "/weights.safetensors")
program = jax.jit(export.deserialize(open(FOLDER + "/model.stablehlo", "rb").read()).call)
tokenizer = tokenizers.Tokenizer.from_file(FOLDER + "/tokenizer.json")
tokenizer.enable_truncation({max_length})
tokenizer.enable_padding()
batch = tokenizer.encode_batch([{texts}])
names = "ids", "attention_mask", "type_ids"
arrays = [numpy.array([getattr(each, name) for each in batch], "int32") for name in names]
logits = program(weights, *arrays)
```

It needs `jax`, `numpy`, `safetensors`, `tokenizers` and `flatbuffers`; each new shape of a batch is
compiled.
"""


def _usage(source: Source) -> str:
    return _USAGE.format(max_length=source.opened.max_length, texts=source.example_texts)


STABLEHLO = register(
    Format("stablehlo", "StableHLO for CPU, CUDA and TPU", _write, _open, _usage, compiles=True)
)
