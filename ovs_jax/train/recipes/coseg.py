"""Training CoSeg's language model and mask decoder on label maps (section 3.5)."""

import functools
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from ovs_jax.core.errors import UserError
from ovs_jax.core.types import (
  Array,
  Batch,
  Bool,
  Constants,
  Float,
  Int,
  Metrics,
  Num,
  Params,
  UInt8,
)
from ovs_jax.data import augment, load_dataset, load_names, squares, transforms
from ovs_jax.data.inputs import check_inputs
from ovs_jax.data.pipeline import train_batches
from ovs_jax.models import clip
from ovs_jax.models.coseg import UNLABELED, CoSeg, CoSegConfig, Prediction, init_coseg
from ovs_jax.models.mask_prompts import without_prompts
from ovs_jax.models.query_decoder import coverage
from ovs_jax.models.stored import check_agreement, load
from ovs_jax.ops import coseg as ops
from ovs_jax.ops.losses import attention_loss
from ovs_jax.ops.resize import resize_nearest
from ovs_jax.settings import Settings
from ovs_jax.text.templates import fill
from ovs_jax.text.tokenizer import tokenize
from ovs_jax.train.activations import ActivationCache, network_digest
from ovs_jax.train.recipes.recipe import Recipe, described
from ovs_jax.train.state import draw_params


class CoSegTraining(Recipe):
  """CLIP is frozen; the rest learns end to end from label maps."""

  def __init__(self, config: Settings) -> None:
    """Takes the whole configuration; loads the class list alone.

    Raises:
      ValueError: two settings of `config.slots` exclude each other.
    """
    self.config = config
    self.model = CoSegConfig(clip=config.clip, **vars(config.coseg))
    if config.slots.forced and config.slots.matching != 'area':
      raise UserError(
        'config.slots.forced decodes slots from the texts of their targets, which only '
        "config.slots.matching='area' knows before decoding; set one of them back"
      )
    if config.slots.cache and config.train.paste_scenes:
      raise UserError(
        'config.slots.cache keeps what CLIP makes of each picture, and with '
        'config.train.paste_scenes no two are the same; set one of them back'
      )
    names = load_names(config.dataset)
    self.model_config = described(
      'coseg',
      coseg=self.model.to_dict(),
      template=config.slots.template,
      training_names=names.identity(),
    )
    # Unseen classes have no text here: nothing of them may be learned.
    self.seen = [k for k, split in enumerate(names.splits) if split != 'unseen']
    self._names = [names.names[k] for k in self.seen]
    for name in config.slots.more_labels:
      if name in (*names.names, *self._names):
        raise UserError(
          f'config.slots.more_labels names {name!r}, which has a text already, as a '
          f'class of {config.dataset.name} or from the same list; leave it out'
        )
      self._names.append(name)
    self.none = len(self._names)  # row of "unlabeled" among the anchors

  def prepare(self, key: Array) -> tuple[Params, Constants]:
    """Loads CLIP, embeds the names of the classes and draws the rest.

    The names are `anchors` (c, d), L2-normalised: of the seen classes, of
    `slots.more_labels`, and of "unlabeled" last.
    """
    check_inputs(
      [('config.init.clip', 'clip', self.config.init.clip)],
      lambda: load_dataset(self.config.dataset),
      embedded=self.config.dataset.name == 'scenes',
    )
    config, loaded = self._load_clip()
    params = dict(draw_params(init_coseg, self.model, key, '(?!clip/)'))
    params['clip'] = jax.tree.map(jnp.asarray, loaded)
    prompts = fill((self.config.slots.template,), [*self._names, UNLABELED])
    anchors = clip.encode_prompts(config, loaded, prompts, tokenize)
    return params, {'anchors': anchors}

  def _load_clip(self) -> tuple[clip.ClipConfig, Params]:
    """Returns the frozen CLIP, as its checkpoint has it."""
    directory = self.config.init.clip
    found = load(directory, kinds=('clip',), what='CLIP checkpoint')
    check_agreement(
      self.model.clip, found.config, key='config.clip', directory=directory
    )
    return found.config, without_prompts(found.params)

  def batches(
    self, start: int, rows: Int[np.ndarray, 'r'] | None = None
  ) -> Iterator[Batch]:
    """Yields `label` (b, s, s) of train ids and `image` (b, s, s, 3), central squares.

    The step runs the frozen CLIP. With a cache CLIP's activations come in the images'
    place (see `encode_images` for their names), 15 times as many bytes.
    """
    c = self.config
    _, builder = load_dataset(c.dataset)
    paste = c.train.paste_scenes
    steps = [augment.copy_paste(c.train.paste)] if paste else []
    steps += [transforms.random_flip] if c.slots.flip else []
    batches = train_batches(
      builder,
      c.train.split,
      [
        *steps,
        squares.centre(self.model.image_size),
        transforms.keep('image', 'label'),
      ],
      batch_size=c.train.batch_size,
      seed=c.seed,
      start=start,
      companion=[augment.only_classes(self.seen), transforms.random_flip],
      companions=paste,
      rows=rows,
    )
    if not c.slots.cache:
      yield from batches
      return
    local = c.train.batch_size if rows is None else len(rows)
    cache = self._cache(builder.info.splits[c.train.split].num_examples, local)
    for batch in batches:
      yield {'label': batch['label'], **cache(batch['image'])}

  def _cache(self, examples: int, local: int) -> ActivationCache:
    """What CLIP makes of pictures, on all devices of this process, kept on disk.

    Trainings that differ in other settings than `encoder_settings` share it. Pictures
    go by their pixels, so that it does not matter which data set or split has them.

    Args:
      examples: of the split.
      local: pictures of a batch.
    """
    c, side = self.config, self.model.image_size
    shape = (local, side, side, 3)
    mesh = Mesh(np.array(jax.local_devices()), ('data',))
    split = shape[0] % mesh.size == 0
    rows = NamedSharding(mesh, PartitionSpec('data' if split else None))
    loaded = {'clip': self._load_clip()[1]}
    frozen = jax.device_put(loaded, NamedSharding(mesh, PartitionSpec()))

    def encode(images: UInt8[Any, 'b h w 3']) -> dict[str, Array]:
      if isinstance(images, np.ndarray):
        images = jax.device_put(images, rows)
      return encode_images(self.model, frozen, images)

    return ActivationCache(
      c.slots.cache,
      identity=network_digest(loaded, encoder_settings(self.model)),
      encode=encode,
      examples=examples * (2 if c.slots.flip else 1),
      shape=shape,
    )

  def _predict(
    self, params: Params, batch: Batch, **more: Any
  ) -> tuple[Prediction, dict[str, Any]]:
    """Runs the model on images, or on what the cache has of them.

    Returns:
      What it predicts, and what its language model noted on the way, if that is wanted.
    """
    model, variables = CoSeg(self.model), {'params': params}
    weights = self.config.slots.weights
    noted = ['intermediates'] if weights.attention or weights.deep else []
    more |= {'train': True, 'mutable': noted}
    if 'image' in batch:
      out, seen = model.apply(variables, batch['image'], **more)
      return out, seen.get('intermediates', {}).get('language', {})
    found = tuple(batch[name] for name in sorted(batch) if name.startswith('block_'))
    side = self.model.image_size // self.model.clip.patch
    out, seen = model.apply(
      variables, found, batch['patches'], (side, side), method='predict', **more
    )
    return out, seen.get('intermediates', {}).get('language', {})

  def targets(
    self, label: Num[Array, 'b h w']
  ) -> tuple[Int[Array, 'b n'], Bool[Array, 'b n s s'], Bool[Array, 'b s s']]:
    """Returns label and mask of every slot, and the pixels without a label.

    Ids are rows of the anchors; the last one is "unlabeled".
    """
    side = self.model.image_size
    label = resize_nearest(label.astype(jnp.int32), (side, side))
    none = self.none
    # The last row is that of void, which is beyond all classes, and of whatever is.
    rows = jnp.full(max(self.seen) + 2, none, jnp.int32)
    rows = rows.at[jnp.asarray(self.seen)].set(jnp.arange(len(self.seen)))
    label = rows[jnp.minimum(label, rows.shape[0] - 1)]
    ids, masks = ops.area_targets(label, self.model.language.num_slots, none)
    return ids, masks, label == none

  def loss(
    self, params: Params, constants: Constants, batch: Batch, key: Array
  ) -> tuple[Array, Metrics]:
    """The mask losses plus lambda times the language loss, each with its weight."""
    s, anchors = self.config.slots, constants['anchors']
    ids, masks, ignore = self.targets(batch['label'])
    drop, draw = jax.random.split(key)
    given: dict[str, Array] = {}
    if s.forced:
      given['texts'] = anchors[ids]
      given['forced'] = jax.random.bernoulli(draw, s.forced, ids.shape)
    if s.weights.text:
      given['beside'] = anchors[ids]
    out, noted = self._predict(params, batch, **given, rngs={'dropout': drop})
    if out.logits.shape[2:] != masks.shape[2:]:
      size = out.logits.shape[2:]
      masks, ignore = (resize_nearest(x, size) for x in (masks, ignore))
    targets, empty = (ids, masks), s.padded
    if s.matching == 'hungarian':
      empty = s.unmatched
      ids, masks = ops.match_slots(
        out.tokens, out.logits, ids, masks, anchors, weights=s.match_costs
      )
    weights = jnp.where(ids == self.none, empty, 1.0)
    losses = ops.mask_losses(
      out.logits,
      masks,
      ignore=ignore if s.ignore_unlabeled else None,
      empty_weight=empty,
      wanted=tuple(name for name in ('dice', 'focal') if getattr(s.weights, name)),
    )
    losses['language'] = self._language_loss(out.tokens, ids, anchors, weights)
    if s.weights.text:
      losses['text'] = self._text_loss(out, *targets, ignore)
    if s.weights.deep:
      each = [
        self._language_loss(tokens, ids, anchors, weights)
        for tokens in noted['tokens'][:-1]
      ]
      losses['deep'] = sum(each) / max(len(each), 1)
    if s.weights.attention:
      losses['attention'], share = self._attention_loss(noted, ids, masks)
    if out.log_areas is not None:
      filled = jnp.any(masks, axis=(2, 3))
      error = jnp.abs(out.log_areas - ops.log_areas(masks))
      losses['area'] = jnp.sum(error * filled) / jnp.maximum(jnp.sum(filled), 1)
    total = sum(getattr(s.weights, name) * value for name, value in losses.items())
    metrics = {**losses, 'right_labels': self._accuracy(out, ids, anchors)}
    if s.weights.attention:
      metrics['attention_share'] = share
    return total, metrics

  def _language_loss(
    self,
    tokens: Float[Array, 'b n d'],
    ids: Int[Array, 'b n'],
    anchors: Float[Array, 'c d'],
    weights: Float[Array, 'b n'] | None,
  ) -> Float[Array, '']:
    s = self.config.slots
    if s.language_loss == 'vocabulary':
      return ops.vocabulary_loss(tokens, ids, anchors, tau=s.tau, weights=weights)
    return ops.language_loss(
      tokens,
      ids,
      anchors,
      tau=s.tau,
      duplicates=s.duplicates,
      direction=s.direction,
      weights=weights,
    )

  def _text_loss(
    self,
    out: Prediction,
    ids: Int[Array, 'b n'],
    masks: Bool[Array, 'b n h w'],
    ignore: Bool[Array, 'b h w'],
  ) -> Float[Array, '']:
    """The mask losses of the targets' texts, with the weights of the slots' masks.

    Texts are not told what else there is: none has another's mask to leave out. Targets
    that are not there, whose text would be "unlabeled", count nowhere.
    """
    s = self.config.slots
    losses = ops.mask_losses(
      out.beside,
      masks,
      ignore=ignore if s.ignore_unlabeled else None,
      empty_weight=0.0,
      wanted=tuple(name for name in ('dice', 'focal') if getattr(s.weights, name)),
    )
    return sum(getattr(s.weights, name) * value for name, value in losses.items())

  def _attention_loss(
    self,
    noted: dict[str, Any],
    ids: Int[Array, 'b n'],
    masks: Bool[Array, 'b n h w'],
  ) -> tuple[Float[Array, ''], Float[Array, '']]:
    """Where slots with a class look, in every block: the loss, and the share."""
    rows = self.model.image_size // self.model.clip.patch
    parts = coverage(masks.astype(jnp.float32), rows)
    own = jnp.broadcast_to(jnp.arange(ids.shape[1]), ids.shape)
    found = []
    for block, kind in (('decoder', 'cross_attn'), ('block', 'attn')):
      for i in range(len(noted['tokens'])):
        if f'{block}_{i}' in noted:
          (weights,) = noted[f'{block}_{i}'][kind]['weights']
          weights = weights[:, :, : ids.shape[1], -rows * rows :]
          found.append(attention_loss(weights, parts, ids != self.none, own))
    losses, shares = zip(*found, strict=True)
    return sum(losses) / len(found), sum(shares) / len(found)

  def _accuracy(
    self, out: Prediction, ids: Int[Array, 'b n'], anchors: Float[Array, 'c d']
  ) -> Float[Array, '']:
    """The share of slots with a class whose nearest text is that class's."""
    real = ids != self.none
    right = jnp.argmax(clip.unit(out.tokens) @ anchors.T, axis=2) == ids
    return jnp.sum(right & real) / jnp.maximum(jnp.sum(real), 1)


def encoder_settings(model: CoSegConfig) -> dict[str, Any]:
  """Returns what `encode_images` depends on beside CLIP's parameters."""
  c = model.to_dict()
  how = ('remat', 'unroll')  # blocks are computed, without another result
  return {
    'clip': {name: value for name, value in c['clip'].items() if name not in how},
    'extract': c['decoder']['extract'],
    **{name: c[name] for name in ('image_size', 'statistics', 'patch_norm')},
  }


@functools.partial(jax.jit, static_argnums=0)
def encode_images(
  model: CoSegConfig, params: Params, image: UInt8[Array, 'b h w 3']
) -> dict[str, Array]:
  """Returns the activations of CLIP's blocks, and its projected patches, by name."""
  activations, patches = CoSeg(model).apply({'params': params}, image, method='encode')
  found = {f'block_{i:02d}': x for i, x in enumerate(activations)}
  return {**found, 'patches': patches}
