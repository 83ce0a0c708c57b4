"""The published recipes for SST-2: what they are, what they cost here, what is missing for them.

    python experiments/glue_published.py --plan               # times a few steps of every recipe
    python experiments/glue_published.py --plan --no-measure  # at once

Nothing is trained or downloaded. The recipes, with the sources of every setting, are in
distill_jax/sweeps/recipes.py; the published scores in distill_jax/sweeps/published_numbers/.
"""

import sys

from distill_jax.cli.glue import main
from distill_jax.cli.run import run

if __name__ == "__main__":
    run(lambda: main(sys.argv[1:], prog="experiments/glue_published.py"))
