"""Where each format is registered: a new one is one more line.

A module is imported when its format is asked for, so that what needs no JAX is opened without it.
"""

MODULES = {
    "hf": "hf_format",
    "onnx": "onnx_format",
    "onnx-int8": "onnx_format",
    "stablehlo": "stablehlo_format",
}
"""Format -> the module of this package that registers it."""
