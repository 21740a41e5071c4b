"""The parity harness: what it calls a failure, and the stored cases."""

import json
import os
import pathlib

import jax
import numpy as np
import parity
import pytest
from parity_case import Case, Check, deviation

SHARED = pathlib.Path(
  os.environ.get('OVS_SHARED', pathlib.Path(__file__).parents[2] / 'shared')
)


def test_deviation():
  assert deviation([1.0, 2.5], [1.0, 2.0]) == 0.5
  assert deviation([1.0, 2.5], [1.0, 2.0], relative=True) == 0.25
  assert deviation([np.nan, 1.0], [np.nan, 1.0]) == 0
  assert deviation([np.nan], [1.0]) == deviation([1.0], [[1.0]]) == float('inf')
  assert deviation(np.zeros((2, 0)), np.zeros((2, 0))) == 0


def test_verdicts():
  assert Check('x', 0.1, 0.1, 'abs').passed
  assert not Check('x', 0.2, 0.1, 'rel').passed
  assert not Check('x', float('nan'), 0.1, 'abs').passed
  assert Check('x', 0.9995, 0.999, 'share').passed
  assert not Check('x', 0.99, 0.999, 'share').passed


def write_evaluator(path, **changes):
  """Writes a case with one image of two classes, three pixels of four right."""
  matrix = [[1, 0, 0], [1, 2, 0], [0, 0, 0]]
  iou, accuracy = [50.0, 200 / 3], [50.0, 100.0]
  out = {'conf_matrix': np.array(matrix), 'mIoU_old': np.mean(iou)}
  out['mIoU_new'] = np.mean(iou)
  for version in ('old', 'new'):
    out[f'fwIoU_{version}'] = np.mean(iou)
    out[f'mACC_{version}'] = 75.0
    out[f'pACC_{version}'] = 75.0
    out[f'iou_per_class_{version}'] = np.array(iou)
    out[f'acc_per_class_{version}'] = np.array(accuracy)
  out |= changes
  np.savez(
    path,
    config_json=json.dumps({'num_classes': 2}),
    **{'in/gt_0': np.array([[0, 0, 1, 1]]), 'in/pred_0': np.array([[0, 1, 1, 1]])},
    **{f'out/{name}': value for name, value in out.items()},
  )


def test_command_line(tmp_path, capsys):
  write_evaluator(tmp_path / 'evaluator.npz')
  np.savez(tmp_path / 'other.npz', config_json='{}')
  assert parity.main([f'--oracles={tmp_path}']) == 0
  printed = capsys.readouterr().out
  assert 'other: not supported yet' in printed and 'FAIL' not in printed
  write_evaluator(tmp_path / 'evaluator.npz', mIoU_old=np.float64(58.4))
  assert parity.main([f'--oracles={tmp_path}', '--only=eval*']) == 1
  assert 'FAIL' in capsys.readouterr().out
  assert parity.main([f'--oracles={tmp_path}', '--only=nothing']) == 1
  assert parity.main([]) == 1


def test_files_of_any_name(tmp_path, capsys):
  write_evaluator(tmp_path / 'mine.npz')
  assert parity.main([str(tmp_path / 'mine.npz')]) == 1
  assert 'mine: not supported yet' in capsys.readouterr().out
  assert parity.main([str(tmp_path / 'mine.npz'), '--case=evaluator']) == 0
  assert '0 out of tolerance, 0 cases ended' in capsys.readouterr().out


def test_a_case_that_ends_with_an_error_hides_no_other(tmp_path, capsys):
  write_evaluator(tmp_path / 'evaluator.npz')
  np.savez(tmp_path / 'criterion_odd.npz', config_json='{}')
  assert parity.main([f'--oracles={tmp_path}']) == 1
  printed = capsys.readouterr().out
  assert 'criterion_odd: ended with KeyError' in printed
  assert '1 cases, 14 quantities, 0 out of tolerance, 1 cases ended' in printed


def test_outputs_that_nothing_compares_are_named(tmp_path):
  write_evaluator(tmp_path / 'evaluator.npz', surprise=np.zeros(2))
  checks, unchecked = parity.run(tmp_path / 'evaluator.npz')
  assert unchecked == ['out/surprise']
  assert all(check.passed for check in checks)
  assert Case(tmp_path / 'evaluator.npz').names('in/') == ['gt_0', 'pred_0']


@pytest.mark.samples
@pytest.mark.parametrize('pattern', parity.CASES)
def test_stored_cases(pattern):
  paths = sorted((SHARED / 'oracles').glob(f'{pattern}.npz'))
  assert paths, f'no {pattern}.npz in {SHARED / "oracles"}'
  for path in paths:
    # Annotations and ranks are checked here as in every other test.
    assert jax.config.jax_numpy_rank_promotion == 'raise'
    checks, _ = parity.run(path)
    assert checks and not [check for check in checks if not check.passed]
