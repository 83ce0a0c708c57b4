"""Compare losses on real reviews: labels only, KL, MSE on logits, hidden states.

    make compare                              # or: python experiments/compare_losses.py
    make compare ARGS="--preset full"         # attention too, a second student, 5 seeds
    make compare ARGS="--preset controls"     # how much is a teacher, how much unlabelled text
    make compare ARGS="--preset smoke"        # the whole path in a minute or two

Run time on two CPU cores: 6 minutes (default, from an empty cache), 36 minutes (full),
under 2 (smoke, once assets are there).
Result: with 10% of the labels, a student of 2 layers and width 128 learns 67% from the labels alone
and 77% from its teacher's logits on unlabelled sentences (teacher: 80%). The tables are in
experiments/results/.
"""

import sys

from distill_jax.cli.compare import main
from distill_jax.cli.run import run

if __name__ == "__main__":
    run(lambda: main(sys.argv[1:], prog="experiments/compare_losses.py"))
