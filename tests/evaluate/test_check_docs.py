"""Numbers of the documentation are those that runs measured."""

import json
import pathlib

import pytest

from ovs_jax.evaluate.check_docs import check, main

ROOT = pathlib.Path(__file__).parents[2]
REPORT = {
  'rows': [{'method': 'a', 'miou': 41.26, 'seen': 1234.5, 'list': [1] * 9}],
  'class_table': [{'iou': 7.0}] * 72,
  'checkpoint': '/here/model',
}
SCORES = {'methods': {'clip': {'miou': 30.04, 'iou_per_class': [1.0, None] * 5}}}


@pytest.fixture
def page(tmp_path: pathlib.Path) -> pathlib.Path:
  """A page, with a kept run beside it."""
  run = tmp_path / 'run'
  (run / 'evaluate').mkdir(parents=True)
  (run / 'evaluate' / 'done.json').write_text('{"seconds": 12.34}')
  (run / 'evaluate' / 'scores.json').write_text(json.dumps(SCORES))
  (run / 'scenes').mkdir()
  (run / 'scenes' / 'done.json').write_text('{"identity": "x"}')
  (run / 'mine').mkdir()
  (run / 'mine' / 'done.json').write_text('{"seconds": 77.7}')
  (run / 'report.json').write_text(json.dumps(REPORT))
  kept = tmp_path / 'kept.json'
  assert main([f'--keep={run}', f'--as={kept}']) == 0
  return tmp_path / 'page.md'


def looked_up(page: pathlib.Path, *rows: str) -> tuple[list[str], int]:
  lines = ['text 77', '', '<!-- kept.json -->', '| 3 | x 9 |', '|---|---|', *rows, '']
  page.write_text('\n'.join([*lines, '| 55 | 66 |']))
  return check(page)


def test_a_run_is_kept_without_its_lists(page: pathlib.Path) -> None:
  kept = json.loads((page.parent / 'kept.json').read_text())
  stage = {'seconds': 12.34, 'methods': {'clip': {'miou': 30.04}}}
  rows = [{'method': 'a', 'miou': 41.26, 'seen': 1234.5}]
  assert kept['stages'] == {
    'evaluate': stage,
    'mine': {'seconds': 77.7},
    'scenes': {},
  }
  assert kept['report'] == {'rows': rows}


@pytest.mark.parametrize(
  'row',
  ['| lambda 0.2 | 41.3 | 1,234.5 |', '| a | 41.26 |', '| b | **30.0** | 12 s |'],
)
def test_numbers_of_one_stage_are_found(page: pathlib.Path, row: str) -> None:
  assert looked_up(page, row) == ([], 1)


@pytest.mark.parametrize(
  ('row', 'numbers'),
  [
    ('| a | 41.2 |', '41.2'),
    ('| a | 41.27 |', '41.27'),
    ('| a | -41.3 |', '-41.3'),
    ('| a | 41.3 | 30.0 |', '41.3, 30.0'),  # each is somewhere, not together
    ('| a | 12 | 78 |', '12, 78'),  # of two stages
    ('| a | 1 |', '1'),  # of a list
  ],
)
def test_others_are_told_with_their_line(
  page: pathlib.Path, capsys: pytest.CaptureFixture[str], row: str, numbers: str
) -> None:
  (problem,), _ = looked_up(page, '| a | 41.3 |', row)
  assert problem == f'{page}:7: kept.json has not together {numbers}'
  assert main([str(page)]) == 1
  assert capsys.readouterr().out == f'{problem}\n1 tables looked up\n'


def test_what_is_missing_is_told(
  page: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
  page.write_text('<!-- kept.json -->\n\ntext\n')
  assert main([str(page)]) == 2
  assert 'no table with numbers follows' in capsys.readouterr().err
  page.write_text('<!-- gone.json -->\n\n| a |\n|---|\n| 1 | 2 |\n')
  assert main([str(page)]) == 2
  assert 'gone.json' in capsys.readouterr().err
  assert main([f'--keep={page.parent}', f'--as={page}.json']) == 2
  assert 'no finished stages' in capsys.readouterr().err
  assert main([f'--keep={page.parent / "run"}']) == 2
  assert 'expected FILE.json' in capsys.readouterr().err


def test_the_documentation_has_what_runs_measured() -> None:
  pages = [ROOT / 'README.md', *sorted((ROOT / 'docs').glob('*.md'))]
  found = [check(page) for page in pages]
  assert [line for problems, _ in found for line in problems] == []
  assert sum(count for _, count in found) >= 3
