"""What can be measured: a new workload is one file and one line here.

Each file has a frozen dataclass `Options`, whose fields `--set` changes, and a function
`build(options) -> Workload`; or `-> Checklist`, whose rows hold or do not.
"""

# Modules, imported when asked for: some need TensorFlow.
WORKLOADS = {
  'clip_crops': 'ovs_jax.bench.clip_crops',
  'input_pipeline': 'ovs_jax.bench.input_pipeline',
  'pair_crops': 'ovs_jax.bench.pair_crops',
  'mining': 'ovs_jax.bench.mining',
  'metrics': 'ovs_jax.bench.metrics',
  'clip_adapt_step': 'ovs_jax.bench.clip_adapt_step',
  'clipseg': 'ovs_jax.bench.clipseg',
  'coseg_step': 'ovs_jax.bench.coseg_step',
  'proposer_forward': 'ovs_jax.bench.proposer_forward',
  'proposer_step': 'ovs_jax.bench.proposer_step',
  'fusion': 'ovs_jax.bench.fusion',
  'ovseg_inference': 'ovs_jax.bench.ovseg_inference',
  'modes': 'ovs_jax.bench.modes',
  'exports': 'ovs_jax.bench.exports',
  'pooled_masks': 'ovs_jax.bench.pooled_masks',
  'gpu_check': 'ovs_jax.bench.gpu_check',
}
