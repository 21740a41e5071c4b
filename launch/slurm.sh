#!/usr/bin/env bash
# A Slurm job: one process on every node, with all GPUs of the node.
#
#   sbatch --nodes=4 --gpus-per-node=8 launch/slurm.sh --config=configs/mpt_vitl14.py
#
# Submit it from the root of the repository, on a file system that all nodes see. When
# the job is preempted or its time ends, it saves and queues itself again.
#SBATCH --job-name=ovs_jax
#SBATCH --ntasks-per-node=1
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=B:TERM@180
set -euo pipefail
# Slurm runs a copy of this file from a directory of its own.
cd -- "${SLURM_SUBMIT_DIR:?submit this script with sbatch}"
[[ -f launch/setup.sh ]] || {
  echo "launch: $PWD is not the root of ovs_jax: run sbatch there." >&2
  exit 1
}
source launch/setup.sh

readonly STOPPED=75  # ovs_jax.main was asked to stop, and has saved
set_up run
if [[ -n ${SLURM_GPUS_ON_NODE:-} ]]; then add_accelerator "cuda${OVS_CUDA:-12}"; fi
(($#)) || fail 'Nothing to run: give --config=configs/NAME.py after the name of the script.'

(
  # One task a node: JAX finds the others by Slurm's variables.
  export -f run_python
  exec srun --ntasks-per-node=1 --kill-on-bad-exit=1 bash -c 'run_python "$@"' srun \
    -m ovs_jax.main --multihost "$@"
) &
step=$!
# Slurm tells this script alone, and it the tasks.
trap 'kill -TERM "$step" 2>/dev/null || true' TERM
status=0
wait "$step" || status=$?
while kill -0 "$step" 2>/dev/null; do  # a signal interrupted the wait
  status=0
  wait "$step" || status=$?
done
if ((status == STOPPED)); then
  say 'Saved; the job queues itself again.'
  scontrol requeue "$SLURM_JOB_ID"
  status=0
fi
exit "$status"
