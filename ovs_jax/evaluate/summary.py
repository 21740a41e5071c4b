"""The numbers of one data set, as report.json has them."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ovs_jax.core.types import Float, Int
from ovs_jax.evaluate import search, similarity, tables
from ovs_jax.evaluate.judges import (
  CALIBRATION,
  DISTRACTED,
  PROPOSALS,
  RECALL,
  RECALL_SPLITS,
  SINGLE,
  SPLIT,
  distracted,
)
from ovs_jax.evaluate.network import Setting
from ovs_jax.evaluate.recall import recalls
from ovs_jax.evaluate.scores import (
  error_split,
  groups_of,
  label_scores,
  scores_of,
)
from ovs_jax.evaluate.system_judge import LABELS
from ovs_jax.evaluate.tally import Arrays, Tally
from ovs_jax.ops.calibration import reliability
from ovs_jax.ops.confusion import segmentation_scores
from ovs_jax.settings import Suite
from ovs_jax.text.vocabulary import Vocabulary


@dataclasses.dataclass(frozen=True)
class Training:
  """What training knew.

  Attributes:
    title: of its class list.
    names: its classes.
    rows: their L2-normalised embeddings; None for label maps of another system.
    classes: those of the data set's names; None like `rows`.
  """

  title: str
  names: tuple[str, ...]
  rows: Float[np.ndarray, 't d'] | None
  classes: Float[np.ndarray, 'k d'] | None


def summarise(
  suite: Suite,
  dataset: str,
  names: Vocabulary,
  headline: str,
  counted: tuple[Mapping[str, Tally], Arrays],
  training: Training,
) -> dict[str, Any]:
  """Returns everything that the report says of a data set; scores are in percent.

  Keys: the class list (`classes`, `vocabulary`, `vocabulary_sha256`), `methods` (all
  scores by method, see `scores.scores_of`), which of them is the `headline`, the
  `tuned` and the best of the `searched`; `groups` and `kinds` with their sizes, and the
  `class_table`; of the headline `soft` scores, the `errors`, the curve over
  `distractors` and the IoU of single concepts; how good the `labels` were that a
  system chose; the `recall` of proposals; and the `calibration`. What there is not
  for a system or for saved label maps is None.

  Args:
    suite: `config.suite`.
    dataset: its name.
    names: its class list.
    headline: the method that comes first.
    counted: tallies by method, and other sums.
    training: what training knew.
  """
  tallies, sums = counted
  groups, table = _groups(suite, names, training)
  curve = {n: t for n, t in tallies.items() if n.startswith(DISTRACTED)}
  kinds = {name: k for name, k in groups_of(names).items() if name in names.kinds}
  methods = {
    name: scores_of(tally, groups | kinds, replicates=suite.bootstrap)
    for name, tally in tallies.items()
    if name not in curve and tally.images
  }
  tuned = dict(suite.tuned).get(dataset)
  searched = search.names_of(suite, methods)
  images = len(tallies[headline].images)
  named = None if tuned is None else Setting('ensemble', tuned).name
  return {
    'vocabulary': names.name,
    'vocabulary_sha256': names.sha256,
    'classes': len(names),
    'images': images,
    'headline': headline,
    'tuned': named if named in methods else None,
    'searched': max(searched, key=lambda n: methods[n]['miou'], default=None),
    'training_names': training.title,
    'groups': {name: len(members) for name, members in groups.items()},
    'kinds': {name: len(members) for name, members in kinds.items()},
    'class_table': table,
    'methods': methods,
    'soft': _soft(tallies[headline], training),
    'distractors': _curve(curve),
    **_of_sums(sums, images),
  }


def _of_sums(sums: Arrays, images: int) -> dict[str, Any]:
  """What follows from other counts than those of pixels by class; None if not made."""

  def of(key: str, function: Callable[..., Any], *more: Any) -> Any:
    return function(sums[key], *more) if key in sums else None

  shown = int(sums[PROPOSALS][0]) if PROPOSALS in sums else 0
  return {
    'errors': of(SPLIT, error_split),
    'single_concept': of(SINGLE, _single),
    'labels': of(LABELS, label_scores),
    'recall': of(RECALL, recalls, shown, images, sums.get(RECALL_SPLITS)),
    'calibration': of(CALIBRATION, reliability),
  }


def _groups(
  suite: Suite, names: Vocabulary, training: Training
) -> tuple[dict[str, list[int]], list[dict[str, Any]]]:
  """The groups of classes, and for each class its group and nearest training name."""
  count = len(names)
  best, cosines = np.zeros(count, np.int64), np.full(count, -1.0)
  if training.rows is not None and training.classes is not None:
    best, cosines = similarity.nearest(training.classes, training.rows)
  groups = similarity.class_groups(
    names.names, names.splits, training.names, cosines, near=suite.near
  )
  if training.rows is None:  # nothing says what is near
    groups = {name: groups[name] for name in ('seen', 'unseen')}
  table = []
  for k in range(count):
    last = [name for name, members in groups.items() if k in members][-1]
    row: dict[str, Any] = {'class': names.names[k], 'group': last}
    if training.rows is not None:
      row['nearest'] = training.names[int(best[k])]
      row['cosine'] = round(float(cosines[k]), 4)
    table.append(row)
  return groups, table


def _soft(tally: Tally, training: Training) -> dict[str, float] | None:
  if training.classes is None:
    return None
  alike = similarity.similarity_matrix(training.classes)
  return similarity.soft_scores(tally.matrix, alike)


def _curve(tallies: Mapping[str, Tally]) -> dict[str, Any] | None:
  """mIoU by the number of irrelevant names, and on how many images."""
  if not tallies:
    return None
  counts = sorted(int(name.removeprefix(DISTRACTED)) for name in tallies)
  found = {n: segmentation_scores(tallies[distracted(n)].matrix) for n in counts}
  images = len(tallies[distracted(counts[0])].images)
  curves = {
    key: {str(n): scores[key] for n, scores in found.items()}
    for key in tables.MIOUS.values()
  }
  return {'images': images, **curves}


def _single(sums: Int[np.ndarray, '3 k']) -> dict[str, Any]:
  """IoU of each class where it is in the image and alone is asked for."""
  both, predicted, true = sums.astype(np.float64)
  with np.errstate(divide='ignore', invalid='ignore'):
    iou = np.where(true > 0, 100 * both / (predicted + true - both), np.nan)
  known = iou[~np.isnan(iou)]
  mean = float(known.mean()) if len(known) else float('nan')
  return {'iou': mean, 'iou_per_class': iou.tolist()}
