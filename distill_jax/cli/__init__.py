"""The command line ``distill-jax`` and what the experiment scripts share with it."""

from distill_jax.cli.main import main as main
