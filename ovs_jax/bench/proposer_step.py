"""One training step of the proposer: losses with matching, gradients and AdamW."""

import dataclasses
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections

from ovs_jax.bench.measure import Program, Variant, Workload
from ovs_jax.bench.placed_step import place_step
from ovs_jax.bench.proposer_forward import proposer_config, random_params
from ovs_jax.core.tree import count_parameters
from ovs_jax.core.types import Batch
from ovs_jax.models.maskformer import MaskFormerConfig
from ovs_jax.ops.losses import SET_WEIGHTS
from ovs_jax.train.recipes.proposer import deep_loss


@dataclasses.dataclass(frozen=True)
class Options:
  """What `--set` changes.

  Attributes:
    preset: of the proposer: tiny, swin_b_l14 or r101c_b16.
    side: of the pictures, in pixels.
    batch: pictures at once.
    targets: masks of each picture, padding included.
    classes: names to tell apart.
    dtype: of the computation; parameters stay float32.
    alternatives: whether to compile and time those, too.
    mesh: devices along the batch, and along heads and hidden units.
  """

  preset: str = 'swin_b_l14'
  side: int = 640
  batch: int = 1
  targets: int = 40
  classes: int = 171
  dtype: str = 'float32'
  alternatives: bool = True
  mesh: tuple[int, ...] = (1, 1)


def build(options: Options) -> Workload:
  """The step as recipes run it, and with the backbone's blocks computed twice."""
  config = proposer_config(options.preset, options.dtype)
  variants, facts = [], {}
  ways = {'package': False, 'remat': True}
  for name, remat in ways.items() if options.alternatives else [('package', False)]:
    run, program, seconds, count = _step(
      dataclasses.replace(config, remat=remat), options
    )
    variants.append(Variant(name, run, program=program))
    facts |= {'parameters': count, f'{name}: compile_seconds': round(seconds, 1)}
    sizes = program.compiled.memory_analysis()
    if sizes is not None:
      facts[f'{name}: temporary_megabytes'] = round(sizes.temp_size_in_bytes / 1e6)
  return Workload('pictures', options.batch, variants, facts)


def _step(
  config: MaskFormerConfig, options: Options
) -> tuple[Callable[[], Any], Program, float, int]:
  """Returns what runs a step, its program, the seconds it took, and the parameters."""
  params = random_params(config)
  text = jax.random.normal(jax.random.key(1), (options.classes, config.embed_dim))
  text = text / jnp.linalg.norm(text, axis=-1, keepdims=True)

  def loss(params: Any, batch: Batch, key: Any) -> Any:
    return deep_loss(config, params, batch, key, text=text, weights=SET_WEIGHTS)

  recipe = SimpleNamespace(loss=loss, project=lambda params: params)
  placed = place_step(recipe, _settings(), params, options.mesh)
  batch = placed.put(_batch(options))
  began = time.perf_counter()
  program = placed.compile(batch, donate=True)
  seconds = time.perf_counter() - began
  held = [placed.state]  # each step takes the place of the one before

  def run() -> Any:
    held[0], metrics = program(held[0], batch)
    return metrics

  return run, program, seconds, count_parameters(params)


def _settings() -> ml_collections.ConfigDict:
  """The optimizer of the full recipes."""
  return ml_collections.ConfigDict(
    {
      'seed': 0,
      'train': {'steps': 120_000, 'accumulate': 1},
      'optimizer': {
        'schedule': 'warmup_poly',
        'learning_rate': 6e-5,
        'warmup': 1500,
        'end': 0.0,
        'power': 0.9,
        'b1': 0.9,
        'b2': 0.999,
        'eps': 1e-8,
        'weight_decay': 0.01,
        'gradient_clip': 0.01,
        'groups': ((r'.*', 1.0),),
        'decay': ((r'.*', 1.0),),
      },
    }
  )


def _batch(options: Options) -> dict[str, jax.Array]:
  """Pictures of noise with masks that are rectangles, a quarter of them padding."""
  b, t, side = options.batch, options.targets, options.side
  keys = jax.random.split(jax.random.key(2), 4)
  corner = jax.random.randint(keys[1], (b, t, 2, 1), 0, side // 2)
  place = jnp.arange(side).reshape(1, 1, 1, side)
  inside = (place >= corner) & (place < corner + side // 2)  # b t 2 side
  return {
    'image': jax.random.randint(keys[0], (b, side, side, 3), 0, 256).astype(jnp.uint8),
    'masks': inside[:, :, 0, :, None] & inside[:, :, 1, None, :],
    'classes': jax.random.randint(keys[3], (b, t), 0, options.classes),
    'valid': jnp.broadcast_to(jnp.arange(t) < max(1, 3 * t // 4), (b, t)),
  }
