#!/usr/bin/env bash
# Runs ovs_jax.main on all NVIDIA GPUs of this machine. The first time, makes .venv as
# run.sh does and adds the CUDA libraries that the driver can work with.
#
#   launch/gpu_node.sh --config=configs/mpt_vitl14.py
#   OVS_CUDA=12 launch/gpu_node.sh ...    # choose CUDA 12 or 13
set -euo pipefail
CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."
source launch/setup.sh
source launch/gpus.sh

cuda=$(cuda_version)
set_up run
add_accelerator "cuda$cuda"
gpu_settings 1
(($#)) || set -- --config=configs/quickstart.py
run_python -m ovs_jax.main "$@"
