"""report.md of an evaluation on several data sets."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ovs_jax.evaluate import tables
from ovs_jax.evaluate.judges import SAVED, TRUE_CLASSES, TRUE_MASKS, TRUE_VOCABULARY
from ovs_jax.evaluate.recall import SIZES, THRESHOLDS
from ovs_jax.evaluate.tables import COMPARED, SCORES, number

Summaries = Mapping[str, Mapping[str, Any]]
_ORACLES = (TRUE_VOCABULARY, TRUE_MASKS, TRUE_CLASSES)
_FIRST = next(iter(SCORES))

_MEANING = """
## What the numbers mean

- All are percent and follow from integer counts over the whole data set, at the size
  of the label maps. Only pixels that are void in the truth are left out; a pixel
  without a prediction is wrong.
- **mIoU (detectron2 0.6)** is what papers print, those of OVSeg among them, and what
  mmsegmentation computes: the mean over the classes that occur in the truth or in a
  prediction, so that a class which is only predicted counts as 0. **mIoU, classes in
  the truth** divides the same sum by the classes that occur in the truth. fwIoU weighs
  classes by their pixels, mACC is the mean of the classes' accuracies, pACC the share
  of pixels that are right. In brackets: where 95 % of data sets of as many images,
  drawn with replacement, lie.
- **Boundary IoU** counts only pixels within 2 % of the diagonal from a border.
- **Seen** classes have a name of a training class or are marked so in the class list;
  **near** ones are unseen, but a training name has a text embedding close to theirs;
  **far** ones are the rest. per_class.csv has the group and the nearest training name
  of every class.
- **True vocabulary**: the model is told which classes an image shows. **True masks**:
  the model classifies the true masks. **True classes**: every proposal gets the true
  class that it covers most. A wrong pixel is blamed on the **mask** if it is wrong
  with true classes, else on the **vocabulary** if it is right with the true
  vocabulary, else on the **class**.
- **Open mIoU** and **SG mIoU** soften mistakes between names that the model's own
  text tower finds alike: s = max(0, (cos - m) / (1 - m)), m the 95 % quantile of the
  cosines of all pairs of names. With n[i,j] pixels of class j called i: missed[j] =
  sum (1 - s[i,j]) n[i,j], false[j] = sum (1 - s[j,l]) n[j,l]; open: sum s[i,j] n[i,j]
  is a hit; SG: only n[j,j] is. They compare settings of one model, not models with
  different text towers.
- **Distractors** are names of other benchmarks' classes, also behind adjectives, that
  share no word with a class here and have a cosine below the threshold of "near" to
  all of them. **One name**: each class that an image shows is asked for alone,
  against "others" (of a CoSeg: against its "unlabeled"; of a CLIPSeg: against
  nothing).
- **Recall**: true masks (a class of an image each) whose best proposal has at least
  this IoU, whatever it is called. Small ones have less than 1 % of the picture, large
  ones 10 % or more.
- **Calibration**: of pixels with a label of so much confidence, the share that is
  right. The error is the mean distance between both over all pixels (expected
  calibration error, ten bins).
- Of a CLIPSeg or CoSeg, **A** to **D** are rules that merge masks: the most probable
  mask has a pixel (A), the smallest one, or of a CoSeg the latest (B), a CoSeg's masks
  count for every name that they resemble (C), or pixels have several names (D, which is
  no segmentation).
"""


def markdown(what: Mapping[str, Any], summaries: Summaries) -> str:
  """Returns the report.

  Args:
    what: `checkpoint`, `settings`, what is not known of its training
      (`training_note`, or None), and whether settings were `searched`, and so on a
      test split (`searched_on_test`).
    summaries: of the data sets, from `summary.summarise`.
  """
  lines = ['# Evaluation', '', f'Of `{what["checkpoint"]}`. {_settings(what)}', '']
  if what['searched_on_test']:
    lines += [
      '**Settings were searched on test splits (`--i-know`): the column "searched" '
      'says nothing about other images.**',
      '',
    ]
  if what['training_note']:
    lines += [what['training_note'], '']
  unproven = [name for name, s in summaries.items() if not s['names_checked']]
  if unproven:
    lines += [
      f'No names.txt came with the label maps of {", ".join(unproven)}: that their '
      'numbers mean the classes of the data set was not checked.',
      '',
    ]
  lines += _headline(summaries)
  lines += _other_settings(summaries)
  lines += _groups(summaries)
  lines += _oracles(summaries)
  lines += _names(summaries)
  lines += _labels(summaries)
  lines += _recall(summaries)
  lines += _calibration(summaries)
  lines += _lists(summaries)
  for summary in summaries.values():
    if summary.get('sheet'):
      lines += [f'![{summary["dataset"]}]({summary["sheet"]})', '']
  return '\n'.join(lines).rstrip('\n') + '\n' + _MEANING


def _settings(what: Mapping[str, Any]) -> str:
  settings = what['settings']
  if not settings:
    return 'Label maps that another program saved.'
  listed = ', '.join(f'{key.replace("_", " ")} {x}' for key, x in settings.items())
  return f'One frozen setting for all data sets: {listed}.'


def _table(
  titles: Sequence[str], rows: Sequence[Sequence[str]], heading: str
) -> list[str]:
  return [f'## {heading}', '', *tables.markdown(titles, rows)]


def _headline(summaries: Summaries) -> list[str]:
  rows = []
  for name, summary in summaries.items():
    scores = summary['methods'][summary['headline']]
    cells = [_with_interval(scores, key) for key in SCORES.values()]
    present = f'{scores["classes_present"]} of {summary["classes"]}'
    more = [number(scores['boundary_iou']), number(scores['unassigned']), present]
    rows.append([name, str(summary['images']), *cells, *more])
  more = ('boundary IoU', 'unassigned', 'classes present')
  return _table(['data set', 'images', *SCORES, *more], rows, 'Headline')


def _other_settings(summaries: Summaries) -> list[str]:
  """The headline beside settings that were chosen for a data set, and the rest."""
  rows = []
  for name, summary in summaries.items():
    headline = summary['headline']
    for method, scores in summary['methods'].items():
      if method == SAVED or method in _ORACLES:
        continue
      roles = [
        role
        for role, of in (
          ('headline', headline),
          ('tuned for this data set', summary['tuned']),
          ('searched', summary['searched']),
        )
        if of == method
      ]
      cells = [number(scores[key]) for key in SCORES.values()]
      rows.append([name, method, ', '.join(roles), *cells])
  if not rows:
    return []
  lines = _table(['data set', 'setting', 'role', *SCORES], rows, 'Settings')
  note = (
    '"Tuned for this data set" is the lambda that the paper used there, chosen by its '
    'authors on the test images; the headline uses one for all.'
  )
  return [*lines[:-1], '', note, '']


def _groups(summaries: Summaries) -> list[str]:
  groups = ('seen', 'unseen', 'near_unseen', 'far_unseen', 'stuff', 'thing')
  rows = []
  for name, summary in summaries.items():
    scores = summary['methods'][summary['headline']]
    sizes = summary['groups'] | summary.get('kinds', {})
    cells = [
      f'{number(scores[f"miou_{group}"])} ({sizes[group]})' if group in sizes else '-'
      for group in groups
    ]
    rows.append([name, summary['training_names'], *cells])
  titles = ['data set', 'training names', 'seen', 'unseen', 'near', 'far']
  titles += ['stuff', 'things']
  heading = (
    'mIoU of the classes in the truth, by how well training knew them and by kind '
    '(number of classes)'
  )
  return _table(titles, rows, heading)


def _oracles(summaries: Summaries) -> list[str]:
  rows = []
  for name, summary in summaries.items():
    if summary['errors'] is None:
      continue
    methods = (summary['headline'], *_ORACLES)
    cells = [number(summary['methods'][m][COMPARED]) for m in methods]
    kinds = ('right', 'mask', 'vocabulary', 'class')
    rows.append([name, *cells, *(number(summary['errors'][k]) for k in kinds)])
  titles = ['data set', _FIRST, 'true vocabulary', 'true masks', 'true classes']
  titles += ['pixels right', 'wrong: mask', 'wrong: vocabulary', 'wrong: class']
  return _table(titles, rows, 'Oracles, and what is to blame') if rows else []


def _names(summaries: Summaries) -> list[str]:
  curves = [s['distractors'] for s in summaries.values() if s['distractors']]
  counts = list(dict.fromkeys(n for curve in curves for n in curve['miou']))
  rows = []
  for name, summary in summaries.items():
    if summary['soft'] is None:
      continue
    curve, single = summary['distractors'], summary['single_concept']
    cells = [number(summary['soft'][key]) for key in ('open_miou', 'sg_miou')]
    cells.append(_optional(single, lambda s: number(s['iou'])))
    cells.append(_optional(curve, lambda c: str(c['images'])))
    cells += [
      _optional(curve, lambda c, n=n: number(c.get(COMPARED, {}).get(n)))
      for n in counts
    ]
    rows.append([name, *cells])
  titles = ['data set', 'open mIoU', 'SG mIoU', 'one name', 'images of the curve']
  titles += [f'{_FIRST}, {int(n):,} distractors' for n in counts]
  return _table(titles, rows, 'Names: alike, irrelevant, alone') if rows else []


def _labels(summaries: Summaries) -> list[str]:
  lines = [
    tables.of_labels(name, summary['labels'])
    for name, summary in summaries.items()
    if summary.get('labels')
  ]
  return ['## Labels that images got', '', *lines, ''] if lines else []


def _recall(summaries: Summaries) -> list[str]:
  rows = []
  for name, summary in summaries.items():
    found = summary.get('recall') or {}
    for part in ('all', 'thing', 'stuff', 'seen', 'unseen', *SIZES):
      if part in found:
        shown = [number(found[part][f'{t:g}']) for t in THRESHOLDS]
        cells = [part, str(found[part]['masks']), *shown]
        rows.append([name, number(found['proposals']), *cells])
  titles = ['data set', 'proposals per image', 'true masks', 'number']
  titles += [f'IoU {t:g}' for t in THRESHOLDS]
  return _table(titles, rows, 'Recall of proposals') if rows else []


def _calibration(summaries: Summaries) -> list[str]:
  rows = []
  for name, summary in summaries.items():
    found = summary.get('calibration')
    if found:
      cells = [number(found[key]) for key in ('error', 'confidence', 'right')]
      shown = (_optional(x['right'], number) for x in found['bins'])
      rows.append([name, *cells, *shown])
  titles = ['data set', 'error', 'mean confidence', 'right']
  titles += [f'{i / 10:.1f} to {(i + 1) / 10:.1f}' for i in range(10)]
  heading = 'Calibration: pixels that are right, by their confidence'
  return _table(titles, rows, heading) if rows else []


def _lists(summaries: Summaries) -> list[str]:
  rows = [
    [name, s['vocabulary'], str(s['classes']), s['vocabulary_sha256']]
    for name, s in summaries.items()
  ]
  return _table(['data set', 'class list', 'classes', 'sha256'], rows, 'Class lists')


def _optional(value: Any, text: Callable[[Any], str]) -> str:
  return '-' if value is None else text(value)


def _with_interval(scores: Mapping[str, Any], key: str) -> str:
  bounds = scores['intervals'].get(key)
  shown = number(scores[key])
  return shown if bounds is None else f'{shown} {tables.interval(bounds)}'
