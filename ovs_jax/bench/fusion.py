"""From class weights and masks to labels: tile by tile, and the plain way.

The plain way holds all class maps: 4 bytes times classes times pixels, twice over.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from ovs_jax.bench import plain
from ovs_jax.bench.agreement import Agreement
from ovs_jax.bench.measure import Variant, Workload
from ovs_jax.ops.painting import label_map
from ovs_jax.ops.resize import resize_bilinear


@dataclasses.dataclass(frozen=True)
class Options:
  """What `--set` changes.

  Attributes:
    proposals: with a mask each.
    classes: of the weights.
    height: of the picture.
    width: of the picture.
    network: the shorter side of the masks.
    sharpness: standard deviation of the logits whose softmax the weights are. At 4
      they are those of random embeddings of 512 dimensions; at 0 all classes are
      nearly equal, and none can be left out.
  """

  proposals: int = 100
  classes: int = 847
  height: int = 1500
  width: int = 2000
  network: int = 640
  sharpness: float = 4.0


def build(options: Options) -> Workload:
  """Smooth random masks and random weights."""
  generator = np.random.default_rng(0)
  q, size = options.proposals, (options.height, options.width)
  scale = options.network / min(size)
  shape = tuple(round(length * scale) for length in size)
  coarse = jnp.asarray(4 * generator.normal(size=(q, 6, 8)) - 3, jnp.float32)
  masks = jax.block_until_ready(jax.nn.sigmoid(resize_bilinear(coarse, shape)))
  logits = options.sharpness * generator.normal(size=(q, options.classes))
  # A little noise, so that not all classes tie.
  logits += 1e-3 * generator.normal(size=logits.shape)
  weights = jax.nn.softmax(jnp.asarray(logits, jnp.float32), axis=1)
  flops = 2.0 * q * options.classes * np.prod(shape)
  facts = {'pixels': int(np.prod(size)), 'masks': list(masks.shape)}
  watch = Agreement(facts)
  variants = [
    Variant(name, watch.labels(name, functools.partial(run, weights, masks, size)), f)
    for name, run, f in (
      ('package', label_map, None),
      ('plain', plain.label_map, flops),
    )
  ]
  return Workload('pictures', 1, variants, facts)
