"""Adapting CLIP to masked crops: MPT, FT, or one after the other (OVSeg, 3.3-3.4).

The three differ in which parameters `config.optimizer.groups` trains and in the
checkpoint that they start from.
"""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp

from ovs_jax.core.checkpoint import load_model
from ovs_jax.core.tree import difference
from ovs_jax.core.types import Array, Batch, Metrics, Params
from ovs_jax.data import pairs, transforms
from ovs_jax.data.pipeline import train_batches
from ovs_jax.models.clip import Clip, ClipConfig, init_clip, unit
from ovs_jax.ops.losses import contrastive_loss
from ovs_jax.ops.regions import normalise, patch_mask
from ovs_jax.text.templates import fill
from ovs_jax.train.recipes.clip_pretrain import clamp_scale, tokenize_batch
from ovs_jax.train.state import draw_params


class ClipRegions:
  """CLIP on mined (masked crop, noun) pairs."""

  def __init__(self, config: Any) -> None:
    self.config = config
    self.clip = ClipConfig(**config.clip)
    self.model_config = {'model': 'clip', 'clip': dict(config.clip)}

  def init(self, key: Array) -> Params:
    """Loads the CLIP to adapt; mask prompts that it lacks are drawn."""
    directory = self.config.init.clip
    loaded, _ = load_model(directory, kind='clip', what='CLIP checkpoint')
    params = dict(draw_params(init_clip, self.clip, key))
    drawn = params['visual'].get('mask_prompt')
    visual = dict(loaded['visual'])
    if drawn is not None and 'mask_prompt' not in visual:
      visual['mask_prompt'] = drawn
    if drawn is None:
      visual.pop('mask_prompt', None)
    loaded = {**loaded, 'visual': visual}
    problem = difference(params, loaded, what=f'CLIP checkpoint {directory}')
    if problem:
      raise ValueError(problem)
    return jax.tree.map(jnp.asarray, loaded)

  def batches(self, start: int) -> Iterator[Batch]:
    """Yields `image` (b, s, s, 3) float32 in 0..255, `mask` (b, s, s) and `tokens`."""
    c = self.config
    builder = pairs.load(c.init.pairs)
    for batch in train_batches(
      builder,
      'train',
      [
        transforms.random_crop(c.train.min_crop),
        transforms.region_crop(self.clip.image_size, c.region.fill),
        transforms.keep('image', 'mask', 'noun'),
      ],
      batch_size=c.train.batch_size,
      seed=c.seed,
      start=start,
      process_index=jax.process_index(),
      process_count=jax.process_count(),
    ):
      nouns = [noun.decode('utf-8') for noun in batch['noun']]
      sentences = [s[0].encode() for s in fill(c.text.train_template, nouns)]
      yield {
        'image': batch['image'],
        'mask': batch['mask'],
        'tokens': tokenize_batch(sentences, c.train.text_length),
      }

  def loss(self, params: Params, batch: Batch, key: Array) -> tuple[Array, Metrics]:
    """Symmetric InfoNCE between crops and the sentences of their nouns."""
    del key
    model = Clip(self.clip)
    keep = None
    if self.clip.prompt_depth:
      keep = patch_mask(batch['mask'], self.clip.patch)
    image = model.apply(
      {'params': params}, normalise(batch['image']), keep, method='encode_image'
    )
    text = model.apply({'params': params}, batch['tokens'], method='encode_text')
    scale = jnp.exp(params['logit_scale'])
    loss, accuracy = contrastive_loss(unit(image), unit(text), scale)
    return loss, {'accuracy': accuracy, 'scale': scale}

  def project(self, params: Params) -> Params:
    """Keeps the temperature's logarithm in [0, ln 100]."""
    return clamp_scale(params)
