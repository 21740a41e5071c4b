"""Masked-crop classification: how well a CLIP names crops whose names are known.

What OVSeg's training watches, on crops of ADE20K's true masks. Here the crops are pairs
that were mined with true masks and class names.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from ovs_jax.core import hosts
from ovs_jax.core.errors import UserError
from ovs_jax.core.types import Array, Float, Int, Params
from ovs_jax.data import pairs, transforms
from ovs_jax.data.pipeline import eval_batches
from ovs_jax.models.clip import ClipConfig
from ovs_jax.models.clip_fast import encode_images
from ovs_jax.ops.regions import normalise, patch_mask


def label_names(directory: str) -> list[str]:
  """Returns the names of the classes of labelled pairs, each once, sorted.

  Raises:
    FileNotFoundError: there are no such pairs.
    ValueError: none were named, or they have only one class.
  """
  if not directory:
    raise UserError(
      'config.adapt.evaluate_every asks for evaluations, but config.init.labelled '
      'names no pairs; mine them with config.mining.masks=truth and '
      'config.mining.nouns=classes, or set evaluate_every=0'
    )
  pairs.load(directory)  # or says that there are none
  names = sorted(set(pairs.nouns(directory)))
  if len(names) < 2:
    raise UserError(
      f'{directory} has {len(names)} classes; at least 2 are needed to tell right from '
      'wrong'
    )
  return names


def score_crops(
  clip: ClipConfig,
  params: Params,
  text: Float[Array, 'k d'],
  *,
  directory: str,
  fill: str,
  batch_size: int,
) -> dict[str, float]:
  """Returns `top1`, `top5` and `macro` (the mean over classes of top 1), in percent.

  Every process classifies all crops, on its devices together.

  Args:
    clip: sizes of the CLIP.
    params: its parameters.
    text: the embeddings of `label_names(directory)`.
    directory: of the labelled pairs.
    fill: see `transforms.region_crop`.
    batch_size: crops at once.
  """
  index = {name: i for i, name in enumerate(label_names(directory))}
  batches = eval_batches(
    pairs.load(directory),
    'train',
    [
      transforms.region_crop(clip.image_size, fill),
      transforms.keep('image', 'mask', 'noun'),
    ],
    batch_size=batch_size,
  )
  ranks, classes = [], []
  for batch in batches:
    truth = [index[noun.decode('utf-8')] for noun in batch['noun']]
    truth = np.array(truth, np.int32)
    image, mask, own = _spread(params, batch['image'], batch['mask'], truth)
    rank = _ranks(clip, params, image, mask, text, own)
    ranks.append(hosts.whole(rank)[batch['example_valid']])
    classes.append(truth[batch['example_valid']])
  rank, truth = np.concatenate(ranks), np.concatenate(classes)
  each = [np.mean(rank[truth == k] == 0) for k in np.unique(truth)]
  return {
    'top1': round(100 * float(np.mean(rank == 0)), 4),
    'top5': round(100 * float(np.mean(rank < 5)), 4),
    'macro': round(100 * float(np.mean(each)), 4),
  }


def _spread(params: Params, *arrays: np.ndarray) -> tuple[Any, ...]:
  """Splits arrays over the devices that hold the parameters, where that goes."""
  sharding = jax.tree.leaves(params)[0].sharding
  alone = not isinstance(sharding, NamedSharding)
  if alone or len(arrays[0]) % sharding.mesh.shape['data']:
    return arrays
  split = NamedSharding(sharding.mesh, PartitionSpec('data'))
  # Every process has all rows, and gives those that its devices take.
  return tuple(
    jax.make_array_from_callback(x.shape, split, x.__getitem__) for x in arrays
  )


@functools.partial(jax.jit, static_argnums=0)
def _ranks(
  config: ClipConfig,
  params: Params,
  image: Float[Array, 'b s s 3'],
  mask: Float[Array, 'b s s'],
  text: Float[Array, 'k d'],
  truth: Int[Array, 'b'],
) -> Int[Array, 'b']:
  """How many classes are more likely than the true one, of every crop."""
  keep = patch_mask(mask, config.patch) if config.prompt_depth else None
  rows = encode_images(config, params, normalise(image, config.pixels), keep)
  logits = rows @ text.T
  own = jnp.take_along_axis(logits, truth[:, None], axis=1)
  return jnp.sum(logits > own, axis=1)
