"""report.md of an adaptation: before and after, on photos that chose nothing."""

from collections.abc import Mapping, Sequence
from typing import Any

from ovs_jax.adapt.plan import Photos
from ovs_jax.core.files import Place, write_json, write_text
from ovs_jax.evaluate import before_after
from ovs_jax.evaluate.sources import Target
from ovs_jax.text import vocabulary

_MEANING = """\
IoU in percent; the first row is the mean over all classes (detectron2 0.6), that of
things and of stuff over the classes that these photos show. In brackets: where 95 % of
data sets of as many photos, drawn with replacement, lie; a gain whose bracket has no 0
is more than chance. `before` is the checkpoint as it was, in its own settings. Neither
training nor any choice has seen these photos.
"""

_PARTS = {
  'masks': 'the proposer',
  'prompts': 'mask prompts',
  'phrases': "CLIPSeg's decoder",
}


def write(
  workdir: Place,
  photos: Photos,
  chosen: Mapping[str, Any],
  results: Mapping[str, Any],
  model: Place,
) -> list[before_after.Row]:
  """Writes report.md and report.json, and prints the former; returns the rows."""
  rows: list[before_after.Row] = []
  lines = ['# Adaptation', '', f'Of `{photos.data}`. The model is `{model}`.', '']
  lines += _what(photos, chosen)
  if chosen['val']:
    folder = Target('folder', photos.data, chosen['val']).folder
    names = vocabulary.own('folder', photos.names)
    before, after = (workdir / stage / folder for stage in ('before', 'after'))
    rows = before_after.compare(before, after, names)
    count = photos.splits[chosen['val']]
    lines += [f'## {count} photos of `{chosen["val"]}`', '']
    lines += [*before_after.markdown(rows), _MEANING]
    for title, stage in (('Before', 'before'), ('After', 'after')):
      sheet = f'{stage}/{folder}/sheet.png'
      if (workdir / sheet).exists():
        lines += [f'## {title}: best, median and worst', '', f'![{title}]({sheet})', '']
  else:
    lines += ['There are no photos with masks to report on: nothing was measured.', '']
  lines += [
    f'`{workdir / "adapt.py"}` is a configuration that does all of this again: '
    f'`ovs-jax train --config={workdir / "adapt.py"} --workdir=ELSEWHERE`.'
  ]
  text = '\n'.join(lines) + '\n'
  write_text(workdir / 'report.md', text)
  found = {'model': str(model), 'settings': dict(chosen), 'rows': rows}
  write_json(workdir / 'report.json', {**found, 'stages': sorted(results)})
  print(text, flush=True)
  return rows


def _what(photos: Photos, chosen: Mapping[str, Any]) -> Sequence[str]:
  """What was trained and chosen, in a list."""
  count = photos.splits['train'] - photos.choose
  lines = [f'- {count} photos to train with, {photos.choose} of train to choose by']
  how = 'steps at most, of which the best is kept'
  how = how if photos.choose else 'steps, the last of which is kept'
  for part, what in _PARTS.items():
    if chosen.get(part):
      lines.append(f'- {what}: {chosen[part]} {how}')
  parts = 'the trained parts' if chosen['adapted'] else "the checkpoint's own parts"
  classifier = f'; classifier {chosen["classifier"]}' if 'classifier' in chosen else ''
  if chosen.get('classifier') == 'ensemble':
    classifier += f', weight {chosen["weight"]}'
  return [*lines, f'- the result has {parts}{classifier}', '']
