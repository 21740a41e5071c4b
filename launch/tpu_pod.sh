#!/usr/bin/env bash
# Runs ovs_jax.main on all workers of a Cloud TPU slice: asks for the slice and waits for
# it, copies the last commit of this repository there, installs it, starts the run, and
# shows the first worker's output. The run belongs to the slice: when this script ends or
# loses its connection, the same command shows the output again. A slice that was
# preempted is asked for again, and the run goes on from its last checkpoint.
#
#   launch/tpu_pod.sh --name=ovs --zone=us-east5-a --type=v5litepod-16 \
#     --bucket=my-bucket -- --config=configs/mpt_vitl14.py
#
# --project=ID   instead of gcloud's default project
# --version=V    software of the machines (default v2-alpha-tpuv5-lite)
# --spot         a cheaper slice that may be preempted
# --bucket=NAME  keeps what must outlive the slice: results go to gs://NAME/runs/CONFIG,
#                prepared data are in gs://NAME/data, and checkpoints/ is copied to
#                gs://NAME/checkpoints and from there to every worker
# --tries=N      how often a lost slice is asked for again (default 10)
# --delete       deletes the slice when the run has finished
# --dry-run      only prints the commands
#
# OVS_PYTHON is passed on to the workers.
set -euo pipefail
CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."

say() { printf 'launch: %s\n' "$1" >&2; }

fail() {
  say "$1"
  exit 1
}

name='' zone='' type='' project='' version=v2-alpha-tpuv5-lite bucket='' tries=10
spot='' delete='' dry=''
while (($#)); do
  case $1 in
    --name=* | --zone=* | --type=* | --project=* | --version=* | --bucket=* | --tries=*)
      key=${1%%=*}
      printf -v "${key#--}" '%s' "${1#*=}"
      ;;
    --spot) spot=--spot ;;
    --delete) delete=yes ;;
    --dry-run) dry=yes ;;
    --) shift && break ;;
    *) fail "Unknown argument $1: see the top of launch/tpu_pod.sh. Arguments of ovs_jax.main come after --." ;;
  esac
  shift
done
for key in name zone type; do
  [[ -n ${!key} ]] || fail "--$key= is missing: see the top of launch/tpu_pod.sh."
done
(($#)) || fail 'Nothing to run: give --config=configs/NAME.py after --.'
[[ $tries =~ ^[0-9]+$ ]] || fail "--tries=$tries is not a number."
bucket=${bucket#gs://}
bucket=${bucket%/}
# Results and data go to the bucket, unless the arguments say where.
if [[ -n $bucket ]]; then
  config=$(printf '%s\n' "$@" | sed -nE 's/^--config=(.*\/)?([^/]*)\.py(:.*)?$/\2/p')
  [[ -n $config || " $* " == *' --workdir='* ]] ||
    fail 'The arguments have no --config=configs/NAME.py, after which --workdir= is named.'
  [[ " $* " == *' --workdir='* ]] || set -- "$@" "--workdir=gs://$bucket/runs/$config"
  [[ " $* " == *' --config.dataset.data_dir='* ]] ||
    set -- "$@" "--config.dataset.data_dir=gs://$bucket/data"
else
  say 'No --bucket=: checkpoints are lost with the slice.'
fi
[[ -n $dry ]] || type -P gcloud >/dev/null ||
  fail 'gcloud was not found on PATH: install the Google Cloud CLI and run "gcloud auth login".'

place=(--zone="$zone")
[[ -z $project ]] || place+=(--project="$project")
readonly STOPPED=75  # ovs_jax.main was asked to stop, and has saved
readonly PAUSE=${OVS_TPU_PAUSE:-30}  # seconds between looks, and before a new try
readonly LOOKS=40  # at a slice that is there and whose machines are not

# Runs a command, or prints it.
call() {
  if [[ -z $dry ]]; then
    "$@" </dev/null
  else
    printf '%q ' "$@"
    printf '\n'
  fi
}

tpu() { call gcloud compute tpus tpu-vm "$@" "${place[@]}"; }

queue() { call gcloud compute tpus queued-resources "$@" "${place[@]}"; }

# ACTIVE, WAITING_FOR_RESOURCES, SUSPENDED ..., or nothing where nothing was asked for.
state() {
  [[ -z $dry ]] || return 0
  queue describe "$name" --format='value(state.state)' 2>/dev/null || true
}

# Whether its machines are there, too.
answers() { [[ $(tpu describe "$name" --format='value(state)' 2>/dev/null) == READY ]]; }

# Returns once the slice is there. A queued request waits until there are chips for it.
make_slice() {
  local now before='' looks=0
  while :; do
    now=$(state)
    if [[ $now == ACTIVE ]] && answers; then
      return
    elif [[ -z $now ]]; then
      say "Asking for the slice $name ($type)."
      # shellcheck disable=SC2086 # $spot is one flag or none
      queue create "$name" --node-id="$name" --accelerator-type="$type" \
        --runtime-version="$version" $spot || return 1
      [[ -z $dry ]] || return 0
    elif [[ $now == FAILED || $now == SUSPENDED ]]; then
      say "The slice $name is $now; it is asked for again."
      queue delete "$name" --force --quiet || return 1
    else
      [[ $now == "$before" ]] || say "The slice $name is $now; waiting."
      if [[ $now == ACTIVE ]] && ((++looks > LOOKS)); then
        say "The machines of $name are not ready after $LOOKS looks; see 'gcloud compute tpus tpu-vm describe $name'."
        return 1
      fi
      sleep "$PAUSE"
    fi
    before=$now
  done
}

# What each worker is told: $1 is a command of launch/tpu_worker.sh.
told() {
  [[ -z ${OVS_PYTHON:-} ]] || printf 'OVS_PYTHON=%q ' "$OVS_PYTHON"
  printf 'ovs_jax/launch/tpu_worker.sh'
  printf ' %q' "$@"
}

copy() {
  local folder status=0
  folder=$(mktemp -d) || return 1
  call git archive --format=tar.gz --output="$folder/ovs_jax.tar.gz" HEAD &&
    tpu scp "$folder/ovs_jax.tar.gz" "$name:ovs_jax.tar.gz" --worker=all &&
    tpu ssh "$name" --worker=all \
      --command='rm -rf ovs_jax/ovs_jax && mkdir -p ovs_jax && tar -xzf ovs_jax.tar.gz -C ovs_jax' || status=1
  rm -rf "$folder"
  return "$status"
}

# Every step says whether it worked: `set -e` is off where a status is looked at.
start() {
  local arguments=() found=1
  if [[ -z $dry ]]; then
    found=0
    tpu ssh "$name" --worker=0 --command="$(told runs)" 2>/dev/null || found=$?
  fi
  if ((found == 0)); then
    say 'The run is still there; this is its output.'
    return
  elif ((found == 255)); then  # of ssh itself: nothing is known of the run
    return "$found"
  fi
  if [[ -n $bucket ]]; then
    if [[ -d checkpoints ]]; then
      call gcloud storage rsync --recursive checkpoints "gs://$bucket/checkpoints" || return 1
    fi
    arguments+=("--bucket=$bucket")
  fi
  copy || return 1
  tpu ssh "$name" --worker=all --command="$(told start "${arguments[@]}" -- "$@")"
}

for ((try = 0; ; try++)); do
  status=0
  if make_slice; then
    { start "$@" && tpu ssh "$name" --worker=0 --command="$(told follow)"; } || status=$?
    if ((status == 0)); then break; fi
  else
    status=1
  fi
  [[ -z $dry ]] || exit "$status"
  if ((status != STOPPED && status != 255)) && [[ $(state) == ACTIVE ]] && answers; then
    fail "The run failed with status $status; the slice $name is still there."
  fi
  ((try < tries)) || fail "No luck in $((try + 1)) tries; the same command goes on."
  say "The slice is '$(state)', the last status $status; trying again."
  sleep "$PAUSE"
done
if [[ -n $delete ]]; then queue delete "$name" --force --quiet; fi
