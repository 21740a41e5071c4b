"""Benchmarks of several models in one table, beside the numbers that were published."""

from typing import Any

from ovs_jax.core.errors import UserError
from ovs_jax.core.files import (
  Place,
  check_writable,
  place,
  read_mapping,
  write_json,
  write_text,
)
from ovs_jax.evaluate import tables
from ovs_jax.evaluate.sources import Target
from ovs_jax.evaluate.tables import COMPARED
from ovs_jax.settings import Settings

_REPORT = 'report.json'


def table(config: Settings, workdir: Place) -> dict[str, Any]:
  """Writes report.md and report.json from the benchmarks of `config.table.rows`.

  Returns:
    `columns`, and `rows` with `name` and mIoU in percent, as detectron2 0.6 counts it:
    `measured` in the frozen setting of the model, `tuned` with the paper's lambda for
    the data set, and `published`; None where there is none.

  Raises:
    FileNotFoundError: a benchmark has not been run.
    ValueError: it has no number for a column.
    OSError: `workdir` cannot be written.
  """
  workdir = check_writable(workdir, megabytes=1)
  columns = config.table.columns
  rows = [
    {
      'name': name,
      'run': run,
      **_measured(name, run, columns),
      'published': [*published, *[None] * (len(columns) - len(published))],
    }
    for name, run, published in config.table.rows
  ]
  found = {'title': config.table.title, 'columns': list(columns), 'rows': rows}
  write_json(workdir / _REPORT, found)
  text = markdown(found, config.table.note)
  write_text(workdir / 'report.md', text)
  print(text)
  return found


def _measured(
  name: str, run: str, columns: tuple[str, ...]
) -> dict[str, list[float | None]]:
  path = place(run) / _REPORT
  if not path.is_file():
    raise FileNotFoundError(
      f'{path} not found: {name!r} of the table is a run of mode benchmark'
    )
  sets = read_mapping(path, datasets=dict)['datasets']
  targets = [str(Target.parse(column)) for column in columns]
  missing = [name for name in targets if name not in sets]
  if missing:
    raise UserError(
      f'{path} has no {", ".join(missing)}, but {", ".join(sets)}; evaluate again with '
      'config.suite.datasets'
    )
  found: dict[str, list[float | None]] = {'measured': [], 'tuned': []}
  for target in targets:
    methods = sets[target]['methods']
    for key, role in (('measured', 'headline'), ('tuned', 'tuned')):
      method = sets[target][role]
      found[key].append(methods[method][COMPARED] if method else None)
  return found


def markdown(found: dict[str, Any], note: str) -> str:
  """Returns the table: measured / tuned (published)."""
  rows = []
  for row in found['rows']:
    kinds = (row[kind] for kind in ('measured', 'tuned', 'published'))
    shown = (map(tables.number, numbers) for numbers in zip(*kinds, strict=True))
    rows.append([row['name'], *(f'{a} / {b} ({c})' for a, b, c in shown)])
  lines = [f'# {found["title"]}', '']
  lines += [
    "mIoU (detectron2 0.6) in the model's one frozen setting / with the paper's lambda "
    'for the data set (as published).',
    '',
  ]
  lines += tables.markdown(['', *found['columns']], rows)
  return '\n'.join([*lines, note]).strip() + '\n'
