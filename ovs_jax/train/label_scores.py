"""How well a model labels photos whose labels are known, while it trains.

An image at a time and of any size: of a proposer its word alone, at the resolution of
its masks, enough to tell which step is the best; of a CLIPSeg what a report would say.
Reports come from `ovs_jax.evaluate`.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ovs_jax.core import hosts
from ovs_jax.core.images import resize_shortest
from ovs_jax.core.types import NO_LABEL, Array, Float, Int, Num, Params
from ovs_jax.data import transforms
from ovs_jax.data.pipeline import eval_batches
from ovs_jax.evaluate.judges import Plan
from ovs_jax.evaluate.sources import sample_of
from ovs_jax.evaluate.system_judge import Merging, SystemJudge
from ovs_jax.inference.system import MaskSystem
from ovs_jax.models.maskformer import MaskFormer, MaskFormerConfig
from ovs_jax.models.ovseg import pad_to_bucket
from ovs_jax.ops.confusion import count_pixels, segmentation_scores
from ovs_jax.ops.ensemble import class_logits, fuse
from ovs_jax.text.vocabulary import Vocabulary

_STRIDE = 4  # of masks


def score_labels(
  model: MaskFormerConfig,
  params: Params,
  text: Float[Array, 'k d'],
  *,
  builder: Any,
  split: str,
  rows: Int[np.ndarray, 'n'],
  shortest: int,
  longest: int,
) -> dict[str, float]:
  """Returns `miou` (as detectron2 0.6 has it) and `pixel_accuracy`, in percent.

  Every process labels all images.

  Args:
    model: sizes of the proposer.
    params: its parameters.
    text: L2-normalised embeddings of the classes.
    builder: of a prepared data set with label maps.
    split: of it.
    rows: of `text`, by train id; -1 for classes that do not count.
    shortest: side that images are resized to.
    longest: and what the other one is at most.
  """
  count = len(text)
  matrix = np.zeros((count + 1, count + 1), np.int64)
  steps = [transforms.keep('image', 'label')]
  for batch in eval_batches(builder, split, steps, batch_size=1):
    image, label = batch['image'][0], batch['label'][0].astype(np.int32)
    small = resize_shortest(image, shortest=shortest, longest=longest)
    size = np.array(small.shape[:2], np.int32)
    found = hosts.whole(_labels(model, params, pad_to_bucket(small), size, text))
    h, w = (-(-int(side) // _STRIDE) for side in size)
    truth = _truth(label, rows)
    y, x = (np.arange(n) * m // n for n, m in zip((h, w), label.shape, strict=True))
    matrix += count_pixels(found[:h, :w], truth[y[:, None], x[None]], count)
  return _in_percent(matrix)


def score_masks(
  system: MaskSystem,
  names: Vocabulary,
  *,
  builder: Any,
  split: str,
  rows: Int[np.ndarray, 'n'],
  threshold: float,
) -> dict[str, float]:
  """Returns `miou` (as detectron2 0.6 has it) and `pixel_accuracy`, in percent.

  Args:
    system: asked for every name; the most probable mask has a pixel (rule A).
    names: of the classes.
    builder: of a prepared data set with label maps.
    split: of it.
    rows: of `names`, by train id; -1 for classes that do not count.
    threshold: below which a mask has no pixel.
  """
  judge = SystemJudge(
    system,
    names,
    Plan((), (), 0, None, single_concepts=False),
    Merging((), threshold, 1.0, bounds=False),
  )
  for batch in eval_batches(
    builder, split, [transforms.keep('image', 'label', 'image_id')], batch_size=1
  ):
    sample = sample_of(batch, 0)
    judge.count(dataclasses.replace(sample, label=_truth(sample.label, rows)))
  return _in_percent(judge.tallies[judge.headline].matrix)


def rows_of(seen: Sequence[int]) -> Int[np.ndarray, 'n']:
  """Returns the place of each train id among those that are seen; -1 for others."""
  rows = np.full(max(seen) + 1, NO_LABEL, np.int32)
  rows[list(seen)] = np.arange(len(seen))
  return rows


def _truth(
  label: Int[np.ndarray, 'h w'], rows: Int[np.ndarray, 'n']
) -> Int[np.ndarray, 'h w']:
  known = (label >= 0) & (label < len(rows))
  return np.where(known, rows[np.where(known, label, 0)], NO_LABEL).astype(np.int32)


def _in_percent(matrix: Int[np.ndarray, 'k1 k1']) -> dict[str, float]:
  scores = segmentation_scores(matrix)
  keys = {'miou': 'miou_predicted_too', 'pixel_accuracy': 'pixel_accuracy'}
  return {name: round(float(scores[key]), 4) for name, key in keys.items()}


@functools.partial(jax.jit, static_argnums=0)
def _labels(
  model: MaskFormerConfig,
  params: Params,
  image: Num[Array, 'h w 3'],
  size: Int[Array, '2'],
  text: Float[Array, 'k d'],
) -> Int[Array, 'y x']:
  """The best class of every pixel of the masks."""
  seen = image[None].astype(jnp.float32)
  out = MaskFormer(model).apply({'params': params}, seen, size=size)
  text = jnp.concatenate([text, out.no_object])
  weights = jax.nn.softmax(class_logits(out.embeddings[-1, 0], text), axis=-1)
  masks = jax.nn.sigmoid(out.mask_logits[-1, 0])
  return jnp.argmax(fuse(weights[:, :-1], masks), axis=0)
