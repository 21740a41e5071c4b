#!/usr/bin/env bash
# A Slurm job: one process on every node, with all GPUs, cores and memory of the node.
#
#   sbatch --nodes=4 --gpus-per-node=8 launch/slurm.sh --config=configs/mpt_vitl14.py
#
# Submit it from the root of the repository, on a file system that all nodes see. When
# the job is preempted or its time ends, it saves and queues itself again.
#SBATCH --job-name=ovs_jax
#SBATCH --ntasks-per-node=1
#SBATCH --exclusive
#SBATCH --mem=0
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=TERM@180
# (To the step, not to this script: srun answers SIGTERM by killing its tasks.)
set -euo pipefail
# Slurm runs a copy of this file from a directory of its own.
cd -- "${SLURM_SUBMIT_DIR:?submit this script with sbatch}"
[[ -f launch/setup.sh ]] || {
  echo "launch: $PWD is not the root of ovs_jax: run sbatch there." >&2
  exit 1
}
source launch/setup.sh
source launch/gpus.sh

readonly STOPPED=75  # ovs_jax.main was asked to stop, and has saved
(($#)) || fail 'Nothing to run: give --config=configs/NAME.py after the name of the script.'
set_up run
if [[ -n ${SLURM_GPUS_ON_NODE:-} ]]; then
  cuda=$(cuda_version)
  add_accelerator "cuda$cuda"
  gpu_settings "${SLURM_JOB_NUM_NODES:-1}"
fi

# Or srun gives its task one core, and since Slurm 22.05 not sbatch's --cpus-per-task.
cores=${SRUN_CPUS_PER_TASK:-${SLURM_CPUS_PER_TASK:-$SLURM_CPUS_ON_NODE}}
export -f run_python
status=0
# One task a node, also where the job came back with fewer nodes: JAX finds the others by
# Slurm's variables. Tasks that were told to stop end within a moment of each other, and
# the first must not have the others killed; when one fails, the others have a minute.
srun --ntasks="${SLURM_JOB_NUM_NODES:-1}" --ntasks-per-node=1 \
  --cpus-per-task="$cores" --kill-on-bad-exit=0 --wait=60 \
  bash -c 'run_python "$@"' srun -m ovs_jax.main --multihost "$@" || status=$?
if ((status == STOPPED)); then
  say 'Saved; the job queues itself again.'
  scontrol requeue "$SLURM_JOB_ID"
  status=0
fi
exit "$status"
