"""Training MaskFormer with CLIP's text embeddings as classes (OVSeg, section 3.2)."""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ovs_jax.core.checkpoint import load_model
from ovs_jax.core.types import Array, Batch, Float, Metrics, Params
from ovs_jax.data import load_dataset, load_names, transforms
from ovs_jax.data.pipeline import train_batches
from ovs_jax.models import clip
from ovs_jax.models.maskformer import MaskFormer, MaskFormerConfig, init_maskformer
from ovs_jax.ops.ensemble import class_logits
from ovs_jax.ops.losses import set_losses
from ovs_jax.ops.matching import match
from ovs_jax.text.templates import fill
from ovs_jax.text.tokenizer import tokenize
from ovs_jax.train.state import draw_params


class Proposer:
  """The proposer learns; the text tower that names its classes is frozen."""

  def __init__(self, config: Any) -> None:
    self.config = config
    self.model = MaskFormerConfig(**config.proposer)
    self.model_config = {'model': 'proposer', 'proposer': config.proposer.to_dict()}
    names = load_names(config.dataset)
    self.seen = [k for k, split in enumerate(names.splits) if split != 'unseen']
    self._names = [names.names[k] for k in self.seen]
    # From train ids to rows of the text matrix; unseen classes are never targets.
    self._row = np.full(max(self.seen) + 1, -1, np.int32)
    self._row[self.seen] = np.arange(len(self.seen))
    self._text: Float[Array, 'k d'] | None = None

  def init(self, key: Array) -> Params:
    """Draws the proposer and embeds the names of the seen classes."""
    directory = self.config.init.clip
    params, stored = load_model(directory, kind='clip', what='CLIP checkpoint')
    prompts = fill(self.config.text.templates, self._names)
    self._text = jnp.asarray(
      clip.encode_prompts(clip.ClipConfig(**stored['clip']), params, prompts, tokenize)
    )
    if self._text.shape[1] != self.model.embed_dim:
      raise ValueError(
        f'the CLIP in {directory} embeds in {self._text.shape[1]} dimensions, '
        f'config.proposer.embed_dim is {self.model.embed_dim}'
      )
    return draw_params(init_maskformer, self.model, key)

  def batches(self, start: int) -> Iterator[Batch]:
    """Yields `image` (b, h, w, 3) uint8 and the padded targets."""
    c = self.config
    _, builder = load_dataset(c.dataset)
    for batch in train_batches(
      builder,
      c.train.split,
      [
        transforms.random_flip,
        transforms.label_to_masks(c.train.max_targets),
        transforms.keep('image', 'masks', 'classes', 'valid'),
      ],
      batch_size=c.train.batch_size,
      seed=c.seed,
      start=start,
      process_index=jax.process_index(),
      process_count=jax.process_count(),
    ):
      yield {**batch, 'classes': self._row[batch['classes']]}

  def loss(self, params: Params, batch: Batch, key: Array) -> tuple[Array, Metrics]:
    """The set loss, summed over all decoder layers, each with its own matching."""
    out = MaskFormer(self.model).apply(
      {'params': params},
      batch['image'].astype(jnp.float32),
      train=True,
      all_layers=True,
      rngs={'dropout': key},
    )
    text = jnp.concatenate([self._text, out.no_object])
    masks = batch['masks'].astype(jnp.float32)
    weights = self.config.train.set_weights
    total, metrics = 0.0, {}
    for layer in range(self.model.layers):
      args = (
        class_logits(out.embeddings[layer], text),
        out.mask_logits[layer],
        batch['classes'],
        masks,
        batch['valid'],
      )
      losses = set_losses(*args, match(*args))
      total += sum(weights[name] * value for name, value in losses.items())
      metrics = losses  # of the last layer
    return total, metrics

  def project(self, params: Params) -> Params:
    """No bounds."""
    return params
