# shellcheck shell=bash
# Sourced by gpu_node.sh and slurm.sh, after setup.sh: which CUDA, and how JAX, XLA and
# NCCL use the GPUs. What the user has set stays.

# Prints 12 or 13. CUDA 13 needs a driver of the series 580 or newer.
cuda_version() {
  local driver
  if [[ -n ${OVS_CUDA:-} ]]; then
    [[ $OVS_CUDA =~ ^1[23]$ ]] || fail "OVS_CUDA is '$OVS_CUDA': set it to 12 or 13."
    echo "$OVS_CUDA"
    return
  fi
  driver=$(nvidia-smi --query-gpu=driver_version --format=csv,noheader 2>/dev/null) ||
    fail 'nvidia-smi does not run: install the NVIDIA driver, or use launch/run.sh for the CPU.'
  driver=${driver%%$'\n'*}
  [[ ${driver%%.*} =~ ^[0-9]+$ ]] || fail "nvidia-smi reports the driver '$driver': set OVS_CUDA to 12 or 13."
  if ((${driver%%.*} >= 580)); then echo 13; else echo 12; fi
}

# gpu_settings NODES
#
# Left as they are, because their defaults are what a run needs: collectives are
# asynchronous; the autotuner tries Triton's matrix products beside cuBLAS's and keeps
# the faster; NCCL finds NVLink, NVSwitch, InfiniBand and GPUDirect by itself.
gpu_settings() {
  local nodes=$1 flags
  # Sums gradients of some layers while those of others are computed; by default XLA
  # orders operations by memory alone, and fine-tuning waits for 1.2 GB of sums a step.
  flags=--xla_gpu_enable_latency_hiding_scheduler=true
  # Ends a process when a collective fails, instead of waiting for ever for a lost peer.
  flags+=' --xla_gpu_nccl_terminate_on_error=true'
  export XLA_FLAGS="$flags${XLA_FLAGS:+ $XLA_FLAGS}"  # of two equal flags the last counts
  # JAX takes this share of the memory at the start, 0.75 unless told: a run has its GPUs
  # for itself. NCCL's and the libraries' own buffers must fit into the rest.
  export XLA_PYTHON_CLIENT_MEM_FRACTION=${XLA_PYTHON_CLIENT_MEM_FRACTION:-0.9}
  export NCCL_DEBUG=${NCCL_DEBUG:-WARN}  # says why, when something fails
  if ((nodes > 1)); then
    # Nodes find each other over the first interface that is up: not over bridges of
    # containers and virtual machines, which other nodes cannot reach.
    export NCCL_SOCKET_IFNAME=${NCCL_SOCKET_IFNAME:-^lo,docker,virbr,veth}
  fi
}
