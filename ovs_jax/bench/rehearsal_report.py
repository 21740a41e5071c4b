"""What a rehearsal changed of the full-size configurations, and what came of it."""

import json
from typing import Any

from ovs_jax.bench.drawn import configuration
from ovs_jax.core.files import (
  Place,
  place,
  read_json,
  read_mapping,
  write_json,
  write_text,
)
from ovs_jax.core.tree import flatten
from ovs_jax.evaluate import tables
from ovs_jax.settings import Settings

RUN = '{run}/'  # in front of the directories of a rehearsal
TABLE = 'table'  # the last stage of a table's configuration; here it has that's name
# Found in the command's output and files, not decided by settings.
_OWN = ('name', 'needs')

Change = tuple[str, Any, Any]  # key, full-size value, value here


def stages_of(names: tuple[str, ...]) -> dict[str, Any]:
  """Returns the stages of configurations, each once, in their order.

  A stage `table` gets the name of its configuration.
  """
  stages: dict[str, Any] = {}
  for name in names:
    config = configuration(name)
    for stage in config.order:
      key = name if stage == TABLE else stage
      stages.setdefault(key, config.stages[stage].copy_and_resolve_references())
  return stages


def report(config: Settings, workdir: Place) -> dict[str, Any]:
  """Writes report.md and report.json: changes, tables, and what every stage took.

  Reads the pipeline's configuration and its finished stages in `config.report.run`.
  """
  run = place(config.report.run)
  whole = read_json(run / 'config.json')
  found = changes(stages_of(config.rehearsal.configs), whole['stages'])
  added = [n for n in whole['order'] if n not in found['stages']]
  seconds = {
    name: read_mapping(run / name / 'done.json', seconds=(int, float))['seconds']
    for name in whole['order']
    if (run / name / 'done.json').exists()
  }
  joined = {
    name: read_mapping(run / name / 'done.json', result=None)['result']
    for name in config.rehearsal.configs
  }
  result = {**found, 'added': added, 'seconds': seconds, 'tables': joined}
  write_json(workdir / 'report.json', result)
  text = markdown(result, run, config.rehearsal.configs)
  write_text(workdir / 'report.md', text)
  print(text)
  return {'changes': len(found['changes'])}


def changes(full: dict[str, Any], here: dict[str, Any]) -> dict[str, Any]:
  """Compares the settings of stages, flattened.

  Args:
    full: configurations of the full-size stages.
    here: those of a rehearsal, as config.json has them; there may be more stages.

  Returns:
    `stages`, which were compared, and `left_out`, which are not here; `changes`, each
    with `key`, `full`, `here` and the `stages` that have it; `moved`, keys of
    directories that are elsewhere alone.
  """
  grouped: dict[str, dict[str, Any]] = {}
  moved: dict[str, int] = {}
  compared = {name: config for name, config in full.items() if name in here}
  for name, config in compared.items():
    before = _plain(Settings.of(config).to_dict())
    for key, old, new in _differences(before, here[name]):
      if _at_home(new) == old:
        moved[key] = moved.get(key, 0) + 1
        continue
      text = json.dumps([key, old, new])
      entry = {'key': key, 'full': old, 'here': new, 'stages': []}
      grouped.setdefault(text, entry)['stages'].append(name)
  found = sorted(grouped.values(), key=lambda entry: entry['key'])
  left_out = [name for name in full if name not in here]
  return {
    'stages': list(compared),
    'left_out': left_out,
    'changes': found,
    'moved': moved,
  }


def _plain(value: Any) -> Any:
  return json.loads(json.dumps(value, default=str))


def _differences(before: dict[str, Any], after: dict[str, Any]) -> list[Change]:
  old, new = flatten(before), flatten(after)
  keys = [k for k in {**old, **new} if old.get(k) != new.get(k)]
  return [(k.replace('/', '.'), old.get(k), new.get(k)) for k in keys if k not in _OWN]


def _at_home(value: Any) -> Any:
  """Returns a value with its directories where the full-size run has them."""
  return json.loads(json.dumps(value).replace(RUN, ''))


def markdown(result: dict[str, Any], run: Place, names: tuple[str, ...]) -> str:
  """Returns the report: the joined tables, the changes, the stages and their time."""
  lines = ['# Rehearsal', '', 'Drawn files and drawn weights: no score means anything.']
  for name in names:
    path = place(run) / name / 'report.md'
    lines += ['', path.read_text(encoding='utf-8').replace('# ', '## ', 1).strip()]
  count = len(result['stages'])
  lines += [
    '',
    '## Changes',
    '',
    f'Settings of {count} stages that differ from the full-size configurations '
    f'({", ".join(names)}); all others are the same.',
    '',
  ]
  rows = [
    [f'`{c["key"]}`', _short(c['full']), _short(c['here']), _which(c['stages'], count)]
    for c in result['changes']
  ]
  lines += tables.markdown(['key', 'full size', 'here', 'stages'], rows)
  moved = ', '.join(f'`{key}` ({n})' for key, n in result['moved'].items())
  lines += ['', f'With `{RUN}` before their directories, and else the same: {moved}.']
  lines += ['', f'Stages of the rehearsal alone: {", ".join(result["added"])}.']
  lines += ['', f'Stages left out: {", ".join(result["left_out"]) or "none"}.']
  lines += ['', '## Stages', '']
  rows = [[name, f'{seconds:.1f}'] for name, seconds in result['seconds'].items()]
  lines += tables.markdown(['stage', 'seconds'], rows)
  return '\n'.join(lines) + '\n'


def _short(value: Any) -> str:
  text = json.dumps(value)
  text = text if len(text) <= 60 else f'{text[:57]}...'
  return f'`{text.replace("|", "/")}`'


def _which(stages: list[str], count: int) -> str:
  if len(stages) == count:
    return 'all'
  return ', '.join(stages) if len(stages) <= 4 else f'{len(stages)} stages'
