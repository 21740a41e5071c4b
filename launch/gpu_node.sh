#!/usr/bin/env bash
# Runs ovs_jax.main on all NVIDIA GPUs of this machine. The first time, makes .venv as
# run.sh does and adds the CUDA libraries that the driver can work with.
#
#   launch/gpu_node.sh --config=configs/mpt_vitl14.py
#   OVS_CUDA=12 launch/gpu_node.sh ...    # choose CUDA 12 or 13
set -euo pipefail
CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."
source launch/setup.sh

# CUDA 13 needs a driver of the series 580 or newer.
cuda_version() {
  local driver
  driver=$(nvidia-smi --query-gpu=driver_version --format=csv,noheader 2>/dev/null) ||
    fail 'nvidia-smi does not run: install the NVIDIA driver, or use launch/run.sh for the CPU.'
  driver=${driver%%$'\n'*}
  [[ ${driver%%.*} =~ ^[0-9]+$ ]] || fail "nvidia-smi reports the driver '$driver': set OVS_CUDA to 12 or 13."
  if ((${driver%%.*} >= 580)); then echo 13; else echo 12; fi
}

cuda=${OVS_CUDA:-}
[[ -n $cuda ]] || cuda=$(cuda_version)
[[ $cuda =~ ^1[23]$ ]] || fail "OVS_CUDA is '$cuda': set it to 12 or 13."
set_up run
add_accelerator "cuda$cuda"
(($#)) || set -- --config=configs/quickstart.py
run_python -m ovs_jax.main "$@"
