#!/usr/bin/env bash
# One run over several SLURM nodes: jax.distributed, one process a node with all its devices.
#
#   tools/launch/slurm_multihost.sh [--dry-run] NODES [SBATCH_OPTION...] -- COMMAND [ARGUMENT...]
#   tools/launch/slurm_multihost.sh 4 --gres=gpu:8 -- python experiments/compare_losses.py
#
# If one process ends badly, all are ended; when this is called again they go on from the last
# checkpoint.
set -euo pipefail
# shellcheck source=tools/launch/common.sh
source "${BASH_SOURCE[0]%/*}/common.sh"

take_dry_run "$@"
nodes=${rest[0]-}
[[ $nodes =~ ^[1-9][0-9]{0,5}$ ]] || usage
take_command "${rest[@]:1}"

# The first node coordinates, at a port of the job's own: two jobs on one node do not meet.
# shellcheck disable=SC2016  # these are for the job to expand
job='#!/usr/bin/env bash
set -euo pipefail
hosts=$(scontrol show hostnames "$SLURM_JOB_NODELIST")
export DISTILL_JAX_COORDINATOR="${hosts%%[[:space:]]*}:$((20000 + SLURM_JOB_ID % 20000))"
export DISTILL_JAX_NUM_PROCESSES="$SLURM_NNODES"
exec srun --kill-on-bad-exit=1 bash -c '\''DISTILL_JAX_PROCESS_ID=$SLURM_PROCID exec "$@"'\'' bash '
job+=$(quoted "${command[@]}")
submit=(sbatch --nodes="$nodes" --ntasks-per-node=1 --requeue --open-mode=append
  --signal=TERM@120 --job-name=distill_jax --output=slurm-%j.out ${options[@]+"${options[@]}"})
printf '%s <<EOF\n%s\nEOF\n' "$(quoted "${submit[@]}")" "$job"
"$dry_run" || exec "${submit[@]}" <<<"$job"
