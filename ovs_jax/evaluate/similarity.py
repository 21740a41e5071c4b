"""How alike class names are to the text tower, and scores that take it into account.

A model of open vocabulary may say "couch" where the truth says "sofa". The soft scores
here follow the ideas of Open-mIoU and SG-IoU with a similarity of their own: that of
the text tower whose names the model was asked for. So they compare settings of one
model; between models with different text towers they do not compare.
"""

from collections.abc import Sequence

import numpy as np

from ovs_jax.core.types import Float, Int

# Of pairs of names, the share that counts as not alike at all.
UNALIKE = 0.95


def similarity_matrix(
  text: Float[np.ndarray, 'k d'], *, unalike: float = UNALIKE
) -> Float[np.ndarray, 'k k']:
  """Returns similarities in 0..1, 1 for a name and itself.

  s = max(0, (c - m) / (1 - m)), where c is the cosine of two names and m the quantile
  `unalike` of the cosines of all pairs: CLIP's cosines are all high, and this way only
  the few pairs that stand out count.

  Args:
    text: L2-normalised embeddings of the names.
    unalike: share of the pairs with similarity 0.
  """
  count = len(text)
  if count < 2:
    return np.eye(count)
  cosines = text.astype(np.float64) @ text.T.astype(np.float64)
  pairs = cosines[np.triu_indices(count, 1)]
  base = min(float(np.quantile(pairs, unalike)), 1 - 1e-6)
  soft = np.clip((cosines - base) / (1 - base), 0, 1)
  soft = np.maximum(soft, soft.T)  # rounding aside they are equal
  np.fill_diagonal(soft, 1.0)
  return soft


def soft_scores(
  matrix: Int[np.ndarray, 'k1 k1'], similarity: Float[np.ndarray, 'k k']
) -> dict[str, float]:
  """Returns soft mIoUs in percent, over the classes with ground truth.

  With n[i, j] pixels of class j that are called i, and s[i, j] their similarity, a
  pixel is missed by 1 - s: missed[j] = sum_i (1 - s[i, j]) n[i, j] and false[j] =
  sum_l (1 - s[j, l]) n[j, l]; unassigned pixels are missed by 1.

  - `open_miou`: hit[j] = sum_i s[i, j] n[i, j], IoU = hit / (hit + missed + false).
    A similar name counts as partly right.
  - `sg_miou`: n[j, j] / (n[j, j] + missed[j] + false[j]). A similar name is no hit,
    but a smaller mistake.

  Both are the mIoU where no two names are alike, and never less than it.
  """
  counts = np.asarray(matrix, np.float64)[:, :-1]
  named, unassigned = counts[:-1], counts[-1]
  truth = counts.sum(axis=0)
  present = truth > 0
  wrong = (1 - similarity) * named
  missed = wrong.sum(axis=0) + unassigned
  false = wrong.sum(axis=1)
  found = {}
  for name, hit in (
    ('open_miou', (similarity * named).sum(axis=0)),
    ('sg_miou', np.diag(named)),
  ):
    iou = hit[present] / np.maximum(hit + missed + false, 1e-300)[present]
    found[name] = float(100 * iou.mean()) if present.any() else float('nan')
  return found


def nearest(
  text: Float[np.ndarray, 'k d'], training: Float[np.ndarray, 't d']
) -> tuple[Int[np.ndarray, 'k'], Float[np.ndarray, 'k']]:
  """Returns the training name nearest to each name, and their cosine."""
  cosines = text @ training.T
  best = cosines.argmax(axis=1)
  return best, cosines[np.arange(len(text)), best]


def class_groups(
  names: Sequence[str],
  splits: Sequence[str],
  training: Sequence[str],
  cosines: Float[np.ndarray, 'k'],
  *,
  near: float,
) -> dict[str, list[int]]:
  """Sorts classes by how well training knew them; see the report of an evaluation.

  - `seen`: the class list says so; or, where it says nothing, one of the class's names
    is one of a training class's names (case, hyphens and COCO-Stuff's "-other" and
    "-stuff" aside).
  - `unseen`: the others; of them
  - `near_unseen`: those with a cosine of at least `near` to a training name, and
  - `far_unseen`: the rest.

  Args:
    names: of the classes; synonyms are separated by commas.
    splits: 'seen', 'unseen' or '' for each.
    training: names of the training classes.
    cosines: of each class with the nearest training name.
    near: threshold.
  """
  known = {word for name in training for word in plain_names(name)}
  groups: dict[str, list[int]] = {
    'seen': [],
    'unseen': [],
    'near_unseen': [],
    'far_unseen': [],
  }
  for k, (name, split) in enumerate(zip(names, splits, strict=True)):
    if split == 'seen' or (not split and plain_names(name) & known):
      groups['seen'].append(k)
      continue
    groups['unseen'].append(k)
    groups['near_unseen' if cosines[k] >= near else 'far_unseen'].append(k)
  return groups


def plain_names(name: str) -> set[str]:
  """Returns the names in "wall-other, panel" without what only lists need."""
  parts = (' '.join(x.lower().replace('-', ' ').split()) for x in name.split(','))
  return {p.removesuffix(' other').removesuffix(' stuff') for p in parts if p}
