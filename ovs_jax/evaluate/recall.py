"""Which true masks any proposal shows, whatever it is called."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from ovs_jax.core.masks import SIZES
from ovs_jax.core.types import Bool, Int

THRESHOLDS = (0.5, 0.75, 0.9)  # IoU from which a proposal shows a true mask
# Of classes; the last of those whose list says nothing.
KINDS, SPLITS = ('thing', 'stuff', ''), ('seen', 'unseen', '')
SHAPE = (len(KINDS), len(SIZES), 1 + len(THRESHOLDS))


def count_recall(
  masks: Bool[np.ndarray, 'q h w'],
  label: Int[np.ndarray, 'h w'],
  kinds: Sequence[str],
  known_kinds: Sequence[str] = KINDS,
) -> Int[np.ndarray, '3 3 4']:
  """Counts the classes of an image, and those whose pixels a proposal has.

  Args:
    masks: of the proposals that are valid.
    label: the truth, in their size; values that are no class are void, and left out of
      both masks.
    kinds: of all classes.
    known_kinds: three of them, the last for others.

  Returns:
    By kind and size: true masks, and those with a best IoU of each of `THRESHOLDS`.
  """
  counts = np.zeros(SHAPE, np.int64)
  known = (label >= 0) & (label < len(kinds))
  classes, areas = np.unique(label[known], return_counts=True)
  if not len(classes):
    return counts
  index = np.searchsorted(classes, label[known])
  rows = masks[:, known]
  both = [np.bincount(index[row], minlength=len(classes)) for row in rows]
  both = np.array(both, np.int64).reshape(-1, len(classes))
  either = rows.sum(axis=1)[:, None] + areas - both
  best = (both / np.maximum(either, 1)).max(axis=0, initial=0)
  sizes = np.searchsorted(list(SIZES.values()), areas / label.size, side='right') - 1
  for k, size, iou in zip(classes.tolist(), sizes.tolist(), best, strict=True):
    own = kinds[k] if kinds[k] in known_kinds else known_kinds[-1]
    kind = known_kinds.index(own)
    counts[kind, size] += np.array([1, *(iou >= t for t in THRESHOLDS)])
  return counts


def recalls(
  counts: Int[np.ndarray, '3 3 4'],
  masks: int,
  images: int,
  of_splits: Int[np.ndarray, '3 3 4'] | None = None,
) -> dict[str, Any]:
  """Returns percent of the true masks that are shown, by IoU.

  Args:
    counts: summed over images, by kind.
    masks: proposals of all images.
    images: their number.
    of_splits: as `counts`, by whether training knew the class; None: not counted.

  Returns:
    For `all`, each kind, split and size that occurs: `masks`, the true ones, and a
    recall for each threshold, such as `0.75`; and `proposals`, per image.
  """
  parts = {'all': counts.sum(axis=(0, 1))}
  parts |= {k: counts[i].sum(axis=0) for i, k in enumerate(KINDS) if k}
  splits = np.zeros(SHAPE, np.int64) if of_splits is None else of_splits
  parts |= {k: splits[i].sum(axis=0) for i, k in enumerate(SPLITS) if k}
  parts |= {s: counts[:, i].sum(axis=0) for i, s in enumerate(SIZES)}
  found: dict[str, Any] = {'proposals': masks / max(images, 1)}
  for name, (true, *shown) in ((n, x.tolist()) for n, x in parts.items()):
    if true:
      pairs = zip(THRESHOLDS, shown, strict=True)
      found[name] = {'masks': true} | {f'{t:g}': 100 * x / true for t, x in pairs}
  return found
