"""The oracle analyses of OVSeg's introduction: which half of the pipeline fails?

True masks with CLIP's classes show what classification costs; proposals with true
classes show what the masks cost.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from ovs_jax.core.images import nearest
from ovs_jax.core.types import NO_LABEL, Array, Bool, Float, Int, Num, Params
from ovs_jax.evaluate.network import Logits, Network, Picture, renamed
from ovs_jax.models import clip_mix, ovseg
from ovs_jax.ops.ensemble import average

MIN_OVERLAP = 0.5  # IoU from which a proposal counts as showing a true mask


def true_masks(
  label: Int[Array, 'h w'], num_classes: int, max_targets: int
) -> tuple[Int[Array, 't'], Float[Array, 't h w'], Bool[Array, 't']]:
  """Returns the classes of a label map, their masks and which are real.

  Of more than `max_targets` classes those with the most pixels stay.
  """
  counts = jnp.bincount(
    jnp.where(label < num_classes, label, num_classes).reshape(-1),
    length=num_classes + 1,
  )[:-1]
  amount, classes = jax.lax.top_k(counts, min(max_targets, num_classes))
  masks = (label[None] == classes[:, None, None]).astype(jnp.float32)
  return classes, masks, amount > 0


def name_masks(
  network: Network,
  picture: Picture,
  text: Float[np.ndarray, 'k d'],
  label: Int[np.ndarray, 'h w'],
  classes: Int[np.ndarray, 't'],
) -> Int[np.ndarray, 't']:
  """Returns the class that CLIP gives the crop of each true mask.

  A mask too small to be seen at the networks' resolution has none, `NO_LABEL`.

  Args:
    picture: from `encode`.
    text: embeddings of all classes.
    label: the true label map.
    classes: those that it shows.
  """
  small = nearest(label, picture.content)
  count = -(-len(classes) // 8) * 8
  masks = np.zeros((count, *picture.padded.shape[:2]), np.float32)
  h, w = picture.content
  masks[: len(classes), :h, :w] = small[None] == classes[:, None, None]
  params = network.copies[picture.place]
  embeds, valid = _embed_masks(
    network.model, params, picture.padded, jnp.asarray(masks)
  )
  guess = _best_names(embeds, jnp.asarray(text), network.mix)
  return np.where(valid, guess, NO_LABEL)[: len(classes)]


def name_proposals(
  mix: clip_mix.Mix,
  picture: Picture,
  logits: Logits,
  label: Int[np.ndarray, 'h w'],
  classes: Int[np.ndarray, 't'],
) -> tuple[Int[np.ndarray, 't'], Bool[np.ndarray, 't']]:
  """Returns CLIP's class for the proposal that overlaps each true mask most.

  The second result says whether their IoU reaches `MIN_OVERLAP`.
  """
  h, w = picture.content
  binary = np.asarray(picture.encoded.masks[:, :h, :w] > 0.5).reshape(-1, h * w)
  small = nearest(label, picture.content).reshape(-1)
  both = np.stack([binary[:, small == k].sum(axis=1) for k in classes])  # t q
  true = np.array([(small == k).sum() for k in classes])
  either = true[:, None] + binary.sum(axis=1) - both
  overlap = both.astype(np.float32) / np.maximum(either, 1).astype(np.float32)
  by_clip = average(logits[1], mix.weights)
  best = np.asarray(jnp.argmax(by_clip, axis=1))[overlap.argmax(axis=1)]
  return best, overlap.max(axis=1) >= MIN_OVERLAP


def proposed(picture: Picture) -> Bool[np.ndarray, 'q h w']:
  """Returns the valid proposals' pixels, as the networks saw the picture."""
  h, w = picture.content
  valid = np.asarray(picture.encoded.valid)
  return np.asarray(picture.encoded.masks[:, :h, :w] > 0.5)[valid]


def true_classes(
  picture: Picture,
  label: Int[np.ndarray, 'h w'],
  classes: Int[np.ndarray, 't'],
) -> Int[np.ndarray, 'h w']:
  """Returns the proposals, each with the true class that it covers most.

  A proposal weighs as much as that class fills its mask, so that proposals which
  straddle classes give way to clean ones.

  Args:
    picture: from `encode`.
    label: the true label map.
    classes: those of it that count.
  """
  h, w = picture.content
  small = np.searchsorted(classes, nearest(label, picture.content))
  known = np.isin(nearest(label, picture.content), classes)
  binary = np.asarray(picture.encoded.masks[:, :h, :w] > 0.5)
  inside = np.stack(
    [np.bincount(small[mask & known], minlength=len(classes)) for mask in binary]
  )
  purity = inside.max(axis=1) / np.maximum(inside.sum(axis=1), 1)
  purity = np.where(np.asarray(picture.encoded.valid), purity, 0.0)
  weights = np.eye(len(classes), dtype=np.float32)[inside.argmax(axis=1)]
  weights *= purity[:, None].astype(np.float32)
  return renamed(picture.paint(weights), classes)


def true_masks_named(
  label: Int[np.ndarray, 'h w'],
  classes: Int[np.ndarray, 't'],
  names: Int[np.ndarray, 't'],
) -> Int[np.ndarray, 'h w']:
  """Returns `names[i]` where the label map has `classes[i]`, else `NO_LABEL`.

  Args:
    label: of any values.
    classes: ascending, at least one.
    names: a class for each of them.
  """
  place = np.minimum(np.searchsorted(classes, label), len(classes) - 1)
  return np.where(classes[place] == label, names[place], NO_LABEL).astype(np.int32)


def split_errors(
  label: Int[np.ndarray, 'h w'],
  prediction: Int[np.ndarray, 'h w'],
  true_classes: Int[np.ndarray, 'h w'],
  true_vocabulary: Int[np.ndarray, 'h w'],
  num_classes: int,
) -> Int[np.ndarray, '4']:
  """Counts labelled pixels: right; and wrong by mask, vocabulary or class.

  Args:
    label: the truth; values outside 0..num_classes-1 are void.
    prediction: of the model.
    true_classes: of its proposals, each with its true class. Where these are wrong,
      the mask is to blame.
    true_vocabulary: of the model that was told which classes the image shows. Where it
      is right, a name that the image does not show was to blame.
    num_classes: of the data set.
  """
  known = (label >= 0) & (label < num_classes)
  right = known & (prediction == label)
  mask = known & ~right & (true_classes != label)
  rest = known & ~right & ~mask
  vocabulary = rest & (true_vocabulary == label)
  return np.array([x.sum() for x in (right, mask, vocabulary, rest & ~vocabulary)])


def count_alone(
  mask: Bool[np.ndarray, 'h w'],
  label: Int[np.ndarray, 'h w'],
  k: int,
  num_classes: int,
) -> Int[np.ndarray, '3 k']:
  """Counts labelled pixels of a class that alone was asked for.

  Args:
    mask: where it was found.
    label: the truth; values outside 0..num_classes-1 are void.
    k: the class.
    num_classes: of the data set.

  Returns:
    For that class the pixels that are right, found and true; zeros for all others.
  """
  mask, truth = mask & (label >= 0) & (label < num_classes), label == k
  counts = np.zeros((3, num_classes), np.int64)
  counts[:, k] = (mask & truth).sum(), mask.sum(), truth.sum()
  return counts


@functools.partial(jax.jit, static_argnums=0)
def _embed_masks(
  model: ovseg.OvSegConfig,
  params: Params,
  image: Num[Array, 'h w 3'],
  masks: Float[Array, 't h w'],
) -> tuple[Float[Array, 't e'], Bool[Array, 't']]:
  """Apart from the names, whose number else needs this large program again."""
  regions = clip_mix.cut_regions(model, image, masks)
  return clip_mix.embed_all(model, params, regions), regions[0].valid


@functools.partial(jax.jit, static_argnums=2)
def _best_names(
  embeds: Float[Array, 't e'], text: Float[Array, 'k e'], mix: clip_mix.Mix
) -> Int[Array, 't']:
  by_clips = mix.logits(embeds, text)
  return jnp.argmax(average(by_clips, mix.weights), axis=1)
