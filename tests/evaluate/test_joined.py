"""Benchmarks joined into a table, from reports written by hand."""

import dataclasses
import json
import pathlib

import pytest

from configs import common
from ovs_jax.core.errors import UserError
from ovs_jax.evaluate.joined import table
from ovs_jax.settings import Settings
from ovs_jax.settings.evaluation import Row


def report(directory: pathlib.Path, **scores: tuple[float, float | None]) -> str:
  """Writes a benchmark's report: mIoU in the frozen setting, and tuned."""
  directory.mkdir()
  datasets = {}
  for name, (frozen, tuned) in scores.items():
    methods = {'a': {'miou_predicted_too': frozen, 'miou': 99.0}}
    if tuned is not None:
      methods['b'] = {'miou_predicted_too': tuned, 'miou': 98.0}
    datasets[f'{name}/default:val'] = {
      'methods': methods,
      'headline': 'a',
      'tuned': None if tuned is None else 'b',
    }
  (directory / 'report.json').write_text(json.dumps({'datasets': datasets}))
  return str(directory)


def settings(
  *rows: Row, columns: tuple[str, ...] = ('voc_20', 'ade20k_150')
) -> Settings:
  plain = Settings.of(common.base('joined', 'table'))
  joined = dataclasses.replace(
    plain.table, title='Both', note='A note.', columns=columns, rows=rows
  )
  return dataclasses.replace(plain, table=joined)


def test_numbers_stand_beside_those_that_were_published(tmp_path: pathlib.Path) -> None:
  one = report(tmp_path / 'one', ade20k_150=(20.04, 21.06), voc_20=(90.0, None))
  two = report(tmp_path / 'two', voc_20=(91.0, 92.5), ade20k_150=(30.0, 31.0), x=(1, 1))
  rows = (('first', one, (94.5, 29.6)), ('second', two, (None,)))
  found = table(settings(*rows), tmp_path / 'joined')
  assert found['columns'] == ['voc_20', 'ade20k_150']
  assert [(r['measured'], r['tuned'], r['published']) for r in found['rows']] == [
    ([90.0, 20.04], [None, 21.06], [94.5, 29.6]),
    ([91.0, 30.0], [92.5, 31.0], [None, None]),
  ]
  assert json.loads((tmp_path / 'joined/report.json').read_text()) == found
  lines = (tmp_path / 'joined/report.md').read_text().splitlines()
  assert lines[0] == '# Both' and lines[-1] == 'A note.'
  assert lines[4:8] == [
    '|  | voc_20 | ade20k_150 |',
    '|---|---|---|',
    '| first | 90.0 / - (94.5) | 20.0 / 21.1 (29.6) |',
    '| second | 91.0 / 92.5 (-) | 30.0 / 31.0 (-) |',
  ]


def test_what_is_missing_is_named(tmp_path: pathlib.Path) -> None:
  row = ('first', str(tmp_path / 'one'), ())
  with pytest.raises(FileNotFoundError, match=r"one/report.json not found: 'first' of"):
    table(settings(row), tmp_path / 'joined')
  report(tmp_path / 'one', ade20k_150=(20.0, None))
  with pytest.raises(ValueError, match=r'has no voc_20/default:val, but ade20k_150'):
    table(settings(row), tmp_path / 'joined')


def test_more_published_numbers_than_columns_are_refused_at_the_start() -> None:
  config = common.base('joined', 'table')
  config.table.update(columns=('voc_20',), rows=(('first', 'run', (94.5, 29.6)),))
  message = "config.table: rows: 'first' has 2 published numbers for 1 columns"
  with pytest.raises(UserError, match=message):
    Settings.of(config)
