#!/usr/bin/env bash
# One command on many machines by plain SSH: a part of the table each, or one run over all of them.
#
#   tools/launch/ssh.sh [--dry-run] HOSTS_FILE [OPTION...] -- COMMAND [ARGUMENT...]
#   tools/launch/ssh.sh hosts.txt -- .venv/bin/python experiments/label_fraction.py
#   tools/launch/ssh.sh hosts.txt --multihost -- .venv/bin/python experiments/compare_losses.py
#
# HOSTS_FILE has a host a line, as ssh takes it (with keys: nobody is asked for passwords); # begins
# a comment. Host I of N runs COMMAND --part I/N in $DIRECTORY (default: distill_jax, under the home
# folder). What it prints comes with its name before it.
#   --multihost      one jax.distributed run instead, a process a host
#   --coordinator=H  how the hosts reach the first one (default: its name in HOSTS_FILE)
#   --port=P         of the coordinator (default: 29400)
# Exit code 1 when a host failed. Called again, it goes on.
set -euo pipefail
# shellcheck source=tools/launch/common.sh
source "${BASH_SOURCE[0]%/*}/common.sh"

take_dry_run "$@"
file=${rest[0]-}
[[ -n $file && $file != -* ]] || usage
take_command "${rest[@]:1}"
multihost=false coordinator='' port=29400
for option in ${options[@]+"${options[@]}"}; do
  case $option in
    --multihost) multihost=true ;;
    --coordinator=?*) coordinator=${option#*=} ;;
    --port=?*) port=${option#*=} ;;
    *) usage ;;
  esac
done
[[ $port =~ ^[1-9][0-9]{0,4}$ ]] || usage

hosts=()
while read -r host comment || [ -n "$host" ]; do
  [[ -z $host || $host == \#* ]] && continue
  if [[ ! $host =~ ^[A-Za-z0-9_][A-Za-z0-9_.@:%-]*$ || ($comment && $comment != \#*) ]]; then
    echo "error: not a host in $file: $host $comment" >&2
    exit 2
  fi
  hosts+=("$host")
done <"$file"
if [ ${#hosts[@]} -eq 0 ]; then
  echo "error: no hosts in $file" >&2
  exit 2
fi
: "${coordinator:=${hosts[0]#*@}}"

jobs=()
trap 'kill ${jobs[@]+"${jobs[@]}"} 2>/dev/null || true' INT TERM
for index in "${!hosts[@]}"; do
  if "$multihost"; then
    process=(env DISTILL_JAX_COORDINATOR="$coordinator:$port" DISTILL_JAX_PROCESS_ID="$index"
      DISTILL_JAX_NUM_PROCESSES="${#hosts[@]}" "${command[@]}")
  else
    process=("${command[@]}" --part "$((index + 1))/${#hosts[@]}")
  fi
  remote="cd $(quoted "${DIRECTORY:-distill_jax}") && exec $(quoted "${process[@]}")"
  # -tt: when this end is gone, the command there is ended too.
  there=(ssh -tt -o BatchMode=yes "${hosts[index]}" "$remote")
  printf '%s\n' "$(quoted "${there[@]}")"
  if ! "$dry_run"; then
    "${there[@]}" </dev/null > >(sed -u "s/^/${hosts[index]}: /") 2>&1 &
    jobs+=($!)
  fi
done

failed=0
for index in "${!jobs[@]}"; do
  code=0
  wait "${jobs[index]}" || code=$?
  if [ "$code" -ne 0 ]; then
    echo "${hosts[index]} ended with exit code $code" >&2
    failed=1
  fi
done
exit "$failed"
