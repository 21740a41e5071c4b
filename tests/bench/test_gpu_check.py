"""What an accelerator is asked, at tiny size on a CPU, and what a failure does."""

import json
import pathlib
from typing import Any

import jax
import numpy as np
import pytest

from ovs_jax.bench import (
  __main__,
  check_attention,
  check_steps,
  checks,
  gpu_check,
)
from ovs_jax.bench.checks import Check, Checklist, Found

COMMAND = ['--workload=gpu_check', '--set=smoke=true', '--set=repeats=1']
FEW = 'attention xla masked*,step scenes:mpt*,matching'


def test_the_command_keeps_a_report(
  tmp_path: pathlib.Path, capsys: pytest.CaptureFixture
) -> None:
  output = tmp_path / 'report.json'
  command = [*COMMAND, f'--set=only={FEW}', f'--output={output}']
  assert __main__.main(command) == 0
  report = json.loads(output.read_text())
  rows = {row['check']: row for row in report['checks']}
  assert len(rows) == 4 and all(row['held'] for row in rows.values())
  step = rows['step scenes:mpt 2 examples']
  assert step['value'] == 0 and step['facts']['s a step'] > 0
  assert 0 < step['facts']['MFU'] < 1 and step['facts']['MB'] > 1
  assert rows['matching']['limit'] == 1e-5
  text = (tmp_path / 'report.md').read_text()
  assert '| step scenes:mpt 2 examples | yes | losses and gradients not' in text
  assert '4 of 4 checks hold' in text and text in capsys.readouterr().out


def test_a_wrong_kernel_is_found(
  monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
  library = jax.nn.dot_product_attention

  def wrong(*given: Any, **options: Any) -> Any:
    return library(*given, **options).at[0, 2, 0].multiply(1.2)  # a head of a query

  monkeypatch.setattr(jax.nn, 'dot_product_attention', wrong)
  only = 'attention * 9 tokens bfloat16'
  assert __main__.main([*COMMAND, f'--set=only={only}']) == 1
  out = capsys.readouterr().out
  assert '| attention einsum 9 tokens bfloat16 | yes |' in out
  assert '| attention xla 9 tokens bfloat16 | NO |' in out


def test_one_that_fails_stops_no_other() -> None:
  def broken() -> Found:
    raise RuntimeError('out | of\n memory')

  rows = Checklist(
    [
      Check('one', 'errors', broken),
      Check('two', 'errors', lambda: Found(0.5, 1.0, facts={'s': 3})),
      Check('three', 'share', lambda: Found(0.5, 1.0, least=True)),
      Check('four', 'errors', lambda: Found(float('nan'), 1.0)),
    ],
    seconds=60.0,
  ).run()
  assert [row['held'] for row in rows] == [False, True, False, False]
  assert rows[0]['error'] == 'RuntimeError: out | of memory'
  lines = checks.table(rows).splitlines()
  assert lines[2].startswith('| one | NO | - | - | 0.0 | RuntimeError: out / of memory')
  assert lines[3] == '| two | yes | errors 0.5 | 1 | 0.0 | s 3 |'
  assert lines[-1] == '1 of 4 checks hold; 0 s'


def test_what_is_not_begun_does_not_hold() -> None:
  check = Check('one', 'errors', lambda: Found(0.0, 1.0))
  (row,) = Checklist([check], seconds=-1.0).run()
  assert not row['held'] and row['error'].startswith('not run: -1 s were over; raise')


def test_all_of_full_size_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
  monkeypatch.setattr(check_attention.jax, 'default_backend', lambda: 'gpu')
  names = [check.name for check in gpu_check.build(gpu_check.Options()).checks]
  assert len(names) == len(set(names))
  for name in (
    'attention cudnn L/14 257 tokens bfloat16',
    'attention chosen text 77 tokens bfloat16',
    'attention einsum masked 399 keys float32',
    'step ft_vitl14 32 examples',
    'step proposer_swin_b bfloat16 4 examples',
    'loss scenes:mpt bfloat16 as in float32',
    'OVSeg l14 30 proposals bfloat16',
    'OVSeg l14 100 proposals float32',
  ):
    assert name in names


def test_precisions_are_compared_by_their_parts() -> None:
  wanted = {'loss': 2.0, 'a': 4.0, 'b': 0.01}
  found = check_steps.compared({'loss': 2.1, 'a': 4.0, 'b': 0.21}, wanted, 0.06)
  assert found.value == pytest.approx(0.05) and found.held
  found = check_steps.compared({'loss': 2.0, 'a': np.nan, 'b': 0.01}, wanted, 0.06)
  assert not found.held and found.facts['most in'] == 'a'


def test_mistakes_are_one_line(
  tmp_path: pathlib.Path, capsys: pytest.CaptureFixture
) -> None:
  assert __main__.main([*COMMAND, '--set=only=fusoin']) == 2
  assert "no check is called 'fusoin'; there are: attention" in capsys.readouterr().err
  assert __main__.main([*COMMAND, f'--set=oracles={tmp_path}']) == 2
  assert 'expected a folder of .npz files' in capsys.readouterr().err


@pytest.mark.slow
def test_everything_holds_on_a_cpu(capsys: pytest.CaptureFixture) -> None:
  assert __main__.main([*COMMAND, '--set=seconds=1000']) == 0
  assert ' NO ' not in capsys.readouterr().out
