#!/usr/bin/env bash
# Runs ovs_jax.main on all workers of a Cloud TPU slice: makes the slice if it is not
# there, copies this repository to it, installs it, runs, and shows the first worker's
# output. A slice that was preempted is made again, and the run goes on.
#
#   launch/tpu_pod.sh --name=ovs --zone=us-east5-a --type=v5litepod-16 \
#     --bucket=my-bucket -- --config=configs/mpt_vitl14.py
#
# --project=ID   instead of gcloud's default project
# --version=V    software of the machines (default v2-alpha-tpuv5-lite)
# --spot         a cheaper slice that may be preempted
# --bucket=NAME  mounted as runs/ on every worker: checkpoints must outlive the slice
# --tries=N      how often a lost slice is made again (default 10)
# --delete       deletes the slice when the run has finished
# --dry-run      only prints the commands
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
[[ -n $dry ]] || type -P gcloud >/dev/null ||
  fail 'gcloud was not found on PATH: install the Google Cloud CLI and run "gcloud auth login".'

place=(--zone="$zone")
[[ -z $project ]] || place+=(--project="$project")

# Runs a command of gcloud, or prints it.
tpu() {
  if [[ -n $dry ]]; then
    printf 'gcloud compute tpus tpu-vm'
    printf ' %q' "$@" "${place[@]}"
    printf '\n'
  else
    gcloud compute tpus tpu-vm "$@" "${place[@]}" </dev/null
  fi
}

on_all_workers() { tpu ssh "$name" --worker=all --command="$1"; }

# READY, CREATING, PREEMPTED ..., or nothing where there is no slice of this name.
state() {
  [[ -z $dry ]] || return 0
  gcloud compute tpus tpu-vm describe "$name" "${place[@]}" --format='value(state)' \
    2>/dev/null </dev/null || true
}

make_slice() {
  local now
  now=$(state)
  if [[ $now == READY ]]; then return; fi
  if [[ -n $now ]]; then
    say "The slice $name is $now; it is made again."
    tpu delete "$name" --quiet
  fi
  say "Making the slice $name ($type)."
  # shellcheck disable=SC2086 # $spot is one flag or none
  tpu create "$name" --accelerator-type="$type" --version="$version" $spot
}

# Every step says whether it worked: `set -e` is off where a status is looked at.
copy_and_install() {
  local folder
  folder=$(mktemp -d) || return 1
  if [[ -n $dry ]]; then
    echo "git archive --format=tar.gz --output=$folder/ovs_jax.tar.gz HEAD"
  else
    git archive --format=tar.gz --output="$folder/ovs_jax.tar.gz" HEAD || return 1
  fi
  tpu scp "$folder/ovs_jax.tar.gz" "$name:ovs_jax.tar.gz" --worker=all || return 1
  rm -rf "$folder"
  on_all_workers 'mkdir -p ovs_jax && tar -xzf ovs_jax.tar.gz -C ovs_jax' || return 1
  if [[ -n $bucket ]]; then
    on_all_workers "mkdir -p ovs_jax/runs && { mountpoint -q ovs_jax/runs || gcsfuse --implicit-dirs $(printf %q "$bucket") ovs_jax/runs; }" || return 1
  fi
  on_all_workers 'cd ovs_jax && source launch/setup.sh && set_up run && add_accelerator tpu'
}

run() {
  local command='cd ovs_jax && launch/run.sh --multihost'
  command+=$(printf ' %q' "$@")
  on_all_workers "$command"
}

[[ -n $bucket ]] || say 'No --bucket=: checkpoints are lost with the slice.'
for ((try = 0; ; try++)); do
  make_slice
  status=0
  { copy_and_install && run "$@"; } || status=$?
  if ((status == 0)); then break; fi
  now=$(state)
  if [[ $now == READY && $status != 75 ]]; then
    fail "The run failed with status $status; the slice $name is still there."
  fi
  ((try < tries)) || fail "The slice was lost $((try + 1)) times; start again to go on."
  say "The slice is ${now:-gone} (status $status); going on."
done
if [[ -n $delete ]]; then tpu delete "$name" --quiet; fi
