"""Adapting CLIP to masked crops: MPT, FT, or one after the other (OVSeg, 3.3-3.4).

The three differ in which parameters `config.optimizer.groups` trains and in the
checkpoint that they start from.
"""

import dataclasses
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ovs_jax.core.errors import UserError
from ovs_jax.core.limits import plain
from ovs_jax.core.tree import difference, flatten, unflatten
from ovs_jax.core.types import Array, Batch, Constants, Int, Metrics, Params
from ovs_jax.data import pair_transforms, pairs, transforms
from ovs_jax.data.pair_batches import Source, weighted_batches
from ovs_jax.data.pipeline import train_batches
from ovs_jax.data.shards import Shards
from ovs_jax.inference.names import NameEmbedder
from ovs_jax.inference.parts import load_clip
from ovs_jax.models import mask_prompts
from ovs_jax.models.clip import Clip, init_clip, unit
from ovs_jax.models.clip_fast import encode_images
from ovs_jax.models.stored import check_agreement
from ovs_jax.ops.contrastive import grouped_contrastive_loss
from ovs_jax.ops.losses import contrastive_loss
from ovs_jax.ops.regions import normalise, patch_mask
from ovs_jax.settings import Settings
from ovs_jax.text.templates import fill
from ovs_jax.train.optimizer import learning_rate_scales
from ovs_jax.train.recipes.clip_pretrain import clamp_scale, own_rows, tokenize_batch
from ovs_jax.train.recipes.recipe import Recipe, described
from ovs_jax.train.region_scores import label_names, score_crops
from ovs_jax.train.state import draw_params


class ClipRegions(Recipe):
  """CLIP on mined (masked crop, noun) pairs."""

  def __init__(self, config: Settings) -> None:
    """Takes the whole configuration; loads nothing."""
    self.config = config
    self.clip = config.clip
    self.all_rows = own_rows
    adapt = config.adapt
    self._describe()
    self.evaluate_every = adapt.evaluate_every
    # A plain loss over all logits at once, unless something else is asked for.
    self._plain = adapt.duplicates == 'negatives' and not adapt.loss_chunk

  def _describe(self) -> None:
    kind = mask_prompts.KIND if self.config.adapt.store == 'prompts' else 'clip'
    self.model_config = described(kind, clip=plain(self.clip))

  def prepare(self, key: Array) -> tuple[Params, Constants]:
    """Loads the CLIP to adapt; mask prompts that it lacks are drawn.

    Of its text tower the constants have what is embedded once: `labels` (k, d), the
    classes of the labelled crops, and `nouns` (n, d), those of the pairs.
    """
    params = self._load(key)
    self._check_trained(params)
    tower = {name: x for name, x in params.items() if name != 'visual'}
    embedder = NameEmbedder(self.clip, jax.tree.map(jnp.asarray, tower))
    c, constants = self.config, {}
    if self.evaluate_every:
      labels = label_names(c.init.labelled)
      constants['labels'] = embedder.names(labels, c.text.templates)
    if c.adapt.cache_text:
      constants['nouns'] = embedder.names(self._nouns(), c.text.train_template)
    return jax.tree.map(jnp.asarray, params), constants

  def _load(self, key: Array) -> Params:
    """Returns the CLIP with the prompts that are asked for, as NumPy arrays."""
    found = load_clip(self.config.init.clip)
    check_agreement(
      self.clip, found.config, key='config.clip', directory=found.directory
    )
    # The tokenizer is the checkpoint's, whatever the configuration knows of it.
    self.clip = dataclasses.replace(self.clip, text_tower=found.config.text_tower)
    self._describe()
    loaded = found.params
    if self.config.init.prompts:
      _, loaded = mask_prompts.add_prompts(
        found.config, loaded, self.config.init.prompts
      )
    params = dict(draw_params(init_clip, self.clip, key, 'visual/mask_prompt'))
    drawn = params['visual'].get('mask_prompt')
    visual = dict(loaded['visual'])
    if drawn is not None and 'mask_prompt' not in visual:
      visual['mask_prompt'] = drawn
    if drawn is None:
      visual.pop('mask_prompt', None)
    loaded = {**loaded, 'visual': visual}
    problem = difference(params, loaded, what=f'the CLIP checkpoint {found.directory}')
    if problem:
      raise UserError(problem)
    return loaded

  def _check_trained(self, params: Params) -> None:
    """Refuses to store less than is trained, and to keep the text of what moves."""
    trained = set(learning_rate_scales(self.config.optimizer, params))
    lost = sorted(trained - set(mask_prompts.PATHS))
    if lost and self.config.adapt.store == 'prompts':
      raise UserError(
        f"config.adapt.store='prompts' would lose {len(lost)} trained parameters, such "
        f"as {lost[0]}; set it to 'all' or change config.optimizer.groups"
      )
    text = sorted(path for path in trained if path.startswith('text/'))
    if text and self.config.adapt.cache_text:
      raise UserError(
        f'config.adapt.cache_text embeds the nouns once, but {len(text)} parameters of '
        f'the text tower are trained, such as {text[0]}; set it to False'
      )

  def stored(self, params: Params) -> Params:
    """All, or of the prompts and the temperature what is trained."""
    if self.config.adapt.store == 'all':
      return params
    trained = set(learning_rate_scales(self.config.optimizer, params))
    kept = trained & set(mask_prompts.PATHS)
    return unflatten({path: x for path, x in flatten(params).items() if path in kept})

  def _sources(self) -> dict[str, float]:
    """The directories of pairs and their weights."""
    init = self.config.init
    return {init.pairs: 1.0, **dict(init.more_pairs)}

  def _nouns(self) -> list[str]:
    """The nouns of all pairs, each once; batches have their places in this list."""
    known: set[str] = set()
    for directory in self._sources():
      pairs.load(directory)  # or says that there are none
      known.update(pairs.nouns(directory))
    return sorted(known)

  def batches(
    self, start: int, rows: Int[np.ndarray, 'r'] | None = None
  ) -> Iterator[Batch]:
    """Yields crops, their masks and what their nouns are.

    `image` (b, s, s, 3) is float32 or uint8 in 0..255 and `mask` (b, s, s) 0 or 1.
    `tokens` are their sentences', unless the nouns are embedded once. `noun` (b,) int32
    numbers the nouns, if they are or the loss compares them.
    """
    c = self.config
    weights = self._sources()
    builders = {directory: pairs.load(directory) for directory in weights}
    ids = {}
    if c.adapt.cache_text or not self._plain:
      ids = {noun: i for i, noun in enumerate(self._nouns())}
    shared: dict[str, Any] = {
      'batch_size': c.train.batch_size,
      'seed': c.seed,
      'start': start,
      'rows': rows,
    }
    if len(weights) > 1 or c.adapt.balance:
      sources: list[Source] = [
        (builders[d], pairs.nouns(d), w) for d, w in weights.items()
      ]
      stream = weighted_batches(
        sources, self._steps(), balance=c.adapt.balance, **shared
      )
    else:
      stream = train_batches(builders[c.init.pairs], 'train', self._steps(), **shared)
    for batch in stream:
      nouns = [noun.decode('utf-8') for noun in batch.pop('noun')]
      if ids:
        batch['noun'] = np.array([ids[noun] for noun in nouns], np.int32)
      if not c.adapt.cache_text:
        sentences = [s[0].encode() for s in fill(c.text.train_template, nouns)]
        batch['tokens'] = tokenize_batch(self.clip, sentences, c.train.text_length)
      yield batch

  def examples(self) -> int:
    """Returns how many pairs an epoch shows, of all sources by their weights."""
    weights = self._sources().items()
    return round(sum(w * len(Shards([pairs.load(d)], 'train')) for d, w in weights))

  def _steps(self) -> list[transforms.Transform]:
    c = self.config
    cut = transforms.random_crop(c.train.min_crop)
    if c.adapt.crop_area:
      cut = pair_transforms.resized_crop(c.adapt.crop_area, c.adapt.crop_ratio)
    return [
      *([pair_transforms.whole_box] if c.adapt.prior == 'box' else []),
      cut,
      transforms.region_crop(self.clip.image_size, c.region.fill),
      *([pair_transforms.to_bytes] if c.adapt.uint8 else []),
      transforms.keep('image', 'mask', 'noun'),
    ]

  def loss(
    self, params: Params, constants: Constants, batch: Batch, key: Array
  ) -> tuple[Array, Metrics]:
    """Symmetric InfoNCE between crops and the sentences of their nouns."""
    del key
    keep = None
    if self.clip.prompt_depth:
      keep = patch_mask(batch['mask'].astype(jnp.float32), self.clip.patch)
    pixels = normalise(batch['image'], self.clip.pixels)
    image = encode_images(self.clip, params, pixels, keep, trained=True)
    if 'tokens' in batch:
      tokens = batch['tokens']
      text = Clip(self.clip).apply({'params': params}, tokens, method='encode_text')
      text = unit(text)
    else:
      text = constants['nouns'][batch['noun']]
    scale = jnp.exp(params['logit_scale'])
    image, text = self.all_rows(unit(image)), self.all_rows(text)
    if self._plain:
      loss, accuracy = contrastive_loss(image, text, scale)
    else:
      loss, accuracy = grouped_contrastive_loss(
        image,
        text,
        scale,
        self.all_rows(batch['noun']),
        duplicates=self.config.adapt.duplicates,
        chunk=self.config.adapt.loss_chunk,
      )
    return loss, {'accuracy': accuracy, 'scale': scale}

  def evaluate(self, params: Params, constants: Constants) -> dict[str, float]:
    """Classifies the labelled crops; see `region_scores.score_crops`."""
    c = self.config
    return score_crops(
      self.clip,
      params,
      constants['labels'],
      directory=c.init.labelled,
      fill=c.region.fill,
      batch_size=c.adapt.evaluate_batch,
    )

  def project(self, params: Params) -> Params:
    """Keeps the temperature's logarithm in [0, ln 100], where a softmax has it."""
    return clamp_scale(params) if self.clip.scores == 'softmax' else params
