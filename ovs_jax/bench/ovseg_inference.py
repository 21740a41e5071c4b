"""A picture from pixels to labels: as the package does it, and plainly.

Weights are random, and so are the names' embeddings, as if they came from the cache.
The proposer's masks are replaced by smooth random ones, of which `valid` reach the
threshold: those of a random proposer would be all valid or none.
"""

import dataclasses
import functools
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ovs_jax.bench import drawn, plain
from ovs_jax.bench.agreement import Agreement
from ovs_jax.bench.measure import Variant, Workload
from ovs_jax.core.images import resize_shortest, shortest_size
from ovs_jax.core.lookup import lookup
from ovs_jax.core.types import Array, Params, UInt8
from ovs_jax.inference import encode as encoding
from ovs_jax.inference.ovseg import OvSegSystem
from ovs_jax.inference.segmenter import Segmenter
from ovs_jax.inference.settings import Settings
from ovs_jax.models import clip, maskformer, ovseg
from ovs_jax.ops.ensemble import class_logits, combine
from ovs_jax.ops.regions import RegionConfig
from ovs_jax.ops.resize import resize_bilinear
from ovs_jax.text.classes import Classes, parse_classes


@dataclasses.dataclass(frozen=True)
class Options:
  """What `--set` changes.

  Attributes:
    preset: of CLIP: tiny, b32, b16, l14 or l14_336.
    proposer: tiny, r101c_b16 or swin_b_l14; its embeddings are made to fit.
    shortest: the picture's shorter side for the networks.
    height: of the picture.
    width: of the picture.
    queries: proposals.
    valid: of them that go through CLIP.
    names: classes.
    many: classes of the variant 'many names'.
    dtype: that the networks compute in.
    depth: of the mask prompts.
  """

  preset: str = 'b16'
  proposer: str = 'r101c_b16'
  shortest: int = 320
  height: int = 480
  width: int = 640
  queries: int = 100
  valid: int = 100
  names: int = 20
  many: int = 10_000
  dtype: str = 'float32'
  depth: int = 3


def build(options: Options) -> Workload:
  """All modes of the package, and the plain way with all proposals."""
  config = configuration(options)
  params = draw(config)
  picture = draw_picture(options)
  make = functools.partial(segmenter, config, params, options)
  names, many = ([f'name {i}' for i in range(n)] for n in (options.names, options.many))

  def run(model: Segmenter, asked: list[str]) -> Callable[[], np.ndarray]:
    return lambda: model.segment(model.encode(picture), asked).labels

  exact = make()
  facts: dict[str, Any] = {'crops': options.valid}
  watch = Agreement(facts)
  runs = {
    'package': run(exact, names),
    'plain': lambda: _plain(exact.system, picture, parse_classes(names)),
    'many names': run(exact, many),
    'filtered': run(make(mode='filtered'), names),
    'one_pass': run(make(mode='one_pass'), names),
    'bfloat16': run(make(dtype='bfloat16'), names),
  }
  facts |= _stages(exact.system, picture, parse_classes(names))
  watch.facts = facts
  flops = _flops(
    config, params, picture.shape[:2], exact.system.settings, options.valid
  )
  variants = [
    Variant(name, watch.labels(name, one), flops=flops.get(name))
    for name, one in runs.items()
  ]
  return Workload('pictures', 1, variants, facts)


def draw_picture(options: Options) -> UInt8[np.ndarray, 'h w 3']:
  """Returns noise."""
  shape = (options.height, options.width, 3)
  return np.random.default_rng(1).integers(0, 256, shape, np.uint8)


def segmenter(
  config: ovseg.OvSegConfig,
  params: Params,
  options: Options,
  *,
  mode: str = 'exact',
  dtype: str | None = None,
) -> Segmenter:
  """Returns the package's, with smooth masks and drawn embeddings of `name 0` on."""
  system = OvSegSystem(
    config,
    params,
    settings=Settings(
      shortest=options.shortest,
      longest=4 * options.shortest,
      templates='single',
      classifier='ensemble',
      weight=0.7,
      mode=mode,
    ),
    text_cache='off',
    dtype=dtype,
    propose=functools.partial(_propose, blobs=options.valid),
  )
  for i, row in enumerate(_unit_rows(max(options.names, options.many), config)):
    system.embedder.rows['single', f'name {i}'] = row
  return Segmenter(system)


def configuration(options: Options) -> ovseg.OvSegConfig:
  """Returns the model's sizes."""
  tower = dataclasses.replace(
    lookup(clip.PRESETS, options.preset, 'CLIP preset'),
    prompt_depth=options.depth,
    dtype=options.dtype,
  )
  proposer = dataclasses.replace(
    lookup(maskformer.PRESETS, options.proposer, 'proposer'),
    embed_dim=tower.embed_dim,
    num_queries=options.queries,
    dtype=options.dtype,
  )
  region = RegionConfig(
    size=tower.image_size, threshold=0.4, fill='mean', expand=1.0, matting=False
  )
  return ovseg.OvSegConfig(proposer=proposer, clip=tower, region=region, chunk=32)


def draw(config: ovseg.OvSegConfig) -> Params:
  """Returns random parameters."""

  def init(key: Array) -> Params:
    return {
      'proposer': maskformer.init_maskformer(config.proposer, key),
      'clip': clip.init_clip(config.clip, key),
    }

  return drawn.fill(init)


def _unit_rows(count: int, config: ovseg.OvSegConfig) -> np.ndarray:
  rows = np.random.default_rng(2).standard_normal((count, config.clip.embed_dim))
  rows /= np.linalg.norm(rows, axis=1, keepdims=True)
  return rows.astype(np.float32)


def _propose(
  config: ovseg.OvSegConfig, params: Any, image: Any, size: Any, *, blobs: int
) -> ovseg.Proposed:
  """The proposer with other masks; `blobs` of them reach any threshold."""
  real = ovseg.propose(config, params, image, size)
  q, *shape = real.mask_logits.shape
  generator = np.random.default_rng(3)
  coarse = jnp.asarray(generator.normal(-4, 5, (q, 5, 6)), jnp.float32)
  smooth = resize_bilinear(coarse, tuple(shape))
  top = jnp.max(smooth, axis=(1, 2), keepdims=True)
  valid = (jnp.arange(q) < blobs)[:, None, None]
  smooth = jnp.where(valid, smooth + jnp.maximum(3 - top, 0), smooth - top - 3)
  # The real masks take part with weight 0, so that they are computed.
  return dataclasses.replace(real, mask_logits=smooth + 1e-9 * real.mask_logits)


def _plain(model: OvSegSystem, picture: np.ndarray, names: Classes) -> np.ndarray:
  """Returns the labels that the plain way gives: nothing left out, step after step."""
  small = resize_shortest(
    picture, shortest=model.settings.shortest, longest=model.settings.longest
  )
  size = jnp.array(small.shape[:2])
  image = jnp.asarray(ovseg.pad_to_bucket(small))
  proposed = model.propose(model.config, model.params, image, size)
  encoded = plain.encode_image(model.config, model.params, image, size, proposed)
  text = jnp.asarray(model.embed(names).rows)
  weights = combine(
    class_logits(encoded.embeddings, jnp.concatenate([text, encoded.no_object])),
    class_logits(encoded.regions, text),
    encoded.valid,
    classifier=model.settings.classifier,
    weight=model.settings.weight,
  )
  h, w = small.shape[:2]
  labels, _ = plain.label_map(weights, encoded.masks[:, :h, :w], picture.shape[:2])
  return np.asarray(labels)


def _flops(
  config: ovseg.OvSegConfig,
  params: dict[str, Any],
  size: tuple[int, int],
  settings: Settings,
  valid: int,
) -> dict[str, float]:
  """Operations of a picture's products in a variant; those of fusion are left out."""
  small = shortest_size(*size, settings.shortest, settings.longest)
  cost = ovseg.image_gflops(config, params, small)
  share = valid / config.proposer.num_queries
  counted = {'package': share, 'many names': share, 'bfloat16': share, 'plain': 1.0}
  return {k: 1e9 * (cost['proposer'] + x * cost['clip']) for k, x in counted.items()}


def _stages(model: OvSegSystem, picture: np.ndarray, names: Classes) -> dict[str, Any]:
  """The share of time of each stage, each waited for, in the second of two runs."""
  settings = model.settings
  small = resize_shortest(picture, shortest=settings.shortest, longest=settings.longest)
  image = jnp.asarray(ovseg.pad_to_bucket(small))
  size = jnp.array(small.shape[:2])
  params = model.params

  def timed(function: Callable[[], Any]) -> tuple[float, Any]:
    jax.block_until_ready(function())
    began = time.perf_counter()
    found = jax.block_until_ready(function())
    return time.perf_counter() - began, found

  propose = functools.partial(
    encoding.propose_crops,
    model.config,
    params,
    image,
    size,
    propose=model.propose,
  )
  alone, _ = timed(lambda: propose(crop=False))
  both, found = timed(lambda: propose(crop=True))
  looked, _ = timed(lambda: encoding.embed_crops(model.config, params, (found[2],)))
  encoded = model.encode(picture)
  named, _ = timed(lambda: model.segment(encoded, names).labels)
  seconds = {
    'proposer': alone,
    'crops': max(both - alone, 0.0),
    'CLIP': looked,
    'names and labels': named,
  }
  total = sum(seconds.values())
  return {f'share of time: {key}': round(x / total, 3) for key, x in seconds.items()}
