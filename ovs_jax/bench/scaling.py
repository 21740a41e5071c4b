"""Predicts how training scales over chips, and checks the bytes it predicts with.

    python -m ovs_jax.bench.scaling             # the table of docs/scaling.md
    python -m ovs_jax.bench.scaling --check     # on eight simulated devices

The model: a step computes at half the chip's peak, then sends what the mesh needs over
the chip's links without hiding any of it. Real runs overlap the two.
"""

import argparse
import dataclasses
import os
import sys
from collections.abc import Sequence
from typing import Any

if '--check' in sys.argv:
  # Before JAX counts its devices.
  os.environ['XLA_FLAGS'] = (
    os.environ.get('XLA_FLAGS', '') + ' --xla_force_host_platform_device_count=8'
  )

import jax
import jax.numpy as jnp

from ovs_jax.bench.collectives import traffic
from ovs_jax.core import sharding
from ovs_jax.core.flops import count_flops
from ovs_jax.core.tree import count_parameters, flatten, unflatten
from ovs_jax.core.types import Array, Params
from ovs_jax.models.clip import PRESETS, Clip, init_clip
from ovs_jax.models.maskformer import PRESETS as PROPOSERS
from ovs_jax.models.maskformer import MaskFormer, init_maskformer
from ovs_jax.ops.losses import contrastive_loss

_UTILISATION = 0.5  # of a chip's peak while it computes


@dataclasses.dataclass(frozen=True)
class Chip:
  """Published rates of one chip.

  Attributes:
    flops: dense bfloat16 operations per second.
    link: bytes per second that it can send to its neighbours.
    island: chips that are connected so; 0: all of them.
    outside: bytes per second that it can send beyond its island.
  """

  flops: float
  link: float
  island: int = 0
  outside: float = 0.0


# Google's and NVIDIA's data sheets; of links, one direction.
CHIPS = {
  'TPU v5e': Chip(197e12, 100e9),
  'TPU v5p': Chip(459e12, 300e9),
  'H100/H200': Chip(989e12, 450e9, island=8, outside=50e9),
}


@dataclasses.dataclass(frozen=True)
class Job:
  """A training step.

  Attributes:
    name: of the row.
    flops: of one example, forward and backward.
    reduced: bytes of the gradients that all chips add up.
    gathered: bytes per example that every chip needs of all examples.
    batch: examples per chip.
  """

  name: str
  flops: int
  reduced: int
  gathered: int
  batch: int


def adaptation(preset: str, trained: str, *, batch: int) -> Job:
  """Adaptation of a CLIP; `trained` is 'mpt' or 'ft'."""
  params, loss, example = _adaptation(preset, trained)
  part = _trainable(params, trained)
  flops = _flops(loss, part, params, example(1))
  size = 4 * count_parameters(unflatten(part))
  # Each chip compares its rows with all of the others' embeddings, forward and back.
  gathered = 2 * 2 * 4 * PRESETS[preset].embed_dim
  return Job(f'{trained.upper()} {preset}', flops, size, gathered, batch)


def proposer(preset: str, *, side: int, batch: int) -> Job:
  """Training of a MaskFormer on square crops; matching and losses are not counted."""
  config = PROPOSERS[preset]
  params = jax.eval_shape(lambda: init_maskformer(config, jax.random.key(0)))
  image = jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32)

  def loss(part: Params, params: Params, image: Array) -> Array:
    del params
    out = MaskFormer(config).apply({'params': unflatten(part)}, image, all_layers=True)
    return sum(x.mean() for x in jax.tree.leaves(out))

  part = flatten(params)
  flops = _flops(loss, part, params, image)
  return Job(f'proposer {preset}', flops, 4 * count_parameters(params), 0, batch)


def _adaptation(preset: str, trained: str) -> tuple:
  """Shapes of the parameters, the loss, and a function to the shapes of a batch."""
  depth = 3 if trained == 'mpt' else 0
  config = dataclasses.replace(PRESETS[preset], prompt_depth=depth)
  params = jax.eval_shape(lambda: init_clip(config, jax.random.key(0)))
  side, grid = config.image_size, config.image_size // config.patch

  def loss(part: Params, params: Params, batch: tuple[Array, ...]) -> Array:
    image, keep, text = batch
    merged = unflatten({**flatten(params), **part})
    embedded = Clip(config).apply(
      {'params': merged}, image, keep, method='encode_image'
    )
    return contrastive_loss(embedded, text, merged['logit_scale'])[0]

  def example(count: int) -> tuple:
    return (
      jax.ShapeDtypeStruct((count, side, side, 3), jnp.float32),
      jax.ShapeDtypeStruct((count, grid * grid), bool),
      jax.ShapeDtypeStruct((count, config.embed_dim), jnp.float32),
    )

  return params, loss, example


def _trainable(params: Params, trained: str) -> dict[str, Any]:
  start = 'visual/mask_prompt' if trained == 'mpt' else 'visual/'
  return {path: x for path, x in flatten(params).items() if path.startswith(start)}


def _flops(loss: object, part: object, params: object, batch: object) -> int:
  return count_flops(jax.jit(jax.grad(loss)).trace(part, params, batch).jaxpr)


def ring_seconds(size: float, chips: int, chip: Chip) -> float:
  """Returns the time of an all-reduce of `size` bytes over `chips`.

  A ring sends 2 (n - 1) / n of the bytes. Beyond an island the chips of an island first
  add up among themselves, then each sends its part of the sum outside.
  """
  inside = min(chips, chip.island or chips)
  seconds = 2 * (inside - 1) / inside * size / chip.link
  islands = chips // inside
  if islands > 1:
    seconds += 2 * (islands - 1) / islands * (size / inside) / chip.outside
  return seconds


def efficiency(job: Job, chips: int, chip: Chip) -> float:
  """Returns the share of a step in which a data-parallel chip computes."""
  computing = job.flops * job.batch / (chip.flops * _UTILISATION)
  size = job.reduced + job.gathered * job.batch * chips / 2
  sending = ring_seconds(size, chips, chip) if chips > 1 else 0.0
  return computing / (computing + sending)


def table(jobs: Sequence[Job]) -> str:
  """Returns the predictions as Markdown."""
  counts = (8, 64, 256)
  lines = [
    '| job, examples per chip | GFLOP per example | MB reduced | chip | '
    + ' | '.join(f'{n} chips' for n in counts)
    + ' |',
    '|---|---|---|---|' + '---|' * len(counts),
  ]
  for job in jobs:
    for name, chip in CHIPS.items():
      shares = ' | '.join(f'{efficiency(job, n, chip):.1%}' for n in counts)
      lines.append(
        f'| {job.name}, {job.batch} | {job.flops / 1e9:,.0f} '
        f'| {job.reduced / 1e6:,.1f} | {name} | {shares} |'
      )
  return '\n'.join(lines)


def measured(
  preset: str, trained: str, *, data: int, model: int, fsdp: bool, batch: int
) -> dict[str, int]:
  """Returns the traffic of the compiled gradient of an adaptation step, in bytes."""
  params, loss, example = _adaptation(preset, trained)
  mesh = sharding.make_mesh(data, model)
  placed = sharding.parameter_shardings(mesh, params, fsdp=fsdp)

  def at(x: jax.ShapeDtypeStruct, where: object) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=where)

  params = jax.tree.map(at, params, placed)
  part = _trainable(params, trained)
  whole = sharding.parameter_shardings(mesh, params)

  def gathered(part: Params, params: Params, batch: tuple[Array, ...]) -> Array:
    merged = unflatten({**flatten(params), **part})
    merged = jax.lax.with_sharding_constraint(merged, whole)  # as the training loop
    return loss({}, merged, batch)

  along = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec('data'))
  rows = jax.tree.map(lambda x: at(x, along), example(batch))
  where = {path: x.sharding for path, x in part.items()}
  gradient = jax.jit(jax.grad(gathered if fsdp else loss), out_shardings=where)
  return traffic(gradient.lower(part, params, rows).compile().as_text())


def check() -> str:
  """Returns predicted and measured bytes on meshes of eight devices, as Markdown."""
  lines = ['| job | mesh | gradients, MB | in the program, MB |', '|---|---|---|---|']
  for trained in ('mpt', 'ft'):
    job = adaptation('b16', trained, batch=1)
    for data, model, fsdp in (
      (8, 1, False),
      (8, 1, True),
      (4, 2, False),
      (2, 4, False),
    ):
      found = measured('b16', trained, data=data, model=model, fsdp=fsdp, batch=8)
      listed = ', '.join(f'{k} {v / 1e6:,.1f}' for k, v in sorted(found.items()))
      mesh = f'{data}x{model}{" fsdp" if fsdp else ""}'
      lines.append(f'| {job.name} | {mesh} | {job.reduced / 1e6:,.1f} | {listed} |')
  return '\n'.join(lines)


def main(argv: Sequence[str] | None = None) -> int:
  """Prints the table, or with --check the comparison."""
  parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
  parser.add_argument('--check', action='store_true', help='compile and compare')
  if parser.parse_args(argv).check:
    print(check())
    return 0
  jobs = [
    adaptation('l14', 'mpt', batch=64),
    adaptation('l14', 'ft', batch=64),
    proposer('swin_b_l14', side=640, batch=2),
  ]
  print(table(jobs))
  return 0


if __name__ == '__main__':
  sys.exit(main())
