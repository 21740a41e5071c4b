#!/usr/bin/env bash
# One worker of a Cloud TPU slice; tpu_pod.sh calls this over ssh, in the copy that it
# made of the repository. The run belongs to no ssh session.
#
#   launch/tpu_worker.sh start [--bucket=NAME] -- ARGS...   # installs and starts a run
#   launch/tpu_worker.sh follow                             # shows its output to the end
#   launch/tpu_worker.sh runs                               # whether it has not ended
set -euo pipefail
CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."
source launch/setup.sh
mkdir -p tpu_run
readonly STOPPED=75  # goes on from its last checkpoint
readonly PID=tpu_run/pid LOG=tpu_run/log STATUS=tpu_run/status

runs() { [[ -f $PID ]] && kill -0 "$(<"$PID")" 2>/dev/null; }

# The images v2-alpha-tpuv5-lite, tpu-ubuntu2204-base and v2-alpha-tpuv6e are Ubuntu
# 22.04, whose Python is 3.10: uv brings a newer one, without root.
provide_python() {
  local uv=$HOME/.local/bin/uv
  if [[ -n ${OVS_PYTHON:-} ]] || is_installed run || (find_python) >/dev/null 2>&1; then
    return
  fi
  say 'This image has no Python 3.11: uv installs 3.12.'
  mkdir -p .venv
  { python3 -m pip install --user --quiet uv && "$uv" python install 3.12; } \
    >.venv/install.log 2>&1 || explain 'uv could not install Python 3.12'
  OVS_PYTHON=$("$uv" python find 3.12)
}

# Ends what is left of a run whose first worker has ended; 75 of it is saved work.
end_leftover() {
  runs || return 0
  say 'Part of an earlier run is still here; it is ended.'
  kill -TERM -- "-$(<"$PID")" 2>/dev/null || true
  for ((i = 0; i < 60; i++)); do
    runs || return 0
    sleep 1
  done
  kill -KILL -- "-$(<"$PID")" 2>/dev/null || true
}

start() {
  local bucket=''
  while (($#)); do
    case $1 in
      --bucket=*) bucket=${1#*=} ;;
      --) shift && break ;;
      *) fail "Unknown argument $1." ;;
    esac
    shift
  done
  end_leftover
  provide_python
  set_up run
  add_accelerator tpu
  if [[ -n $bucket ]]; then
    add_accelerator gcs
    if gcloud storage ls "gs://$bucket/checkpoints/" >/dev/null 2>&1; then
      mkdir -p checkpoints
      gcloud storage rsync --recursive "gs://$bucket/checkpoints" checkpoints
    fi
  fi
  rm -f "$STATUS"
  export -f run_python
  # Its own session: neither the end of this one nor a lost laptop ends it.
  setsid nohup bash -c 'status=0; (run_python -m ovs_jax.main --multihost "$@") || status=$?
    echo "$status" >tpu_run/status' run "$@" >"$LOG" 2>&1 </dev/null &
  echo $! >"$PID"
}

follow() {
  [[ -f $PID ]] || fail 'Nothing was started here.'
  tail --lines=+1 --follow --pid="$(<"$PID")" "$LOG"
  if [[ ! -f $STATUS ]]; then
    say 'The run was killed.'
    return "$STOPPED"
  fi
  return "$(<"$STATUS")"
}

command=${1:-}
case $command in
  start | follow | runs) shift ;;
  *) fail 'Say start, follow or runs: see the top of launch/tpu_worker.sh.' ;;
esac
"$command" "$@"
