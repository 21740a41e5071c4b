"""What can be measured: a new workload is one file and one line here.

Each file has a frozen dataclass `Options`, whose fields `--set` changes, and a function
`build(options) -> Workload`.
"""

# Modules, imported when asked for: some need TensorFlow.
WORKLOADS = {
  'clip_crops': 'ovs_jax.bench.clip_crops',
  'proposer_forward': 'ovs_jax.bench.proposer_forward',
  'proposer_step': 'ovs_jax.bench.proposer_step',
}
