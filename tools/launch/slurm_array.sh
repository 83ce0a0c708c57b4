#!/usr/bin/env bash
# One table on many SLURM nodes: a job array, a part of the table each.
#
#   tools/launch/slurm_array.sh [--dry-run] PARTS [SBATCH_OPTION...] -- COMMAND [ARGUMENT...]
#   tools/launch/slurm_array.sh 8 --time=4:00:00 --gres=gpu:1 -- python experiments/patience.py
#
# Task I of the array runs COMMAND --part I/PARTS in the folder where this was called. A task whose
# node is lost is queued again and goes on; one that failed goes on when this is called again
# (--array=I for that one alone). All need the same DISTILL_JAX_HOME and output folder.
set -euo pipefail
# shellcheck source=tools/launch/common.sh
source "${BASH_SOURCE[0]%/*}/common.sh"

take_dry_run "$@"
parts=${rest[0]-}
[[ $parts =~ ^[1-9][0-9]{0,6}$ ]] || usage
take_command "${rest[@]:1}"

# exec: SLURM's signal before the time limit reaches the command, which saves and leaves.
job="#!/usr/bin/env bash
exec $(quoted "${command[@]}") --part \"\$SLURM_ARRAY_TASK_ID/$parts\""
submit=(sbatch --array="1-$parts" --requeue --open-mode=append --signal=B:TERM@120
  --job-name=distill_jax --output=slurm-%A_%a.out ${options[@]+"${options[@]}"})
printf '%s <<EOF\n%s\nEOF\n' "$(quoted "${submit[@]}")" "$job"
"$dry_run" || exec "${submit[@]}" <<<"$job"
