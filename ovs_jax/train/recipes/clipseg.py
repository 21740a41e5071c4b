"""Training or fine-tuning CLIPSeg's decoder on images, phrases and masks."""

import functools
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ovs_jax.core import hosts
from ovs_jax.core.errors import UserError
from ovs_jax.core.types import Array, Batch, Bool, Constants, Int, Metrics, Num, Params
from ovs_jax.data import load_dataset, load_names, transforms
from ovs_jax.data.inputs import check_inputs
from ovs_jax.data.phrase_table import PhraseTable, read_table, table_batches
from ovs_jax.data.pipeline import train_batches
from ovs_jax.inference.clipseg import ClipSegSystem
from ovs_jax.models.clipseg import (
  ClipSeg,
  ClipSegConfig,
  embed_texts,
  init_clipseg,
  normalise,
)
from ovs_jax.models.mask_prompts import without_prompts
from ovs_jax.models.stored import check_agreement, load
from ovs_jax.ops.coseg import mask_losses
from ovs_jax.ops.resize import resize_nearest
from ovs_jax.settings import Settings
from ovs_jax.text import vocabulary
from ovs_jax.text.templates import fill
from ovs_jax.text.tokenizer import tokenize
from ovs_jax.train.label_scores import rows_of, score_masks
from ovs_jax.train.recipes.recipe import Recipe, described
from ovs_jax.train.state import draw_params


def row_draws(
  seed: int, step: int, rows: Int[np.ndarray, 'r']
) -> list[np.random.Generator]:
  """Returns a generator for each of these rows of a batch."""
  return [np.random.default_rng([seed, step, int(row)]) for row in rows]


class ClipSegTraining(Recipe):
  """CLIP is frozen; its embeddings of phrases are computed once."""

  def __init__(self, config: Settings) -> None:
    """Takes the whole configuration; loads the class list alone, without a table.

    Raises:
      ValueError: it would choose the best step by photos, and trains with a table.
    """
    self.config = config
    if config.train.choose and config.phrases.table:
      raise UserError(
        'config.train.choose is a part of a data set with label maps, and '
        f'config.phrases.table={config.phrases.table} is none; leave one of them out'
      )
    self.evaluate_every = config.train.choose_every if config.train.choose else 0
    self.model = ClipSegConfig(clip=config.clip, **vars(config.clipseg))
    self.model_config = described('clipseg', clipseg=self.model.to_dict())
    self.seen: list[int] = []
    self._names: list[str] = []
    if not config.phrases.table:
      names = load_names(config.dataset)
      self.seen = [k for k, split in enumerate(names.splits) if split != 'unseen']
      self._names = [names.names[k] for k in self.seen]

  @functools.cached_property
  def table(self) -> PhraseTable | None:
    """The user's own phrases, read when they are first asked for."""
    path = self.config.phrases.table
    return read_table(path) if path else None

  def prepare(self, key: Array) -> tuple[Params, Constants]:
    """Loads CLIP, and a decoder if there is one to go on with; embeds the phrases.

    These are `phrases` (p, d), each name with every template.
    """
    c = self.config
    self._check_inputs()
    if c.init.clipseg:
      found = load(c.init.clipseg, kinds=('clipseg',), what='CLIPSeg checkpoint')
      asked, what, loaded = self.model, 'config.clipseg', found.params
    else:
      found = load(c.init.clip, kinds=('clip',), what='CLIP checkpoint')
      drawn = draw_params(init_clipseg, self.model, key, 'decoder/')
      asked, what = self.model.clip, 'config.clip'
      loaded = {'clip': without_prompts(found.params), 'decoder': drawn['decoder']}
    check_agreement(
      asked, found.config, key=what, directory=found.directory, free=('image_size',)
    )
    names = self.table.phrases if self.table is not None else self._names
    sentences = fill(c.phrases.templates, names)
    flat = [sentence for group in sentences for sentence in group]
    phrases = embed_texts(self.model.clip, loaded['clip'], flat, tokenize)
    return jax.tree.map(jnp.asarray, loaded), {'phrases': phrases}

  def examples(self) -> int:
    """Returns how many pictures, or rows of the table, an epoch shows."""
    return super().examples() if self.table is None else len(self.table.rows)

  def batches(
    self, start: int, rows: Int[np.ndarray, 'r'] | None = None
  ) -> Iterator[Batch]:
    """Yields `image` (b, s, s, 3) uint8, `mask` (b, s, s) bool and `phrase` (b,)."""
    c = self.config
    rows = np.arange(c.train.batch_size) if rows is None else rows
    if self.table is not None:
      yield from self._own_batches(self.table, start, rows)
      return
    _, builder = load_dataset(c.dataset)
    batches = train_batches(
      builder,
      c.train.split,
      [
        transforms.squash(self.model.image_size),
        transforms.keep('image', 'label'),
      ],
      batch_size=c.train.batch_size,
      seed=c.seed,
      start=start,
      rows=rows,
    )
    for step, batch in enumerate(batches, start):
      draws = row_draws(c.seed, step, rows)
      chosen = [
        self.choose(np.asarray(label), rng)
        for label, rng in zip(batch['label'], draws, strict=True)
      ]
      yield {
        'image': batch['image'],
        'mask': np.stack([mask for mask, _ in chosen]),
        'phrase': np.array([phrase for _, phrase in chosen], np.int32),
      }

  def evaluate(self, params: Params, constants: Constants) -> dict[str, float]:
    """Labels the photos of `config.train.choose`; see `label_scores.score_masks`."""
    c = self.config
    system = ClipSegSystem(
      self.model, hosts.whole(params), templates=(c.systems.prompt,)
    )
    return score_masks(
      system,
      vocabulary.own(c.dataset.name, self._names),
      builder=load_dataset(c.dataset)[1],
      split=c.train.choose,
      rows=rows_of(self.seen),
      threshold=c.systems.threshold,
    )

  def _check_inputs(self) -> None:
    """Reads the user's table, or looks for the data set, and for the checkpoints."""
    c = self.config
    wanted = [
      ('config.init.clipseg', 'clipseg', c.init.clipseg),
      ('config.init.clip', 'clip', '' if c.init.clipseg else c.init.clip),
    ]
    own = bool(c.phrases.table)

    def load_data() -> Any:
      return self.table if own else load_dataset(c.dataset)

    check_inputs(wanted, load_data, embedded=not own and c.dataset.name == 'scenes')

  def _own_batches(
    self, table: PhraseTable, start: int, rows: Int[np.ndarray, 'r']
  ) -> Iterator[Batch]:
    c = self.config
    batches = table_batches(
      table,
      size=self.model.image_size,
      crop=c.phrases.crop,
      negative=c.phrases.negative,
      batch_size=c.train.batch_size,
      seed=c.seed,
      start=start,
      rows=rows,
    )
    count = len(c.phrases.templates)
    for step, batch in enumerate(batches, start):
      draws = row_draws(c.seed, step, rows)
      template = np.array([rng.integers(count) for rng in draws])
      phrase = batch['phrase'] * count + template
      yield {**batch, 'phrase': phrase.astype(np.int32)}

  def choose(
    self, label: Num[np.ndarray, 'h w'], rng: np.random.Generator
  ) -> tuple[Bool[np.ndarray, 'h w'], int]:
    """Draws one of an image's classes, or one that is not there, and its phrase.

    Returns:
      The pixels of the class, none if it is not there, and the row of the phrase.
    """
    p = self.config.phrases
    inside = [row for row, k in enumerate(self.seen) if (label == k).any()]
    outside = sorted(set(range(len(self.seen))) - set(inside))
    negative = outside and (not inside or rng.random() < p.negative)
    row = int(rng.choice(outside if negative else inside))
    phrase = row * len(p.templates) + int(rng.integers(len(p.templates)))
    return label == self.seen[row], phrase

  def loss(
    self, params: Params, constants: Constants, batch: Batch, key: Array
  ) -> tuple[Array, Metrics]:
    """Binary cross entropy over all pixels; dice and focal losses if weighted."""
    condition = constants['phrases'][batch['phrase']][:, None]
    logits = ClipSeg(self.model).apply(
      {'params': params},
      normalise(batch['image']),
      condition,
      train=True,
      rngs={'dropout': key},
    )
    mask = resize_nearest(batch['mask'][:, None].astype(jnp.uint8), logits.shape[2:])
    weights = vars(self.config.phrases.weights)
    wanted = tuple(name for name, weight in weights.items() if weight)
    losses = mask_losses(logits, mask > 0, wanted=wanted)
    return sum(weights[name] * value for name, value in losses.items()), losses
