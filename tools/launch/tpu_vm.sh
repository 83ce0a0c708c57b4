#!/usr/bin/env bash
# One command on all workers of a TPU VM slice; each is a process of one jax.distributed run.
#
#   tools/launch/tpu_vm.sh [--dry-run] SLICE [GCLOUD_OPTION...] -- COMMAND [ARGUMENT...]
#   tools/launch/tpu_vm.sh v4-32 --zone=us-central2-b -- .venv/bin/python experiments/patience.py
#
# COMMAND runs in $DIRECTORY (default: distill_jax, under each worker's home folder). All workers
# need the same DISTILL_JAX_HOME and output folder. gcloud wants the key in the agent first:
# ssh-add ~/.ssh/google_compute_engine. Called again, it goes on from the last checkpoint.
set -euo pipefail
# shellcheck source=tools/launch/common.sh
source "${BASH_SOURCE[0]%/*}/common.sh"

take_dry_run "$@"
slice=${rest[0]-}
[[ $slice =~ ^([A-Za-z0-9_.-]+@)?[a-z][a-z0-9-]*$ && $slice != -* ]] || usage
take_command "${rest[@]:1}"

# TPU VMs know their slice: with `auto`, jax.distributed finds coordinator and number by itself.
remote="cd $(quoted "${DIRECTORY:-distill_jax}") && "
remote+="exec env DISTILL_JAX_COORDINATOR=auto $(quoted "${command[@]}")"
everywhere=(gcloud compute tpus tpu-vm ssh "$slice" ${options[@]+"${options[@]}"}
  --worker=all --command="$remote")
printf '%s\n' "$(quoted "${everywhere[@]}")"
"$dry_run" || exec "${everywhere[@]}"
