"""Flags for XLA: tests compile much and compute little, so programs are compiled in haste."""

import importlib.metadata

HASTE = "--xla_backend_optimization_level=0"
if importlib.metadata.version("jaxlib").startswith("0.10."):  # later ones end at unknown flags
    HASTE += " --xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
