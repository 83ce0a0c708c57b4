"""Flags for XLA: tests compile much and compute little, so programs are compiled in haste."""

import importlib.metadata

HASTE = "--xla_backend_optimization_level=0"
if importlib.metadata.version("jaxlib").startswith("0.10."):  # later ones end at unknown flags
    HASTE += " --xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"


def quick_options():
    """Compiler options for programs that run once or twice, whose time goes into compiling."""
    import jax

    options = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
    for wanted in ({"xla_cpu_use_fusion_emitters": False}, {}):  # newer releases have lost it
        try:
            jax.jit(lambda x: x, compiler_options=options | wanted)(0.0)
        except jax.errors.JaxRuntimeError:
            continue
        return options | wanted
    return {}
