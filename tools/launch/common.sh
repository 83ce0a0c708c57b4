# shellcheck shell=bash
# Read by the launch scripts beside it.
# shellcheck disable=SC2034  # what is set here is used there

# The comment at the head of the script that was called, and exit code 2.
usage() {
  sed -n '2,/^set -/{/^set -/d;s/^# \{0,1\}//;p}' "$0" >&2
  exit 2
}

# Sets dry_run, and rest to the arguments after --dry-run.
take_dry_run() {
  dry_run=false
  if [ "${1-}" = --dry-run ]; then
    dry_run=true
    shift
  fi
  rest=("$@")
}

# OPTION... -- COMMAND ARGUMENT...: sets options and command.
take_command() {
  options=()
  while [ $# -gt 0 ] && [ "$1" != -- ]; do
    [[ $1 == -* ]] || usage
    options+=("$1")
    shift
  done
  [ $# -ge 2 ] || usage
  shift
  command=("$@")
}

# The words as a shell reads them back.
quoted() {
  local words
  printf -v words '%q ' "$@"
  printf '%s' "${words% }"
}
