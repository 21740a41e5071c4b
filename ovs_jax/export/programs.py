"""What is exported of an OVSeg: three functions of weights and arrays.

    text: tokens -> embeddings
    image: a padded photo and its size -> masks, embeddings, validity
    label: those, any number of names, and where pixels lie -> labels and confidence
    maps: as label, for who resizes and compares scores himself, as the page does

They are the functions that `Segmenter` calls, so that labels are the same. Weights are
an argument, by their paths.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ovs_jax.core.images import shortest_size
from ovs_jax.core.tree import flatten, unflatten
from ovs_jax.core.types import Array, Bool, Float, Int, Params
from ovs_jax.inference.ovseg import OvSegSystem
from ovs_jax.inference.weigh import weigh_padded
from ovs_jax.models import clip, ovseg
from ovs_jax.models.clip_fast import encode_images
from ovs_jax.models.content import bucket_size
from ovs_jax.models.reduced import restored
from ovs_jax.ops.ensemble import fuse
from ovs_jax.ops.painting import paint_tiles
from ovs_jax.ops.regions import crop_regions, map_valid, patch_mask
from ovs_jax.ops.resize import EXACT

TILE = 64  # side in pixels of the squares that are painted at once
Weights = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Argument:
  """An input or an output.

  Attributes:
    name: what it is called in the manifest.
    shape: such as 'k, 64': letters are lengths that the caller chooses.
    dtype: of its values.
    meaning: with units.
  """

  name: str
  shape: str
  dtype: str
  meaning: str

  def entry(self) -> dict[str, str]:
    """Returns what the manifest says."""
    return dataclasses.asdict(self)


@dataclasses.dataclass(frozen=True)
class Program:
  """A function to export.

  Attributes:
    name: of its file.
    function: of the weights and the inputs; returns as many arrays as `outputs`.
    weights: paths of the weights that it takes.
    inputs: its other arguments.
    outputs: what it returns.
    constraints: on the letters in shapes.
  """

  name: str
  function: Callable[..., tuple[Array, ...]]
  weights: tuple[str, ...]
  inputs: tuple[Argument, ...]
  outputs: tuple[Argument, ...]
  constraints: tuple[str, ...] = ()


def weights_of(system: OvSegSystem) -> dict[str, np.ndarray]:
  """Returns what the programs need of the parameters, by path."""
  used = ('proposer/', 'clip/')
  every = flatten(system.params)
  return {p: np.asarray(x, order='C') for p, x in every.items() if p.startswith(used)}


def programs(
  system: OvSegSystem, sizes: Sequence[tuple[int, int]], *, plain: bool = False
) -> tuple[Program, ...]:
  """Returns all functions of a model.

  Args:
    system: the model.
    sizes: heights and widths of padded photos (`padded_sizes`), each its own program.
    plain: whether CLIP computes all patches of crops, also those that mask prompts
      overwrite. Else one of three branches is chosen, which not every format has.
      'maps' is among these alone.
  """
  return (
    _text(system),
    *(_image(system, size, plain=plain) for size in sizes),
    _label(system, plain=plain),
    *((_maps(system),) if plain else ()),
  )


def padded_sizes(shortest: int, longest: int, aspect: float) -> list[tuple[int, int]]:
  """Lists what photos are padded to, sorted.

  Args:
    shortest: a photo's shorter side for the networks.
    longest: limit of its longer side.
    aspect: most of the longer side over the shorter one, at least 1.
  """
  found = set()
  for long in range(1000, int(1000 * aspect) + 1):  # in thousandths of the shorter side
    h, w = shortest_size(1000, long, shortest, longest)
    found |= {bucket_size(h, w), bucket_size(w, h)}
  return sorted(found)


def _paths(system: OvSegSystem, *parts: str) -> tuple[str, ...]:
  return tuple(sorted(p for p in flatten(system.params) if p.startswith(parts)))


def _text(system: OvSegSystem) -> Program:
  config = system.config.clip
  length = config.context_length
  shape = f'n, {length}' if config.text_tower.sees_padding else 'n, t'

  def text(weights: Weights, tokens: Int[Array, 'n t']) -> tuple[Float[Array, 'n d']]:
    return (clip.embed_tokens(config, unflatten(restored(weights))['clip'], tokens),)

  return Program(
    'text',
    text,
    _paths(system, 'clip/text/', 'clip/logit'),
    (Argument('tokens', shape, 'int32', 'ids of sentences; 0 fills up at the end'),),
    (
      Argument(
        'embeddings', f'n, {config.embed_dim}', 'float32', 'of sentences, of length 1'
      ),
    ),
    (f't <= {length}',) if shape.endswith('t') else (),
  )


def _encoded(system: OvSegSystem, h: int | str, w: int | str) -> tuple[Argument, ...]:
  q, d = system.config.proposer.num_queries, system.config.clip.embed_dim
  return (
    Argument('embeddings', f'{q}, {d}', 'float32', 'of masks by the proposer'),
    Argument('regions', f'{q}, {d}', 'float32', 'of masks by CLIP'),
    Argument(
      'masks', f'{q}, {h}, {w}', 'float32', 'probabilities 0..1; 0 in the padding'
    ),
    Argument('valid', f'{q}', 'bool', 'masks that show anything'),
    Argument('no_object', f'1, {d}', 'float32', 'embedding of "no object", length 1'),
  )


def _image(system: OvSegSystem, size: tuple[int, int], *, plain: bool) -> Program:
  config = system.config
  encode = _encode_plainly if plain else ovseg.encode_image

  def image(
    weights: Weights, photo: Float[Array, 'h w 3'], inside: Int[Array, '2']
  ) -> tuple[Array, ...]:
    found = encode(config, unflatten(restored(weights)), photo, inside)
    return (
      found.embeddings,
      found.regions,
      found.masks,
      found.valid,
      found.no_object,
    )

  h, w = size
  return Program(
    f'image_{h}x{w}',
    image,
    _paths(system, 'proposer/', 'clip/visual/'),
    (
      Argument('photo', f'{h}, {w}, 3', 'float32', 'RGB 0..255, padded by the fill'),
      Argument('inside', '2', 'int32', 'height and width without the padding'),
    ),
    _encoded(system, h, w),
  )


def _encode_plainly(
  config: ovseg.OvSegConfig,
  params: Params,
  image: Float[Array, 'h w 3'],
  size: Int[Array, '2'],
) -> ovseg.Encoded:
  """Does what `ovseg.encode_image` does, without branches."""
  proposed = ovseg.propose(config, params, image, size)
  masks = ovseg.full_masks(proposed.mask_logits, image.shape[:2], size)
  regions = crop_regions(image, masks, config.region, statistics=config.clip.pixels)
  prompted = bool(config.clip.prompt_depth)
  keep = patch_mask(regions.masks, config.clip.patch) if prompted else None

  def embed(places: Array) -> Array:
    seen = None if keep is None else keep[places]
    return encode_images(config.clip, params['clip'], regions.pixels[places], seen)

  rows = map_valid(
    embed,
    regions.valid,
    jnp.ones(proposed.embeddings.shape),
    chunk=ovseg.chunk_size(config),
  )
  return ovseg.Encoded(
    proposed.embeddings, rows, masks, regions.boxes, regions.valid, proposed.no_object
  )


def _weighed(
  system: OvSegSystem,
  encoded: Sequence[Array],
  names: Float[Array, 'k d'],
  real: Bool[Array, 'k'],
) -> Float[Array, 'q k']:
  """Returns how much each mask speaks for each name."""
  settings = system.settings
  embeddings, regions, masks, valid, no_object = encoded
  few, boxes = masks[:, :1, :1], jnp.zeros((len(valid), 4))
  weighed, _, _ = weigh_padded(
    ovseg.Encoded(embeddings, regions, few, boxes, valid, no_object),
    names,
    real,
    None,
    real,
    real,
    rule='pixels',
    classifier=settings.classifier,
    weight=float(settings.weight),
    mix=system.mix,
  )
  return jnp.where(jnp.any(valid), weighed, 0.0)


def _names(system: OvSegSystem) -> tuple[Argument, ...]:
  d = system.config.clip.embed_dim
  return (
    Argument('names', f'k, {d}', 'float32', 'embeddings of names, of length 1'),
    Argument('real', 'k', 'bool', 'rows of names that are not padding'),
  )


def _label(system: OvSegSystem, *, plain: bool) -> Program:
  def label(
    weights: Weights,
    embeddings: Float[Array, 'q d'],
    regions: Float[Array, 'q d'],
    masks: Float[Array, 'q h w'],
    valid: Bool[Array, 'q'],
    no_object: Float[Array, '1 d'],
    names: Float[Array, 'k d'],
    real: Bool[Array, 'k'],
    *places: Array,
  ) -> tuple[Array, ...]:
    encoded = embeddings, regions, masks, valid, no_object
    paint = _painted_plainly if plain else _painted
    return paint(_weighed(system, encoded, names, real), masks, *places)

  pixels = f'n, m, {TILE}, {TILE}' if plain else f'{TILE}*n, {TILE}*m'
  return Program(
    'label',
    label,
    (),
    (
      *_encoded(system, 'h', 'w'),
      *_names(system),
      *_places(plain),
    ),
    (
      Argument('labels', pixels, 'int32', 'row of names that is best, 0 and up'),
      Argument('scores', pixels, 'float32', 'its evidence; 0 where nothing reaches'),
      Argument('confidence', pixels, 'float32', 'its share of the evidence, 0..1'),
    ),
    () if plain else ('i <= h', 'j <= w'),
  )


def _maps(system: OvSegSystem) -> Program:
  def maps(
    weights: Weights,
    embeddings: Float[Array, 'q d'],
    regions: Float[Array, 'q d'],
    masks: Float[Array, 'q h w'],
    valid: Bool[Array, 'q'],
    no_object: Float[Array, '1 d'],
    names: Float[Array, 'k d'],
    real: Bool[Array, 'k'],
  ) -> tuple[Float[Array, 'k h w']]:
    encoded = embeddings, regions, masks, valid, no_object
    return (fuse(_weighed(system, encoded, names, real), masks),)

  return Program(
    'maps',
    maps,
    (),
    (*_encoded(system, 'h', 'w'), *_names(system)),
    (Argument('maps', 'k, h, w', 'float32', 'evidence for each name; 0 in padding'),),
  )


def _places(plain: bool) -> tuple[Argument, ...]:
  """Returns the arguments that say where pixels lie in the masks."""
  if plain:
    return (
      Argument('rows', f'n, {TILE}, h', 'float32', "weights of the masks' rows"),
      Argument('columns', f'm, {TILE}, w', 'float32', 'likewise of columns'),
    )
  return (
    Argument('tops', 'n', 'int32', 'row of the masks where a row of tiles begins'),
    Argument('rows', f'n, {TILE}, i', 'float32', 'weights of the rows from there'),
    Argument('lefts', 'm', 'int32', 'likewise of columns'),
    Argument('columns', f'm, {TILE}, j', 'float32', 'likewise of columns'),
  )


def _painted(
  weights: Float[Array, 'q k'],
  masks: Float[Array, 'q h w'],
  tops: Int[Array, 'n'],
  rows: Float[Array, 'n t i'],
  lefts: Int[Array, 'm'],
  columns: Float[Array, 'm t j'],
) -> tuple[Array, ...]:
  """Labels, scores and confidence, as `inference.label.result` has them."""
  places = (tops[None], rows[None]), (lefts[None], columns[None])
  counts = jnp.array([tops.shape[0], lefts.shape[0]])
  labels, scores = paint_tiles(
    weights, (masks,), *places, counts, group=weights.shape[1]
  )
  fused = fuse(jnp.sum(weights, axis=1)[:, None], masks)
  _, total = paint_tiles(jnp.ones((1, 1)), (fused,), *places, counts, group=1)
  share = jnp.minimum(scores / jnp.maximum(total, 1), 1)
  return labels, scores, share


def _painted_plainly(
  weights: Float[Array, 'q k'],
  masks: Float[Array, 'q h w'],
  rows: Float[Array, 'n t h'],
  columns: Float[Array, 'm u w'],
) -> tuple[Array, ...]:
  """Does what `_painted` does with plain loops, tile by tile."""
  total, k = jnp.sum(weights, axis=1), weights.shape[1]
  product = functools.partial(jnp.einsum, precision=EXACT)

  def in_row(row: Float[Array, 't h']) -> tuple[Array, ...]:
    part = product('th,qhw->qtw', row, masks)

    def in_tile(column: Float[Array, 'u w']) -> tuple[Array, ...]:
      tile = product('uw,qtw->qtu', column, part)
      scores = product('qk,qtu->ktu', weights, tile)
      best = jnp.max(scores, axis=0)
      number = jnp.arange(k, dtype=jnp.int32)[:, None, None]
      labels = jnp.min(jnp.where(scores == best[None], number, 2**30), axis=0)
      every = product('q,qtu->tu', total, tile)
      return labels, best, jnp.minimum(best / jnp.maximum(every, 1), 1)

    return jax.lax.map(in_tile, columns)

  return jax.lax.map(in_row, rows)
