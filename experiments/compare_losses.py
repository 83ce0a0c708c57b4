"""Compare losses on real reviews: labels only, KL, MSE on logits, hidden states.

    make compare                              # or: python experiments/compare_losses.py
    make compare ARGS="--preset full"         # attention too, a second student, 5 seeds
    make compare ARGS="--preset smoke"        # the whole path in a minute or two

Run time: TODO
Result: TODO
"""

import sys

from distill_jax.cli.compare import main
from distill_jax.cli.run import run

if __name__ == "__main__":
    run(lambda: main(sys.argv[1:], prog="experiments/compare_losses.py"))
