"""Imports every format, so that it is registered: a new one is one more line."""

from distill_jax.export import hf_format, onnx_format, stablehlo_format  # noqa: F401
