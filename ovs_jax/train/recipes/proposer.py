"""Training MaskFormer with CLIP's text embeddings as classes (OVSeg, section 3.2)."""

import dataclasses
import math
from collections.abc import Iterator, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from ovs_jax.core.errors import UserError
from ovs_jax.core.limits import plain
from ovs_jax.core.lookup import lookup
from ovs_jax.core.tree import difference
from ovs_jax.core.types import (
  VOID_16,
  Array,
  Batch,
  Bool,
  Constants,
  Float,
  Int,
  Metrics,
  Params,
)
from ovs_jax.data import DATASETS, augment, load_dataset, load_names, transforms
from ovs_jax.data.pipeline import train_batches
from ovs_jax.data.shards import Shards
from ovs_jax.inference.names import embed_names
from ovs_jax.inference.parts import load_clip
from ovs_jax.models import backbones
from ovs_jax.models.maskformer import MaskFormer, MaskFormerConfig, init_maskformer
from ovs_jax.models.query_decoder import coverage, mean_blocks
from ovs_jax.models.stored import load
from ovs_jax.ops.ensemble import class_logits
from ovs_jax.ops.losses import attention_loss, naming_loss, set_losses, size_counts
from ovs_jax.ops.matching import match
from ovs_jax.ops.targets import target_masks
from ovs_jax.settings import Settings
from ovs_jax.train.label_scores import rows_of, score_labels
from ovs_jax.train.recipes.recipe import Recipe, described
from ovs_jax.train.state import draw_params

SOMETHING = 'something'  # the one class of a proposer that tells none apart


class Proposer(Recipe):
  """The proposer learns; the text tower that names its classes is frozen."""

  def __init__(self, config: Settings) -> None:
    """Takes the whole configuration; loads the class list alone.

    Raises:
      ValueError: two checkpoints are named for one backbone.
    """
    self.config = config
    self.model = config.proposer
    whole, backbone = config.init.proposer, config.init.backbone
    if whole and backbone:
      raise UserError(
        f'config.init.proposer={whole} brings a backbone of its own; leave out '
        f'config.init.backbone={backbone}, or the former'
      )
    self._check_agnostic()
    self.evaluate_every = config.train.choose_every if config.train.choose else 0
    names = load_names(config.dataset)
    self.model_config = described(
      'proposer', proposer=plain(config.proposer), training_names=names.identity()
    )
    if config.train.agnostic:
      self.model_config['agnostic'] = True
    held_out = {'seen': 'unseen', 'all': None}[config.train.classes]
    self.seen = [k for k, split in enumerate(names.splits) if split != held_out]
    self._names = [names.names[k] for k in self.seen]
    if config.train.agnostic:
      self._names = [SOMETHING]

  def _check_agnostic(self) -> None:
    train = self.config.train
    if not train.agnostic:
      wrong = [f'train.also={train.also}'] if train.also else []
      what = (
        'belongs to config.train.agnostic=True: classes of several data sets differ'
      )
    else:
      wrong = [f'train.choose={train.choose}'] if train.choose else []
      wrong += ['train.paste_scenes'] if train.also and train.paste_scenes else []
      wrong += ['train.classes=seen'] if train.also and train.classes == 'seen' else []
      what = 'asks for classes, which config.train.agnostic=True does not tell apart'
    if wrong:
      raise UserError(f'config.{wrong[0]} {what}; leave it out')

  def prepare(self, key: Array) -> tuple[Params, Constants]:
    """Draws the proposer and embeds the names of the seen classes.

    These are `text` (k, d), L2-normalised.
    """
    directory = self.config.init.clip
    clip = load_clip(directory)
    config, params = clip.config, clip.params
    if config.embed_dim != self.model.embed_dim:
      raise UserError(
        f'the CLIP in {directory} embeds in {config.embed_dim} dimensions, '
        f'config.proposer.embed_dim is {self.model.embed_dim}'
      )
    text = embed_names(config, params, self._names, self.config.text.templates)
    return self._start(key), {'text': text}

  def _start(self, key: Array) -> Params:
    """Loads what `config.init` names, and draws the rest."""
    whole, backbone = self.config.init.proposer, self.config.init.backbone
    if whole:
      drawn = draw_params(init_maskformer, self.model, key, 'class_embed/|no_object')
      return load_proposer(whole, self.model, drawn)
    if backbone:
      drawn = draw_params(init_maskformer, self.model, key, '(?!backbone/)')
      loaded = load_backbone(backbone, self.model, drawn['backbone'])
      return {**drawn, 'backbone': loaded}
    return draw_params(init_maskformer, self.model, key)

  def batches(
    self, start: int, rows: Int[np.ndarray, 'r'] | None = None
  ) -> Iterator[Batch]:
    """Yields `image` (b, h, w, 3) and `label` (b, h, w), and the padded targets.

    These are `ids` (b, t) in the label map, `classes` (b, t) in the list of seen
    classes, and `valid` (b, t).
    """
    c = self.config
    builder, *also = self._builders()
    row = self._rows()
    for batch in train_batches(
      builder,
      c.train.split,
      [
        *self._augmentation(),
        transforms.label_targets(c.train.max_targets),
        transforms.keep('image', 'label', 'ids', 'valid'),
      ],
      batch_size=c.train.batch_size,
      seed=c.seed,
      start=start,
      companion=[augment.only_classes(self.seen), transforms.random_flip],
      companions=c.train.paste_scenes,
      rows=rows,
      also=also,
    ):
      yield {**batch, 'classes': row[batch['ids']]}

  def _builders(self) -> list[Any]:
    """The data set, and those of `config.train.also`, whose labels have one type."""
    first = load_dataset(self.config.dataset)[1]
    found = [first]
    for text in self.config.train.also:
      name, _, variant = text.partition('/')
      lookup(DATASETS, name, 'data set of config.train.also')
      section = dataclasses.replace(
        self.config.dataset, name=name, variant=variant or 'default'
      )
      found.append(load_dataset(section)[1])
      one, other = (_fields(x) for x in (first, found[-1]))
      if one != other:
        raise UserError(
          f'config.train.also: {text} has the fields {other}, and '
          f'{self.config.dataset.name} has {one}; they must be the same'
        )
    return found

  def examples(self) -> int:
    """Returns how many examples an epoch shows."""
    return len(Shards(self._builders(), self.config.train.split))

  def _rows(self) -> Int[np.ndarray, 'n']:
    """From train ids to rows of the text matrix; unseen classes are never targets."""
    if self.config.train.agnostic:
      return np.zeros(VOID_16, np.int32)
    return rows_of(self.seen)

  def evaluate(self, params: Params, constants: Constants) -> dict[str, float]:
    """Labels the photos of `config.train.choose`; see `label_scores.score_labels`."""
    c = self.config
    return score_labels(
      self.model,
      params,
      constants['text'],
      builder=load_dataset(c.dataset)[1],
      split=c.train.choose,
      rows=self._rows(),
      shortest=c.test.shortest,
      longest=c.test.longest,
    )

  def _augmentation(self) -> list[transforms.Transform]:
    c = self.config.train
    # What is seen in other data sets, the names of this one do not say.
    steps = [] if c.also else [augment.only_classes(self.seen)]
    if c.paste_scenes:
      steps.append(augment.copy_paste(c.paste))
    if c.shortest or c.crop:
      steps.append(augment.jittered_crop(c.shortest, c.longest, c.crop))
    if c.colour:
      steps.append(augment.colour_jitter)
    steps.append(transforms.random_flip)
    return [*steps, augment.pad_square(c.crop)] if c.crop else steps

  def loss(
    self, params: Params, constants: Constants, batch: Batch, key: Array
  ) -> tuple[Array, Metrics]:
    """The set loss, summed over all decoder layers, each with its own matching."""
    c = self.config.train
    settings = {
      'weights': vars(c.set_weights),
      'pilot_weight': c.pilot_weight,
      'attention_weight': c.attention_weight,
      'mask_stride': c.mask_stride,
      'size_balance': c.size_balance,
    }
    text = constants['text']
    return deep_loss(self.model, params, batch, key, text=text, **settings)


def deep_loss(
  model: MaskFormerConfig,
  params: Params,
  batch: Batch,
  key: Array,
  *,
  text: Float[Array, 'k d'],
  weights: Mapping[str, float],
  pilot_weight: float = 0.0,
  attention_weight: float = 0.0,
  mask_stride: int = 1,
  size_balance: float = 0.0,
) -> tuple[Array, Metrics]:
  """The losses, summed over all decoder layers, and those of the last.

  Args:
    model: sizes of the proposer.
    params: its parameters.
    batch: `image` (b, h, w, 3) 0..255, `label` (b, h, w), and of the targets (b, t)
      `ids` in it, `classes`, which are rows of `text`, and `valid`.
    key: of dropout.
    text: L2-normalised embeddings of the classes.
    weights: of `ce`, `mask` and `dice`; if they are all 0 the queries learn nothing.
    pilot_weight: of the cross entropy of queries that look at one target each; their
      masks have the weights of the others'. 0: there are none.
    attention_weight: of `attention_loss`, which the matched queries get.
    mask_stride: pixels to a side of what masks are compared in.
    size_balance: see `size_counts`.
  """
  masks = target_masks(batch['label'], batch['ids'], batch['valid'])
  masks = mean_blocks(masks.astype(jnp.float32), mask_stride)
  out, seen = MaskFormer(model).apply(
    {'params': params},
    batch['image'].astype(jnp.float32),
    train=True,
    all_layers=True,
    masks=masks if pilot_weight else None,
    rngs={'dropout': key},
    mutable=['intermediates'] if attention_weight else [],
  )
  targets = (batch['classes'], masks, batch['valid'])
  counts = size_counts(*targets[1:], size_balance) if size_balance else None
  factors = {**weights, 'pilot': pilot_weight, 'attention': attention_weight}
  logits = class_logits(out.embeddings, jnp.concatenate([text, out.no_object]))
  proposed = out.mask_logits  # as the logits: l b q_and_t _
  asked = (logits[:, :, : model.num_queries], proposed[:, :, : model.num_queries])
  matched = match(*asked, *targets) if any(weights.values()) else None  # l b t
  total, losses = 0.0, {}
  for layer in range(model.layers):
    losses = {}
    if matched is not None:
      losses = set_losses(*(x[layer] for x in asked), *targets, matched[layer], counts)
      if attention_weight:
        looks = seen['intermediates']['query_decoder'][f'layer_{layer}']['cross_attn']
        losses |= _attention(looks['weights'][0], masks, targets[-1], matched[layer])
    if pilot_weight:
      pilots = [x[layer][:, model.num_queries :] for x in (logits, proposed)]
      losses = _with_pilots(losses, *pilots, *targets, counts)
    total += sum(factors[name] * x for name, x in losses.items() if name in factors)
  return total, losses


def _attention(
  weights: Float[Array, 'b h q n'],
  masks: Float[Array, 'b t y x'],
  valid: Bool[Array, 'b t'],
  queries: Int[Array, 'b t'],
) -> Metrics:
  """Where the queries look: the loss, and the share that falls on their targets."""
  height, width = masks.shape[-2:]
  rows = math.isqrt(weights.shape[-1] * height // width)
  loss, share = attention_loss(weights, coverage(masks, rows), valid, queries)
  return {'attention': loss, 'attention_share': share}


def _with_pilots(
  losses: Metrics,
  logits: Float[Array, 'b t k'],
  mask_logits: Float[Array, 'b t y x'],
  classes: Int[Array, 'b t'],
  masks: Float[Array, 'b t h w'],
  valid: Bool[Array, 'b t'],
  counts: Float[Array, 'b t'] | None,
) -> Metrics:
  """Adds the loss of the pilots' names, and those of their masks to the queries'."""
  name, right = naming_loss(logits, classes, valid)
  if losses:
    own = jnp.broadcast_to(jnp.arange(classes.shape[1]), classes.shape)
    extra = set_losses(logits, mask_logits, classes, masks, valid, own, counts)
    losses = {**losses, **{key: losses[key] + extra[key] for key in ('mask', 'dice')}}
  return {**losses, 'pilot': name, 'pilot_accuracy': right}


def _fields(builder: Any) -> str:
  """What the examples of a data set have, with the type of their label maps."""
  found = builder.info.features
  return ', '.join(f'{name} ({found[name].np_dtype})' for name in sorted(found))


def load_proposer(directory: str, model: MaskFormerConfig, drawn: Params) -> Params:
  """Reads the proposer to go on with: of one alone, of an OVSeg, or a MaskFormer.

  A MaskFormer with a fixed list of classes has no embeddings: what gives them, and "no
  object", stays as drawn, and its classifier is left out.

  Args:
    directory: of the checkpoint.
    model: the proposer that gets it.
    drawn: its own parameters, whose names and shapes are expected; of most the shapes
      alone are read.

  Raises:
    FileNotFoundError: there is no checkpoint.
    ValueError: it has no proposer, or one of another backbone, width or size.
  """
  kinds = ('proposer', 'ovseg')
  checkpoint = load(directory, kinds=kinds, what='proposer checkpoint')
  found, params = checkpoint.config, checkpoint.params
  if checkpoint.kind == 'ovseg':
    found, params = found.proposer, params['proposer']
  params = dict(params)
  _check_kind(directory, found.backbone_config(), model)
  if found.num_classes:
    params.pop('class_predictor', None)
    params |= {name: drawn[name] for name in ('class_embed', 'no_object')}
  elif found.embed_dim != model.embed_dim:
    raise UserError(
      f'the proposer in {directory} embeds in {found.embed_dim} dimensions, '
      f'config.proposer.embed_dim is {model.embed_dim}: it belongs to another CLIP'
    )
  problem = difference(drawn, params, what=f'the proposer in {directory}')
  if problem:
    raise UserError(problem)
  return params


def _check_kind(
  directory: str, found: backbones.Config, model: MaskFormerConfig
) -> None:
  wanted = backbones.kind(model.backbone_config())
  if backbones.kind(found) != wanted:
    raise UserError(
      f'the checkpoint {directory} has a {backbones.kind(found)} backbone, '
      f'config.proposer.backbone asks for a {wanted}'
    )


def load_backbone(directory: str, model: MaskFormerConfig, drawn: Params) -> Params:
  """Reads the backbone of a checkpoint: of one alone, of a proposer or of an OVSeg.

  Args:
    directory: of the checkpoint.
    model: the proposer that gets it.
    drawn: its own parameters or their shapes, whose names and shapes are expected.

  Raises:
    FileNotFoundError: there is no checkpoint.
    ValueError: it has none, the other one, or one of another size.
  """
  kinds = ('backbone', 'proposer', 'ovseg')
  checkpoint = load(directory, kinds=kinds, what='backbone checkpoint')
  found, params = checkpoint.config, checkpoint.params
  if checkpoint.kind == 'ovseg':
    found, params = found.proposer, params['proposer']
  if checkpoint.kind != 'backbone':
    found, params = found.backbone_config(), params['backbone']
  _check_kind(directory, found, model)
  problem = difference(drawn, params, what=f'the backbone in {directory}')
  if problem:
    raise UserError(problem)
  return params
