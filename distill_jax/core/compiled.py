"""Compiled programs outlive the process: a table that goes on compiles nothing twice."""

import jax

from distill_jax.core.files import home


def keep_compiled_programs() -> None:
    """Keep XLA's programs under the home folder, unless JAX was told of another place."""
    if jax.config.values["jax_compilation_cache_dir"] is None:
        jax.config.update("jax_compilation_cache_dir", str(home() / "compiled"))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
        # Else programs are found under this very path alone: it would be part of their keys.
        jax.config.update("jax_persistent_cache_enable_xla_caches", "none")
