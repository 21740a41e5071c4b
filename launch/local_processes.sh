#!/usr/bin/env bash
# Starts N processes of ovs_jax.main on this machine that work together, as one process
# on each of N hosts would. When one fails, the others are stopped.
#
#   launch/local_processes.sh 2 --config=configs/quickstart.py:smoke
set -euo pipefail
CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."
source launch/setup.sh

[[ ${1:-} =~ ^[1-9][0-9]*$ ]] ||
  fail 'How many processes? For example: launch/local_processes.sh 2 --config=configs/quickstart.py:smoke'
count=$1
shift
readonly STOPPED=75  # asked to stop, and saved
set_up run

port=$(.venv/bin/python -c 'import socket
with socket.socket() as s:
  s.bind(("127.0.0.1", 0))
  print(s.getsockname()[1])')
export OVS_COORDINATOR=127.0.0.1:$port OVS_PROCESSES=$count
pids=()
# Asked to stop, every process saves first.
trap 'kill -TERM "${pids[@]}" 2>/dev/null || true' TERM INT
for ((i = 0; i < count; i++)); do
  # The output of all but the first is marked with their number.
  mark='/^\[Gloo\]/d'
  ((i == 0)) || mark+=";s/^/[$i] /"
  (OVS_PROCESS=$i run_python -m ovs_jax.main --multihost "$@") \
    > >(sed -u "$mark") 2> >(sed -u "$mark" >&2) &
  pids+=($!)
done

status=0
running=("${pids[@]}")
while ((${#running[@]})); do
  sleep 0.5 & wait $! || true  # a signal ends this wait, not the sleep
  left=()
  for pid in "${running[@]}"; do
    if kill -0 "$pid" 2>/dev/null; then
      left+=("$pid")
      continue
    fi
    ended=0
    wait "$pid" || ended=$?
    ((ended && !status)) || continue
    status=$ended
    killing=$((SECONDS + 60))
    ((${#running[@]} == 1 || status == STOPPED)) || say "One process ended with status $status; stopping the others."
    kill -TERM "${pids[@]}" 2>/dev/null || true
  done
  if ((status && SECONDS > killing)); then kill -KILL "${pids[@]}" 2>/dev/null || true; fi
  running=(${left[@]+"${left[@]}"})
done
exit "$status"
