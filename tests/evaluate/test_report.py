"""The report of two evaluations made by hand."""

import json
import pathlib
from typing import Any

import numpy as np
import pytest
from PIL import Image

from configs import scenes
from ovs_jax.core.files import write_json
from ovs_jax.core.types import VOID
from ovs_jax.evaluate import report
from ovs_jax.settings import Settings
from ovs_jax.text import vocabulary

METHODS = ('proposer', 'clip', 'ensemble_0.20', 'oracle_masks', 'oracle_classes')
KEYS = ('miou', 'miou_seen', 'miou_unseen', 'miou_predicted_too', 'pixel_accuracy')


def scores(first: float) -> dict[str, Any]:
  """Returns what an evaluation writes, every number another one."""
  numbers = iter(np.arange(first, first + 100))
  return {
    'dataset': 'scenes/smoke:val',
    'vocabulary_sha256': 'abcdef0123456789',
    'images': 16,
    'methods': {name: {k: float(next(numbers)) for k in KEYS} for name in METHODS},
    'crops': {
      name: {k: float(next(numbers)) for k in ('all', 'seen', 'unseen', 'count')}
      for name in ('true_mask', 'proposal')
    },
  }


def evaluation(directory: pathlib.Path, first: float) -> None:
  write_json(directory / 'scores.json', scores(first))
  write_json(directory / 'done.json', {'seconds': first, 'result': {}})
  label = np.full((2, 8, 10), VOID, np.uint8)
  label[:, :4] = 3
  np.savez(
    directory / 'pictures.npz',
    image=np.zeros((2, 8, 10, 3), np.uint8),
    label=label,
    **{'ensemble_0.20': np.full((2, 8, 10), 5, np.int16)},
  )


@pytest.fixture
def run(tmp_path: pathlib.Path) -> pathlib.Path:
  """Returns the directory of a pipeline that is ready for its report."""
  evaluation(tmp_path / 'evaluate_frozen', 100.0)
  evaluation(tmp_path / 'evaluate_mpt', 200.0)
  mined = {
    'pairs': 7,
    'unique_nouns': 3,
    'images': 5,
    'nouns': {'backend': 'lexicon', 'version': '1'},
  }
  write_json(tmp_path / 'mine' / 'done.json', {'seconds': 9.0, 'result': mined})
  (tmp_path / 'clip').mkdir()
  lines = [json.dumps({'step': i, 'loss': 1 / i}) for i in (1, 2)]
  (tmp_path / 'clip' / 'metrics.jsonl').write_text('\n'.join(lines))
  return tmp_path


def configured(run: pathlib.Path) -> Any:
  return scenes.report(str(run))


def test_every_number_has_its_row() -> None:
  frozen, adapted = scores(0.0), scores(200.0)
  rows = report.table_rows(frozen, adapted)
  assert len({row['method'] for row in rows}) == len(rows)
  used = {row[key] for row in rows for key in KEYS}
  for source, names in (
    (frozen, METHODS),
    (adapted, ('clip', 'ensemble_0.20', 'oracle_masks')),
  ):
    for name in names:
      assert set(source['methods'][name].values()) <= used, name


def test_scores_among_seen_classes_have_none_of_the_unseen() -> None:
  frozen, adapted = scores(0.0), scores(200.0)
  values = dict.fromkeys(KEYS, 60.0) | {'miou_unseen': float('nan')}
  frozen['methods'] |= {'proposer_seen': values, 'oracle_classes_seen': values}
  rows = report.table_rows(frozen, adapted)[-2:]
  assert [row['miou'] for row in rows] == [60.0, 60.0]
  assert [row['miou_unseen'] for row in rows] == [None, None]
  summary = {
    'images': 1,
    'dataset': 'd',
    'seed': 0,
    'vocabulary_sha256': 'x',
    'rows': rows,
    'crops': {'frozen': frozen['crops'], 'mpt': adapted['crops']},
    'mining': {},
    'stages': {},
  }
  text = report.markdown(summary, 0)
  assert '| proposer alone, seen names only | 60.0 | 60.0 | 60.0 | - | 60.0 |' in text


def test_the_whole_report(
  run: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
  names = vocabulary.load('scenes')
  report.report(Settings.of(configured(run)), run / 'report')
  summary = json.loads((run / 'report.json').read_text())
  text = (run / 'report.md').read_text()
  assert summary['images'] == 16 and summary['mining']['pairs'] == 7
  for row in summary['rows']:
    values = ' | '.join(f'{row[key]:.1f}' for key in ('miou_predicted_too', *KEYS[:3]))
    assert f'| {row["method"]} | {values} |' in text
  assert 'Mined 7 pairs of 3 nouns from 5 images; nouns by lexicon 1.' in text
  for stage, seconds in (('mine', 9), ('evaluate_mpt', 200)):
    assert f'| {stage} | {seconds} |' in text
  for i in range(2):
    assert f'(picture_{i}.png)' in text
    with Image.open(run / f'picture_{i}.png') as picture:
      assert picture.width > 3 * 10
  assert (run / 'losses.png').stat().st_size > 1000
  assert (run / 'scenes' / 'names.txt').read_text() == f'{names.names[3]}\n'
  for i in range(2):
    with Image.open(run / 'scenes' / f'scene_{i}.png') as picture:
      assert np.asarray(picture).shape == (8, 10, 3)
  said = capsys.readouterr().out
  assert (
    f'This is {run}/report.md' in said and 'predict' not in said
  )  # no model is there
  (run / 'ovseg_mpt').mkdir()
  report.report(Settings.of(configured(run)), run / 'report')
  line = f'--image={run}/scenes --names-file={run}/scenes/names.txt\n'
  assert capsys.readouterr().out.endswith(f'--checkpoint={run}/ovseg_mpt {line}')


def test_a_missing_evaluation_is_named(run: pathlib.Path) -> None:
  (run / 'evaluate_mpt' / 'scores.json').unlink()
  with pytest.raises(FileNotFoundError, match=r'evaluate_mpt/scores\.json not found'):
    report.report(Settings.of(configured(run)), run / 'report')


def test_pictures_of_another_method_are_refused(run: pathlib.Path) -> None:
  names = vocabulary.load('scenes')
  with pytest.raises(ValueError, match=r"no label maps of 'clip'; .*ensemble_0\.20"):
    report.draw(run / 'evaluate_mpt', 'clip', names)
