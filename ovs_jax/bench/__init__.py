"""What can be measured: a new workload is one file and one line here.

Each file has a frozen dataclass `Options`, whose fields `--set` changes, and a function
`build(options) -> Workload`.
"""

# Modules, imported when asked for: some need TensorFlow.
WORKLOADS = {
  'clip_crops': 'ovs_jax.bench.clip_crops',
  'fusion': 'ovs_jax.bench.fusion',
  'ovseg_inference': 'ovs_jax.bench.ovseg_inference',
}
